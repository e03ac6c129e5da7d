"""How the size of a graph changed, in words."""

from __future__ import annotations

from lmopt.ir.graph import Graph


def size_change(before: Graph, after: Graph) -> str:
    """Returns MACs and parameters before and after, for notes that reach the report."""
    return (
        f"MACs {before.macs / 1e6:.1f} M -> {after.macs / 1e6:.1f} M, "
        f"parameters {before.parameters:,} -> {after.parameters:,}"
    )
