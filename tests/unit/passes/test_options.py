"""Values that no option can have are refused while the pipeline is read, before any work."""

import pytest

from lmopt.errors import UsageError
from lmopt.pipeline.manager import Pipeline


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("qat{epochs=0}", "epochs is 0.0, wanted above 0"),
        ("qat{learning-rate=-1}", "learning-rate is -1.0, wanted above 0"),
        ("qat{batch=0}", "batch is 0, wanted at least 1"),
        ("qat{distill=2}", "distill is 2, wanted 0 to 1"),
        ("qat{faces=-3}", "faces is -3"),
        ("finetune{epochs=-1}", "epochs is -1.0, wanted above 0"),
        ("quantize-int8{faces=-3}", "faces is -3"),
        ("quantize-uint8{faces=-3}", "faces is -3"),
        ("quantize-int16{faces=-3}", "faces is -3"),
        ("quantize-mixed{faces=-3}", "faces is -3"),
        ("quantize-mixed{max-nme-drop=-1}", "max-nme-drop is -1, wanted at least 0"),
    ],
)
def test_an_impossible_option_is_refused_at_once(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Pipeline.parse(f"fold-batchnorm,{text}")
