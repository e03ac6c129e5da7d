"""The NumPy reference interpreter: graphs run in float32 and in exact integer arithmetic."""

from lmopt.ir.interp.evaluate import compute, has_arithmetic, run
from lmopt.ir.interp.rounding import DEFAULT_STEPS, compute_by_default

__all__ = ["DEFAULT_STEPS", "compute", "compute_by_default", "has_arithmetic", "run"]
