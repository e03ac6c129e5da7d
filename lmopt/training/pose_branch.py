"""PFLD's auxiliary branch: estimates the head's pose in training and never leaves it."""

from __future__ import annotations

from typing import Any

from lmopt.errors import PassError
from lmopt.ir.graph import Graph
from lmopt.training.backend import keras

REACH = 4
"""The input is at most so many times as high as the features the branch reads (28 of 112)."""


def pose_features(graph: Graph) -> str:
    """Returns the node the branch reads: the last of the narrowest maps about a quarter as high.

    Blocks end narrower than they are inside; in PFLD it is the end of the fifth, 28x28x64.

    Raises:
        PassError: The graph has no feature maps.
    """
    height = graph.inputs[0].results[0].shape[1] or 0
    inputs = {node.name for node in graph.inputs}
    best: tuple[int, int] | None = None
    name = ""
    for node in graph.nodes:
        shape = node.results[0].shape
        if node.name in inputs or len(shape) != 4 or REACH * (shape[1] or 0) < height:
            continue
        size = int(shape[1] or 0), int(shape[3] or 0)
        if best is None or size <= best:
            best, name = size, node.name
    if best is None:
        raise PassError(
            "no feature map for the pose branch of the pfld loss",
            where=graph.name,
            hint="choose another loss",
        )
    return name


def pose_branch(shape: tuple[int | None, ...]) -> Any:
    """Returns a Keras model from a feature map to yaw, pitch and roll in radians.

    Args:
        shape: Of the feature map, with the batch.

    Source: Guo et al., "PFLD", 2019 (arXiv:1902.10859), the auxiliary net, without batch
        norms.
    """
    layers = keras.layers

    def convolution(filters: int, stride: int) -> Any:
        return layers.Conv2D(
            filters,
            3,
            stride,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
        )

    features = keras.Input(shape[1:])
    x = features
    for filters, stride in ((128, 2), (128, 1), (32, 2)):
        x = convolution(filters, stride)(x)
    x = layers.Dense(128, activation="relu", kernel_initializer="he_normal")(layers.Flatten()(x))
    x = layers.Dense(32, activation="relu", kernel_initializer="he_normal")(x)
    return keras.Model(features, layers.Dense(3)(x))
