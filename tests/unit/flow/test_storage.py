"""Storage forms on a target: legal ones are made, scored and timed, others have a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lmopt
from lmopt.codegen.tflite import emit
from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.detector import Detector
from lmopt.detector.document import contract_to_toml
from lmopt.detector.scheme import scheme_for
from lmopt.errors import BackendError, PassError, UsageError
from lmopt.flow import sources
from lmopt.flow.journal import Journal
from lmopt.flow.pipelines import with_ends
from lmopt.flow.sources import load_faces
from lmopt.flow.storage import ends_of, make_forms
from lmopt.flow.workbench import Workbench
from lmopt.frontend.savedmodel import CONTRACT_FILE, MARK
from lmopt.ir.types import DType
from lmopt.pipeline.manager import Pipeline
from lmopt.target.catalog import load_target
from lmopt.target.profile import FORMS
from tests.support.annotated import FIVE_POINTS, row, write_folder
from tests.support.constant_detector import constant_detector

RULE = CropRule("landmarks", 1.25, True)
CONTRACT = Contract(
    *(16, 16, "rgb", (0.0,) * 3, (255.0,) * 3, RULE, "points", "xyxy", "unit", scheme_for(5))
)
BOARD = """
title = "A board whose runtime breaks uint8"
engine = "cpu"
storage = ["u8", "i8", "f32", "f16"]
supported_ops = ["dense", "mean", "add", "quantize", "dequantize"]
[runtime]
name = "Board runtime"
version = "3"
kind = "guess"
source = "none"
[forms.uint8]
legal = false
reason = "it crashes in version 3"
kind = "sourced"
source = "errata"
[limits.border]
value = ["f32", "u8"]
kind = "sourced"
source = "manual"
[ends]
input = "uint8"
output = "uint8"
kind = "guess"
source = "none"
[quantities]
peak_i8 = { value = 100.0, unit = "GMAC/s", kind = "guess", source = "box" }
peak_u8 = { value = 200.0, unit = "GMAC/s", kind = "guess", source = "box" }
peak_f32 = { value = 20.0, unit = "GMAC/s", kind = "guess", source = "box" }
peak_f16 = { value = 20.0, unit = "GMAC/s", kind = "guess", source = "box" }
conv_share = { value = 0.5, unit = "1", kind = "guess", source = "none" }
depthwise_share = { value = 0.1, unit = "1", kind = "guess", source = "none" }
bandwidth = { value = 10.0, unit = "GB/s", kind = "guess", source = "none" }
kernel_overhead = { value = 10.0, unit = "us", kind = "guess", source = "none" }
invoke_overhead = { value = 10.0, unit = "us", kind = "guess", source = "none" }
error = { value = 0.5, unit = "1", kind = "guess", source = "none" }
"""


def truth() -> np.ndarray:
    low, high = FIVE_POINTS.min(axis=0), FIVE_POINTS.max(axis=0)
    return (FIVE_POINTS - (low + high) / 2) / ((high - low).max() * 1.25) + 0.5


def detector() -> Detector:
    """Right on grey crops, off on others: its answer depends on what it sees."""
    graph = constant_detector(CONTRACT, truth(), expects=(128, 128, 128))
    return Detector("constant", graph, CONTRACT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    roles = ("train", "train", "validation", "test")
    rows = [row(f"{k}.png", role=role, group=f"g{k}") for k, role in enumerate(roles)]
    return write_folder(tmp_path / "faces", rows)


@pytest.fixture
def request_(folder: Path, tmp_path: Path) -> lmopt.OptimizeRequest:
    (tmp_path / "board.toml").write_text(BOARD)
    (tmp_path / "c.toml").write_text(contract_to_toml(CONTRACT))
    (tmp_path / "m.tflite").write_bytes(emit(detector().graph))
    return lmopt.OptimizeRequest(
        target=str(tmp_path / "board.toml"),
        detector=str(tmp_path / "m.tflite"),
        data=(folder,),
        contract=tmp_path / "c.toml",
        threads=1,
        out=tmp_path / "run",
    )


def test_legal_forms_have_files_and_others_reasons(request_: lmopt.OptimizeRequest) -> None:
    found = lmopt.compare_storage(request_)
    assert (found.chosen, found.runtime) == ("int8", "Board runtime 3")
    assert [row.form for row in found.rows] == ["int8", "float32", "float16", "uint8", "int16x8"]
    *legal, illegal, unnamed = found.rows
    for entry in legal:
        assert entry.candidate is not None, entry.reason
        made = entry.candidate
        assert made.latency.kind == "estimated" and made.host.kind == "measured"
        again = lmopt.evaluate(made.trained.model, request_.data, split="validation")
        assert again.nme_percent == pytest.approx(made.trained.val_nme_percent, abs=1e-9)
    assert illegal.candidate is None
    assert illegal.reason == "not legal: it crashes in version 3"
    assert unnamed.candidate is None and not unnamed.rule.legal
    int8 = sources.load(found.row("int8").candidate.trained.model).graph
    assert int8.inputs[0].results[0].dtype is DType.U8
    assert int8.type(int8.outputs[0][1]).dtype is DType.U8
    assert found.nme_change(found.row("float32")) == 0.0
    assert found.time_ratio(found.row("int8")) == 1.0
    json.dumps(found.to_json())


def test_a_legal_form_that_the_engine_leaves_to_others_is_made_when_asked_for(
    request_: lmopt.OptimizeRequest, tmp_path: Path
) -> None:
    lowly = Path(request_.target).with_name("lowly.toml")
    rules = "".join(
        f'[forms.{form}]\nlegal = {str(form in ("float32", "int16x8")).lower()}\nreason = "so"\n'
        'kind = "guess"\nsource = "none"\n'
        for form in FORMS
    )
    lowly.write_text(BOARD.split("[runtime]")[0] + rules + BOARD[BOARD.index("[quantities]") :])
    target, journal = load_target(str(lowly)), Journal(tmp_path / "run")
    faces = load_faces(request_.data, CONTRACT)
    with Workbench(detector(), faces, target, cache=journal.cache) as bench:
        plain, asked = (
            {form.form: form for form in make_forms(bench, journal, target, request_, slow=slow)}
            for slow in (False, True)
        )
    assert {name for name, form in plain.items() if form.made} == {"float32"}
    assert "lmopt storage" in plain["int16x8"].reason
    assert {name for name, form in asked.items() if form.made} == {"float32", "int16x8"}


def test_whose_ends_a_pipeline_gets() -> None:
    apu = load_target("velvet-apu")
    asked = lmopt.OptimizeRequest("velvet-apu", output="float32")
    silent = lmopt.OptimizeRequest("velvet-apu")
    own = Pipeline.parse("fold-batchnorm,quantize-uint8")
    (last,) = (ends_of(own, apu, silent).passes[-1],)
    assert (last.input, last.output) == ("uint8", "uint8")
    assert ends_of(own, apu, silent, own=False) == own
    assert ends_of(own, apu, asked).passes[-1].output == "float32"
    assert ends_of(own, load_target("velvet-cpu"), silent) == own
    untouched = Pipeline.parse("fold-batchnorm,to-float16")
    assert with_ends(untouched, "int8", "int8") == untouched


def test_compile_gives_the_ends_asked_for(folder: Path) -> None:
    made = lmopt.compile(
        detector(), "quantize-int8{input=float32}", data=folder, input="int8", output="uint8"
    )
    kinds = [made.graph.inputs[0].results[0].dtype, made.graph.type(made.graph.outputs[0][1]).dtype]
    assert kinds == [DType.I8, DType.U8]
    assert "input=int8" in str(made.pipeline) and "output=uint8" in str(made.pipeline)
    with pytest.raises(UsageError, match="no pass of 'to-float16' makes integer ends"):
        lmopt.compile(detector(), "to-float16", output="uint8")


def test_compile_writes_nothing_that_the_target_forbids(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text(BOARD)
    out = tmp_path / "m.tflite"
    calls = {
        "velvet-gpu": r"velvet-gpu: pass 1 \(quantize-int8\): int8 is not legal: .*gpu\.md",
        str(
            tmp_path / "board.toml"
        ): r"board: %\w+: i8 at the border, legal are f32, u8 \(border, ",
    }
    for target, reason in calls.items():
        with pytest.raises(BackendError, match=reason):
            lmopt.compile(
                detector(),
                "quantize-int8{faces=2}",
                data=folder,
                output="int8",
                target=target,
                out=out,
            )
    assert not out.exists()


@pytest.mark.parametrize("last", ["quantize-int8", "qat{epochs=1}"])
def test_a_form_that_the_target_forbids_is_refused_before_any_work(folder: Path, last: str) -> None:
    heard: list[object] = []
    with pytest.raises(BackendError, match="int8 is not legal") as caught:
        lmopt.compile(
            detector(),
            f"finetune{{epochs=1}},{last}",
            data=folder,
            target="velvet-gpu",
            listen=heard.append,
        )
    assert heard == []
    assert "float16" in str(caught.value.hint)


def test_a_file_is_to_be_called_what_other_commands_know_it_by(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'small\.bin' does not end in \.tflite"):
        lmopt.compile(detector(), "fold-batchnorm", out=tmp_path / "small.bin")
    assert not list(tmp_path.iterdir())


def test_forms_of_a_quantized_detector_are_not_compared(
    request_: lmopt.OptimizeRequest, tmp_path: Path
) -> None:
    lmopt.compile(
        detector(), "quantize-int8{faces=2}", data=request_.data, out=tmp_path / "small.tflite"
    )
    small = replace(request_, detector=str(tmp_path / "small.tflite"))
    with pytest.raises(PassError, match="not float32 any more"):
        lmopt.compare_storage(small)


def test_a_saved_model_of_ours_brings_its_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "saved"
    extra = folder / CONTRACT_FILE
    extra.parent.mkdir(parents=True)
    (folder / MARK).write_bytes(b"")
    from lmopt.detector.document import contract_to_json

    extra.write_text(contract_to_json(CONTRACT))
    monkeypatch.setattr(sources, "convert", lambda path: emit(detector().graph))
    assert lmopt.load(folder).contract == CONTRACT


def test_measuring_kinds_of_models_against_each_other_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / MARK).write_bytes(b"")
    with pytest.raises(UsageError, match="that is no comparison"):
        lmopt.measure(tmp_path / "saved", against=emit(detector().graph))
    with pytest.raises(UsageError, match="CPU threads do not apply"):
        lmopt.measure(tmp_path / "saved", threads=(1, 2))
