"""Integrate: encoder, pack → an embedding without the marks of library, assay and disease."""
