"""Keras layers that the IR has no op for, written with several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmopt.frontend.keras_site import Site, elu
from lmopt.frontend.slicing import known_dims
from lmopt.ir import ops
from lmopt.ir.graph import Value
from lmopt.ir.types import Weight

_GELU = math.sqrt(8 / math.pi), 0.044715
"""Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016: the form with tanh."""


def prelu(site: Site) -> Value:
    """Converts PReLU: to the IR's where channels have one slope each, else to arithmetic."""
    dims = known_dims(site.type(site.x).shape[1:])
    shared = site.config.raw.get("shared_axes") or []
    if not _are_axes(shared, len(dims)):
        site.config.fail("shared_axes", f"some of 1 to {len(dims)}")
    size = tuple(1 if axis in shared else dim for axis, dim in enumerate(dims, 1))
    if size == (*[1] * (len(dims) - 1), dims[-1]):
        weights = site.weights(
            {"alpha": size}, lambda arrays: {"alpha": arrays["alpha"].reshape(-1)}
        )
        return site.add(ops.PRelu(), site.x, weights=weights)
    alpha = _stored(site, "alpha", site.weights({"alpha": size})["alpha"])
    negative = site.add(ops.Minimum(), site.x, site.constant("zero", np.array(0.0)), part="below")
    sloped = site.add(ops.Mul(), negative, alpha, part="sloped")
    return site.add(ops.Add(), site.add(ops.Relu(), site.x, part="above"), sloped)


def elu_layer(site: Site) -> Value:
    """Converts ELU and Elu."""
    return elu(site, site.x, site.config.number("alpha", 1.0))


def gelu(site: Site) -> Value:
    """Converts Gelu in its approximate form, x * sigmoid(x * (a + a * b * x * x))."""
    if not site.config.flag("approximate", True):
        site.config.fail("approximate", "true: the other form needs the error function")
    x, (outer, inner) = site.x, _GELU
    square = site.add(ops.Square(), x, part="square")
    curved = site.add(
        ops.Mul(), square, site.constant("inner", np.array(outer * inner)), part="curved"
    )
    slope = site.add(ops.Add(), curved, site.constant("outer", np.array(outer)), part="slope")
    gate = site.add(ops.Sigmoid(), site.add(ops.Mul(), x, slope, part="steep"), part="gate")
    return site.add(ops.Mul(), x, gate)


def layer_norm(site: Site) -> Value:
    """Converts LayerNormalization."""
    config, x = site.config, site.x
    dims = known_dims(site.type(x).shape[1:])
    given = config.raw.get("axis", -1)
    axes = [given] if type(given) is int else given
    if isinstance(axes, list) and all(type(axis) is int for axis in axes):
        axes = sorted(axis % (len(dims) + 1) for axis in axes)
    if not _are_axes(axes, len(dims)) or not axes:
        config.fail("axis", f"some of 1 to {len(dims)}")
    if config.flag("rms_scaling", False):
        config.fail("rms_scaling", "false")
    size = tuple(dims[axis - 1] for axis in axes)
    learned = {"gamma": config.flag("scale", True), "beta": config.flag("center", True)}
    wide = tuple(dim if axis in axes else 1 for axis, dim in enumerate(dims, 1))
    shapes = {name: size for name, there in learned.items() if there}
    stored = (
        {}
        if not shapes
        else site.weights(
            shapes, lambda arrays: {name: array.reshape(wide) for name, array in arrays.items()}
        )
    )
    centered = site.add(ops.Sub(), x, _mean(site, x, axes, "mean"), part="centered")
    square = site.add(ops.Square(), centered, part="square")
    epsilon = site.constant("epsilon", np.array(config.number("epsilon", 1e-3)))
    variance = site.add(ops.Add(), _mean(site, square, axes, "spread"), epsilon, part="variance")
    steps: list[tuple[ops.Op, Value]] = [
        (ops.Mul(), site.add(ops.Rsqrt(), variance, part="factor"))
    ]
    steps += [
        (ops.Mul() if name == "gamma" else ops.Add(), _stored(site, name, weight))
        for name, weight in stored.items()
    ]
    for left, (op, by) in zip(range(len(steps))[::-1], steps, strict=True):
        centered = site.add(op, centered, by, part=f"scaled_{left}" if left else "")
    return centered


def _mean(site: Site, x: Value, axes: Sequence[int], part: str) -> Value:
    total = site.add(ops.Sum(tuple(axes), keepdims=True), x, part=f"{part}/sum")
    count = math.prod(known_dims([site.type(x).shape[axis] for axis in axes]))
    return site.add(
        ops.Mul(), total, site.constant(f"{part}/share", np.array(1 / count)), part=part
    )


def _stored(site: Site, name: str, weight: Weight) -> Value:
    return site.add(ops.Constant(weight.real().shape), part=name, weights={"value": weight})


def _are_axes(given: Any, count: int) -> bool:
    if not isinstance(given, list) or len(set(map(str, given))) != len(given):
        return False
    return all(type(axis) is int and 1 <= axis <= count for axis in given)
