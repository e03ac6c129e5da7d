"""Commands with `--device adb`, on a phone on loopback with the real adb client and server."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import lmopt
from lmopt.cli.app import app
from lmopt.codegen.tflite import emit
from lmopt.data.crop import cut_all
from lmopt.data.load import load_dataset
from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.document import CONTRACT_KEY, contract_to_json, contract_to_toml
from lmopt.detector.scheme import scheme_for
from lmopt.device.rig import ROOT
from lmopt.errors import BackendError, UsageError
from lmopt.flow import storage
from lmopt.flow.folding import folded
from lmopt.flow.phone import cabled, compare_outputs
from lmopt.latency import harness
from lmopt.latency import phone as measuring
from lmopt.target.catalog import load_target
from tests.support import benchmark_model
from tests.support.android_device import Device
from tests.support.annotated import FIVE_POINTS, row, write_folder
from tests.support.constant_detector import constant_detector
from tests.support.faces import FACES, requires_faces
from tests.support.phones import PLAIN, requires_adb

pytestmark = requires_adb
RULE = CropRule("landmarks", 1.25, True)
CONTRACT = Contract(
    *(16, 16, "rgb", (0.0,) * 3, (255.0,) * 3, RULE, "points", "xyxy", "unit", scheme_for(5))
)


def truth() -> np.ndarray:
    low, high = FIVE_POINTS.min(axis=0), FIVE_POINTS.max(axis=0)
    return (FIVE_POINTS - (low + high) / 2) / ((high - low).max() * 1.25) + 0.5


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.tflite"
    graph = constant_detector(CONTRACT, truth(), expects=(128, 128, 128))
    path.write_bytes(emit(graph, metadata={CONTRACT_KEY: contract_to_json(CONTRACT)}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    roles = ("train", "train", "validation", "test")
    found = [row(f"{k}.png", role=role, group=f"g{k}") for k, role in enumerate(roles)]
    return write_folder(tmp_path / "faces", found)


def tool(tmp_path: Path, script: str = PLAIN) -> Path:
    (tmp_path / "benchmark_model").write_text(script)
    return tmp_path / "benchmark_model"


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring.PhoneBench.compare, "__kwdefaults__", _FEW)


_FEW = {**measuring.PhoneBench.compare.__kwdefaults__, "min_rounds": 1}


def test_measure_on_the_phone(phone: Device, model: Path, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(model.read_bytes() + bytes(1000))
    command = ["measure", str(model), "--against", str(other), "--device", "adb", "--threads", "4"]
    command += ["--benchmark-model", str(tool(tmp_path)), "--data", str(folder)]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    size = model.stat().st_size
    assert found["best"]["p50_ms"] == size / 1e3 and found["best"]["target"] == "p30-cpu"
    assert found["best"]["threads"] == 4 and found["best"]["conditions"]["mask"] == "f0"
    assert found["speedups"][0]["value"] == pytest.approx((size + 1000) / size)
    assert found["phone"]["soc"] == "kirin980" and found["phone"]["android"] == "10"
    assert "too old" in found["outputs"][str(model)]["reason"]
    shown = CliRunner().invoke(app, [*command[:2], *command[4:]])
    assert "measured on HUAWEI VOG-L29 (kirin980, Android 10, API 29), cpu" in shown.stdout
    assert "governor schedutil" in shown.stdout and "35.0 C before, 35.0 C after" in shown.stdout
    assert "outputs not compared: benchmark_model" in shown.stdout
    assert phone.left == []


@pytest.mark.faces
@requires_faces
def test_outputs_are_compared_on_real_faces(phone: Device, tmp_path: Path) -> None:
    detector = lmopt.load("pfld-0.25@synthetic")
    contract = detector.require_contract()
    faces = load_dataset([FACES / "afw"], scheme=contract.scheme).split("validation")
    few = {face.id for face in faces.faces[:2]}
    crops = cut_all(faces.keep(lambda face: face.id in few), contract).pixels
    data = emit(folded(detector.graph))
    cable = cabled("adb", None, tool(tmp_path, benchmark_model.script()))
    with cable.bench() as bench:
        same = compare_outputs(bench, data, contract, crops, "m")
        assert same.faces == 2 and same.largest_px < 1e-3
    assert phone.left == []


def test_wrong_answers_are_an_error(phone: Device, model: Path, tmp_path: Path) -> None:
    crops = np.zeros((1, 16, 16, 3), np.uint8)
    zeros = "head -c 40 /dev/zero > $output"
    cable = cabled("adb", None, tool(tmp_path, f"{PLAIN}\n{zeros}\n"))
    with cable.bench() as bench:
        with pytest.raises(BackendError, match="% of the crop's side away from where"):
            compare_outputs(bench, model.read_bytes(), CONTRACT, crops, "m")
        (place,) = phone.place(ROOT).glob("*/benchmark_model")
        place.write_text(f"{PLAIN}\n{zeros.replace('40', '39')}\n")
        with pytest.raises(BackendError, match="39 bytes of outputs"):
            compare_outputs(bench, model.read_bytes(), CONTRACT, crops, "m")
    assert phone.left == []


def test_an_old_tool_is_named_and_an_engine_of_a_target_is_used(
    phone: Device, model: Path, folder: Path, tmp_path: Path
) -> None:
    old = tool(tmp_path, benchmark_model.script(old=True))
    found = lmopt.measure(model, device="adb", benchmark_model=old, data=folder, max_seconds=0)
    compared = found.outputs[str(model)]
    assert compared.faces == 0 and "--output_filepath" in str(compared)
    assert "mean of each run" in found.best.tool
    there = "\necho 'NNAPI accelerators available: [mtk-neuron]'\n"
    new = tool(tmp_path, PLAIN + there)
    with pytest.raises(BackendError, match="silently ran on the CPU: GPU took nothing"):
        lmopt.measure(model, device="adb", target="p30-gpu", benchmark_model=new)
    with pytest.raises(BackendError, match="no NNAPI accelerator 'neuron-ann'"):
        lmopt.measure(model, device="adb", target="velvet-apu", benchmark_model=new)
    assert phone.left == []


def test_optimize_measures_on_the_phone_and_survives_it(
    phone: Device,
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = harness.compare
    monkeypatch.setattr(harness, "compare", lambda *a, **k: here(*a, **{**k, "max_seconds": 0}))
    monkeypatch.setattr(storage, "make_forms", lambda *a: ())
    monkeypatch.setattr(storage, "comparison", lambda *a: None)
    (tmp_path / "c.toml").write_text(contract_to_toml(CONTRACT))
    crashing = len(lmopt.compile(lmopt.load(model), "to-float16").data)
    head, _, body = PLAIN.partition("\necho")
    request = lmopt.OptimizeRequest(
        target="auto",
        detector=str(model),
        data=(folder,),
        passes=("to-float16",),
        contract=tmp_path / "c.toml",
        device="adb",
        threads=4,
        out=tmp_path / "run",
        benchmark_model=tool(
            tmp_path, f"{head}\n[ $size != {crashing} ] || kill -SEGV $$\necho{body}"
        ),
    )
    visits = iter(range(9))

    def pull_once(command: str) -> None:
        if "--graph=" in command and next(visits) == 1:
            phone.pull_cable()
            threading.Timer(0.1, phone.plug).start()

    phone.on_shell = pull_once
    found = lmopt.optimize(request)
    assert found.target == "p30-cpu" and found.environment["phone"]["soc"] == "kirin980"
    assert found.environment["measured_target"] and found.environment["doubts"] == []
    base = found.baseline
    assert base.latency.kind == "measured" and "kirin980" in base.latency.where
    assert (base.latency.ms, base.latency.threads) == (base.trained.size_bytes / 1e3, 4)
    assert base.device_speedup == (1.0, 1.0, 1.0) and base.host.ms != base.latency.ms
    assert any("outputs not compared" in note for note in base.trained.notes)
    assert "outputs not compared: benchmark_model" in found.environment["device_notes"][0]
    assert [c.pipeline for c in found.front] == ["fold-batchnorm"]
    (failure,) = found.failures
    assert failure.pipeline == "to-float16" and "killed with SIGSEGV" in failure.reason
    assert phone.left == []


def test_a_profile_of_another_chip_is_said(phone: Device, tmp_path: Path) -> None:
    found = cabled("adb", load_target("velvet-cpu"), tool(tmp_path))
    assert found.notes[0].startswith("the profile velvet-cpu is not about this phone's chip")


def test_options_of_phones_want_a_phone(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="for measuring on a phone"):
        lmopt.measure(model, per_op=True)
    with pytest.raises(UsageError, match="no device 'adbx'"):
        lmopt.measure(model, device="adbx")
    with pytest.raises(UsageError, match="no target is named"):
        lmopt.OptimizeRequest(target="auto")
    with pytest.raises(UsageError, match="no device 'usb'"):
        lmopt.OptimizeRequest(target="host", device="usb")
    with pytest.raises(UsageError, match="this host is no phone"):
        lmopt.measure(model, device="adb", target="host")
    with pytest.raises(UsageError, match="not measured on a phone"):
        lmopt.compare_storage(lmopt.OptimizeRequest(target="p30-cpu", device="adb"))
