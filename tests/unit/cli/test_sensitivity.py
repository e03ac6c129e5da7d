"""`lmopt sensitivity` on a small detector whose parts cost very different amounts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lmopt.cli.app import app
from lmopt.codegen.tflite import emit
from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.document import CONTRACT_KEY, contract_to_json
from lmopt.detector.scheme import scheme_for
from lmopt.errors import LmoptError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.ops import Conv2D, Dense, Mean
from tests.support.annotated import row, write_folder

CONTRACT = Contract(
    *(16, 16, "rgb", (0.0,) * 3, (255.0,) * 3, CropRule("landmarks", 1.25, True)),
    *("points", "xyxy", "unit", scheme_for(5)),
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    edit = Edit("small")
    x = edit.input("image", (None, 16, 16, 3))
    rough = rng.normal(0, 0.2, (1, 1, 3, 4)).astype(np.float32)
    x = edit.add("stem", Conv2D(4, kernel=(1, 1), use_bias=False), x, weights={"kernel": rough})
    mean = edit.add("mean", Mean(), x)
    head = rng.normal(0, 0.3, (4, 10)).astype(np.float32)
    weights = {"kernel": head, "bias": np.full(10, 0.5, np.float32)}
    edit.output("points", edit.add("head", Dense(10), mean, weights=weights))
    path = tmp_path / "small.tflite"
    path.write_bytes(emit(edit.done(), metadata={CONTRACT_KEY: contract_to_json(CONTRACT)}))
    return path


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    roles = ("train", "train", "train", "validation", "validation", "test")
    rows = [row(f"{k}.png", role=role) for k, role in enumerate(roles)]
    return write_folder(tmp_path / "faces", rows)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["sensitivity", *map(str, arguments)])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def test_parts_tensors_and_faces_are_reported(model: Path, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    call = (model, "--data", faces, "--storage", "uint8", "--out", out, "--json")
    found = json.loads(run(*call))
    assert [part["nodes"] for part in found["segments"]] == [["stem", "mean"], found_head(found)]
    assert [tensor["name"] for tensor in found["tensors"]] == ["stem", "mean", "points"]
    assert all(30 < tensor["own_snr_db"] < 70 for tensor in found["tensors"])
    assert all(tensor["snr_db"] <= tensor["own_snr_db"] + 1 for tensor in found["tensors"])
    assert found["faces"] == 2
    costs = [found["whole"], *(part["alone"] for part in found["segments"])]
    assert all(0 < cost["expected_drop"] <= cost["shift_percent"] < 5 for cost in costs)
    shifts = [one["shift_percent"] for one in found["worst"]]
    assert sorted({one["face"] for one in found["worst"]}) == sorted(
        one["face"] for one in found["worst"]
    )
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[0] >= found["whole"]["shift_percent"]
    page = (out / "sensitivity.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "%stem..%mean" in page
    kept = json.loads((out / "sensitivity.json").read_text())
    assert kept == {key: value for key, value in found.items() if key != "files"}


def found_head(found: dict[str, list[dict[str, list[str]]]]) -> list[str]:
    """The head's part: with the sum that places its answers."""
    nodes = found["segments"][1]["nodes"]
    assert nodes[0] == "points"
    assert all(name.startswith("points") for name in nodes)
    return nodes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--storage", "int16"), "'int16' is no storage"),
        (("--storage", "int8", "--passes", "quantize-int8"), "--storage besides --passes"),
        (("--passes", "to-float16"), "to-float16 does not quantize part by part"),
        (("--segments", "0"), "segments is 0"),
    ],
)
def test_wrong_options_are_refused(options: tuple[str, ...], message: str, model: Path) -> None:
    result = CliRunner().invoke(app, ["sensitivity", str(model), *options])
    assert result.exit_code == UsageError.exit_code == LmoptError.exit_code + 1
    assert message in result.stderr
