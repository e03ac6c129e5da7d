"""Networks of different kernels, drawn from the blocks that landmark detectors have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.op import Op
from lmopt.ir.ops import (
    Add,
    AvgPool2D,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    HardSwish,
    MaxPool2D,
    Mean,
    Mul,
    PRelu,
    Relu,
    Reshape,
    ResizeBilinear,
    ResizeNearest,
    Sigmoid,
    Slice,
    Transpose,
)

Choice = TypeVar("Choice")


def pick(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """Returns one of the choices, each as likely."""
    return choices[int(rng.integers(len(choices)))]


class _Net:
    """A network under construction: a value, and what comes behind it."""

    def __init__(self, side: int) -> None:
        self._edit = Edit("mixed")
        self._count = 0
        self.value = self._edit.input("image", (None, side, side, 3))

    def put(self, op: Op, *inputs: Value) -> Value:
        self._count += 1
        self.value = self._edit.add(f"op{self._count}", op, *(inputs or (self.value,)))
        return self.value

    @property
    def shape(self) -> tuple[int, ...]:
        node = self._edit.node(self.value.node)
        return tuple(side or 1 for side in node.results[self.value.index].shape[1:])

    def done(self) -> Graph:
        self._edit.output("y", self.value)
        return self._edit.done()


def mixed_network(seed: int) -> Graph:
    """Returns blocks as detectors have them, of one kind or of several, and a head.

    Raises:
        GraphError: What was drawn does not fit together.
    """
    rng = np.random.default_rng(seed)
    net = _Net(pick(rng, (48, 64, 80, 96, 112, 128, 160)))
    step = pick(rng, (1, 2, 2))
    net.put(Conv2D(pick(rng, (8, 16, 24, 32, 64)), (3, 3), (step, step), activation="relu"))
    width = pick(rng, (8, 16, 24, 32, 48, 64, 96, 128))
    blocks = pick(rng, (*_BLOCKS, None, None))
    for _ in range(int(rng.integers(3, 14))):
        down = net.shape[0] >= 8 and rng.random() < 0.4
        if down:
            width = min(int(width * pick(rng, (1, 1.5, 2, 2))), 512) // 8 * 8
        block = pick(rng, _BLOCKS) if blocks is None else blocks
        block(rng, net, width, 2 if down else 1)
    net.put(Mean() if rng.random() < 0.7 else Reshape((math.prod(net.shape),)))
    if rng.random() < 0.5:
        net.put(Dense(pick(rng, (64, 128, 256, 512)), activation="relu"))
    net.put(Dense(136))
    return net.done()


def _inverted(rng: np.random.Generator, net: _Net, width: int, step: int) -> None:
    before, channels = net.value, net.shape[-1]
    factor = pick(rng, (1, 2, 4, 6))
    window = pick(rng, (3, 3, 3, 5, 5, 7))
    if factor > 1:
        net.put(Conv2D(channels * factor, (1, 1), activation="relu6"))
    net.put(DepthwiseConv2D((window, window), (step, step), activation="relu6"))
    net.put(Conv2D(width if step > 1 else channels, (1, 1)))
    if step == 1:
        net.put(Add(), net.value, before)


def _plain(rng: np.random.Generator, net: _Net, width: int, step: int) -> None:
    net.put(Conv2D(width, (3, 3), activation="relu"))
    if step > 1:
        net.put(MaxPool2D((2, 2), (2, 2), "valid"))


def _residual(rng: np.random.Generator, net: _Net, width: int, step: int) -> None:
    before = net.value
    wanted = width if step > 1 else net.shape[-1]
    net.put(Conv2D(wanted, (3, 3), (step, step), activation="relu"))
    made = net.put(Conv2D(wanted, (3, 3)))
    if step > 1:
        before = net.put(Conv2D(wanted, (1, 1), (step, step)), before)
    net.put(Add("relu"), made, before)


def _separable(rng: np.random.Generator, net: _Net, width: int, step: int) -> None:
    net.put(DepthwiseConv2D((3, 3), (step, step), activation="relu"))
    net.put(Conv2D(width, (1, 1), activation="relu"))


def _excited(rng: np.random.Generator, net: _Net, width: int, step: int) -> None:
    before, channels = net.value, net.shape[-1]
    net.put(Mean(keepdims=True))
    net.put(Conv2D(max(8, channels // 4), (1, 1), activation="relu"))
    net.put(Conv2D(channels, (1, 1)))
    net.put(Mul(), before, net.put(Sigmoid()))
    net.put(Conv2D(width, (1, 1), (step, step)))
    if rng.random() < 0.5:
        net.put(pick(rng, (HardSwish(), PRelu(), Relu())))
    elif rng.random() < 0.5:
        made = net.value
        net.put(Mul(), made, net.put(Sigmoid()))


def _dense_block(rng: np.random.Generator, net: _Net, width: int, step: int) -> None:
    before = net.value
    if rng.random() < 0.5:
        net.put(Relu())
        net.put(Conv2D(pick(rng, (32, 64, 128)), (1, 1), activation="relu"))
    made = net.put(Conv2D(pick(rng, (8, 16, 32)), (3, 3), activation="relu"))
    net.put(Concat(), before, made)
    if step > 1:
        net.put(AvgPool2D((2, 2), (2, 2), "valid"))


def _shuffled(rng: np.random.Generator, net: _Net, width: int, step: int) -> None:
    """Adds what one half of the channels becomes beside the other, and interleaves them."""
    groups = pick(rng, (1, 1, 2, 4))
    side, _, channels = net.shape
    if step > 1 or channels % 16:
        net.put(Conv2D(max(width // 16, 1) * 16, (3, 3), (step, step), activation="relu"))
        side, _, channels = net.shape
    before, half = net.value, (side, side, channels // 2)
    kept = net.put(Slice((0, 0, 0), half, (1, 1, 1)))
    net.put(Slice((0, 0, channels // 2), half, (1, 1, 1)), before)
    net.put(Conv2D(channels // 2, (1, 1), groups=groups, activation="relu"))
    net.put(DepthwiseConv2D((3, 3)))
    made = net.put(Conv2D(channels // 2, (1, 1), groups=groups, activation="relu"))
    net.put(Concat(), kept, made)
    net.put(Reshape((side * side, 2, channels // 2)))
    net.put(Transpose((0, 1, 3, 2)))
    net.put(Reshape((side, side, channels)))


def _grouped(rng: np.random.Generator, net: _Net, width: int, step: int) -> None:
    before, channels = net.value, width // 16 * 16 or 16
    net.put(Conv2D(channels, (1, 1), activation="relu"))
    groups = channels // pick(rng, (8, 16))
    net.put(Conv2D(channels, (3, 3), (step, step), groups=groups, activation="relu"))
    made = net.put(Conv2D(channels, (1, 1)))
    beside = net.put(Conv2D(channels, (1, 1), (step, step)), before)
    net.put(Add("relu"), beside, made)


def _two_scales(rng: np.random.Generator, net: _Net, width: int, step: int) -> None:
    """Adds maps of two sizes beside each other that then join, so that one waits for the other."""
    high, (side, _, channels) = net.value, net.shape
    low = net.put(Conv2D(2 * channels, (3, 3), (2, 2), activation="relu"))
    for _ in range(int(rng.integers(1, 4))):
        high = net.put(Conv2D(channels, (3, 3), activation="relu"), high)
        low = net.put(Conv2D(2 * channels, (3, 3), activation="relu"), low)
    net.put(Conv2D(channels, (1, 1)), low)
    raised = net.put(pick(rng, (ResizeBilinear, ResizeNearest))((side, side)))
    net.put(Add("relu"), raised, high)
    if step > 1:
        net.put(MaxPool2D((2, 2), (2, 2), "valid"))


_BLOCKS = (
    *(_inverted, _plain, _residual, _separable, _excited, _dense_block, _grouped, _shuffled),
    *(_two_scales, _two_scales),
)
