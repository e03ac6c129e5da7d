"""Detectors of the kinds people have, as TensorFlow's converter writes them.

Run as a script it writes them, in a process of its own: `foreign_models.py FOLDER`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

MODELS = ("mobilenet_v2", "efficientnet_lite", "mobilenet_v3", "u_net", "dilated", "pieces")
FOLDER = "saved"
"""The SavedModel folder beside them, of `mobilenet_v3`."""


def write_all(root: Path) -> Path:
    """Returns the folder with `NAME.tflite` of every model, and the SavedModel."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        [sys.executable, __file__, str(root)],
        env=os.environ | quiet,
        capture_output=True,
        timeout=540,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()[-3000:]
    return root


class _Nets:
    def __init__(self, tf: Any, keras: Any) -> None:
        self.tf, self.keras, self.layers = tf, keras, keras.layers

    def norm(self, x: Any, activation: str | None = "relu6") -> Any:
        x = self.layers.BatchNormalization()(x)
        return x if activation is None else self.layers.Activation(activation)(x)

    def block(self, x: Any, wide: int, out: int, stride: int, kernel: int = 3) -> Any:
        layers = self.layers
        y = self.norm(layers.Conv2D(wide, 1, use_bias=False)(x))
        y = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False)(y)
        y = self.norm(layers.Conv2D(out, 1, use_bias=False)(self.norm(y)), None)
        return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == out else y

    def mobilenet_v2(self) -> Any:
        net = self.keras.applications.MobileNetV2(
            (96, 96, 3), 0.35, include_top=False, weights=None, pooling="avg"
        )
        points = self.layers.Dense(10, name="landmarks")(net.output)
        return self.keras.Model(net.input, points)

    def efficientnet_lite(self) -> Any:
        layers = self.layers
        image = self.keras.Input((64, 64, 3), name="image")
        x = self.norm(layers.Conv2D(16, 3, 2, "same", use_bias=False)(image))
        for out, stride, kernel in [(16, 2, 3), (16, 1, 5), (24, 2, 5), (24, 1, 3)]:
            x = self.block(x, 4 * x.shape[-1], out, stride, kernel)
        x = self.norm(layers.Conv2D(64, 1, use_bias=False)(x))
        x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
        return self.keras.Model(image, layers.Dense(10, name="landmarks")(x))

    def mobilenet_v3(self) -> Any:
        layers, relu6 = self.layers, self.tf.nn.relu6
        image = self.keras.Input((64, 64, 3), name="image")
        x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
        x = layers.BatchNormalization()(layers.Conv2D(16, 3, 2, "same", use_bias=False)(x))
        x = layers.Multiply()([x, relu6(x + 3.0) / 6.0])
        for out in (16, 24, 24):
            y = self.norm(layers.Conv2D(48, 1, use_bias=False)(x), "swish")
            y = layers.DepthwiseConv2D(5, 2 if out != x.shape[-1] else 1, "same")(y)
            s = layers.GlobalAveragePooling2D(keepdims=True)(y)
            s = layers.Conv2D(8, 1, activation="relu")(s)
            s = layers.Activation("hard_sigmoid")(layers.Conv2D(48, 1)(s))
            y = self.norm(layers.Conv2D(out, 1, use_bias=False)(layers.Multiply()([y, s])), None)
            x = layers.Add()([x, y]) if out == x.shape[-1] else y
        x = layers.Reshape((24,))(layers.GlobalAveragePooling2D(keepdims=True)(x))
        return self.keras.Model(image, layers.Dense(10, name="landmarks")(x))

    def u_net(self) -> Any:
        layers = self.layers
        image = self.keras.Input((32, 32, 1), name="image")
        x, kept = image, []
        for width in (8, 16):
            x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
            kept.append(x)
            x = layers.MaxPooling2D()(x)
        x = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
        for width in (16, 8):
            up = layers.Conv2DTranspose(width, 2, 2, "same", activation="relu")(x)
            x = layers.Concatenate()([up, kept.pop()])
            x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(width, 3, padding="same")(x))
        x = layers.Conv2DTranspose(4, 3, 2)(x)
        x = layers.Cropping2D(((0, 1), (1, 0)))(x)
        x = layers.Conv2D(5, 1)(x)
        maps = layers.Softmax(name="maps")(x)
        return self.keras.Model(image, maps)

    def dilated(self) -> Any:
        layers = self.layers
        image = self.keras.Input((24, 20, 3), name="image")
        x = layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="relu")(image)
        x = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2, use_bias=False)(x)
        x = self.norm(x)
        x = layers.Conv2D(8, 3, dilation_rate=3, activation="relu6")(x)
        x = layers.Conv2D(8, 3, padding="same", groups=4)(x)
        x = layers.LeakyReLU(0.1)(layers.SeparableConv2D(8, 3, dilation_rate=2)(x))
        return self.keras.Model(image, layers.Flatten(name="landmarks")(x))

    def pieces(self) -> Any:
        tf, layers = self.tf, self.layers
        image = self.keras.Input((16, 12, 8), name="image")
        left, right = tf.split(image, 2, axis=-1)
        x = tf.concat([left[:, 1:, ::2], layers.Conv2D(4, 1)(right)[:, :-1, :6]], -1)
        x = tf.pad(x, [[0, 0], [2, 1], [1, 1], [0, 0]], mode="REFLECT")
        x = tf.transpose(tf.reshape(x, (-1, 18, 8, 2, 4)), (0, 1, 2, 4, 3))
        x = tf.nn.space_to_depth(tf.reshape(x, (-1, 18, 8, 8)), 2)
        x = layers.Conv2D(16, 1)(x)
        gate = 1.0 + tf.abs(tf.reduce_mean(x, 3, keepdims=True)[:, :1, :1])
        x = tf.nn.depth_to_space(x, 2) / gate
        x = tf.clip_by_value(x, -0.7, 0.9)
        spread = tf.sqrt(tf.reduce_sum(tf.square(x), [1, 2], keepdims=True) + 1e-3)
        x = tf.maximum(1.0 - tf.exp(-tf.abs(x)), x) * tf.math.rsqrt(spread)
        first = tf.reduce_max(x, [1, 2])
        return self.keras.Model(image, [first, tf.squeeze(spread, [1, 2]), x[:, 0]])


def _write(folder: Path) -> None:
    import tensorflow as tf
    import tf_keras as keras

    keras.utils.set_random_seed(7)
    rng = np.random.default_rng(7)
    nets = _Nets(tf, keras)
    for name in MODELS:
        model = getattr(nets, name)()
        for layer in model.layers:
            if type(layer).__name__ == "BatchNormalization":
                drawn = [rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()]
                layer.set_weights(drawn)
        if name == "mobilenet_v3":
            model.save(folder / FOLDER, save_format="tf")
        converted = tf.lite.TFLiteConverter.from_keras_model(model).convert()
        (folder / f"{name}.tflite").write_bytes(converted)
    converter = tf.lite.TFLiteConverter.from_keras_model(nets.efficientnet_lite())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    (folder / "halves.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
