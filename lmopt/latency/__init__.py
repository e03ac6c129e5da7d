"""Measuring latency on this machine."""
