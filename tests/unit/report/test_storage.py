"""The storage comparison says which form, why, and what the others cost."""

from __future__ import annotations

from dataclasses import replace

from lmopt.exploration.candidate import LatencyKind
from lmopt.exploration.storage import StorageComparison, StorageRow
from lmopt.report import storage
from lmopt.report.page import page
from lmopt.target.profile import FormRule
from tests.unit.report.results import candidate, result

GOOD = FormRule(True, "what the engine computes", "sourced", "the manual")
BAD = FormRule(False, "the engine has no 8-bit <type>", "inferred", "its header")


def compared(kind: LatencyKind = "estimated") -> StorageComparison:
    """uint8 takes half as long as float32 for 0.02 points; float16 fails; int8 is not legal."""
    base = candidate("fold-batchnorm", 20, 5.0, kind=kind, host_ms=2)
    fast = candidate("quantize-uint8", 10, 5.02, kind=kind, host_ms=1)
    return StorageComparison(
        "velvet-apu",
        "NNAPI 1.2",
        "uint8",
        base,
        (
            StorageRow("uint8", GOOD, "quantize-uint8", fast),
            StorageRow("float32", GOOD, "fold-batchnorm", base),
            StorageRow("float16", GOOD, "to-float16", None, "%stem: weight reaches 1e6"),
            StorageRow("int8", BAD, "quantize-int8", None, "not legal: the engine has no type"),
        ),
    )


def test_the_choice_comes_with_rule_and_source() -> None:
    assert storage.choice(compared()) == (
        "storage for velvet-apu (NNAPI 1.2): uint8: what the engine computes (sourced: the manual)"
    )


def test_rows_tell_the_cost_or_the_reason() -> None:
    found = compared()
    names = storage.columns(found)
    uint8, float32, float16, int8 = (
        dict(zip(names, storage.cells(row, found), strict=True)) for row in found.rows
    )
    assert (uint8["storage"], uint8["NME val %"], uint8["change"]) == (
        "uint8 (chosen)",
        "5.020",
        "+0.020",
    )
    assert float32["time against uint8 (estimated)"] == "2.00x"
    assert float32["velvet-apu ms (estimated ±)"] == "20 ± 2"
    assert float32["host ms (measured)"].startswith("2.000 [")
    assert float16["why"] == "%stem: weight reaches 1e6" and float16["change"] == "-"
    assert int8["why"] == "not legal: the engine has no 8-bit <type> (inferred: its header)"


def test_a_measured_comparison_has_no_estimates() -> None:
    names = storage.columns(compared("measured"))
    assert not any("estimated" in name for name in names)
    assert "time against uint8 (measured)" in names


def test_a_form_that_beats_the_rule_is_named() -> None:
    found = compared()
    assert storage.remarks(found) == ()
    better = candidate("to-float16", 5, 4.9, host_ms=1)
    rows = (found.rows[0], replace(found.rows[2], candidate=better))
    (line,) = storage.remarks(replace(found, rows=rows))
    assert line.startswith("float16 loses no NME against uint8 and is faster (estimated)")


def test_the_document_holds_changes_and_reasons() -> None:
    document = compared().to_json()
    forms = {row["form"]: row for row in document["forms"]}
    assert document["chosen"] == "uint8" and "the manual" in document["why"]
    assert round(forms["uint8"]["val_nme_change"], 6) == 0.02
    assert forms["float32"]["latency_ratio"] == 2.0
    assert forms["int8"]["legal"] is False and forms["int8"]["candidate"] is None
    assert forms["float16"]["no_candidate"] == "%stem: weight reaches 1e6"


def test_the_page_shows_the_comparison() -> None:
    text = page(replace(result(), storage=compared()), b"plot", [], [])
    assert "<h2>Storage</h2>" in text and "uint8 (chosen)" in text
    assert "8-bit &lt;type&gt;" in text
    assert "<h2>Storage</h2>" not in page(result(), b"plot", [], [])
