"""TabNet in plain torch: the network of Arik & Pfister (2021) for cells × genes.

Takes and gives plain tensors; knows neither counts nor paths. This dense form reads like the paper
and is the reference that faster forms are tested against.
"""
