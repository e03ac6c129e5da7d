"""Measuring latency on this machine and on phones."""
