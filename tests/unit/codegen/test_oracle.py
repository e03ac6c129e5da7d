"""TensorFlow's own converter as the oracle: the same float network, the same numbers."""

from __future__ import annotations

import os

import numpy as np
import pytest

from lmopt.codegen.tflite import emit
from lmopt.frontend.tflite import read
from lmopt.ir import Edit, ops
from lmopt.ir.interp import run
from lmopt.runtime.runner import Runner
from tests.support import op_zoo

pytestmark = pytest.mark.slow
ITEMS = 4


def network(dilation):
    """Every layer of a landmark detector, with drawn weights."""
    edit = Edit("oracle")
    x = edit.input("image", (None, 32, 32, 3))
    x = edit.add("stem", ops.Conv2D(8, stride=(2, 2)), x)
    x = edit.add("norm", ops.BatchNorm(), x)
    x = edit.add("prelu", ops.PRelu(), x)
    y = edit.add("expand", ops.Conv2D(16, (1, 1), activation="relu6"), x)
    y = edit.add("padded", ops.Pad(0, 1, 0, 1), y)
    y = edit.add("depthwise", ops.DepthwiseConv2D(padding="valid", use_bias=False), y)
    y = edit.add("dilated", ops.Conv2D(12, dilation=(dilation, dilation), activation="relu"), y)
    z = edit.add("grouped", ops.Conv2D(12, groups=3), y)
    z = edit.add("leaky", ops.LeakyRelu(0.1), z)
    y = edit.add("sum", ops.Add(), y, z)
    y = edit.add("gate", ops.Mul(), y, edit.add("sigmoid", ops.Sigmoid(), z))
    y = edit.add("pool", ops.MaxPool2D(), y)
    near = edit.add("near", ops.Mean(), y)
    far = edit.add("far", ops.Reshape((-1,)), edit.add("mean", ops.AvgPool2D(padding="same"), y))
    joined = edit.add("joined", ops.Concat(), near, far)
    edit.output("landmarks", edit.add("landmarks", ops.Dense(20), joined))
    return op_zoo.initialized(edit.done(), seed=3)


def converted(graph, dilation):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    import tf_keras as keras

    layers = keras.layers
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(8, 3, 2, "same", name="stem")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.PReLU(shared_axes=[1, 2], name="prelu")(x)
    y = layers.Conv2D(16, 1, activation="relu6", name="expand")(x)
    y = layers.ZeroPadding2D(((0, 1), (0, 1)))(y)
    y = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(y)
    y = layers.Conv2D(
        12, 3, padding="same", dilation_rate=dilation, activation="relu", name="dilated"
    )(y)
    z = layers.Conv2D(12, 3, padding="same", groups=3, name="grouped")(y)
    z = layers.LeakyReLU(0.1)(z)
    y = layers.Add()([y, z])
    y = layers.Multiply()([y, layers.Activation("sigmoid")(z)])
    y = layers.MaxPooling2D()(y)
    near = layers.GlobalAveragePooling2D()(y)
    far = layers.Flatten()(layers.AveragePooling2D(padding="same")(y))
    out = layers.Dense(20, name="landmarks")(layers.Concatenate()([near, far]))
    model = keras.Model(image, out)
    for name, keys in {
        "norm": ("gamma", "beta", "mean", "variance"),
        "prelu": ("alpha",),
        "depthwise": ("kernel",),
        **dict.fromkeys(("stem", "expand", "dilated", "grouped", "landmarks"), ("kernel", "bias")),
    }.items():
        layer = model.get_layer(name)
        arrays = [graph.node(name).weight(key).real() for key in keys]
        layer.set_weights(
            [a.reshape(w.shape) for a, w in zip(arrays, layer.get_weights(), strict=True)]
        )
    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def outputs(data, image):
    with Runner(data) as runner:
        (name,) = (info.name for info in runner.inputs)
        (result,) = runner.run({name: image}).values()
    return result


def assert_close(got, want):
    assert np.ptp(want) > 0.1
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_emitted_and_converted_files_agree():
    graph = network(dilation=2)
    image = op_zoo.inputs(graph, ITEMS, seed=9)["image"]
    assert_close(outputs(emit(graph), image), outputs(converted(graph, dilation=2), image))


def test_a_converted_file_is_read():
    # Without dilation, which the converter spells SPACE_TO_BATCH_ND.
    graph = network(dilation=1)
    theirs = converted(graph, dilation=1)
    back, _ = read(theirs, "converted.tflite")
    image = op_zoo.inputs(graph, ITEMS, seed=9)["image"]
    want = outputs(theirs, image)
    (name,) = (node.name for node in back.inputs)
    (got,) = run(back, {name: image}).values()
    assert_close(got, want)
    assert_close(outputs(emit(back), image), want)
