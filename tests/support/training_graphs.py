"""Small graphs and faces for training tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.scheme import LandmarkScheme
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.op import Op
from lmopt.ir.ops import (
    Abs,
    Add,
    AvgPool2D,
    BatchNorm,
    Concat,
    Constant,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthToSpace,
    DepthwiseConv2D,
    Div,
    Exp,
    HardSwish,
    HeatmapDecode,
    InvertTransform,
    LandmarkHeatmap,
    LeakyRelu,
    Maximum,
    MaxPool2D,
    Mean,
    Minimum,
    MirrorPad,
    Mul,
    Pad,
    PRelu,
    Relu,
    Relu6,
    Reshape,
    ResizeBilinear,
    ResizeNearest,
    Rsqrt,
    Sigmoid,
    SimilarityFit,
    Slice,
    Softmax,
    SpaceToDepth,
    Sqrt,
    Square,
    Sub,
    Sum,
    Tanh,
    TransformLandmarks,
    Transpose,
    Warp,
)
from lmopt.ir.types import Weight

SIZE = 16
CONTRACT = Contract(
    height=SIZE,
    width=SIZE,
    color="rgb",
    mean=(0.0, 0.0, 0.0),
    std=(255.0, 255.0, 255.0),
    crop=CropRule(),
    output="landmarks",
    order="xyxy",
    unit="unit",
    scheme=LandmarkScheme("points-2", 2),
)

UNARY: dict[str, Op] = {
    "conv_same_stride": Conv2D(5, (3, 3), (2, 2), activation="relu"),
    "conv_even": Conv2D(4, (2, 4), (1, 3), padding="same", activation="relu6"),
    "conv_valid_dilated": Conv2D(4, (3, 3), dilation=(2, 1), padding="valid", use_bias=False),
    "conv_same_dilated": Conv2D(4, (3, 2), (2, 1), dilation=(2, 3)),
    "conv_groups": Conv2D(6, (3, 3), (2, 2), groups=3),
    "depthwise": DepthwiseConv2D((3, 3), (2, 2), activation="relu"),
    "depthwise_multiplier": DepthwiseConv2D((3, 3), multiplier=2, use_bias=False),
    "depthwise_unequal": DepthwiseConv2D((3, 5), (1, 2)),
    "depthwise_dilated": DepthwiseConv2D((3, 3), (2, 2), dilation=(2, 2), activation="relu6"),
    "depthwise_both": DepthwiseConv2D((2, 3), (1, 2), dilation=(2, 2)),
    "depthwise_valid": DepthwiseConv2D((3, 2), (2, 1), padding="valid"),
    "dense": Dense(7, activation="relu"),
    "batch_norm": BatchNorm(epsilon=1e-2),
    "relu": Relu(),
    "relu6": Relu6(),
    "leaky_relu": LeakyRelu(alpha=0.1),
    "prelu": PRelu(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "hard_swish": HardSwish(),
    "max_pool": MaxPool2D((3, 2), (2, 2), padding="same"),
    "avg_pool": AvgPool2D((3, 3), (2, 2), padding="same"),
    "avg_pool_valid": AvgPool2D((2, 3), (1, 2)),
    "mean": Mean(),
    "mean_keepdims": Mean(keepdims=True),
    "reshape": Reshape((9, -1)),
    "pad": Pad(1, 0, 2, 3),
    "conv_transpose": Conv2DTranspose(5, activation="relu"),
    "conv_transpose_even": Conv2DTranspose(4, (4, 2), (2, 1), use_bias=False),
    "conv_transpose_valid": Conv2DTranspose(4, (2, 3), (3, 2), "valid"),
    "softmax": Softmax(),
    "exp": Exp(),
    "square": Square(),
    "abs": Abs(),
    "slice": Slice((1, 0, 2), (6, -1, 3), (1, 2, 1)),
    "transpose": Transpose((0, 3, 1, 2)),
    "mirror_pad": MirrorPad(1, 2, 0, 3),
    "mirror_pad_symmetric": MirrorPad(1, 1, 1, 1, "symmetric"),
    "sum": Sum((1, 3)),
    "sqrt": Sqrt(),
    "rsqrt": Rsqrt(),
    "space_to_depth": SpaceToDepth(2),
    "depth_to_space": DepthToSpace(2),
    "resize_bilinear": ResizeBilinear((18, 5)),
    "resize_bilinear_corners": ResizeBilinear((4, 11), True, False),
    "resize_nearest": ResizeNearest((18, 14)),
    "resize_nearest_plain": ResizeNearest((5, 10), False, False),
    "decode_argmax": HeatmapDecode(beta=1.0),
    "decode_softargmax": HeatmapDecode("softargmax", beta=1.0),
}
"""One operand, [?, 9, 7, 6]."""

BINARY: dict[str, Op] = {
    "add": Add(activation="relu"),
    "sub": Sub(),
    "mul": Mul(activation="relu6"),
    "concat": Concat(),
    "concat_rows": Concat(axis=1),
    "div": Div(),
    "maximum": Maximum(),
    "minimum": Minimum(),
}
"""The operand, and a constant of its shape or the operand once more."""


BEFORE: dict[str, Op] = {
    "sqrt": Sigmoid(),
    "rsqrt": Sigmoid(),
    "space_to_depth": Pad(1, 0, 0, 1),
    "depth_to_space": Conv2D(8, (1, 1)),
}
"""What makes an operand that these kinds of op take."""


def _points(edit: Edit, x: Value) -> Value:
    return edit.add("points", Dense(10), edit.add("flat", Reshape(), x))


def _fit(edit: Edit, x: Value) -> Value:
    return edit.add("fit", SimilarityFit(), _points(edit, x), edit.add("c", Constant((10,))))


LANDMARK: dict[str, Callable[[Edit, Value], Value]] = {
    "similarity_fit": _fit,
    "invert_transform": lambda edit, x: edit.add("y", InvertTransform(), _fit(edit, x)),
    "transform_landmarks": lambda edit, x: edit.add(
        "y", TransformLandmarks(), *reversed([_fit(edit, x), Value("points")])
    ),
    "warp": lambda edit, x: edit.add("y", Warp(), x, _fit(edit, x)),
    "landmark_heatmap": lambda edit, x: edit.add("y", LandmarkHeatmap((8, 5)), _points(edit, x)),
}
"""Ops that want landmarks, made of the operand [?, 9, 7, 6] by a dense layer."""


def fill(graph: Graph, seed: int = 0) -> Graph:
    """Returns the graph with random weights; variances are positive."""
    rng = np.random.default_rng(seed)
    edit = graph.edit()
    for node in graph.nodes:
        drawn = {}
        for key, weight in node.weights.items():
            values = rng.normal(0.0, 0.4, weight.type.shape)
            drawn[key] = Weight.of(
                (np.abs(values) + 0.5 if key == "variance" else values).astype(np.float32)
            )
        edit.set_weights(node.name, **drawn)
    return edit.done()


def single(op: Op | Callable[[Edit, Value], Value]) -> Graph:
    """Returns a graph of one op (with two operands where it takes them), or of what adds it."""
    edit = Edit("single")
    x = edit.input("x", (None, 9, 7, 6))
    if isinstance(op, Op) and op.kind in BEFORE:
        x = edit.add("before", BEFORE[op.kind], x)
    if not isinstance(op, Op):
        y = op(edit, x)
    elif op.arity == 1:
        y = edit.add("y", op, x)
    elif op.arity is None:
        y = edit.add("y", op, x, x, x)
    else:
        y = edit.add("y", op, x, edit.add("c", Constant((9, 7, 6))))
    edit.output("out", y)
    return fill(edit.done())


def detector(*, batch_norm: bool = False, seed: int = 0) -> Graph:
    """Returns a small detector for CONTRACT, with a residual and a concat."""
    edit = Edit("tiny")
    image = edit.input("image", (None, SIZE, SIZE, 3))
    x = edit.add("stem", Conv2D(8, (3, 3), (2, 2), activation="relu"), image)
    if batch_norm:
        x = edit.add("stem_bn", BatchNorm(), x)
    y = edit.add("depthwise", DepthwiseConv2D((3, 3), activation="relu"), x)
    y = edit.add("project", Conv2D(8, (1, 1)), y)
    y = edit.add("sum", Add(), x, y)
    pooled = edit.add("pooled", Mean(), y)
    small = edit.add("small", MaxPool2D(), y)
    flat = edit.add("flat", Reshape((-1,)), small)
    joined = edit.add("joined", Concat(), pooled, flat)
    edit.output("landmarks", edit.add("landmarks", Dense(4), joined))
    graph = fill(edit.done(), seed)
    if not batch_norm:
        return graph
    edit = graph.edit()
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    edit.set_weights("stem_bn", gamma=ones, beta=zeros, mean=zeros, variance=ones)
    return edit.done()


@dataclass(frozen=True)
class Blobs:
    """Stand-in faces: a bright blob per landmark, at the landmark."""

    count: int = 64

    def __len__(self) -> int:
        return self.count

    def batches(
        self, batch: int, seed: int, start: int = 0
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        step = start
        while True:
            rng = np.random.default_rng([seed, step])
            points = rng.uniform(0.2, 0.8, (batch, 2, 2))
            grid = (np.arange(SIZE) + 0.5) / SIZE
            image = np.zeros((batch, SIZE, SIZE, 3))
            for k in range(2):
                dx = grid[None, None, :] - points[:, k, 0, None, None]
                dy = grid[None, :, None] - points[:, k, 1, None, None]
                image[..., k] = 255 * np.exp(-(dx**2 + dy**2) / 0.02)
            yield image.astype(np.uint8), CONTRACT.encode(points)
            step += 1
