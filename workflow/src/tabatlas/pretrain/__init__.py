"""Pretrain: pack → encoder and decoder that predict hidden genes, with genes and architecture."""
