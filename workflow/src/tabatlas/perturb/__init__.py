"""Perturb: encoder and perturbed cells → predicted effects, held against baselines and a ceiling.

Reads the pretrained encoder, the pack (whose cells it audits), the sealed experiment with its
split, and screens outside the atlas, each verified by `tabatlas perturb read`. Writes
`scores.json`, `predictions.parquet`, `heads.json` and `model.safetensors` (tensors `perturb/…`).
"""
