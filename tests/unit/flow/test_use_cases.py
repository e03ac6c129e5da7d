"""Use cases as functions: any number of landmarks, data in every form, files written whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lmopt
from lmopt.calibration.observe import FaceCalibrator
from lmopt.codegen.tflite import emit
from lmopt.data import load_dataset
from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.detector import Detector
from lmopt.detector.document import contract_to_toml
from lmopt.detector.scheme import LandmarkScheme, scheme_for
from lmopt.errors import BackendError, InputError, UsageError
from lmopt.files import require_writable, write_atomically
from lmopt.flow import events, inspection, workbench
from lmopt.flow.recipe import TrainingRecipe
from lmopt.flow.sources import as_faces, is_rendered, kind_of_faces
from lmopt.flow.workbench import GraphScorer, Workbench
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import Add, Conv2D, Dense, Mean
from lmopt.ir.types import Weight
from lmopt.latency.measurement import ratio
from lmopt.pipeline.cache import Shelf
from lmopt.pipeline.manager import Pipeline
from lmopt.runtime.runner import file_digest
from lmopt.scoring.protocols import ScoringProtocol
from lmopt.target.catalog import load_target
from tests.support.annotated import FIVE_POINTS, row, write_folder
from tests.support.constant_detector import constant_detector

SHIFT = np.array([0.1, 0.0])
EYES = LandmarkScheme("five", 5, eye_corners=(0, 1))
RULE = CropRule("landmarks", 1.25, True)
CONTRACT = Contract(
    *(16, 16, "rgb", (0.0,) * 3, (255.0,) * 3, RULE, "points", "xyxy", "unit", scheme_for(5))
)


def truth() -> np.ndarray:
    low, high = FIVE_POINTS.min(axis=0), FIVE_POINTS.max(axis=0)
    return (FIVE_POINTS - (low + high) / 2) / ((high - low).max() * 1.25) + 0.5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    roles = ("train", "validation", "test", "test")
    rows = [row(f"{k}.png", role=role) for k, role in enumerate(roles)]
    return write_folder(tmp_path / "faces", rows)


def detector(points: np.ndarray, contract: Contract = CONTRACT) -> Detector:
    return Detector("constant", constant_detector(contract, points), contract)


def two_layers() -> Graph:
    rng = np.random.default_rng(0)
    edit = Edit("net")
    x = edit.input("image", (None, 16, 16, 3))
    for name, channels in (("first", 3), ("second", 4)):
        kernel = rng.normal(size=(3, 3, channels, 4)).astype(np.float32)
        op = Conv2D(4, stride=(4, 4), use_bias=False)
        x = edit.add(name, op, x, weights={"kernel": kernel})
    kernel = rng.normal(size=(4, 10)).astype(np.float32)
    pooled = edit.add("pooled", Mean(), x)
    head = Dense(10, use_bias=False)
    edit.output("points", edit.add("head", head, pooled, weights={"kernel": kernel}))
    return edit.done()


def test_a_detector_that_is_right_scores_zero(folder: Path) -> None:
    score = lmopt.evaluate(detector(truth()), folder)
    assert score.nme_percent == pytest.approx(0.0, abs=1e-4)
    assert score.auc == pytest.approx(1.0)
    assert (score.faces, score.split) == (2, "test")


def test_a_scheme_without_eyes_is_normalised_by_the_box(folder: Path) -> None:
    shifted = detector(truth() + SHIFT)
    score = lmopt.evaluate(shifted, folder)
    side = np.ptp(FIVE_POINTS, axis=0)
    assert score.normaliser == "box"
    wanted = 100 * 0.1 * side.max() * 1.25 / np.sqrt(side.prod())
    assert score.nme_percent == pytest.approx(wanted, rel=1e-4)


def test_a_scheme_with_eyes_is_normalised_by_them(folder: Path) -> None:
    eyed = replace(CONTRACT, scheme=EYES)
    score = lmopt.evaluate(detector(truth() + SHIFT, eyed), folder)
    eyes = np.linalg.norm(FIVE_POINTS[0] - FIVE_POINTS[1])
    assert score.normaliser == "inter-ocular"
    wanted = 100 * 0.1 * np.ptp(FIVE_POINTS, axis=0).max() * 1.25 / eyes
    assert score.nme_percent == pytest.approx(wanted, rel=1e-4)


def test_the_shift_of_a_graph_is_its_distance_from_another_and_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eyed = replace(CONTRACT, scheme=EYES)
    scorer = GraphScorer(ScoringProtocol(eyed, load_dataset([folder])), Shelf(tmp_path / "kept"))
    right, away = (constant_detector(eyed, truth() + k * SHIFT) for k in (0, 2))
    eyes = np.linalg.norm(FIVE_POINTS[0] - FIVE_POINTS[1])
    wanted = 100 * 0.2 * np.ptp(FIVE_POINTS, axis=0).max() * 1.25 / eyes
    for reference, graph in ((right, away), (away, right)):
        assert scorer.shift_percent(graph, reference) == pytest.approx(wanted, rel=1e-4)
        assert scorer.shift_percent(reference, reference) == pytest.approx(0.0, abs=1e-4)
    # where the reference is right, any move costs its length
    assert scorer.expected_drop(away, right) == pytest.approx(wanted, rel=1e-4)
    monkeypatch.setattr(ScoringProtocol, "predict", fail)
    again = GraphScorer(scorer.protocol, scorer.shelf)
    assert again.shift_percent(away, right) == scorer.shift_percent(away, right)


def test_a_killed_search_for_mixed_types_takes_up_what_it_had_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is run once on the validation faces and once for its means, in both runs together.

    What files answer is made up here, and depends on nothing but the file.
    """
    found: dict[str, list[str]] = {"scored": [], "averaged": []}
    killed: list[str] = []

    def scoring(self: ScoringProtocol, model: bytes, *, threads: int = 1) -> np.ndarray:
        found["scored"].append(file_digest(model))
        if len(found["scored"]) == 4 and not killed:
            killed.append(found["scored"].pop())
            raise KeyboardInterrupt
        rng = np.random.default_rng(int(file_digest(model), 16))
        return self.truth + rng.normal(0, 0.1, self.truth.shape)

    def observing(
        self: FaceCalibrator, graph: Graph, values: Sequence[Value], faces: int
    ) -> Iterator[list[np.ndarray]]:
        found["averaged"].append(graph.digest())
        yield [np.ones((1, *graph.type(value).shape[1:])) for value in values]

    monkeypatch.setattr(ScoringProtocol, "predict", scoring)
    monkeypatch.setattr(FaceCalibrator, "observed", observing)
    pipeline = Pipeline.parse(
        "quantize-mixed{segments=2,faces=1,equalize=false,float-head=false,max-nme-drop=0.0001}"
    )
    made = Detector("two layers", two_layers(), CONTRACT)

    def mixed() -> Graph:
        with Workbench(made, load_dataset([folder]), None, cache=tmp_path / "kept") as bench:
            return bench.run(pipeline).graph

    with pytest.raises(KeyboardInterrupt):
        mixed()
    mixed()
    assert killed[0] in found["scored"] and len(found["scored"]) >= 4
    for names in found.values():
        assert len(names) == len(set(names))


def test_answers_without_a_file_are_scored_like_the_file_that_gives_them(folder: Path) -> None:
    eyed = replace(CONTRACT, scheme=EYES)
    scorer = GraphScorer(ScoringProtocol(eyed, load_dataset([folder])))
    graph = constant_detector(eyed, truth() + SHIFT)
    answers = np.repeat(eyed.encode((truth() + SHIFT)[None]), len(scorer.crops), axis=0)
    assert scorer.crops.shape == (4, 16, 16, 3)
    of_file = scorer.per_face_percent(graph)
    assert scorer.per_face_percent_of(answers) == pytest.approx(of_file, rel=1e-4)
    assert of_file.mean() == pytest.approx(scorer.nme_percent(graph))


def test_a_given_contract_also_serves_a_bare_file_to_compare_with(
    folder: Path, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right.tflite", tmp_path / "wrong.tflite"
    right.write_bytes(emit(constant_detector(CONTRACT, truth())))
    wrong.write_bytes(emit(constant_detector(CONTRACT, truth() + SHIFT)))
    found = lmopt.evaluate_protocols(right, folder, against=wrong, contract=CONTRACT)
    (change,) = found.comparisons["nme"]
    side = np.ptp(FIVE_POINTS, axis=0)
    wanted = -100 * 0.1 * side.max() * 1.25 / np.sqrt(side.prod())
    assert change is not None
    assert change.difference.mean == pytest.approx(wanted, rel=1e-4)


def test_a_box_that_no_face_has_is_an_error(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(emit(constant_detector(CONTRACT, truth())))
    with pytest.raises(
        InputError, match=r"nothing can be scored: none of the \d+ faces has a given"
    ):
        lmopt.evaluate_protocols(model, folder, contract=CONTRACT, box="given")


def test_a_bare_file_needs_a_contract_and_takes_a_given_one(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(emit(constant_detector(CONTRACT, truth())))
    with pytest.raises(InputError, match="no contract"):
        lmopt.evaluate(model, folder)
    (tmp_path / "c.toml").write_text(contract_to_toml(CONTRACT))
    for given in (CONTRACT, tmp_path / "c.toml"):
        assert lmopt.evaluate(model, folder, contract=given).nme_percent < 1e-3


def test_faces_come_as_path_paths_text_or_dataset(folder: Path) -> None:
    digests = {
        as_faces(data, None).digest
        for data in (folder, str(folder), [folder], load_dataset([folder]))
    }
    assert len(digests) == 1


def test_no_path_and_the_word_rendered_mean_the_embedded_faces() -> None:
    assert is_rendered(())
    assert is_rendered([Path("rendered")])
    assert not is_rendered([Path("rendered"), Path("faces")])
    assert kind_of_faces([]) == "rendered faces"
    assert kind_of_faces([Path("faces")]) == "annotated faces"


def test_compile_keeps_the_contract_in_the_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "m.tflite"
    made = lmopt.compile(detector(truth()), "to-float16", out=out, target="velvet-cpu")
    assert made.path == out
    assert out.read_bytes() == made.data
    assert lmopt.load(out).contract == CONTRACT
    assert made.to_json()["digest"] == made.digest
    assert lmopt.evaluate(out, folder).digest == made.digest


def test_compile_finds_an_unwritable_place_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        lmopt.compile(detector(truth()), "qat", out=tmp_path / "file" / "m.tflite")


def test_inspect_estimates_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "host_target", lambda listen: load_target("host"))
    found = lmopt.inspect(detector(truth()), targets=("host", "velvet-cpu"))
    assert found.parameters == 3 * 10 + 10
    assert found.ops == {"dense": 1, "input": 1, "mean": 1}
    assert isinstance(found.estimates["host"], str)
    told = found.to_json()["estimates"]["velvet-cpu"]
    assert told["kind"] == "estimated" and told["low_ms"] < told["latency_ms"] < told["high_ms"]
    assert [kernel["op"] for kernel in told["kernels"]] == ["mean", "dense"]
    parts = sum(kernel["us"] for kernel in told["kernels"])
    assert parts < told["latency_ms"] * 1e3 and told["weight_bytes"] == 4 * found.parameters


def test_measure_pairs_both_files_in_one_run() -> None:
    model = emit(constant_detector(CONTRACT, truth()))
    found = lmopt.measure(model, against=model, max_seconds=0.5, min_runs=10)
    assert found.measurements[1].session == found.against_measurements[1].session
    assert found.best is found.measurements[1]
    speedup = found.speedups[1]
    assert speedup == ratio(found.against_measurements[1], found.measurements[1])


@pytest.mark.parametrize(
    "wrong", [{"epochs": -1}, {"epochs": 0, "folded_epochs": 0}, {"batch": 0}, {"learning_rate": 0}]
)
def test_a_recipe_that_trains_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        TrainingRecipe(**wrong)  # type: ignore[arg-type]


def test_a_write_that_fails_half_way_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"before")

    def fill_up(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(InputError, match="No space left"):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_asking_whether_a_place_is_writable_leaves_no_trace(tmp_path: Path) -> None:
    require_writable(tmp_path / "deep" / "a.tflite")
    assert list((tmp_path / "deep").iterdir()) == []
    with pytest.raises(InputError, match="a folder, wanted a file"):
        require_writable(tmp_path)


def test_a_folder_named_like_a_detector_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "basic").mkdir()
    monkeypatch.chdir(tmp_path)
    assert lmopt.load("basic@none").name == "basic@none"
    assert lmopt.load("basic").graph.parameters == 8_326_340


@pytest.mark.parametrize("name", ["empty", "models/gone"])
def test_a_path_is_not_taken_for_a_detectors_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        lmopt.load(name)
    wanted = {"empty": "the folder holds no saved_model.pb", "models/gone": "no such model file"}
    assert (caught.value.what, caught.value.where) == (wanted[name], name)
    assert "zoo detector" in str(caught.value.hint) and ".keras" in str(caught.value.hint)


def test_a_model_of_two_pictures_is_shown_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    edit = Edit("net")
    left, right = (edit.input(name, (None, 16, 16, 3)) for name in ("left", "right"))
    kernel = np.ones((3, 10), np.float32)
    pooled = edit.add("pooled", Mean(), edit.add("sum", Add(), left, right))
    head = Dense(10, use_bias=False)
    edit.output("points", edit.add("head", head, pooled, weights={"kernel": kernel}))
    two = Detector("two", edit.done())
    bare = tmp_path / "two.tflite"
    bare.write_bytes(emit(two.graph))
    assert [entry.name for entry in lmopt.inspect(bare).inputs] == ["left", "right"]
    (tmp_path / "c.toml").write_text(contract_to_toml(CONTRACT))
    request = lmopt.OptimizeRequest(
        target="host", detector=str(bare), contract=tmp_path / "c.toml", data=(folder,)
    )
    for use in (
        lambda: lmopt.compile(two, "fold-batchnorm"),
        lambda: lmopt.compile(two, "fold-batchnorm", contract=CONTRACT),
        lambda: lmopt.evaluate(two, folder),
        lambda: lmopt.evaluate(bare, folder),
        lambda: lmopt.evaluate(bare, folder, contract=CONTRACT),
        lambda: lmopt.optimize(request),
        lambda: lmopt.train(two, folder),
    ):
        with pytest.raises(InputError, match=r"2 inputs \('left', 'right'\); wanted one") as caught:
            use()
        assert "only input is the picture" in str(caught.value.hint)


def test_optimize_takes_any_number_of_landmarks(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(emit(constant_detector(CONTRACT, truth() + SHIFT)))
    (tmp_path / "c.toml").write_text(contract_to_toml(CONTRACT))
    request = lmopt.OptimizeRequest(
        target="host",
        detector=str(model),
        data=(folder,),
        passes=("to-float16",),
        contract=tmp_path / "c.toml",
        threads=1,
        out=tmp_path / "run",
    )
    told: list[events.Event] = []
    found = lmopt.optimize(request, told.append)
    assert found.data["normaliser"] == "box"
    assert found.data["kind"] == "annotated faces"
    assert (
        found.baseline.nme_percent == lmopt.evaluate(model, folder, contract=CONTRACT).nme_percent
    )
    made = [event for event in told if isinstance(event, events.CandidateTrained)]
    assert [event.candidate.pipeline for event in made] == ["fold-batchnorm", "to-float16"]
    assert found.baseline.trained.model.startswith(str(tmp_path / "run"))


def test_a_file_that_is_not_the_graphs_fails_and_one_that_is_goes_through_the_gate_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lmopt.compile(detector(truth()), "quantize-int8", data=folder, cache=tmp_path / "cache")
    assert made.notes[-1].startswith("parity on 1 faces: ")
    bias = made.graph.node("dense").weight("bias")
    edit = made.graph.edit()
    edit.set_weights("dense", bias=Weight.of(bias.array + np.int32(10_000), bias.type.quant))
    other = emit(edit.done())
    monkeypatch.setattr(workbench, "prove", fail)
    faces = load_dataset([folder])
    with workbench.Workbench(detector(truth()), faces, None, cache=tmp_path / "cache") as bench:
        assert bench.prove(made.graph, made.data) == made.parity
        assert bench.prove(detector(truth()).graph, b"a float file") == ()
    monkeypatch.undo()
    with (
        workbench.Workbench(detector(truth()), faces, None) as bench,
        pytest.raises(BackendError, match="is the first op that differs"),
    ):
        bench.prove(made.graph, other)


def fail(*arguments: object) -> None:
    raise AssertionError("done again")
