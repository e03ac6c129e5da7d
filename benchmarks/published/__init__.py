"""Networks whose latency others published, and what those latencies say of the cost model."""
