"""Where the layers of a Keras file find their weights: by position or by name, shapes checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from lmopt.errors import InputError
from lmopt.frontend.keras_model import Layer

Shapes = Mapping[str, tuple[int, ...]]
Arrays = dict[str, NDArray[np.float32]]

_DAMAGED = "architecture and weights do not belong together, or the file is damaged: save it again"
_OLD_SLOT = "_layer_checkpoint_dependencies"  # what archives of TensorFlow 2.12 say for layers
_ALIASES = {"depthwise_kernel": ("depthwise_kernel", "kernel")}


class Weights(Protocol):
    """The weights of a model file."""

    def arrays(self, layer: Layer, shapes: Shapes) -> Arrays:
        """Returns a layer's weights as float32.

        Args:
            layer: Whose weights.
            shapes: Keras' name and the shape of each, in the order in which Keras stores them.

        Raises:
            InputError: One is missing, left over or of another shape.
        """


class ArchiveWeights:
    """Weights of a `.keras` file: numbered, in one group per layer."""

    def __init__(self, root: h5py.Group) -> None:
        self._root = root

    def arrays(self, layer: Layer, shapes: Shapes) -> Arrays:
        path = f"{layer.slot}/vars"
        if "layers" not in self._root and _OLD_SLOT in self._root:
            path = "/".join(_OLD_SLOT if part == "layers" else part for part in path.split("/"))
        group = _find(self._root, path, layer)
        if not isinstance(group, h5py.Group) or len(group) != len(shapes):
            got = len(group) if isinstance(group, h5py.Group) else 0
            raise _count_error(layer, got, shapes)
        return {
            name: _array(_find(group, str(position), layer), name, shape, layer)
            for position, (name, shape) in enumerate(shapes.items())
        }


class Hdf5Weights:
    """Weights of a `.h5` file: one group per outermost layer, which lists its weights by name."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group

    def arrays(self, layer: Layer, shapes: Shapes) -> Arrays:
        group = _find(self._group, layer.trail[0], layer)
        if not isinstance(group, h5py.Group):
            raise _count_error(layer, 0, shapes)
        names = _names(group, layer)
        if len(layer.trail) == 1:
            if len(names) != len(shapes):
                raise _count_error(layer, len(names), shapes)
            chosen = dict(zip(shapes, names, strict=True))
        else:
            # All weights of a nested model share a group, the trainable ones first.
            chosen = {param: _match(names, layer, param) for param in shapes}
        return {
            param: _array(_find(group, chosen[param], layer), param, shape, layer)
            for param, shape in shapes.items()
        }


def _names(group: h5py.Group, layer: Layer) -> list[str]:
    attributes = group.attrs
    if "weight_names" in attributes:
        stored = list(attributes["weight_names"])
    else:
        # Long lists are stored in pieces: HDF5 limits the size of an attribute.
        stored, piece = [], 0
        while f"weight_names{piece}" in attributes:
            stored += list(attributes[f"weight_names{piece}"])
            piece += 1
    names = [name.decode(errors="replace") if isinstance(name, bytes) else name for name in stored]
    if not all(isinstance(name, str) for name in names):
        raise InputError("its list of weights is damaged", where=layer.where, hint=_DAMAGED)
    return names


def _match(names: list[str], layer: Layer, param: str) -> str:
    bare = {name.rpartition(":")[0] or name: name for name in names}
    for alias in _ALIASES.get(param, (param,)):
        for depth in range(1, len(layer.trail) + 1):
            tail = "/".join((*layer.trail[-depth:], alias))
            found = [full for name, full in bare.items() if f"/{name}".endswith(f"/{tail}")]
            if len(found) == 1:
                return found[0]
        if alias in bare:
            return bare[alias]
    raise InputError(
        f"its {param} is not among the weights of the nested model '{layer.trail[0]}' by name",
        where=layer.where,
        hint="save the model as .keras: there nested weights have a place of their own",
    )


def _find(group: h5py.Group, path: str, layer: Layer) -> Any:
    """Returns what lies at `path`, or None; links that leave the file are refused."""
    found: Any = group
    for part in path.split("/"):
        if not isinstance(found, h5py.Group):
            return None
        try:
            link = found.get(part, getlink=True)
            if link is not None and not isinstance(link, h5py.HardLink):
                raise InputError(
                    f"'{path}' is a link to another place; wanted the weights themselves",
                    where=layer.where,
                    hint=_DAMAGED,
                )
            found = found.get(part)
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise InputError(
                f"'{path}' cannot be read: {error}", where=layer.where, hint=_DAMAGED
            ) from error
    return found


def _array(found: Any, name: str, shape: tuple[int, ...], layer: Layer) -> NDArray[np.float32]:
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"the file lacks its {name}", where=layer.where, hint=_DAMAGED)
    if found.shape != shape:
        raise InputError(
            f"its {name} is {list(found.shape or ())} in the file; wanted {list(shape)}",
            where=layer.where,
            hint=_DAMAGED,
        )
    if found.is_virtual or found.external:
        raise InputError(f"its {name} lies in another file", where=layer.where, hint=_DAMAGED)
    try:
        stored = np.asarray(found[()])
        if stored.dtype == np.dtype("V2"):
            # bfloat16, which NumPy has no type for: the upper half of a float32.
            halves = np.frombuffer(stored.tobytes(), np.uint16).astype(np.uint32)
            return (halves << 16).view(np.float32).reshape(shape)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"its {name} cannot be read: {error}", where=layer.where, hint=_DAMAGED
        ) from error
    if stored.dtype.kind not in "fiu":
        raise InputError(
            f"its {name} holds {stored.dtype}; wanted numbers", where=layer.where, hint=_DAMAGED
        )
    return stored.astype(np.float32)


def _count_error(layer: Layer, got: int, shapes: Shapes) -> InputError:
    return InputError(
        f"{got} weights in the file; wanted {len(shapes)} ({', '.join(shapes)})",
        where=layer.where,
        hint=_DAMAGED,
    )
