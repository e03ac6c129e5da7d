"""`lmopt data`: stats, view, import, synth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from lmopt.cli.app import app
from lmopt.data import load_dataset
from lmopt.report.contact_sheet import BOX, POINT, SIDE
from tests.support.annotated import FIVE_POINTS, row, write_folder
from tests.support.tiny_yunet import write_tiny_yunet
from tests.unit.cli.conftest import Bench

BOXED = {"box_x0": 18, "box_y0": 18, "box_x1": 46, "box_y1": 48}


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["data", *(str(a) for a in arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout, result.stderr


def run_json(*arguments: object) -> Any:
    stdout, _ = run(*arguments, "--json")
    return json.loads(stdout, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    rows = [row(f"{k}.png", role="validation" if k == 3 else "train", **BOXED) for k in range(6)]
    rows[1] |= {"occlusion": "1"}
    rows[2] |= {"occlusion": "1", "x0": "nan"}
    return write_folder(tmp_path / "mine", rows)


def test_stats_counts_what_is_left_out_and_strict_refuses_it(faces: Path, tmp_path: Path):
    found = run_json("stats", faces)
    assert (found["faces"], found["labels"]) == (5, {"occlusion": 1})
    place = {"where": f"{faces}/landmarks.csv:4", "what": "landmark 0 is (nan, 22), wanted numbers"}
    assert found["skipped"] == [place]
    stdout, stderr = run("stats", faces)
    assert "labels: occlusion 1" in stdout
    assert f"left out 1, kept 5 annotations:\n  {place['where']}: {place['what']}" in stderr
    _, stderr = run("stats", faces, "--strict", code=3)
    assert f"error: {place['where']}: {place['what']}\nhint: correct or remove" in stderr
    labels = tmp_path / "labels.csv"
    labels.write_text("file,glasses\n0.png,1\n5.png,1\n")
    with_labels = run_json("stats", faces, "--labels", labels)
    assert with_labels["labels"] == {"glasses": 2, "occlusion": 1}
    assert run_json("stats", faces, "--only", "occlusion")["faces"] == 1


def test_stats_names_five_defects_and_where_the_others_are_listed(tmp_path: Path):
    rows = [row(f"{k}.png") | ({"x0": "nan"} if k < 7 else {}) for k in range(8)]
    folder = write_folder(tmp_path / "mine", rows)
    _, stderr = run("stats", folder)
    assert "left out 7, kept 1 annotations:" in stderr
    assert "landmarks.csv:6: landmark 0" in stderr and "landmarks.csv:7" not in stderr
    assert "\n  and 2 more: lmopt data stats --json lists them all\n" in stderr
    assert len(run_json("stats", folder)["skipped"]) == 7


@pytest.mark.parametrize(("command", "required"), [("import", True), ("stats", False)])
def test_only_an_import_needs_paths(command: str, required: bool):
    text = " ".join(run(command, "--help")[0].split())
    assert ("none means the rendered faces" in text) is not required
    assert ("[required]" in text.partition("Options:")[0]) is required


def test_import_keeps_everything_and_refuses_a_used_folder(faces: Path, tmp_path: Path):
    out = tmp_path / "deep" / "out"
    found = run_json("import", faces, "--out", out)
    assert found["digest"] == load_dataset([out], strict=True).digest
    assert (found["faces"], found["out"], len(found["skipped"])) == (5, str(out), 1)
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
    _, stderr = run("import", faces, "--out", out, code=3)
    assert "there is something already" in stderr
    _, stderr = run("import", faces, "--out", tmp_path / "new", "--strict", code=3)
    assert not (tmp_path / "new").exists()


def test_an_import_that_fails_leaves_nothing(faces: Path, tmp_path: Path, monkeypatch):
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    _, stderr = run("import", faces, "--out", tmp_path / "out" / "faces", code=3)
    assert "cannot write: No space left on device" in stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_import_writes_the_boxes_of_a_detector(faces: Path, tmp_path: Path):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[24:32, 32:40] = 255
    for k in (0, 5):
        cv2.imwrite(str(faces / "images" / f"{k}.png"), picture)
    model = write_tiny_yunet(tmp_path / "tiny.onnx")
    arguments = ("import", faces, "--box", "detector", "--detector-model", model)
    _, stderr = run(*arguments, "--out", tmp_path / "out")
    assert "tiny.onnx finds" in stderr
    boxes = {face.id: face.box for face in load_dataset([tmp_path / "out"]).faces}
    assert boxes["mine/0.png"] == pytest.approx((15.5, 3.5, 55.5, 51.5), abs=0.05)
    _, stderr = run("import", faces, "--box", "detector", "--out", tmp_path / "no", code=2)
    assert "--box detector needs --detector-model" in stderr
    _, stderr = run("import", faces, "--detector-model", model, "--out", tmp_path / "no", code=2)
    assert "no --box detector" in stderr


def test_view_draws_landmarks_and_boxes(faces: Path, tmp_path: Path):
    sheet = tmp_path / "sheet.png"
    found = run_json("view", faces, "--out", sheet, "--faces", 3, "--no-numbers")
    assert (found["drawn"], found["faces"]) == (3, 5)
    drawn = cv2.imread(str(sheet))[..., ::-1].astype(int)
    assert drawn.shape == (SIDE, 3 * SIDE, 3)
    # The crop is the landmarks' box (24 x 26) times 1.6, square, around its centre (32, 33).
    scale = SIDE / (26 * 1.6)
    for x, y in FIVE_POINTS:
        place = ((np.array([x, y]) - (32, 33)) * scale + SIDE / 2).round().astype(int)
        assert np.abs(drawn[place[1], place[0]] - POINT).max() < 30
    corner = ((np.array([18, 18]) - (32, 33)) * scale + SIDE / 2 - 0.5).round().astype(int)
    assert (drawn[corner[1], corner[0] + 40] == BOX).all()
    assert (drawn[corner[1] + 40, corner[0]] == BOX).all()


def test_a_page_says_what_each_face_is(faces: Path, tmp_path: Path):
    page = tmp_path / "faces.html"
    stdout, _ = run("view", faces, "--out", page)
    assert stdout.strip() == str(page)
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 5
    assert "mine/3.png (validation)" in text
    assert "occlusion 1<br>" in text
    assert f"{faces}/landmarks.csv:3" in text
    _, stderr = run("view", faces, "--out", tmp_path / "faces.gif", code=2)
    assert "neither .html nor .png" in stderr


def test_synth_renders_the_same_faces_for_a_seed(tmp_path: Path):
    first = run_json("synth", "--faces", 10, "--seed", 5, "--out", tmp_path / "x" / "rendered")
    again = run_json("synth", "--faces", 10, "--seed", 5, "--out", tmp_path / "y" / "rendered")
    other = run_json("synth", "--faces", 10, "--seed", 6, "--out", tmp_path / "z" / "rendered")
    assert first["digest"] == again["digest"] != other["digest"]
    assert (first["faces"], first["scheme"], first["skipped"]) == (10, "ibug-68", [])
    dataset = load_dataset([tmp_path / "x"])
    assert [len(dataset.split(s)) for s in ("train", "validation", "test")] == [8, 1, 1]
    assert {"yaw", "pitch", "roll", "occlusion"} <= dataset.faces[0].labels.keys()


def test_evaluate_takes_jittered_boxes_and_those_of_a_detector(bench: Bench, tmp_path: Path):
    folder = shutil.copytree(bench.faces, tmp_path / "faces")

    def score(*arguments: object) -> Any:
        given = ("evaluate", bench.model, "--data", folder, *arguments, "--json")
        result = CliRunner().invoke(app, [str(a) for a in given])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    plain, jittered = score(), score("--box", "jittered")
    assert jittered["box"] == "jittered"
    assert jittered["crop"] == "jittered box x1.25, square"
    assert jittered["faces"] == plain["faces"] == 4
    assert jittered["nme_percent"] != plain["nme_percent"]
    model = write_tiny_yunet(tmp_path / "tiny.onnx")
    for k in range(12, 16):
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[24:32, 24:32] = 255 * (k < 14)
        cv2.imwrite(str(folder / "images" / f"f{k}.png"), picture)
    found = score("--box", "detector", "--detector-model", model)
    assert (found["faces"], found["skipped"], found["box"]) == (2, 2, "given")
    assert found["dataset"] == "faces (boxes of tiny.onnx)"
