"""SavedModels on a CUDA device, for which this CPU stands: XLA on and off, optimize on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import lmopt
from lmopt.cli.app import app
from lmopt.codegen.tflite import emit
from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.document import CONTRACT_KEY, contract_to_json, contract_to_toml
from lmopt.detector.scheme import scheme_for
from lmopt.errors import BackendError, InputError, UsageError
from lmopt.flow import saved_model, storage
from lmopt.flow.card import OnCard
from lmopt.flow.measuring import Measured
from lmopt.ir.graph import Graph
from lmopt.latency import cuda, harness
from lmopt.latency.cuda import CudaRun
from lmopt.latency.measurement import Measurement, Xla
from lmopt.report import summary
from lmopt.runtime.runner import Runner
from tests.support.annotated import FIVE_POINTS, row, write_folder
from tests.support.constant_detector import constant_detector
from tests.support.training_graphs import SIZE, detector

RULE = CropRule("landmarks", 1.25, True)
CONTRACT = Contract(
    *(16, 16, "rgb", (0.0,) * 3, (255.0,) * 3, RULE, "points", "xyxy", "unit", scheme_for(5))
)


def measured(label: str, xla: Xla, ms: float) -> Measurement:
    samples = tuple(ms * (1 + 0.01 * k) for k in range(-2, 3))
    return Measurement("cuda", label, samples, 1, 3, 1, "TF", "a card of Linux", "s", 0.0, xla=xla)


def run_of(ms: Mapping[tuple[str, Xla], float], **refused: str) -> CudaRun:
    """A run with these medians; labels in `refused` do not compile."""
    both = {label for label, xla in ms if (label, "on") in ms and (label, "off") in ms}
    return CudaRun(
        {key: measured(*key, value) for key, value in ms.items()},
        {(label, "on"): BackendError(reason) for label, reason in refused.items()},
        dict.fromkeys(both, 0.0125),
    )


def export_here(graph: Graph, folder: Path, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `export` does in a process of its own, in this one, which has TensorFlow already."""
    from lmopt.training.export import _written

    return {form: _written(graph, folder / form, form, feeds) for form in saved_model.FORMS}


def uncompilable(folder: Path) -> Path:
    """Writes a SavedModel with an operator that XLA does not have."""
    from lmopt.training.backend import tf

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])
    def run(x: Any) -> dict[str, Any]:
        return {"y": tf.strings.to_number(tf.strings.as_string(x))}

    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": run})
    return folder


def drawn(seed: int) -> NDArray[np.float32]:
    shape = (1, SIZE, SIZE, 3)
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


@pytest.mark.slow
def test_a_saved_model_is_measured_with_xla_on_and_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmopt.training.cuda import invocations

    monkeypatch.setattr(cuda, "KIND", "CPU")
    graph = detector()
    (tmp_path / "m").mkdir()
    export_here(graph, tmp_path / "m", {"image": drawn(0)})
    model, other = tmp_path / "m" / "float32", uncompilable(tmp_path / "other")
    with Runner(emit(graph)) as runner:
        wanted = runner.run({"image": drawn(7)})["landmarks"]
    for invoke in invocations(str(model), np.random.default_rng(7)).values():
        np.testing.assert_allclose(invoke()["landmarks"], wanted, atol=1e-4)

    found = lmopt.measure(model, against=other, device="cuda:0", max_seconds=0.1)
    assert set(found.measurements) == {"on", "off"} and set(found.against_measurements) == {"off"}
    assert {m.tool.rpartition(", ")[2] for m in found.measurements.values()} == {
        "XLA on",
        "XLA off",
    }
    assert len({m.session for m in found.all}) == 1
    assert all(len(m.samples_ms) >= 100 and m.p50 > 0 for m in found.all)
    assert all("CPU:0 of" in m.where for m in found.all)
    assert found.best.p50 == min(m.p50 for m in found.measurements.values())
    assert found.best_against is found.against_measurements["off"]
    same, refused = found.notes
    assert same.startswith(f"{model}: answers with XLA are within ")
    assert refused.startswith(f"{other}: not measured with XLA on: ") and "AsString" in refused
    assert list(found.speedups) == ["off"]


def test_measure_shows_both_ways_and_names_the_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of({("a", "off"): 4.0, ("a", "on"): 2.0, ("b", "off"): 6.0, ("b", "on"): 8.0})
    own, other = (
        {xla: m for (name, xla), m in run.measurements.items() if name == label} for label in "ab"
    )
    found = Measured("a", own, "b", other, {}, notes=run.notes("a"))
    document = found.to_json()
    assert [m["xla"] for m in document["measurements"]] == ["off", "on"]
    assert document["best"]["xla"] == "on" and document["best_speedup"]["value"] == pytest.approx(3)
    assert document["notes"] == ["answers with XLA are within 1.2 % of those without"]
    monkeypatch.setattr(lmopt, "measure", lambda *a, **k: found)
    shown = CliRunner().invoke(app, ["measure", "a", "--against", "b", "--device", "cuda"])
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["a", "off", "4.000"] in [line[:3] for line in lines]
    assert ["b", "on", "8.000"] in [line[:3] for line in lines]
    assert "best: a with XLA on is 3.00 [" in shown.stdout
    assert "times as fast as b with XLA off" in shown.stdout


def test_the_fastest_form_and_way_of_a_candidate_counts() -> None:
    single, half = "/m/float32", "/m/float16"
    ms = {(single, "off"): 4.0, (single, "on"): 1.0, (half, "off"): 2.0}
    run = run_of(ms, **{half: "no kernel"})  # type: ignore[arg-type]
    found = OnCard(run, {"d": Path("/m"), "lost": Path("/lost")})
    assert found.best("d").p50 == 1.0 and found.ran("d") == single
    assert found.notes("d") == (
        "CUDA: fastest as float32 with XLA on, float32 with XLA off 4.000 ms, "
        "float16 with XLA off 2.000 ms",
        "CUDA: float32: answers with XLA are within 1.2 % of those without",
        "CUDA: float16: not measured with XLA on: no kernel",
    )
    failed = {("/lost/float32", "off"): BackendError("out of memory")}
    with pytest.raises(BackendError, match="out of memory"):
        OnCard(replace(run, failures=failed), found.folders).best("lost")  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="no SavedModels were kept of it"):
        found.best("unknown")


@pytest.mark.slow
def test_optimize_measures_on_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = harness.compare
    monkeypatch.setattr(harness, "compare", lambda *a, **k: here(*a, **{**k, "max_seconds": 0}))
    monkeypatch.setattr(storage, "make_forms", lambda *a: ())
    monkeypatch.setattr(saved_model, "export", export_here)
    monkeypatch.setattr("lmopt.flow.card.CARD_S", 0.01)
    low, high = FIVE_POINTS.min(axis=0), FIVE_POINTS.max(axis=0)
    truth = (FIVE_POINTS - (low + high) / 2) / ((high - low).max() * 1.25) + 0.5
    graph = constant_detector(CONTRACT, truth, expects=(128, 128, 128))
    model = tmp_path / "m.tflite"
    model.write_bytes(emit(graph, metadata={CONTRACT_KEY: contract_to_json(CONTRACT)}))
    (tmp_path / "c.toml").write_text(contract_to_toml(CONTRACT))
    roles = ("train", "train", "validation", "test")
    rows = [row(f"{k}.png", role=role, group=f"g{k}") for k, role in enumerate(roles)]
    request = lmopt.OptimizeRequest(
        target="desktop-cuda",
        detector=str(model),
        data=(write_folder(tmp_path / "faces", rows),),
        passes=("to-float16",),
        contract=tmp_path / "c.toml",
        device="cuda:99",
        out=tmp_path / "run",
    )
    with pytest.raises(BackendError, match="no CUDA device here") as caught:
        lmopt.optimize(request)
    assert "without --device" in caught.value.hint and not (tmp_path / "run").exists()

    monkeypatch.setattr(cuda, "KIND", "CPU")
    # Asked for real above; what it is called is asserted where it measured.
    monkeypatch.setattr("lmopt.flow.card.require_card", lambda device: "a card")
    found = lmopt.optimize(replace(request, device="cuda"))
    assert not found.failures and found.environment["measured_target"]
    assert found.environment["card"] == "a card"
    candidates = {c.pipeline: c for c in (*found.front, *(d.candidate for d in found.dominated))}
    assert set(candidates) == {"fold-batchnorm", "to-float16"}
    for candidate in (found.baseline, *candidates.values()):
        latency, folder = candidate.latency, Path(str(candidate.trained.saved_models))
        assert latency.kind == "measured" and latency.where.startswith("CPU:0 of ")
        assert latency.threads is None and latency.ms > 0
        assert candidate.device_model in {str(folder / form) for form in saved_model.FORMS}
        fastest, *others = candidate.trained.notes[-3].split(", ")
        assert fastest.startswith(f"CUDA: fastest as {Path(candidate.device_model).name} with XLA")
        assert len(others) == 3
        assert all(float(text.split()[-2]) >= round(latency.ms, 3) for text in others)
    assert found.baseline.device_speedup == (1.0, 1.0, 1.0)
    assert found.baseline.host.where != found.baseline.latency.where
    assert summary.where(found).startswith("measured on CPU:0 of ")


def test_what_does_not_go_with_cuda_is_said(tmp_path: Path) -> None:
    cards = lmopt.OptimizeRequest(target="p30-cpu", device="cuda")
    with pytest.raises(UsageError, match=r"target p30-cpu takes \.tflite files"):
        lmopt.optimize(cards)
    with pytest.raises(UsageError, match="not measured on a phone or a card"):
        lmopt.compare_storage(cards)
    with pytest.raises(UsageError, match="measures on this host or a phone"):
        lmopt.SearchRequest(target="desktop-cuda", device="cuda")
    with pytest.raises(UsageError, match="no device 'cuda:x'"):
        lmopt.OptimizeRequest(target="desktop-cuda", device="cuda:x")
    with pytest.raises(UsageError, match="no target is named"):
        lmopt.OptimizeRequest(target="auto", device="cuda")
    file = tmp_path / "m.tflite"
    file.write_bytes(b"model")
    with pytest.raises(UsageError, match=r"a \.tflite does not run on CUDA"):
        lmopt.measure(file, device="cuda")
    with pytest.raises(UsageError, match="that is no comparison"):
        lmopt.measure(tmp_path, against=file, device="cuda")
    with pytest.raises(UsageError, match="measured on CUDA, not on this CPU"):
        lmopt.measure(tmp_path, device="host")
    with pytest.raises(UsageError, match="CPU threads do not apply"):
        lmopt.measure(tmp_path, device="cuda", threads=(2,))
    with pytest.raises(InputError, match=r"no saved_model\.pb") as caught:
        lmopt.measure(tmp_path, device="cuda")
    assert "/float16" in caught.value.hint
