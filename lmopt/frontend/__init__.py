"""Models of others, read into the IR."""
