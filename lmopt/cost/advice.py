"""What to change about a kernel that costs more than it has to on a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lmopt.cost.estimate import Estimate, KernelTime
from lmopt.cost.parts import parts_us
from lmopt.cost.prices import INTEGERS
from lmopt.ir.graph import Graph
from lmopt.ir.types import DType
from lmopt.target.catalog import load_target
from lmopt.target.profile import Target

INSTEAD: Mapping[str, str] = {
    "mean": "legalize makes it average pooling over the whole map",
    "resize_bilinear": "resize without align_corners, or with a transposed convolution",
    "resize_nearest": "resize with a transposed convolution",
    "hard_swish": "legalize says it with add and mul; substitute-activation puts relu in its place",
    "prelu": "substitute-activation puts relu in its place",
    "leaky_relu": "legalize makes it a prelu",
    "batch_norm": "fold-batchnorm puts it into the convolution before, legalize makes it one",
    "heatmap_decode": "let the app decode the heatmaps",
    "concat": "let the layers behind add up what they make of each part",
}
"""What can stand for an op that an engine lacks."""
OTHERWISE = "replace it, or cut the model before it"
LAUNCH_BOUND = 0.5
"""Part of a kernel's time from which its launch is the thing to save."""
LOST = 1.05
"""Ratio of integer to float time from which an integer kernel counts as slower."""
CHANNELS = 4
"""Channels that mobile GPUs compute together."""


@dataclass(frozen=True)
class Advice:
    """What is known of one kernel besides its time.

    Attributes:
        time: The kernel and what it takes.
        float_us: What it would take in floating point, where it computes in integers; else None.
        change: What would help; empty where nothing is known to.
    """

    time: KernelTime
    float_us: float | None
    change: str


def advise(found: Estimate, target: Target) -> tuple[Advice, ...]:
    """Returns what would help every kernel of an estimate, in execution order.

    Args:
        found: The estimate.
        target: What it was made for.
    """
    engines = {target.name: target}
    if target.fallback is not None:
        engines[target.fallback] = load_target(target.fallback)
    advised = []
    for time in found.kernels:
        engine = engines[time.engine]
        float_us = _float_us(time, engine, found)
        advised.append(Advice(time, float_us, _change(found, time, float_us, target)))
    return tuple(advised)


def _float_us(time: KernelTime, engine: Target, found: Estimate) -> float | None:
    """Returns what an integer kernel would take in floating point, where its engine has that."""
    if time.kernel.storage not in INTEGERS or time.kernel.kind in ("quantize", "dequantize"):
        return None
    storage = next((s for s in ("f32", "f16") if s in engine.storage), None)
    if storage is None:
        return None
    wide = DType(storage).numpy.itemsize
    twin = replace(
        time.kernel,
        storage=storage,
        moved_bytes=time.kernel.moved_bytes * wide // DType(time.kernel.storage).numpy.itemsize,
        weight_bytes=time.kernel.weight_bytes * wide,
    )
    count = found.threads if engine.engine == "cpu" else 1
    model_bytes = sum(other.kernel.weight_bytes for other in found.kernels)
    return sum(parts_us([twin], engine, count, model_bytes=model_bytes)[0])


def _fits_into_the_kernel_before(graph: Graph, name: str) -> bool:
    """Returns whether a node clamps what an op gives that could clamp by itself."""
    node = graph.node(name)
    if node.op.kind not in ("relu", "relu6"):
        return False
    before = graph.producer(node.inputs[0])
    alone = len(graph.users(before.value)) == 1
    return alone and getattr(before.op, "activation", "") == "none"


def _change(found: Estimate, time: KernelTime, float_us: float | None, target: Target) -> str:
    kernel = time.kernel
    if kernel.refused and kernel.kind not in target.supported_ops:
        return INSTEAD.get(kernel.kind, OTHERWISE)
    if kernel.refused:
        return f"store it in one of {', '.join(target.storage)}"
    if kernel.storage in INTEGERS and _fits_into_the_kernel_before(found.graph, kernel.node):
        return "fold-batchnorm, before quantizing, puts it into the kernel before"
    if float_us is not None and time.us > LOST * float_us:
        return f"{float_us:.1f} us in floating point: keep it real (quantize-mixed), or widen it"
    if time.launch_us > LAUNCH_BOUND * time.us:
        return "mostly its launch: fewer, larger layers"
    if target.engine == "gpu" and kernel.work in ("pointwise", "square", "window"):
        channels = found.graph.node(kernel.node).results[0].shape[-1] or 0
        if channels % CHANNELS:
            full = -(-channels // CHANNELS) * CHANNELS
            return f"{channels} channels cost as much as {full}"
    return ""
