"""Code generation: graph to TFLite file."""
