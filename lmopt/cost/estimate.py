"""A latency estimate: what every kernel takes, transfers between engines, an interval around it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise

from lmopt.cost import micro
from lmopt.cost.kernels import Kernel, islands, kernels
from lmopt.cost.memory import Memory, peak_memory
from lmopt.cost.parts import Parts, call_us, parts_us, stated_error
from lmopt.cost.trust import doubts
from lmopt.errors import BackendError, InputError
from lmopt.ir.graph import Graph
from lmopt.target.catalog import load_target
from lmopt.target.profile import FORMS, Target

MODEL = "sum of launches, arithmetic and memory over fused kernels, version 2"


@dataclass(frozen=True)
class KernelTime:
    """What one kernel takes, and where it goes.

    Attributes:
        kernel: The kernel.
        engine: Name of the target that runs it.
        arithmetic_us, memory_us, launch_us: The parts, which add up.
    """

    kernel: Kernel
    engine: str
    arithmetic_us: float
    memory_us: float
    launch_us: float

    @property
    def us(self) -> float:
        """Returns the whole time in microseconds."""
        return self.arithmetic_us + self.memory_us + self.launch_us


@dataclass(frozen=True)
class Estimate:
    """An estimated latency; never to be mixed with a measurement.

    Attributes:
        target: Target name.
        graph: What was estimated.
        latency_ms: The estimate.
        error_ms: From the estimate to the upper end of its interval.
        low_ms, high_ms: The interval, as wide above as below in ratio.
        model: What computed it.
        threads: CPU threads assumed.
        kernels: Times by kernel, in execution order.
        transfers_ms: Spent at changes between the engine and its fallback.
        notes: What falls off the engine, doubts, and other things a user should know.
    """

    target: str
    graph: Graph = field(repr=False)
    latency_ms: float
    error_ms: float
    low_ms: float
    high_ms: float
    model: str
    threads: int
    kernels: tuple[KernelTime, ...] = field(repr=False)
    transfers_ms: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Returns the digest of the graph."""
        return self.graph.digest()

    @cached_property
    def memory(self) -> Memory:
        """Returns what one inference needs in memory."""
        return peak_memory(self.graph, [time.kernel for time in self.kernels])


@dataclass(frozen=True)
class TargetCost:
    """Estimates on one target; implements `lmopt.pipeline.services.CostModel`."""

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

    What the engine does not run goes to the target's fallback, with a transfer at every change.

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
    found = kernels(graph, target)
    fallback = _fallback(found, target)
    counts = (threads,) if threads is not None else tuple(target.kernel_prices) or target.threads
    inside = [kernel for kernel in found if kernel.delegated]
    spent, count = min(
        ((parts_us(inside, target, n), n) for n in counts),
        key=lambda timed: sum(map(sum, timed[0])),
    )
    times = _times(found, target, spent, fallback)
    moving_us = _transfers_us(found, target)
    latency_ms = (sum(time.us for time in times) + moving_us + call_us(target, count)) / 1e3
    error = stated_error(target, count)
    return Estimate(
        target=target.name,
        graph=graph,
        latency_ms=latency_ms,
        error_ms=latency_ms * error,
        low_ms=latency_ms / (1 + error),
        high_ms=latency_ms * (1 + error),
        model=micro.MODEL if count in target.kernel_prices else MODEL,
        threads=count,
        kernels=times,
        transfers_ms=moving_us / 1e3,
        notes=(
            *_basis_notes(target, count),
            *_fallback_notes(found, fallback),
            *_beside_notes(inside, target),
            *doubts(found, target, count),
        ),
    )


def _fallback(found: Sequence[Kernel], target: Target) -> Target | None:
    """Returns who runs what the engine refuses; None where it refuses nothing."""
    outside = [kernel for kernel in found if not kernel.delegated]
    if not outside:
        return None
    if target.fallback is None:
        raise BackendError(
            f"'{target.name}' cannot run {len(outside)} kernel(s) ({_named(outside)}) in "
            f"{outside[0].storage}, and has no fallback",
            hint=f"end the pipeline in one of: {', '.join(target.storage)}",
        )
    return load_target(target.fallback)


def _times(
    found: Sequence[Kernel], target: Target, spent: Sequence[Parts], fallback: Target | None
) -> tuple[KernelTime, ...]:
    """Returns the times of all kernels from those that the target runs."""
    outside = [kernel for kernel in found if not kernel.delegated]
    engines = {True: (target.name, iter(spent))}
    if fallback is not None:
        elsewhere = parts_us(outside, fallback, max(fallback.threads))
        engines[False] = (fallback.name, iter(elsewhere))
    times = []
    for kernel in found:
        name, parts = engines[kernel.delegated]
        times.append(KernelTime(kernel, name, *next(parts)))
    return tuple(times)


def _transfers_us(found: Sequence[Kernel], target: Target) -> float:
    overhead = target.quantities.get("transfer_overhead")
    bandwidth = target.quantities.get("transfer_bandwidth")
    total = 0.0
    for before, after in pairwise(found):
        if before.delegated != after.delegated:
            total += 0.0 if overhead is None else overhead.value
            # About half of what the next kernel moves comes from the other side.
            total += 0.0 if bandwidth is None else after.moved_bytes / 2 / bandwidth.value / 1e3
    return total


def _basis_notes(target: Target, threads: int) -> tuple[str, ...]:
    """Returns what a calibrated estimate rests on: it may be another phone than one thinks of."""
    known = target.experience
    if threads not in target.kernel_prices or known is None:
        return ()
    return (f"by prices fitted on {known.networks} {known.source}",)


def _fallback_notes(found: Sequence[Kernel], fallback: Target | None) -> tuple[str, ...]:
    outside = [kernel for kernel in found if not kernel.delegated]
    if fallback is None:
        return ()
    return (
        f"{len(outside)} of {len(found)} kernels fall back to {fallback.name} ({_named(outside)}), "
        f"{islands(found)} transfers",
    )


def _beside_notes(inside: Sequence[Kernel], target: Target) -> tuple[str, ...]:
    """Returns what the runtime computes in kernels of its own, which its engine does not take."""
    beside = Counter(k.storage for k in inside if k.storage not in target.storage)
    forms = {stored: form for form, stored in FORMS.items()}
    return tuple(
        f"{count} of {len(inside)} kernels in {storage} run beside the engine: "
        f"{target.rule(forms[storage]).reason}"
        for storage, count in beside.items()
    )


def _named(found: Sequence[Kernel]) -> str:
    return ", ".join(sorted({f"%{kernel.node}" for kernel in found})[:5])
