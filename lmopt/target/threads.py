"""What more threads bring on cores that are not alike."""

from __future__ import annotations

import math

from lmopt.target.profile import Target


def speedup(target: Target, threads: int) -> float:
    """Returns how much faster arithmetic runs on `threads` threads than on one.

    Known points of the profile come first; between two of them the gain is log-linear. Beyond the
    last point the clusters tell: every thread gets an equal part, and all wait for the slowest core
    in use, relative to the last known point. Without clusters the gain stays.
    """
    points = {1: 1.0}
    for count in (2, 4, 8):
        quantity = target.quantities.get(f"speedup_{count}")
        if quantity is not None:
            points[count] = quantity.value
    if threads in points:
        return points[threads]
    below = max(n for n in points if n <= threads)
    above = [n for n in points if n > threads]
    if above:
        part = math.log(threads / below) / math.log(min(above) / below)
        return points[below] + part * (points[min(above)] - points[below])
    if not target.clusters:
        return points[below]
    return points[below] * equal_split(target, threads) / equal_split(target, below)


def equal_split(target: Target, threads: int) -> float:
    """Returns the gain of `threads` equal parts of work on the fastest cores, by their peaks."""
    speeds = sorted(
        (c.ghz * c.macs_per_cycle["f32"] for c in target.clusters for _ in range(c.cores)),
        reverse=True,
    )
    # More threads than cores share the cores: nothing is gained any more.
    used = speeds[: min(threads, len(speeds))]
    return len(used) * used[-1] / speeds[0]
