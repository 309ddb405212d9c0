"""Scores: each score and each baseline has its one definition here."""
