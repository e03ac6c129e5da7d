"""A search from end to end: killed in the middle it goes on, and finds what it would have found."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lmopt
from lmopt.errors import SearchError, UsageError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SPACE = """
before = [["prune{amount=0.3..0.7:0.2}"]]
recovery = "finetune{learning-rate=1e-4}"
epochs = [0.5, 0.5]
after = [["", "quantize-uint8{faces=24}"]]
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    from lmopt.data.synthetic.dataset import rendered_dataset

    cache = tmp_path_factory.mktemp("rendered")
    dataset = rendered_dataset(train=64, validation=16, test=8, cache=cache)
    return dataset.faces[0].image.parent.parent


def command(faces: Path, out: Path, *more: str) -> list[str]:
    space = out.with_suffix(".toml")
    space.write_text(SPACE)
    program = str(Path(sys.executable).with_name("lmopt"))
    call = [program, "search", "pfld-0.25@synthetic", "--target", "velvet-apu"]
    call += ["--data", str(faces), "--space", str(space), "--out", str(out)]
    return [*call, "--trials", "3", "--latency", "estimate", "--json", *more]


def findings(out: Path) -> int:
    """Returns how many findings are in a study that another process may be writing."""
    import sqlite3

    try:
        with sqlite3.connect(f"file:{out / 'study.db'}?mode=ro", uri=True) as database:
            rows = database.execute("select key from study_user_attributes").fetchall()
    except sqlite3.OperationalError:
        return 0
    return sum(key.startswith("found ") for (key,) in rows)


@pytest.fixture(scope="module")
def killed_and_resumed(faces, tmp_path_factory) -> tuple[int, dict]:
    out = tmp_path_factory.mktemp("searches") / "killed"
    first = subprocess.Popen(
        command(faces, out),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while findings(out) < 3 and first.poll() is None:
        time.sleep(0.05)
    assert first.poll() is None, "it ended before it could be killed"
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = findings(out)
    done = subprocess.run(command(faces, out, "--resume"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return kept, json.loads(done.stdout)


def test_a_killed_search_goes_on_and_repeats_nothing(killed_and_resumed):
    kept, document = killed_and_resumed
    tried = document["search"]["candidates"]
    assert [row["number"] for row in tried] == [0, 1, 2]
    found = [len(row["val_nme_percent"]) for row in tried]
    assert kept >= 3 and min(found) == 2 and max(found) == 3  # one of three goes on to the end
    # one result after every training, none twice
    assert len(document["search"]["hypervolume"]) == sum(found) - len(found)


def test_its_front_is_real_files_scored_on_the_test_faces(killed_and_resumed, faces):
    _, document = killed_and_resumed
    assert document["front"]
    for point in document["front"]:
        score = lmopt.evaluate(Path(point["model"]), faces)
        assert score.nme_percent == pytest.approx(point["nme_percent"], abs=1e-9)
    for name in ("search.json", "search.png", "front.json", "report.html"):
        assert Path(document["environment"]["out"], name).stat().st_size > 1000


def test_it_ends_where_an_undisturbed_one_ends(killed_and_resumed, faces, tmp_path):
    _, document = killed_and_resumed
    whole = subprocess.run(command(faces, tmp_path / "whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    undisturbed = json.loads(whole.stdout)["search"]
    for one, other in zip(undisturbed["candidates"], document["search"]["candidates"], strict=True):
        assert one["pipeline"] == other["pipeline"]
        assert one["digest"] == other["digest"]
        assert one["val_nme_percent"] == other["val_nme_percent"]


def test_nothing_to_resume_is_said_before_any_work(faces, tmp_path):
    request = lmopt.SearchRequest(target="velvet-apu", data=(faces,), resume=True, out=tmp_path)
    with pytest.raises(UsageError, match="no study to resume"):
        lmopt.search(request)


def test_limits_no_candidate_can_meet_are_named(faces, tmp_path):
    space = tmp_path / "space.toml"
    space.write_text('before = [["prune{amount=0.3..0.5:0.1}"]]\nepochs = [0.25]\n')
    request = lmopt.SearchRequest(
        target="velvet-apu",
        detector="pfld-0.25@synthetic",
        data=(faces,),
        space=space,
        trials=3,
        max_latency_ms=0.01,
        out=tmp_path / "out",
    )
    with pytest.raises(SearchError, match=r"0\.01"):
        lmopt.search(request)
