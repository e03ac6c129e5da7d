"""What TensorFlow's converter says of a SavedModel that it does not take, in one line."""

from __future__ import annotations

import pytest

from lmopt.errors import BackendError
from lmopt.frontend.savedmodel import convert, failure
from tests.support.refused_models import NO_SIGNATURE, UNKNOWN_OPERATORS, write_all

NOISE = "WARNING: All log messages before absl\nI0000 00:00:1 1 cudart_stub.cc:31] no drivers\n"
TRACE = 'Traceback (most recent call last):\n  File "lite.py", line 1, in convert\n    raise it\n'
AT = 'loc(callsite(fused["{0}:", "{1}@__inference_3"] at fused["PartitionedCall:", "P"])): '
REFUSED = AT + "error: 'tf.{0}' op is neither a custom op nor a flex op\n"
UNKNOWN = (
    NOISE
    + REFUSED.format("Erf", "net/gelu/Erf")
    + REFUSED.format("Erf", "net/gelu_1/Erf")
    + "".join(REFUSED.format("Erf", f"net/gelu_{k}/Erf") for k in range(2, 6))
    + REFUSED.format("FFT2D", "net/FFT2D")
    + "error: failed while converting: 'main': \nSome ops are not supported by the native TFLite "
    "runtime, you can enable TF kernels fallback using TF Select.\nTF Select ops: Erf, FFT2D\n"
    "Custom ops: Mine\nDetails:\n\ttf.Erf(tensor<1x8xf32>) -> (tensor<1x8xf32>)\n"
    + TRACE
    + "lite.ConverterError: Could not translate MLIR to FlatBuffer.<unknown>:0: error: "
    + REFUSED.format("Erf", "net/gelu/Erf")
    + '"func.func"() <{function_type = (tensor<1x8xf32>) -> tensor<1x8xf32>}> ({\n})\n'
)


@pytest.mark.parametrize(
    ("said", "what", "hint"),
    [
        (
            UNKNOWN,
            "TensorFlow's converter has no built-in operator for Erf (at 'net/gelu/Erf', "
            "'net/gelu_1/Erf', 'net/gelu_2/Erf' and 3 more), FFT2D (at 'net/FFT2D'), Mine",
            "save the model again",
        ),
        (
            f"{NOISE}{TRACE}ValueError: Only support at least one signature key.\n",
            "the SavedModel has no signature",
            "model.export(folder)",
        ),
        (
            f"{NOISE}{TRACE}OSError: Cannot parse file b'saved_model.pb'.\nmore\n",
            "TensorFlow's converter failed: Cannot parse file b'saved_model.pb'.",
            "from_saved_model",
        ),
        (NOISE, "TensorFlow's converter ended with exit code -9", "from_saved_model"),
    ],
)
def test_a_failure_is_one_line_with_a_next_step(said, what, hint):
    error = failure("m", said, -9)
    assert error.what == what and error.where == "m"
    assert hint in error.hint


@pytest.mark.slow
def test_the_converter_still_says_it_so(tmp_path):
    write_all(tmp_path)
    with pytest.raises(BackendError) as caught:
        convert(tmp_path / UNKNOWN_OPERATORS)
    assert caught.value.what.endswith("no built-in operator for Erf (at 'inner/Erf')")
    with pytest.raises(BackendError) as caught:
        convert(tmp_path / NO_SIGNATURE)
    assert caught.value.what == "the SavedModel has no signature"
