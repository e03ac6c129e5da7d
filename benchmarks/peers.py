"""The same detector through other people's quantizers: TFLiteConverter, tfmot, ai-edge-quantizer.

They get the folded float graph as a Keras model of ordinary layers, and the calibration crops that
lmopt's own passes draw. Their files read normalised crops (ai-edge-quantizer) or bytes on the
input's grid (the others); lmopt scores them as it scores any file.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.data.augment import TrainingFaces
from lmopt.detector.contract import Contract
from lmopt.errors import BackendError, PassError
from lmopt.ir.graph import Graph, Node
from lmopt.pipeline.services import TrainingPlan

Crops = NDArray[np.float32]

AI_EDGE_QUANTIZER = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
source, crops, out, name = sys.argv[1:]
((key, signature),) = Interpreter(model_path=source).get_signature_list().items()
samples = [{signature["inputs"][0]: crop[None]} for crop in np.load(crops)]
work = quantizer.Quantizer(source, getattr(recipe, name)())
work.quantize(work.calibrate({key: samples})).export_model(out, overwrite=True)
"""
"""Runs in an environment of its own: the package pins other versions than lmopt's."""


def keras_model(graph: Graph) -> Any:
    """Returns the graph as a functional Keras model of standard layers, with its weights.

    Raises:
        PassError: A node is none of the ordinary layers.
    """
    from lmopt.training.backend import keras

    values: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op.kind == "input":
            values[node.name] = keras.Input(node.results[0].shape[1:], name=node.name)
            continue
        operands = [values[value.node] for value in node.inputs]
        operand = operands if len(operands) > 1 else operands[0]
        value = _LAYERS[node.op.kind](node, keras)(operand) if node.op.kind in _LAYERS else None
        if value is None:
            raise PassError(f"no ordinary Keras layer for {node.op.kind}", where=f"%{node.name}")
        if getattr(node.op, "activation", "none") == "relu":
            value = keras.layers.ReLU(name=f"{node.name}_relu")(value)
        values[node.name] = value
    inputs = [values[node.name] for node in graph.inputs]
    model = keras.Model(inputs, [values[value.node] for _, value in graph.outputs])
    for node in graph.nodes:
        if node.weights:
            model.get_layer(node.name).set_weights(
                [node.weight(key).real() for key in ("kernel", "bias") if key in node.weights]
            )
    return model


def _kernel(kind: str) -> Callable[[Node, Any], Any]:
    def layer(node: Node, keras: Any) -> Any:
        op: Any = node.op
        spatial = {"strides": op.stride, "padding": op.padding} if kind != "Dense" else {}
        width = {"Conv2D": "filters", "Dense": "units"}.get(kind)
        return getattr(keras.layers, kind)(
            name=node.name,
            use_bias="bias" in node.weights,
            **({width: getattr(op, width)} if width else {}),
            **({"kernel_size": op.kernel} if kind != "Dense" else {}),
            **spatial,
        )

    return layer


_LAYERS: dict[str, Callable[[Node, Any], Any]] = {
    "conv2d": _kernel("Conv2D"),
    "depthwise_conv2d": _kernel("DepthwiseConv2D"),
    "dense": _kernel("Dense"),
    "add": lambda node, keras: keras.layers.Add(name=node.name),
    "concat": lambda node, keras: keras.layers.Concatenate(name=node.name),
    "mean": lambda node, keras: keras.layers.GlobalAveragePooling2D(name=node.name),
    "reshape": lambda node, keras: keras.layers.Flatten(name=node.name),
    "relu": lambda node, keras: keras.layers.ReLU(name=node.name),
    "max_pool2d": lambda node, keras: keras.layers.MaxPool2D(
        node.op.size, node.op.stride, name=node.name
    ),
}


def converted(model: Any, crops: Crops | None = None) -> bytes:
    """Returns what TFLiteConverter makes of a model: float, or with crops full int8, uint8 I/O."""
    from lmopt.training.backend import tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if crops is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([crop[None]] for crop in crops)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
    return bytes(converter.convert())


def edge_quantized(source: bytes, crops: Crops, recipe: str, python: Path) -> bytes:
    """Returns what ai-edge-quantizer makes of a float file.

    Args:
        source: The float .tflite.
        crops: To calibrate on.
        recipe: Name of a function of `ai_edge_quantizer.recipe`.
        python: Interpreter of an environment that has the package.

    Raises:
        BackendError: It failed; with what it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        model, samples, out = (Path(folder) / name for name in ("f.tflite", "x.npy", "q.tflite"))
        model.write_bytes(source)
        np.save(samples, crops)
        command = [python, "-c", AI_EDGE_QUANTIZER, model, samples, out, recipe]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode or not out.is_file():
            raise BackendError(
                f"{recipe}: {done.stderr.strip()[-400:]}",
                where="ai-edge-quantizer",
                hint="give --edge-python an environment with ai-edge-quantizer 0.10",
            )
        return out.read_bytes()


def tfmot_trained(
    model: Any, faces: TrainingFaces, contract: Contract, plan: TrainingPlan, seed: int
) -> bytes:
    """Returns tfmot's default quantization-aware training of a model, converted to full int8.

    Images, loss, optimizer, rates and steps are those of `plan`, as lmopt's own trainings have.
    """
    import tensorflow_model_optimization as tfmot

    from lmopt.training.backend import keras, tf
    from lmopt.training.losses import LOSSES, pixels_per_unit

    quantized = tfmot.quantization.keras.quantize_model(model)
    steps = max(1, round(plan.epochs * len(faces) / plan.batch))
    optimizer = keras.optimizers.Adam(plan.learning_rate)
    factor, loss_of = tf.constant(pixels_per_unit(contract)), LOSSES[plan.loss]

    @tf.function(autograph=False)
    def step(crops: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of((quantized(crops, training=True) - targets) * factor)
        gradients = tape.gradient(loss, quantized.trainable_variables)
        optimizer.apply_gradients(zip(gradients, quantized.trainable_variables, strict=True))
        return loss

    batches = faces.batches(plan.batch, seed=seed)
    for number in range(steps):
        warm = min(1.0, (number + 1) / max(1, plan.warmup_steps))
        cosine = 0.5 * (1.0 + math.cos(math.pi * number / steps))
        optimizer.learning_rate.assign(plan.learning_rate * warm * cosine)
        pixels, targets = next(batches)[:2]
        step(tf.constant(contract.normalize(pixels)), tf.constant(targets))
    converter = tf.lite.TFLiteConverter.from_keras_model(quantized)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.uint8
    return bytes(converter.convert())
