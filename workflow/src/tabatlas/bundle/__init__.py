"""Bundle: models, genes, labels, settings and scores → one versioned, self-verifying folder."""
