"""The NumPy reference interpreter: graphs run in float32 and in exact integer arithmetic."""

from lmopt.ir.interp.evaluate import run

__all__ = ["run"]
