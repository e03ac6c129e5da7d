"""Types of values: element type, shape and quantization parameters; and weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import GraphError

Shape = tuple[int | None, ...]


class DType(StrEnum):
    """Element types; the value is the name in IR text."""

    F32 = "f32"
    F16 = "f16"
    U8 = "u8"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """Returns the NumPy element type."""
        return np.dtype(_NUMPY[self])

    @property
    def is_float(self) -> bool:
        """Returns whether elements are floating point."""
        return self in (DType.F32, DType.F16)

    @property
    def bounds(self) -> tuple[int, int]:
        """Returns the least and greatest integer the type holds (integers only)."""
        info = np.iinfo(self.numpy)  # type: ignore[type-var]
        return int(info.min), int(info.max)

    @property
    def kernel(self) -> DType:
        """Returns the type of the kernels that go with activations of this one."""
        return DType.I8 if self is DType.I16 else self


_NUMPY: dict[DType, type[np.generic]] = {
    DType.F32: np.float32,
    DType.F16: np.float16,
    DType.U8: np.uint8,
    DType.I8: np.int8,
    DType.I16: np.int16,
    DType.I32: np.int32,
    DType.I64: np.int64,
}


@dataclass(frozen=True)
class Quant:
    """Affine quantization: real = scale * (stored - zero_point).

    Attributes:
        scale: One positive step per slice of `axis`, or a single one. Rounded to float32.
        zero_point: As many stored values that mean 0.
        axis: The dimension the entries belong to; None for one scale per tensor.

    Source: TensorFlow Lite 8-bit quantization specification.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(float(np.float32(s)) for s in self.scale))
        object.__setattr__(self, "zero_point", tuple(int(z) for z in self.zero_point))
        if len(self.scale) != len(self.zero_point):
            raise GraphError(f"{len(self.scale)} scales but {len(self.zero_point)} zero points")
        if self.axis is None and len(self.scale) != 1:
            raise GraphError(f"{len(self.scale)} scales without an axis; wanted one")
        if not all(math.isfinite(s) and s > 0 for s in self.scale):
            raise GraphError("a quantization scale must be finite and above 0")

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int) -> Quant:
        """Returns quantization with one scale for the whole tensor."""
        return cls((scale,), (zero_point,))

    def _broadcast(self, values: Sequence[float], rank: int) -> NDArray[np.float64]:
        array = np.asarray(values, np.float64)
        if self.axis is None:
            return array.reshape(())
        shape = [1] * rank
        shape[self.axis] = len(values)
        return array.reshape(shape)

    def quantize(self, real: NDArray[np.floating], dtype: DType) -> NDArray[np.generic]:
        """Returns `real` on this grid: rounded half to even in float64, saturated to `dtype`."""
        low, high = dtype.bounds
        scale = self._broadcast(self.scale, real.ndim)
        zero = self._broadcast(self.zero_point, real.ndim)
        stored = np.rint(np.asarray(real, np.float64) / scale) + zero
        return np.clip(stored, low, high).astype(dtype.numpy)

    def dequantize(self, stored: NDArray[np.generic]) -> NDArray[np.float32]:
        """Returns the float32 values that `stored` means."""
        scale = self._broadcast(self.scale, stored.ndim).astype(np.float32)
        zero = self._broadcast(self.zero_point, stored.ndim).astype(np.int64)
        return np.asarray((stored.astype(np.int64) - zero).astype(np.float32) * scale, np.float32)


@dataclass(frozen=True)
class ValueRange:
    """The closed interval of real values that a tensor is to represent."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise GraphError(f"a range must be finite and ordered, got [{self.low}, {self.high}]")


@dataclass(frozen=True)
class TensorType:
    """Element type, shape (NHWC; None is the batch) and, when quantized, the grid."""

    dtype: DType
    shape: Shape
    quant: Quant | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.quant is not None and self.dtype.is_float:
            raise GraphError(f"{self.dtype} cannot carry quantization parameters")

    @property
    def rank(self) -> int:
        """Returns the number of dimensions, the batch included."""
        return len(self.shape)

    @property
    def elements(self) -> int:
        """Returns the number of elements for a batch of one."""
        return math.prod(1 if d is None else d for d in self.shape)

    @property
    def nbytes(self) -> int:
        """Returns the size in bytes for a batch of one."""
        return self.elements * self.dtype.numpy.itemsize

    def with_shape(self, shape: Shape) -> TensorType:
        """Returns this type with another shape."""
        return replace(self, shape=tuple(shape))

    def __str__(self) -> str:
        dims = ",".join("?" if d is None else str(d) for d in self.shape)
        grid = ""
        if self.quant is not None and self.quant.axis is None:
            grid = f"<{self.quant.scale[0]!r}:{self.quant.zero_point[0]}>"
        return f"{self.dtype}[{dims}]{grid}"


@dataclass(frozen=True, eq=False)
class Weight:
    """A typed constant array of a node, shared by reference and hashed at most once.

    Attributes:
        type: Element type, shape and (for integers) grid.
        array: The values, read-only, or None while the detector is untrained.
    """

    type: TensorType
    array: NDArray[np.generic] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.array is None:
            return
        if self.array.shape != self.type.shape or self.array.dtype != self.type.dtype.numpy:
            raise GraphError(
                f"a weight of type {self.type} was given {self.array.dtype}{list(self.array.shape)}"
            )
        if self.array.flags.writeable:
            view = self.array.view()
            view.flags.writeable = False
            object.__setattr__(self, "array", view)

    @classmethod
    def of(cls, array: NDArray[np.generic], quant: Quant | None = None) -> Weight:
        """Returns a weight holding `array`, its type read from the array."""
        contiguous = np.asarray(array, order="C")
        dtype = _BY_NUMPY.get(contiguous.dtype)
        if dtype is None:
            raise GraphError(f"no IR element type for NumPy's {contiguous.dtype}")
        return cls(TensorType(dtype, contiguous.shape, quant), contiguous)

    @cached_property
    def digest(self) -> str:
        """Returns 32 hex digits over type, grid and values; `unset` for missing values."""
        if self.array is None:
            return "unset"
        state = hashlib.blake2b(repr(self.type).encode(), digest_size=16)
        state.update(np.ascontiguousarray(self.array).data)
        return state.hexdigest()

    def real(self) -> NDArray[np.float32]:
        """Returns the values as float32, dequantized where they are on a grid.

        Raises:
            GraphError: The weight has no values.
        """
        if self.array is None:
            raise GraphError("the weight has no values yet")
        if self.type.quant is not None:
            return self.type.quant.dequantize(self.array)
        return np.asarray(self.array, np.float32)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Weight):
            return NotImplemented
        return self is other or (self.type == other.type and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash((self.type, self.digest))


_BY_NUMPY: dict[np.dtype[np.generic], DType] = {d.numpy: d for d in DType}
