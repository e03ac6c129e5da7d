import numpy as np
import pytest

from lmopt.errors import BackendError
from lmopt.runtime.runner import TensorInfo, from_model_output, to_model_input

PIXELS = TensorInfo("image", "uint8", (1, 256), float(np.float32(1 / 255)), 0)
SIGNED = TensorInfo("image", "int8", (1, 5), 0.5, 3)


def test_bytes_over_255_come_out_as_the_very_bytes() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    stored = to_model_input(pixels.astype(np.float32) / np.float32(255), PIXELS)
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, pixels)


def test_rounding_is_half_away_from_zero_and_saturates() -> None:
    real = np.array([0.25, -0.25, 0.24, 100.0, -100.0])
    assert to_model_input(real, SIGNED).tolist() == [4, 2, 3, 127, -128]


def test_outputs_are_dequantized() -> None:
    real = from_model_output(np.array([3, 4, -128], np.int8), SIGNED)
    assert real.dtype == np.float32
    assert real.tolist() == [0.0, 0.5, -65.5]


def test_floats_pass_unchanged() -> None:
    info = TensorInfo("x", "float32", (1, 2))
    assert to_model_input(np.array([0.1, 2.0]), info).dtype == np.float32
    np.testing.assert_array_equal(from_model_output(np.array([1.5], np.float32), info), [1.5])


def test_integers_without_a_grid_are_refused() -> None:
    with pytest.raises(BackendError, match="int8 without scale"):
        to_model_input(np.zeros(1), TensorInfo("x", "int8", (1,)))
