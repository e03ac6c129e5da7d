"""Small networks whose times tell what kernels take: chains of equal ones, and mixed networks.

Shapes are drawn from those that landmark detectors have. Weights and ranges are made up: the speed
of a kernel does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lmopt import zoo
from lmopt.errors import GraphError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.op import Op
from lmopt.ir.ops import (
    Add,
    AvgPool2D,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    HardSwish,
    LeakyRelu,
    MaxPool2D,
    Mean,
    Mul,
    PRelu,
    Relu,
    ResizeBilinear,
    ResizeNearest,
    Sigmoid,
    Slice,
    Softmax,
    Tanh,
    Transpose,
)
from lmopt.ir.types import DType, ValueRange
from lmopt.latency.mixed_networks import mixed_network, pick
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.assign import plan_grids, quantize_graph

SCHEMES: Mapping[str, QuantScheme] = {
    "i8": QuantScheme(DType.I8, per_channel=True),
    "u8": QuantScheme(DType.U8, per_channel=False),
    "i16": QuantScheme(DType.I16, per_channel=True),
}
SHARES: Mapping[str, float] = {"f32": 1.0, "i8": 1.0, "u8": 0.4}
"""Networks in a storage, as part of the full number."""
SIDES = (1, 2, 4, 5, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112)
CHANNELS: tuple[int, ...] = (
    *(8, 12, 16, 18, 24, 32, 36, 40, 48, 64, 72, 80),
    *(96, 112, 128, 144, 160, 192, 224, 256, 320, 384, 512),
)
MIXED = 180
MIXED_MACS = 5e5, 6e8
FOOTPRINTS = (0.0, 0.25e6, 1e6, 4e6, 16e6, 64e6)
"""Bytes of weights between which as many mixed networks are drawn: caches hold the first."""
TRIES = 2000

Make = Callable[[], Graph]


@dataclass(frozen=True)
class Micronet:
    """A network to be timed.

    Attributes:
        name: What it is, once in a design.
        storage: f32, i8 or u8.
        mixed: Whether its kernels differ.
        make: Returns it in float, without weights.
    """

    name: str
    storage: str
    mixed: bool
    make: Make

    def graph(self) -> Graph:
        """Returns it in its storage, with made-up weights."""
        return stored(zoo.initialize(self.make(), 0), self.storage)


def stored(graph: Graph, storage: str) -> Graph:
    """Returns a float graph in a storage type; made-up ranges do, speed does not depend on them."""
    if storage == "f32":
        return graph
    ranges = {value: ValueRange(-6.0, 6.0) for value in plan_grids(graph, SCHEMES[storage]).owners}
    return quantize_graph(graph, ranges, SCHEMES[storage])


def design() -> tuple[Micronet, ...]:
    """Returns about a thousand networks of 0.01 to 50 ms, the same ones every time."""
    found: list[Micronet] = []
    for number, (storage, share) in enumerate(SHARES.items()):
        rng = np.random.default_rng(number)
        chains = dict(_chains(rng, share))
        found += [Micronet(f"{storage} {n}", storage, False, make) for n, make in chains.items()]
        mixed = dict(_mixed(rng, round(MIXED * share), 4 if storage == "f32" else 1))
        found += [Micronet(f"{storage} {n}", storage, True, make) for n, make in mixed.items()]
    return tuple(found)


def _chains(rng: np.random.Generator, share: float) -> Iterator[tuple[str, Make]]:
    """Yields equal kernels one behind the other, or beside each other where shapes change."""

    def times(count: int) -> range:
        return range(max(1, round(count * share)))

    for _ in times(60):
        side, a, b = _drawn(rng, 2e3, 3e7)
        there, back = Conv2D(b, (1, 1)), Conv2D(a, (1, 1))
        yield f"1x1 {side} {a}-{b}", _chain((side, side, a), 8, there, back)
    for _ in times(40):
        side, a, b = _drawn(rng, 2e4, 1e8, taps=9, least=2)
        there, back = Conv2D(b, (3, 3)), Conv2D(a, (3, 3))
        count = 6 if side * side * a * b < 2e6 else 2
        yield f"3x3 {side} {a}-{b}", _chain((side, side, a), count, there, back)
    for k in times(36):
        window, stride, image = _WINDOWS[k % len(_WINDOWS)]
        side, a, b = _drawn(rng, 2e4, 5e7, taps=(window / stride) ** 2, least=4)
        side, a = (min(4 * side, 224), 3) if image else (side, a)
        conv = Conv2D(b, (window, window), (stride, stride))
        yield f"{window}x{window}/{stride} {side} {a}-{b}", _fan((side, side, a), 4, conv)
    for side in (7, 14, 7, 4, 8, 14)[: len(times(6))]:
        a, b = pick(rng, CHANNELS[:15]), pick(rng, CHANNELS[2:20])
        conv = Conv2D(b, (side, side), padding="valid")
        yield f"whole {side} {a}-{b}", _fan((side, side, a), 4, conv)
    for k in times(21):
        window = (3, 3, 1)[k % 3]
        side, a = _drawn_map(rng, 4e3, 4e5, least=4)
        groups = pick(rng, [g for g in (2, 3, 4, 8, a // 16) if g > 1 and a % g == 0] or [2])
        conv = Conv2D(a, (window, window), groups=groups)
        yield f"{window}x{window} of {groups} groups {side} {a}", _chain((side, side, a), 6, conv)
    for k in times(40):
        window = (3, 3, 3, 5, 7)[k % 5]
        side, a = _drawn_map(rng, 2e3, 1e6 if window < 7 else 1e5, least=3)
        depthwise = DepthwiseConv2D((window, window))
        yield f"depthwise {window} {side} {a}", _chain((side, side, a), 8, depthwise)
    for k in times(16):
        window = (3, 3, 5, 7)[k % 4]
        side, a = _drawn_map(rng, 4e3, 1e6, least=4)
        depthwise = DepthwiseConv2D((window, window), (2, 2))
        yield f"depthwise {window}/2 {side} {a}", _fan((side, side, a), 6, depthwise)
    for _ in times(24):
        a = pick(rng, (32, 64, 128, 256, 512, 1024, 2048, 4096, 9216))
        b = pick(rng, (10, 64, 136, 256, 512, 1024))
        yield f"dense {a}-{b}", _chain((a,), 4, Dense(b), Dense(a))
    for _ in times(6):
        side, a = _drawn_map(rng, 2e3, 1e6, least=3)
        yield f"scaled {side} {a}", _scaled((side, side, a), 8)
    for name, number, op in _BETWEEN:
        for _ in times(number):
            side, a = _drawn_map(rng, 2e3, 4e5, least=3)
            yield f"1x1, {name} {side} {a}", _chain((side, side, a), 8, Conv2D(a, (1, 1)), op)
    for name, number, op in _MAPS:
        for _ in times(number):
            side, a = _drawn_map(rng, 2e3, 1e6, least=3)
            yield f"{name} {side} {a}", _chain((side, side, a), 8, op)
    for name, number, shaped in _CHANGES:
        for _ in times(number):
            side, a = _drawn_map(rng, 2e3, 4e5, least=2)
            yield f"{name} {side} {a}", _fan((side, side, a), 6, shaped(side, a))


_WINDOWS = (
    *((3, 2, True), (3, 2, False), (5, 1, False), (3, 2, False), (5, 2, True)),
    *((2, 2, False), (3, 2, False), (7, 2, True), (4, 2, False)),
)
"""Windows, strides, and whether it is the first convolution of a network."""
_MAPS: Sequence[tuple[str, int, Op]] = (
    ("add", 14, Add()),
    ("mul", 6, Mul()),
    ("max 3x3", 5, MaxPool2D((3, 3), (1, 1), "same")),
    ("average 3x3", 5, AvgPool2D((3, 3), (1, 1), "same")),
    ("relu", 4, Relu()),
    ("leaky relu", 4, LeakyRelu(0.1)),
    ("prelu", 6, PRelu()),
    ("hard swish", 6, HardSwish()),
    ("sigmoid", 5, Sigmoid()),
    ("tanh", 4, Tanh()),
    ("softmax", 3, Softmax()),
    ("transpose", 5, Transpose((0, 2, 1, 3))),
    ("transpose of channels", 5, Transpose((0, 1, 3, 2))),
)
"""Ops that keep the shape of their operand."""
_BETWEEN: Sequence[tuple[str, int, Op]] = (
    ("prelu", 3, PRelu()),
    ("hard swish", 3, HardSwish()),
    ("relu", 3, Relu()),
    ("average 3x3", 3, AvgPool2D((3, 3), (1, 1), "same")),
    ("sigmoid", 3, Sigmoid()),
)
"""Ops that are timed between convolutions too: some of them XNNPACK leaves to the runtime."""

_CHANGES: Sequence[tuple[str, int, Callable[[int, int], Op]]] = (
    ("max 2x2", 8, lambda side, a: MaxPool2D((2, 2), (2, 2), "valid")),
    ("max 3x3/2", 4, lambda side, a: MaxPool2D((3, 3), (2, 2), "same")),
    ("average 2x2", 5, lambda side, a: AvgPool2D((2, 2), (2, 2), "valid")),
    ("mean", 8, lambda side, a: Mean(keepdims=True)),
    ("concat", 6, lambda side, a: Concat()),
    ("bilinear", 5, lambda side, a: ResizeBilinear((2 * side, 2 * side))),
    ("nearest", 6, lambda side, a: ResizeNearest((2 * side, 2 * side))),
    ("slice", 5, lambda side, a: Slice((0, 0, 0), (side, side, a // 2), (1, 1, 1))),
)


def _chain(shape: tuple[int, ...], count: int, *ops: Op) -> Make:
    """Returns what makes a chain of these ops by turns."""

    def make() -> Graph:
        edit = Edit("chain")
        image = value = edit.input("image", (None, *shape))
        for k in range(count):
            op = ops[k % len(ops)]
            others = (image,) if op.arity == 2 else ()
            value = edit.add(f"op{k}", op, value, *others)
        edit.output("y", value)
        return edit.done()

    return make


def _scaled(shape: tuple[int, ...], count: int) -> Make:
    """Returns what makes a chain of products with one number per channel."""

    def make() -> Graph:
        edit = Edit("scaled")
        value = edit.input("image", (None, *shape))
        mean = edit.add("mean", Mean(keepdims=True), value)
        for k in range(count):
            value = edit.add(f"op{k}", Mul(), value, mean)
        edit.output("y", value)
        return edit.done()

    return make


def _fan(shape: tuple[int, ...], count: int, op: Op) -> Make:
    def make() -> Graph:
        edit = Edit("fan")
        image = edit.input("image", (None, *shape))
        operands = (image, image) if isinstance(op, Concat) else (image,)
        for k in range(count):
            edit.output(f"y{k}", edit.add(f"op{k}", op, *operands))
        return edit.done()

    return make


def _drawn(
    rng: np.random.Generator, low: float, high: float, *, taps: float = 1.0, least: int = 1
) -> tuple[int, int, int]:
    """Returns a side and two channel counts whose multiply-accumulates lie between bounds."""
    sides = [side for side in SIDES if side >= least]
    while True:
        side, a, b = pick(rng, sides), pick(rng, CHANNELS), pick(rng, CHANNELS)
        if low <= taps * side * side * a * b <= high:
            return side, a, b


def _drawn_map(rng: np.random.Generator, low: float, high: float, *, least: int) -> tuple[int, int]:
    """Returns a side and a channel count whose elements lie between bounds."""
    sides = [side for side in SIDES if side >= least]
    while True:
        side, a = pick(rng, sides), pick(rng, CHANNELS)
        if low <= side * side * a <= high:
            return side, a


def _mixed(rng: np.random.Generator, count: int, width: int) -> Iterator[tuple[str, Make]]:
    """Yields networks whose weights have sizes from every step of `FOOTPRINTS`."""
    steps = len(FOOTPRINTS) - 1
    for k in range(count):
        low, high = FOOTPRINTS[k % steps], FOOTPRINTS[k % steps + 1]
        for _ in range(TRIES):
            seed = int(rng.integers(1 << 31))
            try:
                graph = mixed_network(seed)
            except GraphError:
                continue
            macs = sum(node.op.macs(graph.input_types(node)) for node in graph.nodes)
            weights = sum(w.type.elements for node in graph.nodes for w in node.weights.values())
            if MIXED_MACS[0] <= macs <= MIXED_MACS[1] and low <= weights * width < high:
                yield f"mixed {seed}", partial(mixed_network, seed)
                break
