"""Training: graphs run by TensorFlow in a child process; the only room that imports it."""
