"""A TFLite file taken apart into checked records; nothing in it is executed or believed."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from lmopt.errors import GraphError, InputError
from lmopt.ir.types import DType, Quant, TensorType

IDENTIFIER = b"TFL3"
# What unpacking a corrupt flatbuffer raises: offsets beyond the file, lengths that do not fit.
_CORRUPT = (
    struct.error,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
)
_DTYPES: Mapping[int, DType] = {
    schema.TensorType.FLOAT32: DType.F32,
    schema.TensorType.FLOAT16: DType.F16,
    schema.TensorType.UINT8: DType.U8,
    schema.TensorType.INT8: DType.I8,
    schema.TensorType.INT16: DType.I16,
    schema.TensorType.INT32: DType.I32,
    schema.TensorType.INT64: DType.I64,
}


def _names(enum: type) -> dict[int, str]:
    return {v: k for k, v in vars(enum).items() if not k.startswith("_")}


_OPERATORS = _names(schema.BuiltinOperator)
_TENSOR_TYPES = _names(schema.TensorType)
_OPTIONS = _names(schema.BuiltinOptions)
_ENUM_FIELDS: Mapping[str, Mapping[int, str]] = {
    "padding": {schema.Padding.SAME: "same", schema.Padding.VALID: "valid"},
    "fusedActivationFunction": {
        schema.ActivationFunctionType.NONE: "none",
        schema.ActivationFunctionType.RELU: "relu",
        schema.ActivationFunctionType.RELU6: "relu6",
    },
}


@dataclass(frozen=True)
class Operator:
    """One operator of the file.

    Attributes:
        position: Its place in the file, from 0.
        name: As in the schema's BuiltinOperator, or `custom 'name'`.
        inputs: Tensor indices; -1 stands for an operand left out.
        outputs: Tensor indices.
        options: Kind and fields of its options; padding and activation as the IR names them.
        where: File, position and tensors, for messages.
    """

    position: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[str, Mapping[str, Any]]
    where: str


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file; the type has None where the file leaves a dimension open."""

    name: str
    type: TensorType
    data: NDArray[np.generic] | None


class TfliteFile:
    """The records of a TFLite file, checked as they are asked for."""

    def __init__(self, data: bytes, where: str) -> None:
        """Unpacks the file.

        Raises:
            InputError: It is not a TFLite file, is cut short or corrupt, or holds several graphs.
        """
        self._data = data
        self._where = where
        self._model = _unpack(data, where)
        graphs = _list(self._model.subgraphs)
        if len(graphs) != 1 or graphs[0] is None:
            raise self._error(f"the model has {len(graphs)} graphs; wanted one")
        self._graph = graphs[0]
        self._tensors: dict[int, Tensor] = {}

    @property
    def name(self) -> str:
        """Returns the name of the graph."""
        return _text(self._graph.name) or "model"

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """Returns the operators in order of execution."""
        return tuple(self._operator(k) for k in range(len(_list(self._graph.operators))))

    @cached_property
    def inputs(self) -> tuple[tuple[str, int], ...]:
        """Returns name and tensor index of each input."""
        return self._interface("inputs")

    @cached_property
    def outputs(self) -> tuple[tuple[str, int], ...]:
        """Returns name and tensor index of each output."""
        return self._interface("outputs")

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Returns the metadata entries that are text."""
        texts: dict[str, str] = {}
        for entry in _list(self._model.metadata):
            if entry is None:
                continue
            content = self._buffer(entry.buffer)
            try:
                texts[_text(entry.name)] = "" if content is None else content.tobytes().decode()
            except UnicodeDecodeError:
                continue  # other tools keep flatbuffers of their own under these names
        return texts

    def tensor_name(self, index: int) -> str:
        """Returns a tensor's name."""
        return _text(self._raw_tensor(index).name) or f"tensor_{index}"

    def tensor(self, index: int) -> Tensor:
        """Returns a tensor with its values, when it is a constant."""
        if index not in self._tensors:
            self._tensors[index] = self._read_tensor(index)
        return self._tensors[index]

    def _error(self, what: str, hint: str | None = None) -> InputError:
        return InputError(what, where=self._where, hint=hint or _HINT)

    def _raw_tensor(self, index: int) -> Any:
        tensors = _list(self._graph.tensors)
        if not 0 <= index < len(tensors) or tensors[index] is None:
            raise self._error(f"corrupt model: tensor {index} of {len(tensors)} does not exist")
        return tensors[index]

    def _operator(self, position: int) -> Operator:
        raw = self._graph.operators[position]
        codes = _list(self._model.operatorCodes)
        if raw is None or not 0 <= raw.opcodeIndex < len(codes) or codes[raw.opcodeIndex] is None:
            raise self._error(f"corrupt model: operator {position} is of no known kind")
        code = codes[raw.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        name = _OPERATORS.get(number, f"builtin {number}")
        if name == "CUSTOM":
            name = f"custom '{_text(code.customCode)}'"
        inputs, outputs = (tuple(int(k) for k in _list(ks)) for ks in (raw.inputs, raw.outputs))
        tensors = ", ".join(self.tensor_name(k) for k in outputs)
        where = f"{self._where}: operator {position} {name} -> {tensors}"
        kind = _OPTIONS.get(raw.builtinOptionsType, "unknown")
        fields = {} if raw.builtinOptions is None else dict(vars(raw.builtinOptions))
        for key, names in _ENUM_FIELDS.items():
            if key in fields:
                if fields[key] not in names:
                    wanted = " or ".join(names.values())
                    raise InputError(f"{key} {fields[key]} is none of {wanted}", where=where)
                fields[key] = names[fields[key]]
        return Operator(position, name, inputs, outputs, (kind, fields), where)

    def _interface(self, side: str) -> tuple[tuple[str, int], ...]:
        indices = [int(k) for k in _list(getattr(self._graph, side))]
        names = {k: self.tensor_name(k) for k in indices}
        signatures = [s for s in _list(self._model.signatureDefs) if s and s.subgraphIndex == 0]
        entries = [e for e in _list(getattr(signatures[0], side)) if e] if signatures else []
        pairs = [(_text(e.name), int(e.tensorIndex)) for e in entries]
        if {index for _, index in pairs} != set(indices) or not all(name for name, _ in pairs):
            return tuple((names[k], k) for k in indices)
        # The subgraph's order is the one the runtime shows; a tensor may have two names.
        return tuple(sorted(pairs, key=lambda pair: indices.index(pair[1])))

    def _read_tensor(self, index: int) -> Tensor:
        raw, name = self._raw_tensor(index), self.tensor_name(index)
        dtype = _DTYPES.get(raw.type)
        if dtype is None:
            raise self._error(
                f"tensor '{name}' holds {_TENSOR_TYPES.get(raw.type, raw.type)}; "
                f"wanted {', '.join(_TENSOR_TYPES[k] for k in _DTYPES)}"
            )
        if raw.sparsity is not None or raw.externalBuffer or raw.isVariable:
            raise self._error(f"tensor '{name}' is sparse, variable or kept outside the file")
        dims = [int(d) for d in _list(raw.shape)]
        open_dims = [int(d) for d in _list(raw.shapeSignature)] or dims
        if any(d < 1 for d in dims) or len(open_dims) != len(dims):
            raise self._error(f"tensor '{name}' has the shape {dims} ({open_dims})")
        shape = tuple(None if o == -1 else d for d, o in zip(dims, open_dims, strict=True))
        try:
            type = TensorType(dtype, shape, _quant(raw.quantization, dtype, len(dims)))
        except GraphError as error:
            raise self._error(f"tensor '{name}': {error.what}") from error
        return Tensor(name, type, self._values(name, raw.buffer, dtype, dims))

    def _values(
        self, name: str, buffer: int, dtype: DType, dims: Sequence[int]
    ) -> NDArray[np.generic] | None:
        content = self._buffer(buffer)
        if content is None or not len(content):
            return None
        little = dtype.numpy.newbyteorder("<")
        want = int(np.prod(dims, dtype=object)) * little.itemsize
        if len(content) != want:
            raise self._error(
                f"corrupt model: tensor '{name}' has {len(content)} bytes of values, wanted {want}"
            )
        return np.frombuffer(content.data, little).reshape(dims).astype(dtype.numpy)

    def _buffer(self, index: int) -> NDArray[np.uint8] | None:
        buffers = _list(self._model.buffers)
        if not 0 <= index < len(buffers) or buffers[index] is None:
            raise self._error(f"corrupt model: buffer {index} of {len(buffers)} does not exist")
        buffer = buffers[index]
        if buffer.offset > 1:  # files above 2 GB keep values behind the flatbuffer
            content = self._data[buffer.offset : buffer.offset + buffer.size]
            if len(content) != buffer.size:
                raise self._error(f"corrupt model: buffer {index} reaches beyond the file")
            return np.frombuffer(content, np.uint8)
        return None if buffer.data is None else np.asarray(buffer.data, np.uint8)


_HINT = "check the file by exporting or copying it again"


def _unpack(data: bytes, where: str) -> Any:
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        got = f"starts with {data[:8].hex(' ')}" if data else "is empty"
        raise InputError(
            f"not a TFLite file: it {got}, wanted 'TFL3' in bytes 5 to 8",
            where=where,
            hint="give a .tflite file; Keras models end in .keras or .h5",
        )
    try:
        return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    except _CORRUPT as error:
        raise InputError(
            f"corrupt TFLite file of {len(data)} bytes: {error or type(error).__name__}",
            where=where,
            hint=_HINT,
        ) from error


def _quant(raw: Any, dtype: DType, rank: int) -> Quant | None:
    scales = [] if raw is None else [float(s) for s in _list(raw.scale)]
    if not scales or dtype.is_float:
        return None
    if raw.detailsType:
        raise GraphError("its quantization is not the affine one")
    zeros = [int(z) for z in _list(raw.zeroPoint)] or [0] * len(scales)
    axis = None if len(scales) == 1 else int(raw.quantizedDimension)
    if axis is not None and not 0 <= axis < rank:
        raise GraphError(f"its scales lie on dimension {axis} of {rank}")
    return Quant(tuple(scales), tuple(zeros), axis)


def _list(values: Any) -> Any:
    return [] if values is None else values


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw or ""
