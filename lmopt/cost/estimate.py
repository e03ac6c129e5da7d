"""A first latency estimate: roofline over fused kernels, launch overheads, fallback partitions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from lmopt.cost.kernels import Kernel, islands, kernels
from lmopt.errors import BackendError, InputError
from lmopt.ir.graph import Graph
from lmopt.target.catalog import load_target
from lmopt.target.profile import Target

MODEL = "roofline over fused kernels, version 1"


@dataclass(frozen=True)
class Estimate:
    """An estimated latency; never to be mixed with a measurement.

    Attributes:
        target: Target name.
        digest: Digest of the graph.
        latency_ms: The estimate.
        error_ms: Half-width of its stated uncertainty.
        model: What computed it.
        threads: CPU threads assumed.
        notes: What falls off the engine, and other things a user should know.
    """

    target: str
    digest: str
    latency_ms: float
    error_ms: float
    model: str
    threads: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TargetCost:
    """Estimates on one target; implements `lmopt.pipeline.base.CostModel`."""

    target: Target

    @property
    def digest(self) -> str:
        """Returns a digest of the model and the profile, the same in every process."""
        profile = json.dumps(asdict(self.target), sort_keys=True, default=sorted)
        return hashlib.blake2b(f"{MODEL}/{profile}".encode(), digest_size=16).hexdigest()

    def latency_ms(self, graph: Graph) -> float:
        """Returns the estimated latency in milliseconds."""
        return estimate(graph, self.target).latency_ms


def estimate(graph: Graph, target: Target, *, threads: int | None = None) -> Estimate:
    """Returns the estimated latency of a graph on a target.

    Each kernel takes the longer of its arithmetic and its memory traffic, plus a launch; what the
    engine does not run goes to the target's fallback, with a transfer at every change.

    Args:
        graph: Float or quantized.
        target: The device.
        threads: CPU threads; None takes the fastest of those the target names.

    Raises:
        InputError: The profile holds no numbers (calibrate it, or measure).
        BackendError: The engine refuses a node and the target has no fallback.
    """
    if not target.quantities:
        raise InputError(
            f"target '{target.name}' holds no numbers to estimate with",
            hint="measure instead: lmopt measure FILE",
        )
    if threads is None:
        return min(
            (estimate(graph, target, threads=n) for n in target.threads),
            key=lambda found: found.latency_ms,
        )
    found = kernels(graph, target)
    outside = [kernel for kernel in found if not kernel.delegated]
    notes: tuple[str, ...] = ()
    time_us = _time_us([kernel for kernel in found if kernel.delegated], target, threads)
    time_us += target.quantities["invoke_overhead"].value
    if outside:
        names = ", ".join(sorted({f"%{kernel.node}" for kernel in outside})[:5])
        if target.fallback is None:
            raise BackendError(
                f"'{target.name}' cannot run {len(outside)} kernel(s) ({names}) in "
                f"{outside[0].storage}, and has no fallback",
                hint=f"end the pipeline in one of: {', '.join(target.storage)}",
            )
        fallback = load_target(target.fallback)
        time_us += _time_us(outside, fallback, max(fallback.threads))
        changes = islands(found)
        transfer = target.quantities.get("transfer_overhead")
        time_us += changes * (0.0 if transfer is None else transfer.value)
        notes = (
            f"{len(outside)} of {len(found)} kernels fall back to {fallback.name} ({names}), "
            f"{changes} transfers",
        )
    return Estimate(
        target=target.name,
        digest=graph.digest(),
        latency_ms=time_us / 1e3,
        error_ms=time_us / 1e3 * target.quantities["error"].value,
        model=MODEL,
        threads=threads,
        notes=notes,
    )


def _time_us(found: Sequence[Kernel], target: Target, threads: int) -> float:
    speedup = _speedup(target, threads)
    bandwidth = target.quantities["bandwidth"].value * 1e3  # bytes per microsecond
    overhead = target.quantities["kernel_overhead"].value
    total = 0.0
    for kernel in found:
        arithmetic = kernel.macs / (_rate(kernel, target) * 1e3 * speedup) if kernel.macs else 0.0
        total += max(arithmetic, kernel.nbytes / bandwidth) + overhead
    return total


def _rate(kernel: Kernel, target: Target) -> float:
    """Returns the sustained rate of a kernel on one thread, in GMAC/s."""
    peak = target.quantities.get(f"peak_{kernel.storage}")
    if peak is None:
        raise BackendError(
            f"'{target.name}' has no rate for {kernel.storage} (kernel %{kernel.node})",
            hint=f"end the pipeline in one of: {', '.join(target.storage)}",
        )
    value = peak.value
    share = "depthwise_share" if kernel.work == "depthwise" else "conv_share"
    value *= target.quantities[share].value
    integer = target.quantities.get("integer_share")
    if integer is not None and kernel.storage in ("i8", "u8"):
        value *= integer.value
    return value


def _speedup(target: Target, threads: int) -> float:
    """Returns the speed-up of `threads` threads, log-linear between the profile's points."""
    points = {1: 1.0}
    for count in (2, 4, 8):
        quantity = target.quantities.get(f"speedup_{count}")
        if quantity is not None:
            points[count] = quantity.value
    if threads in points:
        return points[threads]
    below = max(n for n in points if n <= threads)
    above = [n for n in points if n > threads]
    if not above:
        return points[below]
    upper = min(above)
    part = math.log(threads / below) / math.log(upper / below)
    return points[below] + part * (points[upper] - points[below])
