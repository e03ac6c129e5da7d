"""Keras layers to IR nodes: one table, one small converter per layer family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import InputError
from lmopt.frontend import keras_composed as composed
from lmopt.frontend import keras_maps as maps
from lmopt.frontend.keras_model import Layer
from lmopt.frontend.keras_site import ACTIVATIONS, Converter, Site, activated, activation_of
from lmopt.ir import ops
from lmopt.ir.graph import Value

_EPSILON = 1e-7  # keras.config.epsilon(), the least deviation of Normalization


def _conv2d(site: Site) -> Value:
    name, fused = activation_of(site)
    config = site.config
    op = ops.Conv2D(
        config.count("filters"),
        config.pair("kernel_size"),
        config.pair("strides", (1, 1)),
        config.pair("dilation_rate", (1, 1)),
        config.padding(),
        config.count("groups", 1),
        config.flag("use_bias", True),
        fused,
    )
    weights = site.weights(op.params([site.type(site.x)]))
    return activated(site, name, op, site.x, weights)


def _depthwise_conv2d(site: Site) -> Value:
    name, fused = activation_of(site)
    config = site.config
    op = ops.DepthwiseConv2D(
        config.pair("kernel_size"),
        config.pair("strides", (1, 1)),
        config.pair("dilation_rate", (1, 1)),
        config.padding(),
        config.count("depth_multiplier", 1),
        config.flag("use_bias", True),
        fused,
    )
    shapes = dict(op.params([site.type(site.x)]))
    weights = site.weights(
        {"depthwise_kernel": shapes.pop("kernel"), **shapes},
        lambda arrays: {"kernel": arrays.pop("depthwise_kernel"), **arrays},
    )
    return activated(site, name, op, site.x, weights)


def _conv2d_transpose(site: Site) -> Value:
    name, fused = activation_of(site)
    config = site.config
    if config.raw.get("output_padding") is not None:
        config.fail("output_padding", "none")
    if config.pair("dilation_rate", (1, 1)) != (1, 1):
        config.fail("dilation_rate", "1")
    op = ops.Conv2DTranspose(
        config.count("filters"),
        config.pair("kernel_size"),
        config.pair("strides", (1, 1)),
        config.padding(),
        config.flag("use_bias", True),
        fused,
    )
    shapes = dict(op.params([site.type(site.x)]))
    height, width, channels, filters = shapes["kernel"]
    weights = site.weights(
        {**shapes, "kernel": (height, width, filters, channels)},
        lambda arrays: {**arrays, "kernel": arrays["kernel"].transpose(0, 1, 3, 2)},
    )
    return activated(site, name, op, site.x, weights)


def _separable_conv2d(site: Site) -> Value:
    name, fused = activation_of(site)
    config = site.config
    spatial = ops.DepthwiseConv2D(
        config.pair("kernel_size"),
        config.pair("strides", (1, 1)),
        config.pair("dilation_rate", (1, 1)),
        config.padding(),
        config.count("depth_multiplier", 1),
        use_bias=False,
    )
    pointwise = ops.Conv2D(
        config.count("filters"),
        (1, 1),
        padding="valid",
        use_bias=config.flag("use_bias", True),
        activation=fused,
    )
    source = site.type(site.x)
    between = spatial.infer([source])
    shapes = dict(pointwise.params(between))
    stored = site.weights(
        {
            "depthwise_kernel": spatial.params([source])["kernel"],
            "pointwise_kernel": shapes.pop("kernel"),
            **shapes,
        }
    )
    first = {"kernel": stored["depthwise_kernel"]}
    second = {"kernel": stored["pointwise_kernel"], **{key: stored[key] for key in shapes}}
    y = site.add(spatial, site.x, part="depthwise", weights=first)
    return activated(site, name, pointwise, y, second)


def _dense(site: Site) -> Value:
    name, fused = activation_of(site)
    op = ops.Dense(site.config.count("units"), site.config.flag("use_bias", True), fused)
    weights = site.weights(op.params([site.type(site.x)]))
    return activated(site, name, op, site.x, weights)


def _activation_layer(site: Site) -> Value:
    return ACTIVATIONS[activation_of(site)[0]](site, site.x)


def _relu(site: Site) -> Value:
    config = site.config
    slope = config.number("negative_slope", 0.0)
    if config.number("threshold", 0.0) != 0:
        config.fail("threshold", "0")
    if config.raw.get("max_value") is None:
        return site.add(ops.LeakyRelu(_shortest(slope)) if slope else ops.Relu(), site.x)
    most = config.number("max_value", 6.0)
    if most <= 0 or slope:
        config.fail("max_value", "above 0 without a negative slope, or none")
    if most == 6:
        return site.add(ops.Relu6(), site.x)
    positive = site.add(ops.Relu(), site.x, part="positive")
    return site.add(ops.Minimum(), positive, site.constant("most", np.array(most)))


def _leaky_relu(site: Site) -> Value:
    # Keras 2 calls it alpha.
    key = "negative_slope" if "negative_slope" in site.config.raw else "alpha"
    return site.add(ops.LeakyRelu(_shortest(site.config.number(key, 0.3))), site.x)


def _shortest(number: float) -> float:
    # Keras 2 stores what float32 made of the number; the shortest one that gives it was meant.
    return float(str(np.float32(number)))


def _batch_norm(site: Site) -> Value:
    rank = site.type(site.x).rank
    axis = site.config.raw.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, rank - 1):
        site.config.fail("axis", "the last one")
    op = ops.BatchNorm(site.config.number("epsilon", 1e-3))
    size = op.params([site.type(site.x)])["gamma"]
    learned = {"gamma": site.config.flag("scale", True), "beta": site.config.flag("center", True)}
    names = [name for name, there in learned.items() if there]
    weights = site.weights(
        dict.fromkeys([*names, "moving_mean", "moving_variance"], size),
        lambda arrays: {
            "gamma": arrays.get("gamma", np.ones(size, np.float32)),
            "beta": arrays.get("beta", np.zeros(size, np.float32)),
            "mean": arrays["moving_mean"],
            "variance": arrays["moving_variance"],
        },
    )
    return site.add(op, site.x, weights=weights)


def _softmax(site: Site) -> Value:
    axis = site.config.raw.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, site.type(site.x).rank - 1):
        site.config.fail("axis", "the last one")
    return site.add(ops.Softmax(), site.x)


def _average(site: Site) -> Value:
    total = _arithmetic(ops.Add, part="sum")(site)
    share = site.constant("share", np.array(1 / len(site.operands)))
    return site.add(ops.Mul(), total, share)


def _arithmetic(make: Callable[[], ops.Op], most: int | None = None, part: str = "") -> Converter:
    def convert(site: Site) -> Value:
        ranks = {site.type(value).rank for value in site.operands if isinstance(value, Value)}
        count = len(site.operands)
        if len(ranks) != 1 or count < 2 or (most is not None and count > most):
            raise site.error(
                f"it is called with {count} operands of ranks {sorted(ranks)}; "
                f"wanted {'two' if most == 2 else 'two or more'} of one rank"
            )
        values = [
            v if isinstance(v, Value) else site.constant("operand", np.array(v))
            for v in site.operands
        ]
        result = values[0]
        for position, value in enumerate(values[1:], 2):
            result = site.add(
                make(), result, value, part=part if position == count else f"{position}"
            )
        return result

    return convert


def _tf_op(site: Site) -> Value:
    return _TF_OPS[site.config.raw["function"]](site)


def _up_sampling(site: Site) -> Value:
    rows, columns = site.config.pair("size", (2, 2))
    height, width = site.type(site.x).shape[1:3]
    size = ((height or 0) * rows, (width or 0) * columns)
    return site.add(_resize(site, "nearest", size), site.x)


def _resizing(site: Site) -> Value:
    for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"):
        if site.config.flag(key, False):
            site.config.fail(key, "false")
    size = (site.config.count("height"), site.config.count("width"))
    return site.add(_resize(site, "bilinear", size), site.x)


def _resize(site: Site, default: str, size: tuple[int, int]) -> ops.Op:
    kinds = {"bilinear": ops.ResizeBilinear, "nearest": ops.ResizeNearest}
    kind = site.config.raw.get("interpolation", default)
    if kind not in kinds:
        site.config.fail("interpolation", "'bilinear' or 'nearest'")
    return kinds[kind](size)


def _rescaling(site: Site) -> Value:
    scale, offset = site.config.numbers("scale"), site.config.numbers("offset", 0.0)
    steps: list[tuple[str, ops.Op, NDArray[np.float64]]] = []
    if np.any(scale != 1):
        steps.append(("scale", ops.Mul(), scale))
    if np.any(offset != 0):
        steps.append(("offset", ops.Add(), offset))
    return _with_constants(site, steps)


def _normalization(site: Site) -> Value:
    config = site.config
    shape = site.type(site.x).shape
    axis = config.raw.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (None, [], -1, len(shape) - 1):
        config.fail("axis", "the last one, or none")
    size = () if axis in (None, []) else (shape[-1] or 0,)
    if config.raw.get("mean") is not None:
        mean, variance = config.numbers("mean"), config.numbers("variance")
    else:
        stored = site.weights({"mean": size, "variance": size, "count": ()})
        mean, variance = (stored[k].real().astype(np.float64) for k in ("mean", "variance"))
    if np.any(variance < 0):
        config.fail("variance", "numbers not below 0")
    deviation = np.maximum(np.sqrt(variance), _EPSILON)
    if config.flag("invert", False):
        return _with_constants(
            site, [("deviation", ops.Mul(), deviation), ("mean", ops.Add(), mean)]
        )
    return _with_constants(site, [("mean", ops.Sub(), mean), ("scale", ops.Mul(), 1 / deviation)])


def _with_constants(site: Site, steps: Sequence[tuple[str, ops.Op, NDArray[np.float64]]]) -> Value:
    """Returns the operand after arithmetic with numbers, one per channel or one for all."""
    value = site.x
    channels = site.type(value).shape[-1]
    for position, (name, op, array) in enumerate(steps, 1):
        flat = array.reshape(-1)
        if flat.size not in (1, channels):
            site.config.fail(name, f"one number, or one for each of {channels} channels")
        constant = site.constant(name, flat)
        part = "" if position == len(steps) else f"by_{name}"
        value = site.add(op, value, constant, part=part)
    return value


def _nothing(site: Site) -> Value:
    return site.x


_ADD, _MULTIPLY = _arithmetic(ops.Add), _arithmetic(ops.Mul)
_SUBTRACT, _DIVIDE = _arithmetic(ops.Sub, 2), _arithmetic(ops.Div, 2)
_MAXIMUM, _MINIMUM = _arithmetic(ops.Maximum), _arithmetic(ops.Minimum)


def _named_activation(name: str) -> Converter:
    return lambda site: ACTIVATIONS[name](site, site.x)


_TF_OPS: Mapping[Any, Converter] = {
    "__operators__.add": _ADD,
    "math.add": _ADD,
    "math.multiply": _MULTIPLY,
    "math.subtract": _SUBTRACT,
    "math.truediv": _DIVIDE,
    "math.divide": _DIVIDE,
    "math.maximum": _MAXIMUM,
    "math.minimum": _MINIMUM,
    "__operators__.getitem": maps.get_item,
    "nn.relu": _named_activation("relu"),
    "nn.relu6": _named_activation("relu6"),
    "nn.softmax": _named_activation("softmax"),
    "math.sigmoid": _named_activation("sigmoid"),
    "math.tanh": _named_activation("tanh"),
}

LAYERS: Mapping[str, Converter] = {
    "Conv2D": _conv2d,
    "Conv2DTranspose": _conv2d_transpose,
    "DepthwiseConv2D": _depthwise_conv2d,
    "SeparableConv2D": _separable_conv2d,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "Activation": _activation_layer,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "PReLU": composed.prelu,
    "ELU": composed.elu_layer,
    "Elu": composed.elu_layer,
    "Gelu": composed.gelu,
    "LayerNormalization": composed.layer_norm,
    "Add": _ADD,
    "Subtract": _SUBTRACT,
    "Multiply": _MULTIPLY,
    "TrueDivide": _DIVIDE,
    "Divide": _DIVIDE,
    "Average": _average,
    "Maximum": _MAXIMUM,
    "Minimum": _MINIMUM,
    "Softmax": _softmax,
    "Relu": _named_activation("relu"),
    "Relu6": _named_activation("relu6"),
    "Sigmoid": _named_activation("sigmoid"),
    "Silu": _named_activation("silu"),
    "HardSigmoid": _named_activation("hard_sigmoid"),
    "Mish": _named_activation("mish"),
    "HardSilu": _named_activation("hard_silu"),
    "TFOpLambda": _tf_op,
    "SlicingOpLambda": _tf_op,
    "GetItem": maps.get_item,
    "Concatenate": maps.concatenate,
    "MaxPooling2D": maps.pool(ops.MaxPool2D),
    "AveragePooling2D": maps.pool(ops.AvgPool2D),
    "GlobalAveragePooling2D": maps.global_average,
    "GlobalMaxPooling2D": maps.global_max,
    "Flatten": maps.flatten,
    "Reshape": maps.reshape,
    "Permute": maps.permute,
    "Pad": maps.pad,
    "ZeroPadding2D": maps.zero_padding,
    "Cropping2D": maps.cropping,
    "UpSampling2D": _up_sampling,
    "Resizing": _resizing,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    **dict.fromkeys(
        (
            "Dropout",
            "SpatialDropout2D",
            "GaussianNoise",
            "GaussianDropout",
            "AlphaDropout",
            "ActivityRegularization",
            "Identity",
        ),
        _nothing,
    ),
}


def admit(layer: Layer) -> None:
    """Raises InputError unless the layer is in the table, or the function that it calls."""
    if layer.kind not in LAYERS:
        code = "; it is Python code, which lmopt never runs" if layer.kind == "Lambda" else ""
        raise InputError(
            f"lmopt knows no layer {layer.kind}{code}",
            where=layer.where,
            hint="cut the model before it, or use one of: " + ", ".join(sorted(LAYERS)),
        )
    function = layer.config.raw.get("function")
    if LAYERS[layer.kind] is _tf_op and not (isinstance(function, str) and function in _TF_OPS):
        layer.config.fail("function", f"one of {', '.join(sorted(_TF_OPS))}")
