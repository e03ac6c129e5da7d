"""Model files as Keras 3 and tf_keras write them, with what the models predict.

Run as a script it writes them, in a process of its own: `keras_files.py keras FOLDER`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

WRITERS = ("keras", "tf_keras")
MODELS = ("everything", "chain", "two_inputs", "operators", "maps", "slices", "composed")
FORMATS = ("keras", "h5")


def write_all(root: Path) -> dict[str, Path]:
    """Returns a folder per writer; both write at the same time."""
    folders = {writer: root / writer for writer in WRITERS}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}
    running = []
    for writer, folder in folders.items():
        folder.mkdir()
        command = [sys.executable, __file__, writer, str(folder)]
        running.append(
            subprocess.Popen(
                command, env=os.environ | quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    for process in running:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output.decode()[-3000:]
    return folders


class _Writer:
    def __init__(self, keras: Any, folder: Path) -> None:
        self.keras = keras
        self.folder = folder
        self.rng = np.random.default_rng(5)

    def save(self, name: str, model: Any) -> None:
        self.fill(model)
        shapes = [(2, *tensor.shape[1:]) for tensor in model.inputs]
        feeds = [self.rng.uniform(-1, 1, shape).astype("f4") for shape in shapes]
        results = model.predict_on_batch(feeds if len(feeds) > 1 else feeds[0])
        listed = results if isinstance(results, list | tuple) else [results]
        inputs = {f"input_{k}": array for k, array in enumerate(feeds)}
        outputs = {f"output_{k}": array for k, array in enumerate(listed)}
        np.savez(self.folder / f"{name}.npz", **inputs, **outputs)
        for suffix in FORMATS:
            model.save(self.folder / f"{name}.{suffix}")

    def fill(self, model: Any) -> None:
        for layer in model.layers:
            if hasattr(layer, "layers"):
                self.fill(layer)
                continue
            if type(layer).__name__ == "Normalization":
                continue  # its weights are statistics, which it has adapted
            filled = []
            for weight, value in zip(layer.weights, layer.get_weights(), strict=True):
                low = 0.3 if "variance" in weight.name else -0.6
                filled.append(self.rng.uniform(low, 0.9, value.shape).astype(value.dtype))
            layer.set_weights(filled)

    def everything(self) -> Any:
        keras, layers = self.keras, self.keras.layers
        image = keras.Input((12, 10, 3), name="image")
        x = layers.Rescaling([2.0, 3.0, 4.0], offset=-0.5, name="rescaled")(image)
        x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(x)
        adapted = layers.Normalization()
        adapted.adapt(self.rng.uniform(size=(4, 12, 10, 3)).astype("f4"))
        x = layers.Normalization(axis=None, mean=0.5, variance=4.0, invert=True)(adapted(x))
        x = layers.GaussianNoise(0.1)(layers.SpatialDropout2D(0.2)(x))
        name = "block.shared" if keras.__name__ == "keras" else "block/shared"
        shared = layers.Conv2D(3, (3, 2), padding="same", activation="relu6", name=name)
        x = layers.Add()([shared(x), shared(shared(x)), x])
        x = layers.ZeroPadding2D(((0, 1), (2, 0)), name="padded")(x)
        x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="strided.conv")(x)
        x = layers.BatchNormalization(scale=False, epsilon=0.01)(x)
        x = layers.ReLU(6.0)(x)
        x = layers.Conv2D(8, 3, padding="same", groups=2, dilation_rate=2, activation="tanh")(x)
        x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu")(x)
        x = layers.BatchNormalization(center=False)(x)
        x = layers.LeakyReLU(0.1)(x)
        x = layers.SeparableConv2D(6, 3, padding="same", activation="sigmoid")(x)
        x = layers.PReLU(shared_axes=[1, 2])(x)
        nested = keras.Sequential(
            [
                layers.InputLayer(tuple(x.shape[1:])),
                layers.Conv2D(4, 1, name="inner"),
                layers.BatchNormalization(name="inner_norm"),
                layers.PReLU(shared_axes=[1, 2], name="slope"),
                layers.SeparableConv2D(6, 1, name="last", trainable=False),
            ],
            name="nested",
        )
        x = layers.Multiply()([nested(x), nested(x)])
        entry = keras.Input(tuple(x.shape[1:]), name="entry")
        deeper = keras.Sequential(
            [layers.InputLayer(tuple(x.shape[1:])), layers.Conv2D(6, 1, name="inner")],
            name="deeper",
        )
        both = keras.Model(
            entry, [layers.Conv2D(6, 1, name="own")(entry), deeper(entry)], name="branches"
        )
        left, right = both(x)
        x = layers.Subtract()([left, right])
        x = layers.UpSampling2D((3, 2))(x)
        x = layers.UpSampling2D(2, interpolation="bilinear")(x)
        x = layers.Resizing(5, 4)(x)
        x = layers.Concatenate()([layers.MaxPooling2D()(x), layers.AveragePooling2D(2)(x)])
        means = layers.GlobalAveragePooling2D(keepdims=True, name="means")(x)
        flat = layers.Dropout(0.5)(layers.Flatten()(x))
        points = layers.Dense(6, name="points")(flat)
        return keras.Model(image, [layers.Reshape((3, -1), name="landmarks")(points), means])

    def chain(self) -> Any:
        keras, layers = self.keras, self.keras.layers
        first = {"input_shape": (9, 9, 2)} if keras.__name__ == "tf_keras" else {}
        model = keras.Sequential(
            [
                layers.Conv2D(4, 3, activation=keras.activations.relu, name="first", **first),
                layers.Activation("relu"),
                layers.AveragePooling2D(3, strides=2, padding="same"),
                layers.ReLU(negative_slope=0.25),
                layers.BatchNormalization(trainable=False),
                layers.Flatten(),
                layers.Dense(5, activation="swish"),
                layers.Dense(4),
                layers.Activation("sigmoid", name="last"),
            ],
            name="chain",
        )
        model.build((None, 9, 9, 2))
        return model

    def two_inputs(self) -> Any:
        keras, layers = self.keras, self.keras.layers
        left, right = keras.Input((4, 4, 2), name="left"), keras.Input((4, 4, 2), name="right")
        x = layers.Subtract()([left, right])
        y = layers.Concatenate(axis=1)([x, left])
        outputs = [layers.Conv2D(2, 2, name="a")(y), layers.Multiply(name="b")([x, right])]
        return keras.Model([left, right], outputs)

    def operators(self) -> Any:
        keras = self.keras
        image = keras.Input((3, 3, 2), name="image")
        x = image * 2.0 + 1.0
        return keras.Model(image, x - keras.layers.Activation("tanh")(image))

    def maps(self) -> Any:
        keras, layers = self.keras, self.keras.layers
        image = keras.Input((9, 8, 3), name="image")
        x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(image)
        x = layers.Cropping2D(((1, 1), (0, 2)))(x)
        x = layers.Conv2DTranspose(3, (2, 3), strides=(1, 2), use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU(max_value=1.0)(x)
        y = layers.Permute((2, 3, 1))(layers.Activation("softmax")(x))
        y = layers.Softmax()(layers.Permute((3, 1, 2))(y))
        z = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)(x)
        z = layers.Activation("hard_sigmoid")(z)
        z = layers.Minimum()([layers.Maximum()([z, y]), layers.Average()([x, y, z])])
        z = layers.Dense(3, activation="hard_sigmoid")(z)
        gate = layers.Dense(3, activation="exponential")(layers.GlobalMaxPooling2D()(z))
        gate = layers.Reshape((1, 1, 3))(gate)
        z = layers.Multiply()([z / (gate + 1.0), gate])
        return keras.Model(image, [layers.GlobalMaxPooling2D(keepdims=True)(z), x])

    def slices(self) -> Any:
        keras, layers = self.keras, self.keras.layers
        image = keras.Input((10, 8, 6), name="image")
        focus = image[:, :-2:2, ::2, :]
        x = layers.Concatenate()([focus, image[:, 1::2][:, :, 1::2, :4][:, -4:, :99]])
        x = layers.Conv2D(6, 1)(x) if keras.__name__ == "tf_keras" else x[..., 1:-3:2]
        row = layers.Flatten()(image[:, -2, 1:])
        return keras.Model(image, [x, row[:, 3:], image[:, :, 2, 0]])

    def composed(self) -> Any:
        keras, layers = self.keras, self.keras.layers
        image = keras.Input((6, 5, 4), name="image")
        wide = image * 9.0
        x = layers.Activation("mish")(wide)
        x = layers.Add()([x, layers.ELU(alpha=0.5)(wide), layers.Activation("elu")(wide)])
        x = layers.LayerNormalization(epsilon=0.01)(layers.PReLU()(x))
        x = layers.PReLU(shared_axes=[2])(x)
        if keras.__name__ == "keras":
            widths = [[0, 0], [1, 2], [0, 3], [0, 0]]
            x = keras.ops.pad(keras.activations.gelu(x, approximate=True), widths, mode="reflect")
        y = layers.LayerNormalization(axis=[1, 3], scale=False)(x)
        dense = layers.Dense(4, activation="mish")(layers.Flatten()(x))
        return keras.Model(image, [layers.LayerNormalization(center=False)(dense), y])

    def low_precision(self) -> Any:
        keras, layers = self.keras, self.keras.layers
        policy = "bfloat16" if keras.__name__ == "keras" else "mixed_float16"
        image = keras.Input((5,), name="image")
        return keras.Model(image, layers.Dense(3, name="low", dtype=policy)(image))

    def refused(self) -> None:
        keras, layers = self.keras, self.keras.layers
        mark = str(self.folder / "executed")

        def touch(x: Any) -> Any:
            open(mark, "w").close()  # noqa: PTH123
            return x

        class Twice(layers.Layer):  # type: ignore[misc]
            def call(self, x: Any) -> Any:
                return x * 2

        @keras.utils.register_keras_serializable("mine")
        class Dense(layers.Dense):  # type: ignore[misc]
            pass

        for name, layer in {
            "lambda": layers.Lambda(touch, name="code"),
            "custom": Twice(name="twice"),
            "registered": Dense(2, name="not_dense"),
        }.items():
            image = keras.Input((4,), name="image")
            model = keras.Model(image, layer(image))
            for suffix in FORMATS:
                model.save(self.folder / f"{name}.{suffix}")
        Path(mark).rename(self.folder / "built")


def _main(writer: str, folder: Path) -> None:
    if writer == "keras":
        import keras
    else:
        import tf_keras as keras
    work = _Writer(keras, folder)
    for name in MODELS:
        work.save(name, getattr(work, name)())
    model = work.low_precision()
    for suffix in FORMATS:
        model.save(folder / f"low_precision.{suffix}")
    kernel, bias = (np.asarray(array, "f4") for array in model.get_weights())
    np.savez(folder / "low_precision.npz", kernel=kernel, bias=bias)
    work.refused()


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
