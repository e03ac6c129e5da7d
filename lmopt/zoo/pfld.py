"""PFLD: a MobileNetV2-like body with features at three scales, as IR."""

from __future__ import annotations

from dataclasses import dataclass

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Mean,
    Relu,
    Reshape,
)

SIZE = 112
LANDMARKS = 68
EPSILON = 1e-3


@dataclass(frozen=True)
class PfldWidths:
    """Channels of the parts of a PFLD.

    Attributes:
        stem: First convolution and its depthwise one.
        low, high: Bottlenecks at 28x28 and at 14x14.
        s1, s2, s3: The three feature scales.

    Source: Guo et al., "PFLD: A Practical Facial Landmark Detector", 2019, table 1 (the layout);
        widths of the 0.25 variant as in Haapamäki, master's thesis, Oulu 2020, up to 0.7 %.
    """

    stem: int = 64
    low: int = 64
    high: int = 128
    s1: int = 16
    s2: int = 32
    s3: int = 128

    @property
    def blocks(self) -> tuple[tuple[int, int, int], ...]:
        """Returns expansion, output channels and stride of every bottleneck, in order."""
        return (
            (2, self.low, 2),
            *[(2, self.low, 1)] * 4,
            (2, self.high, 2),
            *[(4, self.high, 1)] * 6,
            (2, self.s1, 1),
        )


FULL = PfldWidths()
QUARTER = PfldWidths(low=16, high=32)


def build(name: str, widths: PfldWidths, *, folded: bool = False) -> Graph:
    """Returns an uninitialised PFLD.

    Args:
        name: Of the graph.
        widths: Its channels.
        folded: Whether batch norms are already folded into convolutions with bias and ReLU fused.
    """
    return _Builder(name, widths, folded).build()


class _Builder:
    def __init__(self, name: str, widths: PfldWidths, folded: bool) -> None:
        self.edit = Edit(name)
        self.widths = widths
        self.folded = folded

    def build(self) -> Graph:
        widths = self.widths
        x = self.edit.input("image", (None, SIZE, SIZE, 3))
        x = self._conv("stem", x, widths.stem, 3, stride=2)
        x = self._depthwise("stem_depthwise", x, 1)
        for index, (expansion, channels, stride) in enumerate(widths.blocks, 1):
            x = self._bottleneck(f"block{index}", x, expansion, channels, stride)
        s2 = self._conv("s2", x, widths.s2, 3, stride=2)
        side = SIZE // 16
        s3 = self.edit.add(
            "s3",
            Conv2D(
                widths.s3,
                (side, side),
                padding="valid",
                use_bias=False,
                activation="relu" if self.folded else "none",
            ),
            s2,
        )
        if not self.folded:
            s3 = self.edit.add("s3_relu", Relu(), s3)
        features = self.edit.add(
            "features",
            Concat(),
            self.edit.add("s1_pool", Mean(), x),
            self.edit.add("s2_pool", Mean(), s2),
            self.edit.add("s3_flat", Reshape(), s3),
        )
        landmarks = self.edit.add("landmarks", Dense(2 * LANDMARKS, use_bias=False), features)
        self.edit.output("landmarks", landmarks)
        return self.edit.done()

    def _bottleneck(self, name: str, x: Value, expansion: int, channels: int, stride: int) -> Value:
        width = self._channels(x)
        y = self._conv(f"{name}_expand", x, expansion * width, 1)
        y = self._depthwise(f"{name}_depthwise", y, stride)
        y = self._conv(f"{name}_project", y, channels, 1, relu=False)
        if stride != 1 or width != channels:
            return y
        return self.edit.add(f"{name}_add", Add(), x, y)

    def _conv(
        self, name: str, x: Value, filters: int, kernel: int, *, stride: int = 1, relu: bool = True
    ) -> Value:
        op = Conv2D(
            filters,
            (kernel, kernel),
            (stride, stride),
            use_bias=self.folded,
            activation=self._fused(relu),
        )
        return self._normalize(name, self.edit.add(name, op, x), relu)

    def _depthwise(self, name: str, x: Value, stride: int) -> Value:
        op = DepthwiseConv2D(
            stride=(stride, stride), use_bias=self.folded, activation=self._fused(True)
        )
        return self._normalize(name, self.edit.add(name, op, x), True)

    def _fused(self, relu: bool) -> Activation:
        return "relu" if self.folded and relu else "none"

    def _normalize(self, name: str, x: Value, relu: bool) -> Value:
        if self.folded:
            return x
        x = self.edit.add(f"{name}_bn", BatchNorm(EPSILON), x)
        return self.edit.add(f"{name}_relu", Relu(), x) if relu else x

    def _channels(self, x: Value) -> int:
        channels = self.edit.node(x.node).results[x.index].shape[-1]
        assert channels is not None
        return channels
