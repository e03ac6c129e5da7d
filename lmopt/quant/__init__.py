"""The numerics of quantization: ranges, grids and graphs on grids."""
