"""Weights that come in the package; a note beside each file says where it is from."""
