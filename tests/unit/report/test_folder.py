"""The written reports: whole, self-contained and true to the result."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmopt import zoo
from lmopt.errors import InputError
from lmopt.report.folder import write_reports
from lmopt.report.json_document import json_text
from lmopt.report.overlay import Strip, some_faces
from lmopt.report.page import page
from lmopt.report.plot import front_png
from tests.unit.report.results import candidate, result

CONTRACT = zoo.load("pfld-0.25@none").require_contract()


def test_json_is_strict() -> None:
    document = {"a": float("inf"), "b": [float("nan"), 1.5], "c": {"d": -0.0}, 5: None}
    read = json.loads(json_text(document), parse_constant=lambda name: pytest.fail(name))
    assert read == {"a": None, "b": [None, 1.5], "c": {"d": 0.0}, "5": None}


def test_the_plot_is_a_picture_with_colours_of_front_and_baseline() -> None:
    pixels = cv2.imdecode(np.frombuffer(front_png(result()), np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[0] > 400 and pixels.shape[1] > 800
    for red, green, blue in ((0x0B, 0x6E, 0x99), (0xC0, 0x39, 0x2B), (0x9A, 0xA0, 0xA6)):
        assert (pixels == (blue, green, red)).all(axis=2).sum() > 20


def test_a_plot_of_equal_points_and_of_wild_ones_can_be_drawn() -> None:
    base = result().baseline
    alone = replace(result(), front=(base,), dominated=())
    wild = replace(result(), front=(candidate("broken", 5, 900.0), base))
    assert front_png(alone) != front_png(wild)


def test_the_page_loads_nothing_and_escapes_what_it_shows() -> None:
    strip = Strip("strip", (b"face",), ("afw/<b>: 9.0 %",))
    text = page(result(pipeline="insert-pool{after=<b>}"), b"plot", [strip], [strip])
    assert text.count("afw/&lt;b&gt;: 9.0 %") == 2
    assert "Where insert-pool{after=&lt;b&gt;} fails most" in text
    assert not re.findall(r"https?://", text)
    assert set(re.findall(r'src="([^:"]+):', text)) == {"data"}
    assert "insert-pool{after=&lt;b&gt;}" in text
    assert "crashed &lt;badly&gt;" in text
    assert "<b>" not in text
    assert "rendered faces" in text
    assert "its latencies are estimates" in text
    assert text.count('class="pick"') == 1


def test_a_measured_page_warns_of_no_estimates_but_of_a_busy_machine() -> None:
    measured = result("measured")
    busy = replace(measured, environment={**measured.environment, "busy": True})
    assert "are estimates" not in page(measured, b"plot", [], [])
    assert "kept this machine busy" not in page(measured, b"plot", [], [])
    assert "kept this machine busy" in page(busy, b"plot", [], [])


def test_all_reports_are_written_and_agree(tmp_path: Path) -> None:
    found = result()
    reports = write_reports(found, tmp_path / "out", CONTRACT, None)
    assert json.loads(reports.json.read_text()) == json.loads(json_text(found.to_json()))
    assert reports.plot.read_bytes() == front_png(found)
    assert "quantize-uint8" in reports.page.read_text()
    assert sorted(p.name for p in reports.json.parent.iterdir()) == [
        "front.json",
        "front.png",
        "report.html",
    ]


def test_a_folder_that_cannot_be_made_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write") as caught:
        write_reports(result(), tmp_path / "file" / "out", CONTRACT, None)
    assert caught.value.hint and "--out" in caught.value.hint


def test_some_faces_are_spread_over_the_dataset(tmp_path: Path) -> None:
    from lmopt.data import load_dataset
    from tests.support.annotated import row, write_folder

    rows = [row(f"{k}.png", role="test") for k in range(9)]
    faces = load_dataset([write_folder(tmp_path / "nine", rows)])
    assert [face.image.stem for face in some_faces(faces, 3).faces] == ["0", "4", "8"]
    assert len(some_faces(faces, 20)) == 9
