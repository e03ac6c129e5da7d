"""Scoring model files on annotated faces."""
