"""Evaluations as tables and files."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lmopt.report.evaluation import cells, faces_csv, headings, notes, table_csv, write_evaluation
from lmopt.scoring.evaluation import Evaluation
from lmopt.scoring.protocols import Score
from lmopt.scoring.rows import NotTestable, Scored, Spread

FACES = tuple(f"f/{k}" for k in range(12))


def row(protocol: str, condition: str, error: float) -> Scored:
    score = Score(
        per_face=tuple(error + 0.1 * k for k in range(12)),
        normaliser="inter-ocular",
        crop="landmarks box x1.25, square",
        box="landmarks",
        digest="d" * 32,
        dataset="faces",
        dataset_digest="f" * 32,
        split="test",
        protocol=protocol,
        condition=condition,
    )
    return Scored(score, FACES, {0: error}, 0.25, 1.5, 112.0)


def evaluation(error: float = 4.0) -> Evaluation:
    spread = Spread(replace(row("stability", "s", 0.1).stamp), (0.5,) * 12, FACES, 200, "d" * 32)
    return Evaluation(
        "model.tflite",
        {
            "nme": (row("nme", "", error),),
            "resolution": (row("resolution", "x1", error), row("resolution", "x2", error + 1)),
            "categories": (row("categories", "full", error), NotTestable("old", "not labelled")),
            "stability": (spread, NotTestable("frames", "none given")),
        },
    )


@pytest.fixture
def compared() -> Evaluation:
    other = evaluation(5.0)
    mine = evaluation()
    return Evaluation.of_two(mine.model, mine.rows, "other.tflite", other.rows)


def test_tables_hold_a_line_per_condition() -> None:
    found = cells("resolution", evaluation())
    assert found == [
        ("x1", "12", "4.550", "0.431", "0.0", "0.250", "1.50", "112"),
        ("x2", "12", "5.550", "0.306", "0.0", "0.250", "1.50", "112"),
    ]
    assert len(headings("resolution", evaluation())) == 8
    assert cells("nme", evaluation())[0][0] == "all faces"
    assert cells("stability", evaluation())[0] == ("s", "12", "200", "0.5000")
    assert cells("categories", evaluation())[1] == ("old", *"-------")
    assert notes("categories", evaluation()) == ["not testable: old: not labelled"]
    assert notes("resolution", evaluation()) == []


def test_a_comparison_says_the_change_and_whether_it_is_sure(compared: Evaluation) -> None:
    assert headings("nme", compared)[-2:] == ("against %", "change in points, 95 %")
    assert cells("nme", compared)[0][-2:] == (
        "5.550",
        "-1.000 [-1.000, -1.000] (significant)",
    )
    assert cells("categories", compared)[1][-2:] == ("-", "-")
    (nme,) = csv.DictReader(io.StringIO(table_csv("nme", compared)))
    assert (float(nme["change"]), nme["significant"]) == (pytest.approx(-1.0), "True")
    assert float(nme["against_percent"]) == pytest.approx(5.55)


def test_csv_is_unrounded_and_says_what_is_not_testable() -> None:
    full, old = csv.DictReader(io.StringIO(table_csv("categories", evaluation())))
    assert float(full["nme_percent"]) == pytest.approx(4.55, abs=1e-12)
    assert (old["condition"], old["nme_percent"], old["note"]) == ("old", "", "not labelled")
    lines = list(csv.DictReader(io.StringIO(faces_csv(evaluation()))))
    assert len(lines) == 12 * 5
    assert lines[1] == {
        "model": "model.tflite",
        "protocol": "nme",
        "condition": "",
        "face": "f/1",
        "error_percent": "4.1",
    }


def test_all_files_are_written_whole(compared: Evaluation, tmp_path: Path) -> None:
    written = write_evaluation(compared, tmp_path / "deep" / "out")
    names = {path.name for path in written}
    assert names == {
        *("evaluation.json", "faces.csv", "ced.png", "curves.png"),
        *("nme.csv", "resolution.csv", "categories.csv", "stability.csv"),
    }
    assert names == {path.name for path in (tmp_path / "deep" / "out").iterdir()}
    found = json.loads((tmp_path / "deep" / "out" / "evaluation.json").read_text())
    assert found["protocols"]["resolution"][1]["condition"] == "x2"
    assert found["protocols"]["categories"][1]["not_testable"] == "not labelled"
    assert found["protocols"]["stability"][0]["std_percent"] == 0.5
    assert found["against"]["comparisons"]["nme"][0]["change"]["mean"] == pytest.approx(-1.0)
    for name in ("ced.png", "curves.png"):
        assert (tmp_path / "deep" / "out" / name).read_bytes().startswith(b"\x89PNG")
