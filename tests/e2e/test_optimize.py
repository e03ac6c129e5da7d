"""The whole way, with real TensorFlow and the real runtime: from a detector to a front of files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import lmopt
from lmopt.errors import SearchError
from lmopt.flow import events
from lmopt.flow.request import OptimizeRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PIPELINES = (
    "fold-batchnorm,quantize-uint8{faces=24}",
    "fold-batchnorm,prune{amount=0.2},finetune{epochs=0.5,learning-rate=1e-4},quantize-uint8{faces=24}",
    "fold-batchnorm,prune{amount=0.2},finetune{epochs=0.5,learning-rate=1e-4},qat{storage=uint8,epochs=0.5,learning-rate=1e-4,faces=24}",
    "fold-batchnorm,insert-pool{after=landmarks}",
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """A small cut of the rendered faces, in the plain folder layout."""
    from lmopt.data.synthetic.dataset import rendered_dataset

    cache = tmp_path_factory.mktemp("rendered")
    dataset = rendered_dataset(train=64, validation=16, test=16, cache=cache)
    return dataset.faces[0].image.parent.parent


def request_for(faces: Path, out: Path, **more: object) -> OptimizeRequest:
    return OptimizeRequest(
        target="velvet-apu",
        detector="pfld-0.25@synthetic",
        data=(faces,),
        passes=PIPELINES,
        out=out,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def first_run(faces, tmp_path_factory):
    heard: list[events.Event] = []
    out = tmp_path_factory.mktemp("out")
    return lmopt.optimize(request_for(faces, out), heard.append), heard, out


def test_the_front_holds_files_that_score_as_reported(first_run, faces):
    result, _, _ = first_run
    assert result.front
    for candidate in result.front:
        path = Path(candidate.trained.model)
        assert path.is_absolute() and path.stat().st_size == candidate.trained.size_bytes
        score = lmopt.evaluate(path, faces)
        assert score.nme_percent == pytest.approx(candidate.nme_percent, abs=1e-9)
        assert score.digest == candidate.trained.digest


def test_measured_and_estimated_are_two_things(first_run):
    result, _, _ = first_run
    for candidate in result.front:
        assert (candidate.latency.kind, candidate.latency.where) == ("estimated", "velvet-apu")
        assert candidate.host.kind == "measured" and candidate.host.where != "velvet-apu"
        assert candidate.speedup[1] <= candidate.speedup[0] <= candidate.speedup[2]


def test_no_point_of_the_front_beats_another(first_run):
    result, _, _ = first_run
    points = [c.objectives for c in (*result.front, *(d.candidate for d in result.dominated))]
    for candidate in result.front:
        nme, ms = candidate.objectives
        assert not any(a <= nme and b <= ms and (a, b) != (nme, ms) for a, b in points)


def test_a_pass_that_cannot_fit_is_listed_with_its_reason(first_run):
    result, _, _ = first_run
    (failure,) = result.failures
    assert failure.pipeline.endswith("insert-pool{after=landmarks}") and failure.status == "failed"
    assert "landmarks" in failure.reason


def test_the_trained_candidates_lost_parameters_and_bytes(first_run):
    result, _, _ = first_run
    everything = {c.pipeline: c for c in (*result.front, *(d.candidate for d in result.dominated))}
    plain, pruned = (everything[str(lmopt.Pipeline.parse(text))] for text in PIPELINES[:2])
    assert pruned.trained.macs < 0.85 * plain.trained.macs
    assert pruned.trained.size_bytes < plain.trained.size_bytes


def test_a_second_run_resumes_every_candidate(first_run, faces):
    before, _, out = first_run
    heard: list[events.Event] = []
    after = lmopt.optimize(request_for(faces, out, threads=1), heard.append)
    trained = [event for event in heard if isinstance(event, events.CandidateTrained)]
    assert len(trained) == len(PIPELINES) and all(event.resumed for event in trained)
    assert not any(isinstance(event, events.Training) for event in heard)
    digests = {c.trained.digest for c in before.front}
    assert {c.trained.digest for c in after.front} == digests


def test_the_storage_of_the_target_comes_with_rule_and_cost(first_run):
    result, _, _ = first_run
    found = result.storage
    assert found.chosen == "uint8" and "MediaTek" in found.row("uint8").rule.source
    assert {row.form for row in found.rows} == {"uint8", "int8", "int16x8", "float16", "float32"}
    wide = found.row("int16x8")
    assert wide.candidate is None and not wide.rule.legal
    for row in found.rows:
        if row is wide:
            continue
        assert row.candidate.latency.kind == "estimated" and row.candidate.host.kind == "measured"
    assert found.row("float32").candidate.trained.digest == result.baseline.trained.digest
    assert found.time_ratio(found.row("float32")) > 1.0


def test_limits_nobody_meets_end_in_a_search_error(first_run, faces):
    _, _, out = first_run
    with pytest.raises(SearchError, match="none of 4 candidates"):
        lmopt.optimize(request_for(faces, out, max_latency_ms=1e-3, threads=1))


def test_the_command_prints_one_json_document(first_run, faces):
    _, _, out = first_run
    command = [str(Path(sys.executable).with_name("lmopt")), "optimize", "pfld-0.25@synthetic"]
    command += ["--target", "velvet-apu", "--data", str(faces), "--out", str(out), "--json"]
    for text in PIPELINES:
        command += ["--passes", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) >= {"target", "detector", "data", "baseline", "front", "candidates"}
    keys = {"pipeline", "nme_percent", "val_nme_percent", "latency", "host_ms", "size_bytes"}
    for point in document["front"]:
        assert set(point) >= keys | {"model", "digest"}
        assert point["latency"]["kind"] == "estimated"
    assert (out / "front.json").is_file() and (out / "front.png").is_file()
    page = (out / "report.html").read_text()
    assert "<svg" in page or "data:image/png;base64" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
