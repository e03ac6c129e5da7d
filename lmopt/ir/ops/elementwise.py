"""Element-wise ops: activations, normalization, sums and products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lmopt.errors import GraphError
from lmopt.ir.op import Op, float_result
from lmopt.ir.ops.convolution import Activation
from lmopt.ir.types import Shape, TensorType


@dataclass(frozen=True)
class _Unary(Op):
    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        return (float_result(inputs[0], inputs[0].shape),)


@dataclass(frozen=True)
class Relu(_Unary):
    """max(x, 0)."""

    kind: ClassVar[str] = "relu"


@dataclass(frozen=True)
class Relu6(_Unary):
    """min(max(x, 0), 6)."""

    kind: ClassVar[str] = "relu6"


@dataclass(frozen=True)
class LeakyRelu(_Unary):
    """x where positive, else alpha * x."""

    kind: ClassVar[str] = "leaky_relu"
    alpha: float = 0.2


@dataclass(frozen=True)
class Sigmoid(_Unary):
    """1 / (1 + exp(-x))."""

    kind: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Tanh(_Unary):
    """Hyperbolic tangent."""

    kind: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class HardSwish(_Unary):
    """x * relu6(x + 3) / 6."""

    kind: ClassVar[str] = "hard_swish"


@dataclass(frozen=True)
class _FloatUnary(_Unary):
    float_only: ClassVar[bool] = True


@dataclass(frozen=True)
class Exp(_FloatUnary):
    """e to the power of x."""

    kind: ClassVar[str] = "exp"


@dataclass(frozen=True)
class Sqrt(_FloatUnary):
    """Square root; not a number below 0."""

    kind: ClassVar[str] = "sqrt"


@dataclass(frozen=True)
class Rsqrt(_FloatUnary):
    """1 / square root; infinite at 0."""

    kind: ClassVar[str] = "rsqrt"


@dataclass(frozen=True)
class Square(_FloatUnary):
    """x * x."""

    kind: ClassVar[str] = "square"


@dataclass(frozen=True)
class Abs(_FloatUnary):
    """x without its sign."""

    kind: ClassVar[str] = "abs"


@dataclass(frozen=True)
class Softmax(_FloatUnary):
    """exp(x) over its sum along the last axis."""

    kind: ClassVar[str] = "softmax"

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        _channels(self, inputs[0])
        return (float_result(inputs[0], inputs[0].shape),)


@dataclass(frozen=True)
class PRelu(_Unary):
    """x where positive, else alpha * x with a learned `alpha` per last-axis channel."""

    kind: ClassVar[str] = "prelu"

    def params(self, inputs: Sequence[TensorType]) -> Mapping[str, tuple[int, ...]]:
        return {"alpha": (_channels(self, inputs[0]),)}


@dataclass(frozen=True)
class BatchNorm(_Unary):
    """Batch normalization over the last axis, with stored statistics.

    Weights `gamma`, `beta`, `mean`, `variance`, each [channels].

    Attributes:
        epsilon: Added to the variance.
    """

    kind: ClassVar[str] = "batch_norm"
    epsilon: float = 1e-3

    def params(self, inputs: Sequence[TensorType]) -> Mapping[str, tuple[int, ...]]:
        channels = _channels(self, inputs[0])
        return {name: (channels,) for name in ("gamma", "beta", "mean", "variance")}


@dataclass(frozen=True)
class _Binary(Op):
    arity: ClassVar[int | None] = 2
    activation: Activation = "none"

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        return (float_result(inputs[0], broadcast(self, inputs[0].shape, inputs[1].shape)),)


@dataclass(frozen=True)
class Add(_Binary):
    """a + b with NumPy broadcasting."""

    kind: ClassVar[str] = "add"


@dataclass(frozen=True)
class Sub(_Binary):
    """a - b with NumPy broadcasting."""

    kind: ClassVar[str] = "sub"


@dataclass(frozen=True)
class Mul(_Binary):
    """a * b with NumPy broadcasting."""

    kind: ClassVar[str] = "mul"


@dataclass(frozen=True)
class Div(_Binary):
    """a / b with NumPy broadcasting."""

    kind: ClassVar[str] = "div"
    float_only: ClassVar[bool] = True


@dataclass(frozen=True)
class _Extreme(Op):
    arity: ClassVar[int | None] = 2
    keeps_grid: ClassVar[bool] = True

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        return (inputs[0].with_shape(broadcast(self, inputs[0].shape, inputs[1].shape)),)


@dataclass(frozen=True)
class Maximum(_Extreme):
    """The larger of a and b, with NumPy broadcasting; exact on any grid."""

    kind: ClassVar[str] = "maximum"


@dataclass(frozen=True)
class Minimum(_Extreme):
    """The smaller of a and b, with NumPy broadcasting; exact on any grid."""

    kind: ClassVar[str] = "minimum"


def _channels(op: Op, tensor: TensorType) -> int:
    if tensor.rank < 2 or tensor.shape[-1] is None:
        raise GraphError(f"{op.kind} wants a known last dimension, got {tensor}")
    return tensor.shape[-1]


def broadcast(op: Op, left: Shape, right: Shape) -> Shape:
    """Returns the NumPy-broadcast shape; an unknown batch broadcasts with itself and with 1."""
    rank = max(len(left), len(right))
    pairs = zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    shape: list[int | None] = []
    for a, b in pairs:
        if a == b or b == 1:
            shape.append(a)
        elif a == 1:
            shape.append(b)
        else:
            raise GraphError(f"{op.kind} cannot broadcast {list(left)} with {list(right)}")
    return tuple(shape)
