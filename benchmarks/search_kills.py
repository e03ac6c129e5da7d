"""A search killed ten times against one left alone: none of its findings lost, none made twice.

    python -m benchmarks.search_kills --data FACES/afw FACES/helen FACES/lfpw

Both are `lmopt search --trials N --latency estimate` with one seed. One runs through; the other is
killed (SIGKILL, with everything it started) after times drawn at random, and begun again each time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lmopt.files import write_atomically
from lmopt.latency import host
from lmopt.report.json_document import json_text

RESULTS = Path(__file__).parent / "results" / "search_kills.json"
SPACE = """
before = [
    ["", "resize-input{size=96}"],
    ["", "drop-block{count=1..3}"],
    ["", "prune{amount=0.1..0.5:0.1}"],
]
after = [["", "quantize-int8"]]
recovery = "finetune{learning-rate=1e-4}"
epochs = [0.5, 1.0]
"""
ALIVE_S = (8.0, 40.0)
"""Between which a search lives until it is killed; it needs seven to begin."""


def main() -> None:
    """Runs both and writes what is the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--detector", default="pfld-0.25@300w")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--out", type=Path, default=Path("out/search_kills"))
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    (given.out / "space.toml").write_text(SPACE, encoding="utf-8")
    whole = _finished(_command(given, "whole"))
    kills, had = killed(given)
    resumed = _finished(_command(given, "killed"))
    end = found_in(given.out / "killed")
    places = sorted(row["place"] for row in end.values())
    document = {
        "machine": str(host.describe()),
        "detector": given.detector,
        "trials": given.trials,
        "kills": kills,
        "findings": len(end),
        "findings_lost_or_changed": sum(end.get(key) != row for key, row in had.items()),
        "findings_made_twice": len(places) - len(set(places)),
        "candidates_are_the_same": resumed["search"]["candidates"] == whole["search"]["candidates"],
        "front_is_the_same": _front(resumed) == _front(whole),
    }
    write_atomically(RESULTS, json_text(document).encode())
    print(json_text(document))


def killed(given: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Kills a search until it was killed often enough, or is over.

    Returns:
        How often it was killed, and every finding that was there at any of those times.
    """
    rng = np.random.default_rng(given.seed)
    had: dict[str, Any] = {}
    for number in range(given.kills):
        life = subprocess.Popen(
            _command(given, "killed"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + float(rng.uniform(*ALIVE_S))
        while time.monotonic() < until and life.poll() is None:
            time.sleep(0.01)
        if life.poll() is not None:
            return number, had
        os.killpg(life.pid, signal.SIGKILL)
        life.wait()
        had = found_in(given.out / "killed") | had  # as it was when it was first seen
        print(f"killed {number + 1} times, {len(had)} findings", flush=True)
    return given.kills, had


def found_in(folder: Path) -> dict[str, Any]:
    """Returns the findings of a search's study, by candidate and fidelity."""
    path = folder / "study.db"
    if not path.exists():
        return {}
    with sqlite3.connect(path) as database:
        query = "select key, value_json from study_user_attributes where key like 'found %'"
        try:
            return {key: json.loads(text) for key, text in database.execute(query)}
        except sqlite3.OperationalError:
            return {}  # killed before it had a table


def _command(given: argparse.Namespace, name: str) -> list[str]:
    call = [str(Path(sys.executable).with_name("lmopt")), "search", given.detector, "--json"]
    call += ["--target", "velvet-apu", "--latency", "estimate", "--trials", str(given.trials)]
    for folder in given.data:
        call += ["--data", str(folder)]
    return [*call, "--space", str(given.out / "space.toml"), "--out", str(given.out / name)]


def _finished(command: list[str]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def _front(document: Any) -> list[tuple[str, float]]:
    return [(point["digest"], point["nme_percent"]) for point in document["front"]]


if __name__ == "__main__":
    main()
