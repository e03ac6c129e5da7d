"""A whole detector in integers: the interpreter and the runtime's worker agree to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from lmopt.codegen.tflite import emit
from lmopt.ir.interp import run
from lmopt.pipeline.base import Need, Pass, PassContext
from lmopt.runtime.runner import Runner
from lmopt.zoo.catalog import load
from lmopt.zoo.initialize import initialize
from lmopt_passes.fold_batchnorm import FoldBatchnorm
from lmopt_passes.quantize_int8 import QuantizeInt8
from lmopt_passes.quantize_int16 import QuantizeInt16
from lmopt_passes.quantize_uint8 import QuantizeUint8
from tests.support.services import DrawnCalibrator


@pytest.mark.parametrize(
    "quantize",
    [
        QuantizeInt8(float_head=False),
        QuantizeUint8(float_head=False),
        QuantizeInt16(float_head=False),
    ],
    ids=lambda p: p.name,
)
def test_a_quantized_detector_equals_the_reference_kernels(quantize: Pass) -> None:
    graph = initialize(load("pfld-0.25").graph, 0)
    ctx = PassContext(services={Need.CALIBRATOR: DrawnCalibrator()})
    quantized = quantize.apply(FoldBatchnorm().apply(graph, ctx).graph, ctx).graph
    (image,) = quantized.inputs
    type = image.results[0]
    real = np.random.default_rng(7).uniform(0, 1, (2, *type.shape[1:])).astype(np.float32)
    pixels = real if type.quant is None else type.quant.quantize(real, type.dtype)
    with Runner(emit(quantized), kernels="reference") as runner:
        want = runner.run({image.name: pixels})
    got = run(quantized, {image.name: pixels})
    assert set(got) == set(want)
    for name in want:
        assert np.unique(want[name]).size > 20
        np.testing.assert_array_equal(got[name], want[name])
