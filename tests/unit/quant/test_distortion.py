import math

import numpy as np
import pytest

from lmopt.ir.types import DType, Quant, TensorType
from lmopt.quant.distortion import Distortion, decibels


def test_clipping_and_noise_are_counted_over_all_items():
    # steps of 0.5 from -64 to 63.5
    found = Distortion(TensorType(DType.I8, (None, 2), Quant.per_tensor(0.5, 0)))
    found.add(np.array([[1.0, 63.7]]), np.array([[1.5, 63.5]]))
    found.add(np.array([[0.25, 70.0]]), np.array([[0.0, 63.5]]))
    assert (found.low, found.high) == (0.25, 70.0)
    assert found.clipped_percent == 25.0  # 63.7 is nearest to the last step, 70 is beyond it
    signal = 1 + 63.7**2 + 0.25**2 + 70**2
    assert found.snr_db == pytest.approx(
        10 * math.log10(signal / (0.5**2 + 0.2**2 + 0.25**2 + 6.5**2))
    )
    assert found.own_snr_db == pytest.approx(10 * math.log10(signal / (0.2**2 + 0.25**2 + 6.5**2)))


def test_no_noise_is_infinitely_good_and_noise_without_signal_infinitely_bad():
    assert decibels(1.0, 0.0) == math.inf
    assert decibels(0.0, 1.0) == -math.inf
