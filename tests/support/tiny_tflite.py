"""Tiny .tflite files written op by op, for tests of what reads and runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}


class TinyModel:
    """Collects tensors and operators, then packs them."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.description = "test"
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._model.metadata = []
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = [], [], "main"
        self._graph = graph
        self._model.subgraphs = [graph]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: type[np.generic] = np.float32,
        *,
        grid: tuple[float, int] | None = None,
        values: NDArray[np.generic] | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), _TYPES[np.dtype(dtype)]
        tensor.buffer = 0
        if grid is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [grid[0]]
            tensor.quantization.zeroPoint = [grid[1]]
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.asarray(values, dtype).tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            tensor.buffer = len(self._model.buffers) - 1
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def op(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: object = None,
        options_type: int = schema.BuiltinOptions.NONE,
    ) -> None:
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode = code, min(code, 127)
        entry.version = 1
        self._model.operatorCodes.append(entry)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        operator.builtinOptions, operator.builtinOptionsType = options, options_type
        self._graph.operators.append(operator)

    def metadata(self, entries: Mapping[str, str]) -> None:
        for name, text in entries.items():
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(text.encode(), np.uint8)
            self._model.buffers.append(buffer)
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, len(self._model.buffers) - 1
            self._model.metadata.append(entry)

    def pack(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
        self._graph.inputs, self._graph.outputs = list(inputs.values()), list(outputs.values())
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = _maps(inputs), _maps(outputs)
        self._model.signatureDefs = [signature]
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self._model))


def _maps(tensors: Mapping[str, int]) -> list[schema.TensorMapT]:
    maps = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        maps.append(entry)
    return maps


def dense_model(
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
    *,
    input_shape: Sequence[int] | None = None,
    metadata: Mapping[str, str] | None = None,
    weights_shape: Sequence[int] | None = None,
) -> bytes:
    """image -> landmarks = weights @ flattened image + bias; weights are [units, inputs].

    `weights_shape` claims another shape than the buffer holds.
    """
    units, inputs = weights.shape
    model = TinyModel()
    image = model.tensor("in0", input_shape or [1, inputs])
    kernel = model.tensor("kernel", weights_shape or weights.shape, values=weights)
    offset = model.tensor("bias", bias.shape, values=bias)
    out = model.tensor("out0", [1, units])
    options = schema.FullyConnectedOptionsT()
    model.op(
        schema.BuiltinOperator.FULLY_CONNECTED,
        [image, kernel, offset],
        [out],
        options,
        schema.BuiltinOptions.FullyConnectedOptions,
    )
    model.metadata(metadata or {})
    return model.pack({"image": image}, {"landmarks": out})


def quantize_model(shape: Sequence[int], scale: float, zero_point: int) -> bytes:
    """A uint8 input on (1/255, 0), requantized to a uint8 output on the given grid."""
    model = TinyModel()
    image = model.tensor("in0", shape, np.uint8, grid=(1 / 255, 0))
    out = model.tensor("out0", shape, np.uint8, grid=(scale, zero_point))
    options = schema.QuantizeOptionsT()
    model.op(
        schema.BuiltinOperator.QUANTIZE,
        [image],
        [out],
        options,
        schema.BuiltinOptions.QuantizeOptions,
    )
    return model.pack({"image": image}, {"landmarks": out})


def slow_model(side: int = 256, channels: int = 64) -> bytes:
    """One 3x3 convolution of billions of multiplications: seconds with the reference kernels."""
    model = TinyModel()
    shape = [1, side, side, channels]
    image = model.tensor("in0", shape)
    kernel = model.tensor(
        "kernel",
        [channels, 3, 3, channels],
        values=np.zeros((channels, 3, 3, channels), np.float32),
    )
    bias = model.tensor("bias", [channels], values=np.zeros(channels, np.float32))
    out = model.tensor("out0", shape)
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = 1
    model.op(
        schema.BuiltinOperator.CONV_2D,
        [image, kernel, bias],
        [out],
        options,
        schema.BuiltinOptions.Conv2DOptions,
    )
    return model.pack({"image": image}, {"features": out})


def crashing_model() -> bytes:
    """A SPLIT into no parts: XNNPACK's delegate dies on it with a segmentation fault."""
    model = TinyModel()
    axis = model.tensor("axis", [1], np.int32, values=np.array([0]))
    image = model.tensor("in0", [1, 4])
    out = model.tensor("out0", [1, 4])
    options = schema.SplitOptionsT()
    options.numSplits = 0
    model.op(
        schema.BuiltinOperator.SPLIT,
        [axis, image],
        [out],
        options,
        schema.BuiltinOptions.SplitOptions,
    )
    return model.pack({"image": image}, {"landmarks": out})
