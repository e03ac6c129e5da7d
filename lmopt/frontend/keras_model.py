"""Architectures of Keras 2 and Keras 3 in one form: layers, their calls and what these take."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from lmopt.errors import InputError
from lmopt.frontend.keras_config import Config
from lmopt.frontend.keras_index import Index, read_index

_MODELS = ("Functional", "Model", "Sequential")
_MAX_DEPTH = 16
_DAMAGED = "the file is damaged, or of a Keras version that lmopt does not know"
_CUT = "rebuild the model without it, or cut it before this layer"


@dataclass(frozen=True)
class Ref:
    """A result of a layer's call: layer name, number of the call, number of the result."""

    layer: str
    call: int = 0
    result: int = 0


Operand = Ref | float | Index


@dataclass(frozen=True)
class Layer:
    """A layer of the architecture.

    Attributes:
        name: Unique in its model.
        kind: Class name in Keras.
        config: Its settings.
        calls: The operands of each call; an input has one call without any.
        trail: Names from the outermost model's layer down to this one.
        slot: Where a `.keras` file keeps its weights.
        model: What it consists of, when it is a nested model.
    """

    name: str
    kind: str
    config: Config
    calls: tuple[tuple[Operand, ...], ...]
    trail: tuple[str, ...]
    slot: str
    model: Model | None = None

    @property
    def where(self) -> str:
        """Returns how messages call the layer."""
        return self.config.where


@dataclass(frozen=True)
class Model:
    """A functional or sequential model.

    Attributes:
        name: The model's name.
        layers: In the order of the file.
        inputs: Results of its input layers, in order.
        outputs: What it returns, in order.
        where: How messages call it.
    """

    name: str
    layers: tuple[Layer, ...]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]
    where: str


Admit = Callable[[Layer], None]
"""Raises InputError for a layer that cannot be converted, however it is called."""


def parse_model(document: Mapping[str, Any], where: str, admit: Admit) -> Model:
    """Returns the model that Keras' JSON describes.

    Args:
        document: The JSON.
        where: How messages call the file.
        admit: Sees every layer before its calls are read.

    Raises:
        InputError: Not a functional or sequential model of Keras' own layers.
    """
    kind = document.get("class_name")
    config = document.get("config")
    _refuse_custom(document, f"{where}: model ({kind})")
    # Before 2.2.3, the config of a sequential model was its list of layers.
    if kind == "Sequential" and isinstance(config, list):
        config = {"layers": config}
    if kind not in _MODELS or not isinstance(config, dict) or "layers" not in config:
        raise InputError(
            f"the model is a {kind}; wanted Functional or Sequential",
            where=where,
            hint="build it with keras.Model(inputs, outputs): other classes are code, not data",
        )
    return _parse(str(kind), config, where, (), "layers", admit)


def _parse(
    kind: str,
    config: Mapping[str, Any],
    where: str,
    trail: tuple[str, ...],
    slot: str,
    admit: Admit,
) -> Model:
    if len(trail) > _MAX_DEPTH:
        what = f"models are nested more than {_MAX_DEPTH} deep"
        raise InputError(what, where=where, hint="build the model with fewer levels")
    documents = config["layers"]
    if not isinstance(documents, list) or not documents:
        raise InputError("the model has no layers", where=where, hint=_DAMAGED)
    reader = _Reader(where, trail, slot, admit)
    read = reader.sequential if kind == "Sequential" else reader.functional
    return read(config, documents)


class _Reader:
    """Reads the layers of one model."""

    def __init__(self, where: str, trail: tuple[str, ...], slot: str, admit: Admit) -> None:
        self.where = where
        self.trail = trail
        self.slot = slot
        self._admit = admit
        self._used: dict[str, int] = {}

    def functional(self, config: Mapping[str, Any], documents: list[Any]) -> Model:
        layers = []
        for document in documents:
            layer = self.layer(document)
            nodes = document.get("inbound_nodes", [])
            if not isinstance(nodes, list):
                self.fail(layer.where, "its calls (inbound_nodes) are no list")
            calls = tuple(_call(node, layer) for node in nodes)
            layers.append(replace(layer, calls=calls or ((),)))
        inputs = _refs(config.get("input_layers"), self.where)
        outputs = _refs(config.get("output_layers"), self.where)
        return _numbered(Model(_model_name(config), tuple(layers), inputs, outputs, self.where))

    def sequential(self, config: Mapping[str, Any], documents: list[Any]) -> Model:
        layers = [self.layer(document) for document in documents]
        if layers[0].kind != "InputLayer":
            layers.insert(0, self._entry(layers[0], config))
        chain = [replace(layers[0], calls=((),))]
        for layer in layers[1:]:
            chain.append(replace(layer, calls=((Ref(chain[-1].name),),)))
        ends = (Ref(chain[0].name),), (Ref(chain[-1].name),)
        return Model(_model_name(config), tuple(chain), *ends, self.where)

    def layer(self, document: Any) -> Layer:
        if not isinstance(document, dict) or not isinstance(document.get("config"), dict | list):
            self.fail(self.where, "a layer is no object with a config")
        kind, config = document.get("class_name"), document["config"]
        if kind == "Sequential" and isinstance(config, list):
            config = {"layers": config}
        name = document.get("name") or (config.get("name") if isinstance(config, dict) else None)
        if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(config, dict):
            self.fail(self.where, "a layer has no class_name or no name")
        trail = (*self.trail, name)
        where = f"{self.where.split(': layer ')[0]}: layer '{'/'.join(trail)}' ({kind})"
        _refuse_custom(document, where)
        slot = f"{self.slot}/{self._unique(_snake_case(kind))}"
        model = None
        if kind in _MODELS and "layers" in config:
            model = _parse(kind, config, where, trail, f"{slot}/layers", self._admit)
        layer = Layer(name, kind, Config(config, where), (), trail, slot, model)
        if model is None and kind != "InputLayer":
            self._admit(layer)
        return layer

    def _entry(self, first: Layer, config: Mapping[str, Any]) -> Layer:
        inner = first.model.layers[0].config.raw if first.model else first.config.raw
        keys = ("batch_shape", "batch_input_shape")
        shapes = [inner.get(key) for key in keys]
        shape = next((s for s in (*shapes, config.get("build_input_shape")) if s), None)
        name = f"{first.name}_input"
        where = f"{self.where}: layer '{name}' (InputLayer)"
        settings = Config({"batch_shape": shape}, where)
        return Layer(name, "InputLayer", settings, (), (*self.trail, name), "")

    def _unique(self, stem: str) -> str:
        count = self._used.get(stem)
        self._used[stem] = 0 if count is None else count + 1
        return stem if count is None else f"{stem}_{count + 1}"

    def fail(self, where: str, what: str) -> NoReturn:
        raise InputError(what, where=where, hint=_DAMAGED)


def _refuse_custom(document: Mapping[str, Any], where: str) -> None:
    module = document.get("module")
    foreign = isinstance(module, str) and module.split(".")[0] not in ("keras", "tf_keras")
    marks = (document.get("registered_name"), document.get("class_name"))
    registered = next((mark for mark in marks if isinstance(mark, str) and ">" in mark), None)
    if foreign or registered:
        raise InputError(
            f"a class of its own ({registered or module}) is code, which lmopt never runs",
            where=where,
            hint="rebuild the model with Keras' own layers, or cut it before this layer",
        )


def _model_name(config: Mapping[str, Any]) -> str:
    name = config.get("name")
    return name if isinstance(name, str) and name else "model"


def _call(node: Any, layer: Layer) -> tuple[Operand, ...]:
    operands: list[Operand] = []
    if isinstance(node, dict):
        args = node.get("args")
        if layer.kind == "GetItem" and isinstance(args, list) and len(args) == 2:
            _collect3(args[0], operands, layer)
            operands.append(read_index(args[1], layer.where))
        else:
            _collect3(args, operands, layer)
        _check_options(node.get("kwargs") or {}, layer)
    elif _is_ref(node):
        _collect2([node], operands, layer)
    else:
        _collect2(node, operands, layer)
    return tuple(operands)


def _collect3(item: Any, into: list[Operand], layer: Layer) -> None:
    """Adds the operands of a call as Keras 3 writes it."""
    if isinstance(item, list):
        for part in item:
            _collect3(part, into, layer)
    elif isinstance(item, dict) and item.get("class_name") == "__keras_tensor__":
        config = item.get("config")
        into.append(_ref(config.get("keras_history") if isinstance(config, dict) else None, layer))
    elif isinstance(item, int | float) and not isinstance(item, bool):
        into.append(float(item))
    elif item is not None:
        _unusual(item, layer)


def _collect2(items: Any, into: list[Operand], layer: Layer) -> None:
    """Adds the operands of a call as Keras 2 writes it."""
    if not isinstance(items, list):
        _call_error(layer)
    for item in items:
        if not _is_ref(item):
            _call_error(layer)
        constant = item[0] == "_CONSTANT_VALUE"
        if constant and not isinstance(item[2], int | float):
            _unusual(item[2], layer)
        into.append(float(item[2]) if constant else _ref(item[:3], layer))
        options = dict(item[3]) if len(item) > 3 and isinstance(item[3], dict) else {}
        if layer.kind == "TFOpLambda" and "y" in options:
            right = options.pop("y")
            number = isinstance(right, int | float) and not isinstance(right, bool)
            if not number and not _is_ref(right):
                _unusual(right, layer)
            into.append(float(right) if number else _ref(right, layer))
            options.pop("name", None)
        if layer.kind == "SlicingOpLambda" and "slice_spec" in options:
            into.append(read_index(options.pop("slice_spec"), layer.where))
        _check_options(options, layer)


# Keras 3 writes training=True for these whenever they are called.
_ALIKE_IN_TRAINING = frozenset({"Resizing"})


def _check_options(options: Any, layer: Layer) -> None:
    if not isinstance(options, dict):
        _call_error(layer)
    for key, value in options.items():
        inference = value is False or layer.kind in _ALIKE_IN_TRAINING
        if value is not None and not (key == "training" and inference):
            raise InputError(
                f"it is called with {key}={value!r:.60}; wanted operands only",
                where=layer.where,
                hint=_CUT,
            )


def _is_ref(item: Any) -> bool:
    return isinstance(item, list) and len(item) >= 3 and isinstance(item[0], str)


def _ref(item: Any, layer: Layer) -> Ref:
    if not _is_ref(item) or not all(type(number) is int for number in item[1:3]):
        _call_error(layer)
    return Ref(item[0], item[1], item[2])


def _unusual(item: Any, layer: Layer) -> NoReturn:
    kind = item.get("class_name") if isinstance(item, dict) else None
    raise InputError(
        f"it is called with {kind or repr(item):.60}; wanted tensors of the model and numbers",
        where=layer.where,
        hint=_CUT,
    )


def _call_error(layer: Layer) -> NoReturn:
    raise InputError(
        "its operands (inbound_nodes) cannot be read", where=layer.where, hint=_DAMAGED
    )


def _refs(item: Any, where: str) -> tuple[Ref, ...]:
    if _is_ref(item):
        if all(type(number) is int for number in item[1:3]):
            return (Ref(item[0], item[1], item[2]),)
    elif isinstance(item, dict | list) and item:
        parts = item.values() if isinstance(item, dict) else item
        return tuple(ref for part in parts for ref in _refs(part, where))
    raise InputError("its inputs or outputs cannot be read", where=where, hint=_DAMAGED)


def _numbered(model: Model) -> Model:
    """Returns the model with calls counted from 0.

    Keras counts the call with which a nested model was built as well, some versions for some
    classes only; as every call in a file is used, the largest number used tells which.
    """
    used: dict[str, int] = {}
    operands = (operand for layer in model.layers for call in layer.calls for operand in call)
    for ref in (*operands, *model.outputs):
        if isinstance(ref, Ref):
            used[ref.layer] = max(used.get(ref.layer, 0), ref.call)
    shift = {
        layer.name: max(0, used.get(layer.name, 0) - len(layer.calls) + 1)
        for layer in model.layers
        if layer.model is not None
    }

    def moved(operand: Operand) -> Operand:
        return shifted(operand) if isinstance(operand, Ref) else operand

    def shifted(ref: Ref) -> Ref:
        return replace(ref, call=ref.call - shift.get(ref.layer, 0))

    layers = tuple(
        replace(layer, calls=tuple(tuple(map(moved, call)) for call in layer.calls))
        for layer in model.layers
    )
    return replace(model, layers=layers, outputs=tuple(map(shifted, model.outputs)))


def _snake_case(name: str) -> str:
    # As Keras names the groups of an archive: Conv2D -> conv2d, ReLU -> re_lu.
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
