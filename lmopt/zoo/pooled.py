"""Small plain networks that differ only in their number of max-poolings, as IR."""

from __future__ import annotations

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Conv2D, Dense, MaxPool2D, Reshape

SIZE = 96
LANDMARKS = 68
CONVOLUTIONS = ((32, 3), (32, 2), (64, 2))
HIDDEN = (1000, 500)


def build(name: str, pools: int) -> Graph:
    """Returns an uninitialised network with the last `pools` (0..3) of its three max-poolings.

    Convolutions are valid, ReLU follows every convolution and hidden dense layer. With three, two
    and one pools the network has 8,326,340, 31,558,340 and 136,006,340 parameters.

    Source: conference paper on max-pooling in small landmark networks (HTC 10); its file sizes
        (32.5, 120 and 518 MB) are those of valid padding.
    """
    edit = Edit(name)
    x = edit.input("image", (None, SIZE, SIZE, 1))
    for index, (filters, kernel) in enumerate(CONVOLUTIONS, 1):
        op = Conv2D(filters, (kernel, kernel), padding="valid", activation="relu")
        x = edit.add(f"conv{index}", op, x)
        if index > len(CONVOLUTIONS) - pools:
            x = edit.add(f"pool{index}", MaxPool2D(), x)
    x = edit.add("flat", Reshape(), x)
    for index, units in enumerate(HIDDEN, 1):
        x = edit.add(f"dense{index}", Dense(units, activation="relu"), x)
    edit.output("landmarks", edit.add("landmarks", Dense(2 * LANDMARKS), x))
    return edit.done()
