"""Pack: experiment and split → the training cache: shuffled CSR shards and `genes.parquet`."""
