"""Claims are judged by numbers, and none is left out."""

import json
from pathlib import Path

import pytest

from benchmarks.latency_bench import Bench, Claim, verdict
from benchmarks.latency_claims import _tenth, _within_15
from benchmarks.measured_claims import measured_claims
from benchmarks.thesis_claims import table


class Told(Bench):
    """Estimates as a test tells them, by network."""

    def __init__(self, **times: float) -> None:
        super().__init__()
        self.times = times

    def ms(self, net: str, target: str, form: str = "f32", threads: int | None = None) -> float:
        return self.times[net.replace("-", "_").replace(".", "_")]


@pytest.mark.parametrize(("pfld", "told"), [(10.0, "reproduced"), (20.0, "not reproduced")])
def test_a_tenth_is_a_tenth(pfld: float, told: str) -> None:
    assert _tenth(Told(pfld_1_0=pfld, dan1=100.0)).verdict == told


def test_the_slower_pfld_decides() -> None:
    assert _within_15(Told(pfld_0_25=3.0, pfld_1_0=14.9)).verdict == "reproduced"
    assert _within_15(Told(pfld_0_25=3.0, pfld_1_0=15.0)).verdict == "not reproduced"


def test_measured_claims_read_results_and_say_what_is_missing(tmp_path: Path) -> None:
    accuracy, pruning = measured_claims(tmp_path)
    assert accuracy.verdict == pruning.verdict == "not testable"
    for net in ("pfld-0.25", "pfld-1.0"):
        rows = [{"name": "int8", "change": [0.0, -0.01, 0.06]}]
        (tmp_path / f"quantization_{net}@300w.json").write_text(json.dumps(rows))
    points = [
        {"pipeline": text, "nme_percent": nme, "latency": {"ms": 1.0}}
        for text, nme in (
            ("fold-batchnorm,finetune{epochs=3}", 5.0),
            ("fold-batchnorm,prune{amount=0.4},finetune{epochs=3}", 5.2),
        )
    ]
    (tmp_path / "host_pfld-0.25@300w.json").write_text(json.dumps({"front": points}))
    accuracy, pruning = measured_claims(tmp_path)
    assert accuracy.verdict == "not reproduced" and "[-0.010, +0.060]" in accuracy.numbers
    assert pruning.verdict == "reproduced" and "pruned 5.20 %" in pruning.numbers


def test_the_table_counts_every_claim() -> None:
    claims = [
        Claim(1, "1-2", "a", verdict(True), "x", "guess"),
        Claim(2, "", "b", verdict(False), "y"),
        Claim(3, "", "c", "not testable", "z", "guess"),
    ]
    shown = table(claims)
    assert "1 reproduced, 1 not reproduced, 1 not testable, of 3; 1 of the verdicts" in shown
    assert "| 2 | - | b | not reproduced | y |  |" in shown
