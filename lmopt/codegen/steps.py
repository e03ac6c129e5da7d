"""A node written as several operators, whose shapes and element types follow from their inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lmopt.codegen.writer import TENSOR_TYPES, Array, Writer
from lmopt.ir.graph import Node
from lmopt.ir.types import DType, Shape, TensorType

_BINARY_OPTIONS = {
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
}


class Steps:
    """The operators of one node, in order; tensors are numbers, shapes are without the batch.

    Every method adds one operator and returns its tensor; `last` makes that the node's result.
    """

    def __init__(self, writer: Writer, node: Node) -> None:
        self._writer = writer
        self._node = node
        self._batch = writer.graph.type(node.value).shape[0]
        self._dims: dict[int, tuple[int, ...]] = {}
        self._dtypes: dict[int, DType] = {}
        # What no item of the batch changes has a batch of 1.
        self._fixed: set[int] = set()

    def operand(self, position: int) -> int:
        """Returns the tensor of an operand; a constant without a batch is reshaped to have one."""
        value = self._node.inputs[position]
        type = self._writer.graph.type(value)
        x = self._writer.tensor(value)
        dims = tuple(d for d in type.shape if d is not None)
        whole = len(type.shape) == 1
        self._note(x, dims if whole or type.shape[0] is None else dims[1:], type.dtype)
        if whole:
            self._fixed.add(x)
            return self.reshape(x, dims)
        return x

    def dims(self, x: int) -> tuple[int, ...]:
        """Returns the shape of a tensor without the batch."""
        return self._dims[x]

    def constant(self, values: ArrayLike, dtype: DType = DType.F32) -> int:
        """Returns a constant tensor, which no operator makes."""
        array: Array = np.asarray(values, dtype.numpy)
        x = self._writer.constant(f"{self._node.name}/constant", array)
        self._note(x, array.shape, dtype)
        self._fixed.add(x)
        return x

    def unary(
        self, name: str, x: int, options: str | None = None, dtype: DType | None = None
    ) -> int:
        """Adds an operator that works on every element by itself."""
        return self._add(name, [x], self._dims[x], options, dtype or self._dtypes[x])

    def pair(self, name: str, left: int, right: int | float | Array, *, last: bool = False) -> int:
        """Adds an operator on two broadcast operands; numbers and arrays become constants."""
        if not isinstance(right, int):
            right = self.constant(right, self._dtypes[left])
        dims = np.broadcast_shapes(self._dims[left], self._dims[right])
        options = _BINARY_OPTIONS.get(name, f"{name.title()}Options")
        fixed = left in self._fixed and right in self._fixed
        return self._add(
            name, [left, right], dims, options, self._dtypes[left], last=last, fixed=fixed
        )

    def reshape(self, x: int, dims: Sequence[int], *, last: bool = False) -> int:
        """Adds RESHAPE of every batch item."""
        batch = 1 if x in self._fixed else -1 if self._batch is None else self._batch
        shape = [batch, *dims]
        target = self.constant(shape, DType.I32)
        return self._add(
            "RESHAPE", [x, target], dims, "ReshapeOptions", self._dtypes[x], last=last,
            fixed=x in self._fixed, newShape=shape,
        )  # fmt: skip

    def linear(self, x: int, matrix: Array) -> int:
        """Adds the product of a matrix and each vector along the last dimension."""
        rows, lead = matrix.shape[0], self._dims[x][:-1]
        inputs = [x, self.constant(matrix), self.constant(np.zeros(rows))]
        return self._add(
            "FULLY_CONNECTED", inputs, (*lead, rows), "FullyConnectedOptions",
            version=5 if lead else 1, keepNumDims=bool(lead),
        )  # fmt: skip

    def product(self, left: int, right: int, *, adjX: bool = False, adjY: bool = False) -> int:
        """Adds the products of two matrices per batch item, `adjX` or `adjY` one transposed."""
        rows, columns = self._dims[left][int(adjX)], self._dims[right][1 - int(adjY)]
        inputs, options = [left, right], "BatchMatMulOptions"
        return self._add("BATCH_MATMUL", inputs, (rows, columns), options, adjX=adjX, adjY=adjY)

    def slice(self, x: int, begin: Sequence[int], dims: Sequence[int]) -> int:
        """Adds the part of `x` that starts at `begin`."""
        ends = [self.constant(v, DType.I32) for v in ([0, *begin], [-1, *dims])]
        return self._add("SLICE", [x, *ends], dims, "SliceOptions")

    def reduce(self, name: str, x: int, *axes: int) -> int:
        """Adds MEAN, SUM or REDUCE_MIN; axes count the batch, and their lengths become 1."""
        dims = [1 if k in axes else d for k, d in enumerate(self._dims[x], 1)]
        inputs = [x, self.constant(axes, DType.I32)]
        return self._add(
            name, inputs, dims, "ReducerOptions", fixed=x in self._fixed, keepDims=True
        )

    def join(self, parts: Sequence[int], *, last: bool = False) -> int:
        """Adds CONCATENATION along the last dimension."""
        dims = self._dims[parts[0]]
        total = sum(self._dims[part][-1] for part in parts)
        return self._add(
            "CONCATENATION", parts, (*dims[:-1], total), "ConcatenationOptions",
            last=last, axis=len(dims),
        )  # fmt: skip

    def gather(self, x: int, places: int) -> int:
        """Adds the elements of each batch item at its own places along dimension 1."""
        dims = (*self._dims[places], *self._dims[x][1:])
        return self._add(
            "GATHER", [x, places], dims, "GatherOptions", version=5, axis=1, batchDims=1
        )

    def highest(self, x: int) -> int:
        """Adds the place of the largest element along the last dimension."""
        inputs = [x, self.constant(len(self._dims[x]), DType.I32)]
        kind = TENSOR_TYPES[DType.I32]
        return self._add(
            "ARG_MAX", inputs, self._dims[x][:-1], "ArgMaxOptions", DType.I32, outputType=kind
        )

    def transposed(self, x: int) -> int:
        """Adds a matrix transposed."""
        order = self.constant([0, 2, 1], DType.I32)
        return self._add("TRANSPOSE", [x, order], self._dims[x][::-1], "TransposeOptions")

    def softmax(self, x: int, beta: float) -> int:
        """Adds the softmax of `beta` times each vector along the last dimension."""
        return self._add("SOFTMAX", [x], self._dims[x], "SoftmaxOptions", beta=beta)

    def _add(
        self,
        name: str,
        inputs: Sequence[int],
        dims: Sequence[int],
        options: str | None,
        dtype: DType = DType.F32,
        *,
        version: int = 1,
        last: bool = False,
        fixed: bool = False,
        **fields: object,
    ) -> int:
        shape: Shape = (1 if fixed else self._batch, *dims)
        output = (
            self._writer.tensor(self._node.value)
            if last
            else self._writer.temporary(f"{self._node.name}/step", TensorType(dtype, shape))
        )
        self._writer.operator(name, version, inputs, output, options, **fields)
        self._note(output, tuple(dims), dtype)
        if fixed:
            self._fixed.add(output)
        return output

    def _note(self, x: int, dims: tuple[int, ...], dtype: DType) -> None:
        self._dims[x], self._dtypes[x] = dims, dtype
