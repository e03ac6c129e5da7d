"""Running model files, always in a worker process with a time limit."""
