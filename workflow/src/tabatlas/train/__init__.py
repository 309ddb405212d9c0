"""Train: the engine that runs every training, and `predict`, the one inference loop."""
