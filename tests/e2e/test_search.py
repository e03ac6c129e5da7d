"""Searches with real training: killed in the middle they go on, and find what they would have."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import lmopt
from lmopt import zoo
from lmopt.detector.detector import Detector
from lmopt.errors import SearchError, UsageError
from lmopt.exploration.finding import Tried
from lmopt.exploration.space import SearchSpace, load_space
from lmopt.exploration.study import Study
from lmopt.flow.crew import Alone
from lmopt.flow.journal import Journal
from lmopt.flow.request import SearchRequest
from lmopt.flow.searching import explorer_of
from lmopt.flow.sources import load, load_faces
from lmopt.flow.workbench import Workbench
from lmopt.ir.edit import Edit
from lmopt.ir.ops import Conv2D, Dense, Mean
from lmopt.target.catalog import load_target

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SPACE = SearchSpace(
    before=(("prune{amount=0.3..0.7:0.2}",),),
    recovery="finetune{learning-rate=1e-4}",
    epochs=(0.5, 0.5),
)


def detector() -> Detector:
    """Returns a small detector that has learned nothing, quick to train."""
    contract = replace(load("pfld-0.25@none").require_contract(), height=32, width=32)
    edit = Edit("small")
    x = edit.input("image", (None, 32, 32, 3))
    for k, filters in enumerate((16, 32, 32)):
        x = edit.add(f"conv{k}", Conv2D(filters, (3, 3), (2, 2), activation="relu"), x)
    edit.output(contract.output, edit.add("answer", Dense(136), edit.add("mean", Mean(), x)))
    return Detector("small", zoo.initialize(edit.done(), seed=0), contract)


def explore(faces: Path, out: Path, **limits: float) -> tuple[Tried, ...]:
    """Returns everything a search of two candidates tried."""
    source, target = detector(), load_target("velvet-apu")
    request = SearchRequest("velvet-apu", trials=2, latency="estimate", **limits)
    journal = Journal(out)
    study = Study(f"sqlite:///{out / 'study.db'}", "s", SPACE, {}, seed=0, sampler="tpe")
    data = load_faces((faces,), source.require_contract())
    with Workbench(source, data, target, cache=journal.cache) as bench:
        crew = Alone(bench, journal)
        explorer_of(request, study, bench, journal, crew).run(lambda: 0.0)
    return study.tried()


def findings(out: Path) -> int:
    """Returns how many findings are in a study that another process may be writing."""
    try:
        with sqlite3.connect(f"file:{out / 'study.db'}?mode=ro", uri=True) as database:
            rows = database.execute("select key from study_user_attributes").fetchall()
    except sqlite3.OperationalError:
        return 0
    return sum(key.startswith("found ") for (key,) in rows)


def test_a_killed_search_ends_where_an_undisturbed_one_ends(faces, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    script = "import sys; from pathlib import Path; from tests.e2e.test_search import explore\n"
    script += "explore(*map(Path, sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(faces), str(killed)], cwd=ROOT, start_new_session=True
    )
    while findings(killed) < 2 and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert findings(killed) >= 2

    resumed, undisturbed = explore(faces, killed), explore(faces, whole)
    assert len(resumed) == 2
    assert resumed == undisturbed  # pipelines, files, errors of every face, latencies
    assert max(len(tried.findings) for tried in resumed) == 3
    places = sorted(row.place for tried in resumed for row in tried.findings)
    assert places == list(range(len(places)))  # nothing was made twice


def test_the_command_ships_files_that_score_as_it_says(faces, tmp_path):
    space, out = tmp_path / "space.toml", tmp_path / "out"
    space.write_text(
        'before = [["prune{amount=0.3..0.7:0.2}"]]\nepochs = [0.5]\n'
        'recovery = "finetune{learning-rate=1e-4}"\n'
    )
    source, model = detector(), tmp_path / "small.tflite"
    model.write_bytes(Workbench(source, None, None).file(source.graph))
    call = [str(Path(sys.executable).with_name("lmopt")), "search", str(model)]
    call += ["--target", "velvet-apu", "--data", str(faces), "--space", str(space)]
    call += ["--out", str(out), "--trials", "1", "--latency", "estimate", "--json"]
    call += ["--objective", "bytes", "--objective", "stability"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (tried,) = document["search"]["candidates"]
    assert tried["sketch"] == "prune{amount=0.5}"
    assert len(tried["val_nme_percent"]) == 2 and tried["relative_latency"]["value"] < 1
    shipped = [p for p in document["front"] if p["digest"] == tried["digest"]]
    assert [p["val_nme_percent"] for p in shipped] == tried["val_nme_percent"][1:]
    base = document["baseline"]
    ratios = [shipped[0][name] / base[name] for name in ("size_bytes", "std_percent")]
    assert tried["relative_more"] == pytest.approx(ratios)
    assert ratios[0] < 1 and base["std_percent"] > 0
    score = lmopt.evaluate(Path(shipped[0]["model"]), faces)
    assert score.nme_percent == pytest.approx(shipped[0]["nme_percent"], abs=1e-9)
    for name in ("search.json", "search.png", "front.json", "report.html"):
        assert (out / name).stat().st_size > 1000
    told = f"Search of 1 candidates; {document['search']['stopped']}"
    assert told in (out / "report.html").read_text()
    assert load_space(space).to_toml() == document["search"]["space"]


def test_nothing_to_resume_is_said_before_any_work(faces, tmp_path):
    request = SearchRequest(target="velvet-apu", data=(faces,), resume=True, out=tmp_path)
    with pytest.raises(UsageError, match=r"no study .* to resume"):
        lmopt.search(request)


def test_a_folder_that_holds_another_search_is_refused(faces, tmp_path):
    Study(f"sqlite:///{tmp_path / 'study.db'}", "other", SPACE, {}, seed=0, sampler="tpe")
    for resume in (False, True):
        request = SearchRequest("velvet-apu", data=(faces,), resume=resume, out=tmp_path)
        with pytest.raises(UsageError, match="holds the search 'other'"):
            lmopt.search(request)


def test_nothing_within_the_limits_is_said_with_what_was_tried(faces, tmp_path):
    space = tmp_path / "space.toml"
    space.write_text('before = [["prune{amount=0.5}"]]\nepochs = [0.5]\n')
    request = SearchRequest(
        "velvet-apu", data=(faces,), space=space, max_latency_ms=0.01, out=tmp_path / "out"
    )
    said = r"none of 1 candidates can be shipped \(#0: .*allowed 0.01\)"
    with pytest.raises(SearchError, match=said):
        lmopt.search(request)


def test_what_is_beyond_a_limit_is_refused_before_it_is_trained(faces, tmp_path):
    for tried in explore(faces, tmp_path, max_latency_ms=0.01):
        assert tried.failure.endswith("allowed 0.01")
        assert len(tried.findings) == 1
