"""A graph being built from a Keras architecture: which call has become which value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lmopt.errors import GraphError, InputError
from lmopt.frontend.keras_index import Index
from lmopt.frontend.keras_layers import LAYERS
from lmopt.frontend.keras_model import Layer, Model, Operand, Ref
from lmopt.frontend.keras_site import Arrange, Site
from lmopt.frontend.keras_weights import Shapes, Weights
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.types import Weight

_CUT = "rebuild the model without it, or cut the model before this layer"

_DAMAGED = "the file is damaged: save it again"
_Results = dict[tuple[str, int], tuple[Value, ...]]


def import_model(model: Model, weights: Weights, path: Path, major: int | None) -> Graph:
    """Returns the graph of a model, written by the Keras of that `major` version.

    Raises:
        InputError: A layer that the IR does not have, or that does not fit its operands.
    """
    edit = Edit(_identifier(model.name))
    importer = _Importer(edit, weights, major)
    feeds = [_input(edit, model, ref) for ref in model.inputs]
    results = importer.run(model, feeds)
    names: set[str] = set()
    for ref, value in zip(model.outputs, results, strict=True):
        stem = _identifier(ref.layer)
        tries = (stem if k == 1 else f"{stem}_{k}" for k in range(1, len(results) + 1))
        name = next(name for name in tries if name not in names)
        names.add(name)
        edit.output(name, value)
    try:
        return edit.done()
    except GraphError as error:
        where = f"{path}: {error.where}" if error.where else str(path)
        raise InputError(
            f"not a graph of lmopt: {error.what}", where=where, hint=error.hint or _CUT
        ) from error


def _input(edit: Edit, model: Model, ref: Ref) -> Value:
    layer = next((layer for layer in model.layers if layer.name == ref.layer), None)
    if layer is None or layer.kind != "InputLayer":
        what = f"its input '{ref.layer}' is no InputLayer"
        raise InputError(what, where=model.where, hint=_DAMAGED)
    name = _identifier(layer.name)
    return edit.input(edit.fresh(name), layer.config.shape("batch_shape", "batch_input_shape"))


class _Importer:
    def __init__(self, edit: Edit, weights: Weights, major: int | None) -> None:
        self._edit = edit
        self._weights = weights
        self._major = major
        self._known: dict[tuple[str, ...], Mapping[str, Weight]] = {}

    def run(self, model: Model, feeds: Sequence[Value]) -> tuple[Value, ...]:
        """Adds the nodes of a model that is called with `feeds` and returns its results."""
        if len(feeds) != len(model.inputs):
            raise InputError(
                f"it is called with {len(feeds)} operands; wanted {len(model.inputs)}",
                where=model.where,
                hint=_DAMAGED,
            )
        done: _Results = {
            (ref.layer, 0): (value,) for ref, value in zip(model.inputs, feeds, strict=True)
        }
        waiting = [
            (layer, number, call)
            for layer in model.layers
            if layer.kind != "InputLayer"
            for number, call in enumerate(layer.calls)
        ]
        # A shared layer may be listed before the layers that feed its later calls.
        while waiting:
            left = []
            for layer, number, call in waiting:
                if all(not isinstance(o, Ref) or (o.layer, o.call) in done for o in call):
                    operands = tuple(self._operand(o, done, layer.where) for o in call)
                    done[layer.name, number] = self._call(layer, operands)
                else:
                    left.append((layer, number, call))
            if len(left) == len(waiting):
                raise InputError(
                    "its operands come from no layer, or from itself",
                    where=left[0][0].where,
                    hint=_DAMAGED,
                )
            waiting = left
        return tuple(_result(ref, done, model.where) for ref in model.outputs)

    def _operand(self, operand: Operand, done: _Results, where: str) -> Value | float | Index:
        return _result(operand, done, where) if isinstance(operand, Ref) else operand

    def _call(self, layer: Layer, operands: tuple[Value | float | Index, ...]) -> tuple[Value, ...]:
        if layer.model is not None:
            feeds = [operand for operand in operands if isinstance(operand, Value)]
            return self.run(layer.model, feeds)
        layer.config.check_layout()
        stem = self._edit.fresh(_identifier("/".join(layer.trail)))
        site = Site(layer, operands, stem, self._edit, self._stored, self._major)
        try:
            return (LAYERS[layer.kind](site),)
        except GraphError as error:
            raise InputError(error.what, where=layer.where, hint=error.hint or _CUT) from error

    def _stored(self, layer: Layer, shapes: Shapes, arrange: Arrange) -> Mapping[str, Weight]:
        if layer.trail not in self._known:
            arrays = arrange(self._weights.arrays(layer, shapes))
            self._known[layer.trail] = {name: Weight.of(array) for name, array in arrays.items()}
        return self._known[layer.trail]


def _result(ref: Ref, done: _Results, where: str) -> Value:
    values = done.get((ref.layer, ref.call), ())
    if not 0 <= ref.result < len(values):
        raise InputError(
            f"result {ref.result} of call {ref.call} of '{ref.layer}' does not exist",
            where=where,
            hint=_DAMAGED,
        )
    return values[ref.result]


def _identifier(name: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.@/+-]", "_", name)
    return re.sub(r"^[^A-Za-z0-9_]+", "", name) or "layer"
