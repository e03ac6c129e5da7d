"""Every command does its work, and `--json` prints one document and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lmopt.cli.app import app
from lmopt.errors import InputError
from tests.unit.cli.conftest import Bench


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout, result.stderr


def run_json(*arguments: object) -> Any:
    stdout, _ = run(*arguments, "--json")
    return json.loads(stdout, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


@pytest.mark.parametrize(
    "command",
    ["compile", "evaluate", "inspect", "optimize", "search", "sensitivity", "storage", "train"],
)
def test_help_names_all_that_a_detector_may_be(command: str) -> None:
    (argument,) = [p for p in get_command(app).commands[command].params if p.name == "detector"]
    assert argument.metavar == "DETECTOR|FILE|FOLDER"
    for part in ("@weights.npz", ".keras", ".h5", ".tflite", "SavedModel folder"):
        assert part in argument.help


def test_inspect_counts_a_detector_without_weights() -> None:
    found = run_json("inspect", "pfld-1.0@none")
    assert found["parameters"] == 1_236_544
    assert found["inputs"] == [{"name": "image", "type": "f32[?,112,112,3]"}]
    assert found["outputs"] == [{"name": "landmarks", "type": "f32[?,136]"}]
    assert found["nodes"] == sum(found["ops"].values())
    assert found["size_bytes"] > 4 * 1_200_000
    assert found["initialized"] is False


def test_inspect_reads_a_file_and_estimates(bench: Bench) -> None:
    found = run_json("inspect", bench.model, "--target", "velvet-cpu")
    assert found["size_bytes"] == bench.model.stat().st_size
    assert found["contract"]["scheme"] == "ibug-68"
    assert found["estimates"]["velvet-cpu"]["kind"] == "estimated"
    assert found["estimates"]["velvet-cpu"]["latency_ms"] > 0


def test_inspect_prints_ir_that_parses(bench: Bench) -> None:
    stdout, _ = run("inspect", "pfld-0.25@none", "--ir")
    assert "%stem = conv2d(%image)" in stdout


def test_a_saved_contract_is_the_models_own(bench: Bench, tmp_path: Path) -> None:
    from lmopt import zoo
    from lmopt.detector.document import load_contract

    run("inspect", bench.model, "--save-contract", tmp_path / "c.toml")
    assert load_contract(tmp_path / "c.toml") == zoo.load("pfld-0.25@none").contract


def test_compile_writes_a_file_that_evaluates_like_its_detector(
    bench: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "m.tflite"
    made = run_json("compile", bench.detector, "--passes", "fold-batchnorm", "--out", out)
    assert made["model"] == str(out)
    assert made["size_bytes"] == out.stat().st_size
    assert [step["pass"] for step in made["steps"]] == ["fold-batchnorm"]
    scores = [run_json("evaluate", name, "--data", bench.faces) for name in (bench.detector, out)]
    assert scores[0]["digest"] == scores[1]["digest"] == made["digest"]
    assert scores[0]["nme_percent"] == scores[1]["nme_percent"]
    assert scores[0]["faces"] == 4
    assert scores[0]["normaliser"] == "inter-ocular"
    assert scores[0]["crop"] == "landmarks box x1.25, square"


def test_evaluate_by_protocols_against_another_model(bench: Bench, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,pose\nf12.png,1\nf13.png,0\n")
    arguments = ("evaluate", bench.model, "--data", bench.faces, "--labels", labels)
    arguments += ("--protocol", "nme", "--protocol", "categories", "--protocol", "stability")
    arguments += ("--copies", 4, "--stability-faces", 1, "--out", tmp_path / "out")
    found = run_json(*arguments, "--against", bench.model)
    rows = found["protocols"]
    assert list(rows) == ["nme", "categories", "stability"]
    assert found["nme_percent"] == rows["nme"][0]["nme_percent"]
    assert found["protocol"] == "nme"
    pose = next(r for r in rows["categories"] if r["condition"] == "pose")
    assert pose["faces"] == 1
    assert [r["looks"] for r in rows["stability"][:3]] == [4, 4, 4]
    comparison = found["against"]["comparisons"]["nme"][0]
    assert comparison["change"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert (tmp_path / "out" / "categories.csv").is_file()
    assert str(tmp_path / "out" / "ced.png") in found["files"]


def test_evaluate_shows_a_table_per_protocol(bench: Bench) -> None:
    arguments = ("evaluate", bench.model, "--data", bench.faces)
    stdout, stderr = run(*arguments, "--protocol", "regions", "--protocol", "nme")
    assert re.search(r"^ ?mouth +4 ", stdout, re.MULTILINE)
    assert re.search(r"^NME +\d+\.\d{3} % \(inter-ocular\)$", stdout, re.MULTILINE)
    assert "showing faces: 4 of 4" in stderr


def test_print_after_shows_the_graph_on_stderr(bench: Bench, tmp_path: Path) -> None:
    stdout, stderr = run(
        *("compile", bench.detector, "--passes", "fold-batchnorm,to-float16"),
        *("--out", tmp_path / "m.tflite", "--print-after", "fold-batchnorm", "--verify-each"),
    )
    assert stderr.count("// IR after") == 1
    assert "batch_norm" not in stderr.partition("// IR after")[2]
    assert "%stem" not in stdout


def test_measure_against_itself_tells_no_difference(bench: Bench) -> None:
    found = run_json(
        "measure", bench.model, "--against", bench.model, "--max-seconds", "0.5", "--threads", "1"
    )
    assert found["best"]["kind"] == "measured"
    speedup = found["speedups"][0]
    assert speedup["threads"] == 1
    assert speedup["low"] <= speedup["value"] <= speedup["high"]
    assert found["best"]["digest"] == found["against"]["measurements"][0]["digest"]


def test_measure_tells_how_a_file_starts_and_how_it_lasts(bench: Bench) -> None:
    flags = ("measure", bench.model, "--max-seconds", "0.1", "--sustained", "0.02")
    found = run_json(*flags)
    assert found["best"]["start"]["load_ms"] > 0
    sustained = found["sustained"]
    assert sustained["threads"] == 1 and sustained["seconds"][-1] >= 1.2
    assert sustained["slowdown"] == sustained["sustained_ms"] / sustained["start_ms"]
    stdout, _ = run(*flags)
    assert "loaded in" in stdout and "without a pause, 1 thread:" in stdout


def test_detectors_are_listed_with_their_weights() -> None:
    found = {each["name"]: each for each in run_json("detectors")["detectors"]}
    assert found["pfld-1.0"]["parameters"] == 1_236_544
    assert found["pfld-1.0"]["weights"] == ["300w", "synthetic"]
    assert found["dan2"]["weights"] == []
    stdout, _ = run("detectors")
    assert re.search(r"^ *dan2 +23,108,444 +none +DAN, 2 stages", stdout, re.MULTILINE)


def test_passes_and_targets_list_what_is_installed() -> None:
    listed = {entry["name"]: entry for entry in run_json("passes")["passes"]}
    assert {"fold-batchnorm", "quantize-int8", "qat"} <= listed.keys()
    epochs = next(o for o in listed["finetune"]["options"] if o["name"] == "epochs")
    assert epochs["type"] == "float"
    targets = {entry["name"] for entry in run_json("targets")["targets"]}
    assert {"host", "velvet-apu", "p30-gpu"} <= targets


def test_a_target_shows_every_number_with_unit_kind_and_source() -> None:
    stdout, _ = run("targets", "velvet-apu")
    quantities = run_json("targets", "velvet-apu")["quantities"]
    assert quantities["peak_u8"]["unit"] == "GMAC/s"
    for quantity in quantities.values():
        assert quantity["source"] in stdout
        assert quantity["kind"] in stdout


def test_a_target_shows_its_runtime_and_what_may_ship_there() -> None:
    stdout, _ = run("targets", "velvet-gpu")
    found = run_json("targets", "velvet-gpu")
    assert (found["preferred"], found["runtime"]["version"]) == ("float16", "2.4")
    assert found["runtime"]["source"] in stdout
    for form, rule in found["forms"].items():
        assert f"{form:8}  {'' if rule['legal'] else 'not legal: '}{rule['reason']}" in stdout
    assert found["forms"]["int8"]["legal"] is False
    limits = run_json("targets", "velvet-apu")["limits"]
    assert limits["max_rank"]["value"] == 4 and "nnapi" in limits["max_rank"]["source"]


def test_inspect_shows_where_the_time_goes_and_what_falls_back() -> None:
    stdout, _ = run("inspect", "pfld-0.25@none", "--target", "velvet-gpu")
    assert re.search(
        r"velvet-gpu +[\d.]+ ms \[[\d.]+, [\d.]+\] \(estimated\), 1 thread; memory", stdout
    )
    assert "2 of 47 kernels fall back to velvet-cpu (%s1_pool, %s2_pool), 2 transfers" in stdout
    assert re.search(r"time: pointwise \d+ %, depthwise \d+ %", stdout)
    assert re.search(r"\d+ more kernels take [\d.]+ ms: --json lists them", stdout)


def test_data_stats_counts_splits(bench: Bench) -> None:
    found = run_json("data", "stats", bench.faces)
    assert found["faces"] == 16
    assert found["kind"] == "annotated faces"
    assert found["sources"] == [
        {"source": "faces", "train": 9, "validation": 3, "test": 4, "boxes": 0}
    ]


PIPELINES = ("--passes", "fold-batchnorm,to-float16")


def test_optimize_gives_one_document_and_all_reports_and_resumes(
    bench: Bench, tmp_path: Path
) -> None:
    arguments = ("optimize", bench.detector, "--target", "velvet-gpu", "--data", bench.faces)
    arguments += (*PIPELINES, "--threads", "1", "--out", tmp_path / "run")
    found = run_json(*arguments)
    assert {"target", "detector", "data", "baseline", "front", "candidates"} <= found.keys()
    assert found["data"]["kind"] == "annotated faces"
    assert found["data"]["faces"] == {"train": 9, "validation": 3, "test": 4}
    assert {c["pipeline"] for c in found["candidates"]} == {
        "fold-batchnorm",
        "fold-batchnorm,to-float16",
    }
    for candidate in found["front"]:
        assert candidate["latency"]["kind"] == "estimated"
        assert candidate["latency"]["where"] == "velvet-gpu"
        assert candidate["host"]["kind"] == "measured"
        assert Path(candidate["model"]).is_absolute()
        assert Path(candidate["model"]).stat().st_size == candidate["size_bytes"]
        score = run_json("evaluate", candidate["model"], "--data", bench.faces)
        assert score["nme_percent"] == candidate["nme_percent"]
    forms = {row["form"]: row for row in found["storage"]["forms"]}
    assert found["storage"]["chosen"] == "float16"
    assert forms["float16"]["candidate"]["latency"]["kind"] == "estimated"
    assert [form for form in forms if not forms[form]["legal"]] == ["int8", "uint8", "int16x8"]
    stored = json.loads(Path(found["files"]["json"]).read_text())
    assert stored["baseline"]["digest"] == found["baseline"]["digest"]
    assert (tmp_path / "run" / "front.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "run" / "report.html").read_text()
    drawn = 1 + len(found["front"])  # some faces with each, the worst with baseline and pick
    assert page.count("data:image/jpeg") == 4 * (drawn + 2)

    stdout, stderr = run(*arguments)
    assert stderr.count("from an earlier run") == 2
    assert "host ms (measured)" in stdout
    assert "velvet-gpu ms (estimated ±)" in stdout
    assert "storage for velvet-gpu (TensorFlow Lite GPU delegate (OpenCL) 2.4): float16: " in stdout
    assert re.search(r"^next: ", stdout, re.MULTILINE)
    assert "check: lmopt evaluate" in stdout


def test_an_interruption_says_how_to_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmopt.flow.optimization.optimize", interrupt)
    _, stderr = run("optimize", bench.detector, "--target", "host", code=130)
    assert stderr.splitlines()[-1] == "interrupted; the same command goes on with what is kept"


def test_the_boundary_prints_place_reason_and_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InputError("too small", where="a.csv:3", hint="enlarge it")

    monkeypatch.setattr("lmopt.flow.inspection.inspect", fail)
    stdout, stderr = run("inspect", "pfld-1.0@none", code=3)
    assert stdout == ""
    assert stderr == "error: a.csv:3: too small\nhint: enlarge it\n"


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lmopt.flow.inspection.inspect", fail)
    result = CliRunner().invoke(app, ["inspect", "pfld-1.0@none"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_inspect_shows_grids_and_errors_of_a_quantized_file(bench: Bench, tmp_path: Path) -> None:
    from lmopt.codegen.tflite import emit
    from lmopt.detector.document import CONTRACT_KEY, contract_to_json
    from lmopt.flow.sources import load
    from lmopt.ir import DType
    from lmopt.testing import put_on_grids

    float_model = load(bench.model)
    x = np.random.default_rng(0).uniform(0, 1, (1, 112, 112, 3)).astype(np.float32)
    small = put_on_grids(float_model.graph, {"image": x}, DType.I8, edge="uint8")
    contract = contract_to_json(float_model.require_contract())
    file = tmp_path / "small.tflite"
    file.write_bytes(emit(small, metadata={CONTRACT_KEY: contract}))
    found = run_json(
        "inspect", file, "--quantization", "--against", bench.model, "--data", bench.faces
    )["quantization"]
    assert found["faces"] == 9
    rows = {row["name"]: row for row in found["tensors"]}
    stem = rows["stem"]
    assert (stem["type"], stem["twin"]) == ("i8[56, 56, 64]", "%stem")
    assert stem["high"] - stem["low"] == pytest.approx(255 * stem["scale"])
    assert stem["measured_largest"] <= stem["bound"]
    assert stem["measured_rms"] == pytest.approx(stem["expected_rms"], rel=0.5)
    landmarks = found["landmarks"]
    assert landmarks["measured_px"] < landmarks["bound_within_grids_px"] < landmarks["bound_px"]
    stdout, _ = run("inspect", file, "--quantization")
    assert "stem_depthwise" in stdout and "bound" not in stdout
    run("inspect", file, "--against", bench.model, code=2)
