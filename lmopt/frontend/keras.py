"""Keras files to graphs, without TensorFlow and without running anything they contain."""

from __future__ import annotations

from pathlib import Path

from lmopt.frontend.keras_file import open_model
from lmopt.frontend.keras_importer import import_model
from lmopt.frontend.keras_layers import admit
from lmopt.frontend.keras_model import parse_model
from lmopt.ir.graph import Graph


def read(path: Path) -> Graph:
    """Returns the graph of a functional or sequential Keras model.

    Reads `.keras` and `.h5` files of Keras 3 and of tf_keras (Keras 2). Nodes are called after
    their layers (`model/layer` inside nested models), outputs after the layers that give them.
    Weights become float32; layers that do nothing at inference leave no node.

    Args:
        path: The file; its content decides on the format, not its name.

    Raises:
        InputError: Not such a file, damaged, without architecture or weights, or with a layer
            that the IR cannot express; the message names the layer and its type.
    """
    with open_model(path) as file:
        model = parse_model(file.config, str(path), admit)
        return import_model(model, file.weights, path, file.major)
