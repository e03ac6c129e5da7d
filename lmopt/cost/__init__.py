"""Estimated latency: fused kernels, what each costs, partitions, peak memory."""
