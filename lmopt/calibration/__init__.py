"""Activation statistics of a graph on faces."""
