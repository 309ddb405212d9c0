"""Finetune: encoder and labels → a calibrated classifier, tested on held-out donors."""
