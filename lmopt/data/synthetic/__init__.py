"""Rendered faces: a 3-D head drawn by the program, with exact landmarks."""
