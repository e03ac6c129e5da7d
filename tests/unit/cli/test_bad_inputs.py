"""Every bad input ends with its exit code, the place, the reason and a next step."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import pytest
from typer.testing import CliRunner

from lmopt.cli.app import app
from tests.support.annotated import row, write_folder
from tests.support.tiny_tflite import crashing_model
from tests.unit.cli.conftest import Bench, points

USAGE, INPUT, BACKEND = 2, 3, 6
Files = Callable[[Bench, Path], list[object]]


@dataclass(frozen=True)
class Case:
    """A command line, and what it must say on stderr.

    Attributes:
        arguments: Builds the command line from a working detector and an empty folder.
        code: Exit code.
        reason: Parts of the `error:` line and what follows.
        hint: Part of the `hint:` line.
    """

    arguments: Files
    code: int
    reason: tuple[str, ...]
    hint: str


def _compile(bench: Bench, tmp: Path, passes: str = "fold-batchnorm") -> list[object]:
    return ["compile", bench.detector, "--passes", passes, "--out", tmp / "m.tflite"]


def _garbage(bench: Bench, tmp: Path) -> list[object]:
    (tmp / "bad.tflite").write_bytes(b"this is no flatbuffer at all" * 9)
    return ["evaluate", tmp / "bad.tflite", "--data", bench.faces]


def _truncated(bench: Bench, tmp: Path) -> list[object]:
    data = bench.model.read_bytes()
    (tmp / "cut.tflite").write_bytes(data[: len(data) // 2])
    return ["inspect", tmp / "cut.tflite"]


def _without_contract(bench: Bench, tmp: Path) -> list[object]:
    from lmopt import zoo
    from lmopt.codegen.tflite import emit
    from lmopt.flow.folding import folded

    (tmp / "bare.tflite").write_bytes(emit(folded(zoo.load("pfld-0.25@none").graph)))
    return ["evaluate", tmp / "bare.tflite", "--data", bench.faces]


def _labels(tmp: Path) -> Path:
    (tmp / "labels.csv").write_text("file,pose\nnobody.png,1\n")
    return tmp / "labels.csv"


def _contract(tmp: Path, **changes: object) -> Path:
    from lmopt import zoo
    from lmopt.detector.document import contract_to_toml

    contract = replace(zoo.load("pfld-0.25@none").require_contract(), **changes)  # type: ignore[arg-type]
    path = tmp / "contract.toml"
    path.write_text(contract_to_toml(contract))
    return path


def _wrong_size(bench: Bench, tmp: Path) -> list[object]:
    contract = _contract(tmp, height=96, width=96)
    return [*_compile(bench, tmp), "--contract", contract]


def _misspelt_contract(bench: Bench, tmp: Path) -> list[object]:
    path = _contract(tmp)
    path.write_text(path.read_text().replace("color", "colour"))
    return [*_compile(bench, tmp), "--contract", path]


def _other_contract(bench: Bench, tmp: Path) -> list[object]:
    contract = _contract(tmp, order="xxyy")
    return ["evaluate", bench.model, "--data", bench.faces, "--contract", contract]


def _empty_folder(bench: Bench, tmp: Path) -> list[object]:
    (tmp / "empty").mkdir()
    return ["evaluate", bench.model, "--data", tmp / "empty"]


def _five_points(bench: Bench, tmp: Path) -> list[object]:
    write_folder(tmp / "five", [row("a.png", role="test")])
    return ["evaluate", bench.model, "--data", tmp / "five"]


def _broken_picture(bench: Bench, tmp: Path) -> list[object]:
    write_folder(tmp / "broken", [row("a.png", points(0), role="test")])
    (tmp / "broken" / "images" / "a.png").write_bytes(b"not a picture")
    return ["evaluate", bench.model, "--data", tmp / "broken"]


def _missing_picture(bench: Bench, tmp: Path) -> list[object]:
    write_folder(tmp / "lost", [row("a.png", points(0), role="test")])
    (tmp / "lost" / "images" / "a.png").unlink()
    return ["evaluate", bench.model, "--data", tmp / "lost"]


_POOL = {"class_name": "GlobalAveragePooling2D", "config": {"name": "pool"}}


def _keras(tmp: Path, layer: dict[str, object]) -> list[object]:
    shape = [None, 112, 112, 3]
    image = {"class_name": "InputLayer", "config": {"batch_shape": shape, "name": "image"}}
    config = {"class_name": "Sequential", "config": {"name": "net", "layers": [image, layer]}}
    stored = io.BytesIO()
    with h5py.File(stored, "w") as file:
        file.create_group("layers")
    with zipfile.ZipFile(tmp / "net.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", stored.getvalue())
    return ["evaluate", tmp / "net.keras"]


def _lambda(bench: Bench, tmp: Path) -> list[object]:
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}
    return _keras(tmp, {"class_name": "Lambda", "config": {"name": "shady", "function": code}})


def _unknown_key(bench: Bench, tmp: Path) -> list[object]:
    from lmopt.target.catalog import installed

    text = installed()["velvet-cpu"].read_text()
    (tmp / "board.toml").write_text(text.replace("engine =", "motor =", 1))
    return ["optimize", bench.detector, "--target", tmp / "board.toml", "--data", bench.faces]


def _crash(bench: Bench, tmp: Path) -> list[object]:
    (tmp / "crash.tflite").write_bytes(crashing_model())
    return ["measure", tmp / "crash.tflite"]


def _scored_crash(bench: Bench, tmp: Path) -> list[object]:
    _crash(bench, tmp)
    arguments = ["evaluate", tmp / "crash.tflite", "--data", bench.faces]
    return [*arguments, "--contract", _contract(tmp)]


def _below_a_file(bench: Bench, tmp: Path) -> list[object]:
    (tmp / "file").write_text("")
    return [*_compile(bench, tmp)[:-1], tmp / "file" / "m.tflite"]


def _optimize_below_a_file(bench: Bench, tmp: Path) -> list[object]:
    (tmp / "file").write_text("")
    arguments = ["optimize", bench.detector, "--target", "host", "--data", bench.faces]
    return [*arguments, "--out", tmp / "file" / "run"]


def _board(tmp: Path) -> Path:
    """A target whose engine runs uint8 and nothing else."""
    quantities = {"bandwidth": "GB/s", "kernel_overhead": "us", "invoke_overhead": "us"}
    quantities |= dict.fromkeys(("conv_share", "depthwise_share", "error"), "1")
    numbers = "\n".join(
        f'{key} = {{ value = 1.0, unit = "{unit}", kind = "guess", source = "none" }}'
        for key, unit in {**quantities, "peak_u8": "GMAC/s"}.items()
    )
    head = 'title = "b"\nengine = "npu"\nstorage = ["u8"]\nsupported_ops = ["conv2d"]'
    (tmp / "board.toml").write_text(f"{head}\n[quantities]\n{numbers}\n")
    return tmp / "board.toml"


CASES = {
    "unknown pass": Case(
        lambda b, t: _compile(b, t, "fold-batchnorm,quantise-uint8"),
        USAGE,
        ("pipeline:1:16", "unknown pass 'quantise-uint8'"),
        "did you mean 'quantize-uint8'?",
    ),
    "unknown end": Case(
        lambda b, t: [*_compile(b, t, "fold-batchnorm,quantize-int8"), "--input", "float16"],
        USAGE,
        ("--input", "no element type 'float16'"),
        "choose float32, uint8, int8 or int16",
    ),
    "ends of a float file": Case(
        lambda b, t: [*_compile(b, t), "--output", "uint8"],
        USAGE,
        ("--output", "no pass of 'fold-batchnorm' makes integer ends"),
        "end the pipeline in quantize-int8",
    ),
    "a form the target refuses": Case(
        lambda b, t: [
            *_compile(b, t, "fold-batchnorm,to-float16"),
            *("--target", _board(t), "--data", b.faces),
        ],
        BACKEND,
        ("board: pass 2 (to-float16): float16 is not legal: `storage` of board does not list f16",),
        "end the pipeline in the form uint8",
    ),
    "unknown option": Case(
        lambda b, t: _compile(b, t, "finetune{epoch=1}"),
        USAGE,
        ("pipeline:1:", "epoch"),
        "epochs",
    ),
    "malformed pipeline": Case(
        lambda b, t: _compile(b, t, "fold-batchnorm,,to-float16"),
        USAGE,
        ("pipeline:1:16", "empty item", "^"),
        "compile --help",
    ),
    "unknown target": Case(
        lambda b, t: ["optimize", b.detector, "--target", "velvet-apo"],
        USAGE,
        ("unknown target 'velvet-apo'",),
        "did you mean 'velvet-apu'?",
    ),
    "unknown detector": Case(
        lambda b, t: ["inspect", "pfld-0.2"],
        USAGE,
        ("unknown detector 'pfld-0.2'",),
        "did you mean 'pfld-0.25'?",
    ),
    "unknown weights": Case(
        lambda b, t: ["evaluate", "pfld-0.25@imagenet"],
        USAGE,
        ("no weights 'imagenet'",),
        "lmopt train pfld-0.25",
    ),
    "no weights": Case(
        lambda b, t: ["evaluate", "pfld-1.0@none", "--data", b.faces],
        INPUT,
        ("pfld-1.0@none", "no weights yet"),
        "lmopt train pfld-1.0",
    ),
    "a bad number": Case(
        lambda b, t: ["optimize", b.detector, "--target", "host", "--budget", "-1"],
        USAGE,
        ("--budget is -1",),
        "lmopt optimize --help",
    ),
    "a bad thread list": Case(
        lambda b, t: ["measure", b.model, "--threads", "one"],
        USAGE,
        ("--threads", "'one' is no list"),
        "1,2",
    ),
    "more threads than cores": Case(
        lambda b, t: ["measure", b.model, "--threads", "4096"],
        INPUT,
        ("--threads", "4096"),
        "choose from 1 to",
    ),
    "a bad normaliser": Case(
        lambda b, t: ["evaluate", b.model, "--data", b.faces, "--normaliser", "nose"],
        USAGE,
        ("--normaliser", "'nose'"),
        "inter-ocular",
    ),
    "a bad split": Case(
        lambda b, t: ["evaluate", b.model, "--data", b.faces, "--split", "dev"],
        USAGE,
        ("--split", "'dev' is no split"),
        "train, validation, test",
    ),
    "a bad protocol": Case(
        lambda b, t: ["evaluate", b.model, "--data", b.faces, "--protocol", "speed"],
        USAGE,
        ("unknown protocol 'speed'",),
        "resolution, blur",
    ),
    "one noisy copy": Case(
        lambda b, t: ["evaluate", b.model, "--data", b.faces, "--copies", "1"],
        USAGE,
        ("copies 1", "at least 2"),
        "",
    ),
    "a bad box": Case(
        lambda b, t: ["evaluate", b.model, "--frames", b.faces, "--frame-box", "1,2,3"],
        USAGE,
        ("--frame-box", "'1,2,3' is no box"),
        "10,10,90,90",
    ),
    "labels of other faces": Case(
        lambda b, t: ["evaluate", b.model, "--data", b.faces, "--labels", _labels(t)],
        INPUT,
        ("labels.csv", "no face 'nobody.png'"),
        "correct or remove the row",
    ),
    "print after nothing": Case(
        lambda b, t: [*_compile(b, t), "--print-after", "qat"],
        USAGE,
        ("--print-after", "no pass 'qat'"),
        "fold-batchnorm",
    ),
    "a pass without its faces": Case(
        lambda b, t: _compile(b, t, "fold-batchnorm,quantize-int8"),
        5,
        ("quantize-int8 needs calibration faces",),
        "--data",
    ),
    "missing model": Case(
        lambda b, t: ["evaluate", t / "none.tflite", "--data", b.faces],
        INPUT,
        ("none.tflite", "No such file"),
        "check the path",
    ),
    "missing model to inspect": Case(
        lambda b, t: ["inspect", t / "none.keras"],
        INPUT,
        ("none.keras", "no such model file"),
        ".tflite",
    ),
    "a phone sustained": Case(
        lambda b, t: ["measure", b.model, "--device", "adb", "--sustained", "1"],
        USAGE,
        ("--sustained", "only a .tflite on this host is sustained"),
        "leave --sustained out",
    ),
    "missing model to measure": Case(
        lambda b, t: ["measure", t / "none.tflite"],
        INPUT,
        ("none.tflite", "cannot be read"),
        ".tflite",
    ),
    "garbage for a model": Case(
        _garbage, INPUT, ("bad.tflite", "not a TFLite file"), "give a .tflite"
    ),
    "a truncated model": Case(_truncated, INPUT, ("cut.tflite", "corrupt"), "copying it again"),
    "no contract": Case(
        _without_contract, INPUT, ("bare.tflite", "no contract"), "--guess-contract --data"
    ),
    "a contract of another size": Case(
        _wrong_size, INPUT, ("feeds 96x96x3", "112,112,3"), "height"
    ),
    "a misspelt contract": Case(
        _misspelt_contract, INPUT, ("contract.toml", "unknown key 'colour'"), "'color'"
    ),
    "another contract than the file's": Case(
        _other_contract, INPUT, ("drawn.tflite", "order xyxy", "xxyy"), "without --contract"
    ),
    "missing contract file": Case(
        lambda b, t: [*_compile(b, t), "--contract", t / "none.toml"],
        INPUT,
        ("none.toml", "No such file"),
        "contract",
    ),
    "empty data folder": Case(_empty_folder, INPUT, ("empty", "is empty"), "landmarks.csv"),
    "missing data folder": Case(
        lambda b, t: ["evaluate", b.model, "--data", t / "nowhere"],
        INPUT,
        ("nowhere", "no such folder"),
        "folder",
    ),
    "wrong number of landmarks": Case(
        _five_points, INPUT, ("landmarks.csv:2", "5 landmarks, wanted 68"), "contract"
    ),
    "an unreadable picture": Case(
        _broken_picture, INPUT, ("a.png", "landmarks.csv:2", "no picture"), "replace the picture"
    ),
    "a missing picture": Case(_missing_picture, INPUT, ("a.png", "landmarks.csv:2"), "picture"),
    "a Keras file with a Lambda": Case(
        _lambda, INPUT, ("net.keras", "'shady'", "Lambda", "never runs"), "use one of"
    ),
    "a Keras file without a contract": Case(
        lambda b, t: [*_keras(t, _POOL), "--data", b.faces], INPUT, ("no contract",), "--contract"
    ),
    "a target with an unknown key": Case(
        _unknown_key, INPUT, ("board.toml", "unknown key 'motor'"), "engine"
    ),
    "a model that crashes the runtime": Case(
        _crash, BACKEND, ("crash.tflite", "crashed with SIG"), "another pipeline"
    ),
    "a scored model that crashes the runtime": Case(
        _scored_crash, BACKEND, ("crash.tflite", "crashed with SIG"), "another pipeline"
    ),
    "an output folder that is a file": Case(
        _below_a_file, INPUT, ("m.tflite", "cannot write"), "--out"
    ),
    "a run folder that is a file": Case(
        _optimize_below_a_file, INPUT, ("run", "cannot write"), "--out"
    ),
}


def check(case: Case, arguments: list[object]) -> None:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == case.code, result.output + repr(result.exception)
    assert result.stdout == ""
    told, _, hint = result.stderr.partition("\nhint: ")
    assert "error: " in told
    for part in case.reason:
        assert part in told
    assert case.hint in hint
    assert hint.strip()
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_says_what_where_and_what_next(name: str, bench: Bench, tmp_path: Path) -> None:
    case = CASES[name]
    check(case, case.arguments(bench, tmp_path))


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=os.strerror)
def test_a_full_or_read_only_output_folder_leaves_nothing_half_written(
    reason: int, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    case = Case(_compile, INPUT, ("m.tflite", os.strerror(reason)), "--out")
    check(case, _compile(bench, tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_found_before_any_work(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    case = Case(_compile, INPUT, ("m.tflite", "Permission denied"), "--out")
    check(case, [*_compile(bench, tmp_path)[:-1], folder / "m.tflite"])
    shutil.rmtree(folder)


def test_a_missing_option_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["optimize", "pfld-0.25"])
    assert result.exit_code == USAGE
    assert "--target" in result.stderr
