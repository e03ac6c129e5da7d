"""A TFLite model under construction: tensors, buffers, operators, and their packing into bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.types import DType, Quant, TensorType, Weight

Array = NDArray[np.generic]
Layout = Callable[[Array, Quant | None], tuple[Array, Quant | None]]

TENSOR_TYPES: Mapping[DType, int] = {
    DType.F32: schema.TensorType.FLOAT32,
    DType.F16: schema.TensorType.FLOAT16,
    DType.U8: schema.TensorType.UINT8,
    DType.I8: schema.TensorType.INT8,
    DType.I16: schema.TensorType.INT16,
    DType.I32: schema.TensorType.INT32,
    DType.I64: schema.TensorType.INT64,
}
SCHEMA_VERSION = 3
SIGNATURE = "serving_default"
_LARGEST = 2**31 - 2**20  # offsets are 31 bits; the rest of the file fits into a megabyte
_ALIGNMENT = 16  # the schema's force_align on buffers; kernels map weights in place


class _Buffer:
    """Stands for the schema's BufferT, whose own packing ignores the alignment."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = data

    def Pack(self, builder: Any) -> int:
        vector = None
        if self.data:
            builder.StartVector(1, len(self.data), _ALIGNMENT)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


class Writer:
    """One TFLite subgraph being written; emitters add its operators in order.

    Tensors of values are named after graph inputs, graph outputs and nodes; equal constants share
    a buffer.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers = [_Buffer(b"")]
        self._shared: dict[bytes, int] = {}
        self._values: dict[Value, int] = {}
        self._names = {node.name for node in graph.inputs} | {name for name, _ in graph.outputs}
        self._reserved = {value: name for name, value in reversed(graph.outputs)}
        self._reserved |= {node.value: node.name for node in graph.inputs}

    def tensor(self, value: Value) -> int:
        """Returns the tensor index of a value, adding an activation tensor on first sight."""
        if value not in self._values:
            name = self._reserved.get(value) or self._fresh(value.node)
            self._values[value] = self._add(name, self.graph.type(value), buffer=0)
        return self._values[value]

    @property
    def value_names(self) -> dict[Value, str]:
        """Returns the tensor names of the values seen so far."""
        return {value: str(self._tensors[at].name) for value, at in self._values.items()}

    def temporary(self, name: str, type: TensorType) -> int:
        """Returns a new activation tensor that stands for no value of the graph."""
        return self._add(self._fresh(name), type, buffer=0)

    def constant(self, name: str, array: Array, quant: Quant | None = None) -> int:
        """Returns a new constant tensor; float16 comes back through a DEQUANTIZE as float32."""
        return self._store(self._fresh(name), array, quant)

    def constant_value(self, node: Node) -> None:
        """Makes the tensor of a constant node."""
        weight = node.weight("value")
        assert weight.array is not None
        name = self._reserved.get(node.value) or self._fresh(node.name)
        self._values[node.value] = self._store(
            name, weight.array, weight.type.quant, widen=node.results[0].dtype is DType.F32
        )

    def parameter(self, node: Node, key: str, layout: Layout | None = None) -> int:
        """Returns the constant tensor of a node's weight in the runtime's layout."""
        weight = node.weight(key)
        assert weight.array is not None
        array, quant = weight.array, weight.type.quant
        if layout is not None:
            array, quant = layout(array, quant)
        return self.constant(f"{node.name}/{key}", array, quant)

    def bias(self, node: Node, channels: int) -> int:
        """Returns the bias tensor, zeros where the node has none: delegates want one."""
        if "bias" in node.weights:
            return self.parameter(node, "bias")
        operand = self.graph.type(node.inputs[0])
        grid = node.weight("kernel").type.quant
        if operand.quant is None or grid is None:
            return self.constant(f"{node.name}/bias", np.zeros(channels, np.float32))
        step = np.float32(operand.quant.scale[0])
        scales = tuple(float(step * np.float32(scale)) for scale in grid.scale)
        quant = Quant(scales, (0,) * len(scales), None if grid.axis is None else 0)
        dtype = np.int64 if operand.dtype is DType.I16 else np.int32
        return self.constant(f"{node.name}/bias", np.zeros(channels, dtype), quant)

    def version(self, node: Node, *, int8: int = 1, uint8: int = 1, int16: int = 1) -> int:
        """Returns which version an operator is for the storage of a node's result; 1 in floats."""
        versions = {DType.I8: int8, DType.U8: uint8, DType.I16: int16}
        return versions.get(self.graph.type(node.value).dtype, 1)

    def operator(
        self,
        name: str,
        version: int,
        inputs: Sequence[int],
        output: int,
        options: str | None = None,
        **fields: object,
    ) -> None:
        """Adds an operator.

        Args:
            name: As in the schema's BuiltinOperator.
            version: As in TensorFlow's op_version.cc for these operand types.
            inputs: Tensor indices.
            output: Tensor index.
            options: As in the schema's BuiltinOptions, or None for an op without any.
            **fields: The fields of these options.
        """
        code = getattr(schema.BuiltinOperator, name)
        index = self._codes.setdefault((code, version), len(self._codes))
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=index,
                inputs=list(inputs),
                outputs=[output],
                builtinOptionsType=getattr(schema.BuiltinOptions, options) if options else 0,
                builtinOptions=getattr(schema, f"{options}T")(**fields) if options else None,
            )
        )

    def finish(self, metadata: Mapping[str, str]) -> bytes:
        """Returns the packed file."""
        inputs = [(node.name, self.tensor(node.value)) for node in self.graph.inputs]
        outputs = [(name, self.tensor(value)) for name, value in self.graph.outputs]
        # An own buffer each: readers of metadata look for entries by buffer.
        texts = [_Buffer(text.encode()) for text in metadata.values()]
        entries = [
            schema.MetadataT(name=name, buffer=len(self._buffers) + position)
            for position, name in enumerate(metadata)
        ]
        model = schema.ModelT(
            version=SCHEMA_VERSION,
            description="lmopt",
            operatorCodes=[
                schema.OperatorCodeT(
                    deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version
                )
                for code, version in self._codes
            ],
            subgraphs=[
                schema.SubGraphT(
                    name=self.graph.name,
                    tensors=self._tensors,
                    operators=self._operators,
                    inputs=[index for _, index in inputs],
                    outputs=[index for _, index in outputs],
                )
            ],
            buffers=[*self._buffers, *texts],
            metadata=entries,
            signatureDefs=[
                schema.SignatureDefT(
                    signatureKey=SIGNATURE,
                    inputs=[schema.TensorMapT(name=n, tensorIndex=k) for n, k in inputs],
                    outputs=[schema.TensorMapT(name=n, tensorIndex=k) for n, k in outputs],
                )
            ],
        )
        # Room for everything at once: growing would copy hundreds of megabytes again and again.
        weights = sum(len(buffer.data) + _ALIGNMENT for buffer in model.buffers)
        if weights > _LARGEST:
            raise GraphError(
                f"the weights take {weights} bytes; a TFLite file holds {_LARGEST} at most",
                where=self.graph.name,
                hint="shrink the widest dense layer, or use float16 or int8 weights",
            )
        builder = flatbuffers.Builder(weights + 1024 * (len(self._tensors) + 16))
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(memoryview(builder.Bytes)[builder.Head() :])

    def _store(self, name: str, array: Array, quant: Quant | None, *, widen: bool = True) -> int:
        weight = Weight.of(array, quant)
        if weight.type.dtype is not DType.F16 or not widen:
            return self._constant(name, weight)
        # The runtime computes in float32; delegates recognise the pair and keep the halves.
        half = self._constant(self._fresh(f"{name}/f16"), weight)
        full = self._add(name, TensorType(DType.F32, weight.type.shape), buffer=0)
        self.operator("DEQUANTIZE", 3, [half], full, "DequantizeOptions")
        return full

    def _constant(self, name: str, weight: Weight) -> int:
        assert weight.array is not None
        little = np.ascontiguousarray(weight.array, weight.array.dtype.newbyteorder("<"))
        data = little.reshape(-1).view(np.uint8).data
        key = hashlib.blake2b(data, digest_size=16).digest()
        if key not in self._shared:
            self._shared[key] = len(self._buffers)
            self._buffers.append(_Buffer(data))
        return self._add(name, weight.type, self._shared[key])

    def _add(self, name: str, type: TensorType, buffer: int) -> int:
        quant = type.quant
        self._tensors.append(
            schema.TensorT(
                name=name,
                type=TENSOR_TYPES[type.dtype],
                shape=[1 if d is None else d for d in type.shape],
                shapeSignature=[-1 if d is None else d for d in type.shape]
                if None in type.shape
                else None,
                hasRank=True,
                buffer=buffer,
                quantization=None
                if quant is None
                else schema.QuantizationParametersT(
                    scale=list(quant.scale),
                    zeroPoint=list(quant.zero_point),
                    quantizedDimension=quant.axis or 0,
                ),
            )
        )
        return len(self._tensors) - 1

    def _fresh(self, stem: str) -> str:
        name = stem
        suffix = 2
        while name in self._names:
            name, suffix = f"{stem}_{suffix}", suffix + 1
        self._names.add(name)
        return name
