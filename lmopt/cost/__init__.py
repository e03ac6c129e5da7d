"""Estimated latency: fused kernels, a roofline, partitions."""
