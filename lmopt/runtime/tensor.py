"""A model's input and output tensors, and the way between real numbers and their stored form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import BackendError


@dataclass(frozen=True)
class TensorInfo:
    """A tensor at the border of a model file.

    Attributes:
        name: As the file's signature calls it; the tensor's own name where there is none.
        dtype: NumPy name of the element type ('float32', 'uint8').
        shape: As stored in the file, the batch included.
        scale: Step of the integer grid, or None for a tensor without one.
        zero_point: Stored value that means 0.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0

    @property
    def is_float(self) -> bool:
        """Returns whether the elements are floating point."""
        return self.dtype.startswith("float")


def to_model_input(real: NDArray[np.floating], info: TensorInfo) -> NDArray[np.generic]:
    """Returns real numbers in the tensor's stored form.

    Integers are rounded half away from zero and saturated, as TFLite's QUANTIZE does. With scale
    1/255 and zero point 0, pixel bytes over 255 come out as the very bytes.

    Raises:
        BackendError: The tensor is of an integer type and carries no grid.
    """
    if info.is_float:
        return np.asarray(real, info.dtype)
    scale = _require_scale(info)
    steps = np.asarray(real, np.float64) / scale
    rounded = np.trunc(steps + np.copysign(0.5, steps)) + info.zero_point
    bounds = np.iinfo(info.dtype)
    return np.asarray(np.clip(rounded, bounds.min, bounds.max), info.dtype)


def from_model_output(stored: NDArray[np.generic], info: TensorInfo) -> NDArray[np.float32]:
    """Returns the real numbers that a tensor's stored form means.

    Raises:
        BackendError: The tensor is of an integer type and carries no grid.
    """
    if info.is_float:
        return np.asarray(stored, np.float32)
    steps = (stored.astype(np.int64) - info.zero_point).astype(np.float32)
    return np.asarray(steps * np.float32(_require_scale(info)), np.float32)


def _require_scale(info: TensorInfo) -> float:
    if info.scale is None:
        raise BackendError(
            f"tensor '{info.name}' is {info.dtype} without scale and zero point, "
            "so its numbers have no meaning",
            hint="write the file with quantization parameters on its inputs and outputs",
        )
    return info.scale
