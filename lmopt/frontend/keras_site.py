"""The place where a Keras layer becomes nodes: its operands, settings, weights, activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import InputError
from lmopt.frontend.keras_config import Config
from lmopt.frontend.keras_index import Index
from lmopt.frontend.keras_model import Layer
from lmopt.frontend.keras_weights import Arrays, Shapes
from lmopt.ir import ops
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Loc, Value
from lmopt.ir.types import TensorType, Weight

Arrange = Callable[[Arrays], Arrays]

_FUSED: Mapping[str, ops.Activation] = {"linear": "none", "relu": "relu", "relu6": "relu6"}


@dataclass(frozen=True)
class Site:
    """One call of a layer, and what a converter needs to turn it into nodes.

    Attributes:
        layer: The layer.
        operands: Values, numbers where arithmetic takes them, and what is in brackets.
        stem: A free name for the node that gives the result.
        edit: The graph under construction.
        stored: Gives a layer's weights, see `weights`.
        major: The Keras that wrote the file, 2 or 3; None where the file does not say.
    """

    layer: Layer
    operands: tuple[Value | float | Index, ...]
    stem: str
    edit: Edit
    stored: Callable[[Layer, Shapes, Arrange], Mapping[str, Weight]]
    major: int | None = None

    @property
    def config(self) -> Config:
        """Returns the layer's settings."""
        return self.layer.config

    @property
    def x(self) -> Value:
        """Returns the one operand."""
        if len(self.operands) != 1 or not isinstance(self.operands[0], Value):
            raise self.error(f"it is called with {len(self.operands)} operands; wanted one")
        return self.operands[0]

    def error(self, what: str) -> InputError:
        """Returns an error about this layer."""
        hint = "write it in another way, or cut the model before this layer"
        return InputError(what, where=self.layer.where, hint=hint)

    def type(self, value: Value) -> TensorType:
        """Returns the type of a value."""
        return self.edit.node(value.node).results[value.index]

    def weights(self, shapes: Shapes, arrange: Arrange = dict) -> Mapping[str, Weight]:
        """Returns the layer's weights by the IR's names, the same objects for each of its calls.

        Args:
            shapes: Keras' names and their shapes, in Keras' order.
            arrange: What makes the IR's arrays of Keras' arrays.
        """
        return self.stored(self.layer, shapes, arrange)

    def add(
        self,
        op: ops.Op,
        *inputs: Value,
        part: str = "",
        weights: Mapping[str, Weight] | None = None,
    ) -> Value:
        """Adds a node: the layer's own, or `part` of it when that is named."""
        name = self.edit.fresh(f"{self.stem}/{part}" if part else self.stem)
        loc = Loc("/".join(self.layer.trail))
        return self.edit.add(name, op, *inputs, weights=weights, loc=loc)

    def constant(self, part: str, array: NDArray[np.float64]) -> Value:
        """Adds a constant node."""
        value = Weight.of(np.atleast_1d(array).astype(np.float32))
        shape = np.atleast_1d(array).shape
        return self.add(ops.Constant(shape), part=part, weights={"value": value})


Converter = Callable[[Site], Value]


def activation_of(site: Site) -> tuple[str, ops.Activation]:
    """Returns the layer's activation by name, and what of it the op can do itself."""
    value = site.config.raw.get("activation")
    if isinstance(value, dict) and value.get("class_name") == "function":
        value = value.get("config")
    name = "linear" if value is None else value
    if not isinstance(name, str) or name not in ACTIVATIONS:
        site.config.fail("activation", f"one of {', '.join(sorted(ACTIVATIONS))}")
    return name, _FUSED.get(name, "none")


def activated(site: Site, name: str, op: ops.Op, x: Value, weights: Mapping[str, Weight]) -> Value:
    """Returns `op` on `x`, given the layer's activation by name unless the op has it fused."""
    if name in _FUSED:
        return site.add(op, x, weights=weights)
    return ACTIVATIONS[name](site, site.add(op, x, part="linear", weights=weights))


def _unary(op: ops.Op) -> Callable[[Site, Value], Value]:
    return lambda site, x: site.add(op, x)


def _silu(site: Site, x: Value) -> Value:
    return site.add(ops.Mul(), x, site.add(ops.Sigmoid(), x, part="sigmoid"))


def _hard_sigmoid(site: Site, x: Value) -> Value:
    if site.major is None:
        raise site.error(
            "the file does not say which Keras wrote it: 2 and 3 differ in hard_sigmoid"
        )
    if site.major < 3:  # 0.2 x + 0.5 there, x / 6 + 0.5 since
        x = site.add(ops.Mul(), x, site.constant("slope", np.array(1.2)), part="steeper")
    shifted = site.add(ops.Add("relu6"), x, site.constant("three", np.array(3.0)), part="shifted")
    return site.add(ops.Mul(), shifted, site.constant("sixth", np.array(1 / 6)))


def elu(site: Site, x: Value, alpha: float = 1.0) -> Value:
    """Returns x where positive, else alpha * (exp(x) - 1)."""
    below = site.add(ops.Minimum(), x, site.constant("zero", np.array(0.0)), part="below")
    grown = site.add(ops.Exp(), below, part="exp")
    bent = site.add(ops.Sub(), grown, site.constant("one", np.array(1.0)), part="bent")
    if alpha != 1:
        bent = site.add(ops.Mul(), bent, site.constant("alpha", np.array(alpha)), part="scaled")
    return site.add(ops.Add(), site.add(ops.Relu(), x, part="above"), bent)


def _mish(site: Site, x: Value) -> Value:
    # tanh(log(1 + exp(x))) = (1 - q) / (1 + q) with q = sigmoid(-x) squared: nothing above 2
    one = site.constant("one", np.array(1.0))
    turned = site.add(ops.Mul(), x, site.constant("minus", np.array(-1.0)), part="turned")
    share = site.add(ops.Sigmoid(), turned, part="share")
    square = site.add(ops.Mul(), share, share, part="square")
    above = site.add(ops.Sub(), one, square, part="above")
    below = site.add(ops.Add(), square, one, part="below")
    return site.add(ops.Mul(), x, site.add(ops.Div(), above, below, part="gate"))


ACTIVATIONS: Mapping[str, Callable[[Site, Value], Value]] = {
    "linear": lambda site, x: x,
    "relu": _unary(ops.Relu()),
    "relu6": _unary(ops.Relu6()),
    "leaky_relu": _unary(ops.LeakyRelu(0.2)),
    "sigmoid": _unary(ops.Sigmoid()),
    "tanh": _unary(ops.Tanh()),
    "hard_swish": _unary(ops.HardSwish()),
    "hard_silu": _unary(ops.HardSwish()),
    "hard_sigmoid": _hard_sigmoid,
    "elu": elu,
    "mish": _mish,
    "softmax": _unary(ops.Softmax()),
    "exponential": _unary(ops.Exp()),
    "silu": _silu,
    "swish": _silu,
}
