"""A network under construction: layers in the words of the papers, weights left unset."""

from __future__ import annotations

from typing import Literal

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.op import Op
from lmopt.ir.ops import (
    Activation,
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
    Padding,
    Relu,
    Reshape,
    ResizeNearest,
    Sigmoid,
    Slice,
    Softmax,
    Transpose,
)

Act = Literal["none", "relu", "relu6", "hswish", "swish", "leaky"]


class Net:
    """Layers by short names; every one returns its value. Batch norms count as folded."""

    def __init__(self, name: str, size: int) -> None:
        self._edit = Edit(name)
        self._count = 0
        self.image = self._edit.input("image", (None, size, size, 3))

    def put(self, op: Op, *inputs: Value) -> Value:
        """Returns the value of one more node."""
        self._count += 1
        return self._edit.add(f"{op.kind}_{self._count}", op, *inputs)

    def shape(self, x: Value) -> tuple[int, int, int]:
        """Returns height, width and channels."""
        height, width, channels = self._edit.node(x.node).results[x.index].shape[1:]
        assert height is not None and width is not None and channels is not None
        return height, width, channels

    def channels(self, x: Value) -> int:
        """Returns the channels of a value."""
        return self.shape(x)[2]

    def act(self, x: Value, kind: Act) -> Value:
        """Returns an activation that stands as a node of its own."""
        match kind:
            case "none":
                return x
            case "swish":
                return self.put(Mul(), x, self.put(Sigmoid(), x))
            case "hswish":
                return self.put(HardSwish(), x)
            case "leaky":
                return self.put(LeakyRelu(0.1), x)
            case _:
                return self.put(Relu(), x)

    def conv(
        self,
        x: Value,
        filters: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        act: Act = "relu",
        *,
        groups: int = 1,
        padding: Padding = "same",
    ) -> Value:
        """Returns a convolution with bias and activation."""
        window = (kernel, kernel) if isinstance(kernel, int) else kernel
        fused: Activation = act if act in ("relu", "relu6", "none") else "none"  # type: ignore[assignment]
        op = Conv2D(
            filters, window, (stride, stride), padding=padding, groups=groups, activation=fused
        )
        return self.act(self.put(op, x), "none" if fused == act else act)

    def depthwise(
        self, x: Value, kernel: int = 3, stride: int = 1, act: Act = "relu", multiplier: int = 1
    ) -> Value:
        """Returns a depthwise convolution with bias and activation."""
        fused: Activation = act if act in ("relu", "relu6", "none") else "none"  # type: ignore[assignment]
        op = DepthwiseConv2D(
            (kernel, kernel), (stride, stride), multiplier=multiplier, activation=fused
        )
        return self.act(self.put(op, x), "none" if fused == act else act)

    def separable(self, x: Value, filters: int, stride: int = 1, act: Act = "relu") -> Value:
        """Returns a 3x3 depthwise and a pointwise convolution."""
        return self.conv(self.depthwise(x, 3, stride, act), filters, act=act)

    def max_pool(
        self, x: Value, size: int = 3, stride: int = 2, padding: Padding = "same"
    ) -> Value:
        """Returns max pooling."""
        return self.put(MaxPool2D((size, size), (stride, stride), padding), x)

    def avg_pool(
        self, x: Value, size: int = 3, stride: int = 1, padding: Padding = "same"
    ) -> Value:
        """Returns average pooling."""
        return self.put(AvgPool2D((size, size), (stride, stride), padding), x)

    def add(self, a: Value, b: Value, act: Activation = "none") -> Value:
        """Returns a sum."""
        return self.put(Add(act), a, b)

    def concat(self, *values: Value) -> Value:
        """Returns the channels of all values, one behind the other."""
        return self.put(Concat(), *values)

    def halves(self, x: Value) -> tuple[Value, Value]:
        """Returns the first and the second half of the channels."""
        height, width, channels = self.shape(x)
        half = channels // 2
        size, unit = (height, width, half), (1, 1, 1)
        return (
            self.put(Slice((0, 0, 0), size, unit), x),
            self.put(Slice((0, 0, half), size, unit), x),
        )

    def shuffle(self, x: Value, groups: int = 2) -> Value:
        """Returns the channels of `groups` groups interleaved."""
        height, width, channels = self.shape(x)
        split = self.put(Reshape((height * width, groups, channels // groups)), x)
        turned = self.put(Transpose((0, 1, 3, 2)), split)
        return self.put(Reshape((height, width, channels)), turned)

    def squeeze_excite(self, x: Value, squeezed: int, act: Activation = "relu") -> Value:
        """Returns channels weighted by what a small network makes of their means."""
        mean = self.put(Mean(keepdims=True), x)
        gate = self.conv(self.conv(mean, squeezed, act=act), self.channels(x), act="none")
        return self.put(Mul(), x, self.put(Sigmoid(), gate))

    def upsample(self, x: Value, factor: int = 2) -> Value:
        """Returns every pixel repeated."""
        height, width, _ = self.shape(x)
        return self.put(ResizeNearest((height * factor, width * factor)), x)

    def flatten(self, x: Value) -> Value:
        """Returns a vector."""
        return self.put(Reshape(), x)

    def mean(self, x: Value) -> Value:
        """Returns the mean of every channel, as a vector."""
        return self.put(Mean(), x)

    def dense(self, x: Value, units: int, act: Activation = "none") -> Value:
        """Returns a fully connected layer."""
        return self.put(Dense(units, activation=act), x)

    def classified(self, x: Value, classes: int = 1000) -> Graph:
        """Returns the network that ends in probabilities of classes from a vector."""
        return self.done(self.put(Softmax(), self.dense(x, classes)))

    def done(self, *outputs: Value) -> Graph:
        """Returns the network."""
        for k, value in enumerate(outputs):
            self._edit.output(f"y{k}", value)
        return self._edit.done()


def divisible(value: float, by: int = 8) -> int:
    """Returns the multiple of `by` next to a value, at most a tenth below it."""
    near = max(by, int(value + by / 2) // by * by)
    return near + by if near < 0.9 * value else near
