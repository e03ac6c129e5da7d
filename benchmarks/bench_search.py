"""What a search is worth: hypervolume on the test faces after the same wall time, beside rivals.

    python -m benchmarks.bench_search --data FACES/afw FACES/helen FACES/lfpw
    python -m benchmarks.bench_search --data ... --minutes 20 --seeds 3 --out out/bench_search

All start from the same weights on the same faces for this host; every rival's candidates get the
recovery that a candidate of lmopt's gets that is trained to its end. Rivals:

* width: `scale-width` by hand, float32 and int8 of each (what people do)
* tfmot: its quantization-aware training, 50 % magnitude pruning and post-training quantization
* nsga2, random: Optuna's samplers over lmopt's space, every candidate trained to its end at once,
  without lmopt's design, racing or inherited weights

Every rival's files are kept and listed as they come, so that the command goes on where it was. In
the end all fronts are measured interleaved in one run and scored on the test faces once.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmopt.data.dataset import Dataset
from lmopt.detector.detector import Detector
from lmopt.errors import BackendError, PassError
from lmopt.exploration.candidate import Trained
from lmopt.exploration.front import Front, hypervolume
from lmopt.exploration.racing import SLACK
from lmopt.exploration.space import SearchSpace
from lmopt.exploration.study import Sampler, Study
from lmopt.files import write_atomically
from lmopt.flow.candidates import obtain, thread_counts
from lmopt.flow.crew import Alone
from lmopt.flow.host_profile import target_named
from lmopt.flow.journal import Journal
from lmopt.flow.pipelines import BASELINE
from lmopt.flow.request import SearchRequest
from lmopt.flow.searching import explorer_of, fitted, space_for
from lmopt.flow.sources import as_faces, load
from lmopt.flow.workbench import Workbench
from lmopt.latency import harness, host
from lmopt.latency.measurement import ratio
from lmopt.pipeline.manager import Pipeline
from lmopt.report.json_document import json_text
from lmopt.target.profile import Target

RESULTS = Path(__file__).parent / "results" / "search.json"
DETECTOR = "pfld-1.0@300w"
WIDTHS = (0.75, 0.5, 0.35, 0.25, 0.18, 0.12)
FIDELITIES = 3
"""What fits into twenty minutes; for all alike."""
Minutes = Callable[[], float]


class Undesigned(SearchSpace):
    """A space whose first candidates are drawn as all others are."""

    def design(self) -> tuple[dict[str, Any], ...]:
        """Returns nothing."""
        return ()


@dataclass(frozen=True)
class Start:
    """What every rival begins with."""

    detector: Detector
    faces: Dataset
    target: Target
    space: SearchSpace
    minutes: float

    @property
    def recovery(self) -> str:
        """Returns the whole training of a candidate as one pass."""
        name, _, options = self.space.recovery.partition("{")
        return f"{name}{{epochs={sum(self.space.epochs):g},{options or '}'}"


def main() -> None:
    """Runs every rival that is not finished, then measures and scores all fronts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--detector", default=DETECTOR)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/bench_search"))
    given = parser.parse_args()
    detector, faces, target = load(given.detector), as_faces(given.data, None), target_named("host")
    with Workbench(detector, faces, target, cache=given.out / "probe") as bench:
        space = fitted(space_for(target), bench)
    space = replace(space, epochs=space.epochs[:FIDELITIES])
    start = Start(detector, faces, target, space, given.minutes)
    rivals: dict[str, Callable[[Path], None]] = {
        "width": lambda out: by_list(start, out, width_pipelines(start)),
        "tfmot": lambda out: by_list(start, out, tfmot_pipelines(start)),
    }
    for seed in range(given.seeds):
        rivals[f"lmopt {seed}"] = lambda out, seed=seed: by_search(start, out, seed)
        rivals[f"nsga2 {seed}"] = lambda out, seed=seed: by_sampler(start, out, "nsga2", seed)
        # Other seeds than NSGA-II's, whose first generation is drawn at random, too.
        other = given.seeds + seed
        rivals[f"random {seed}"] = lambda out, seed=other: by_sampler(start, out, "random", seed)
    for name, run in rivals.items():
        folder = given.out / name.replace(" ", "-")
        if not (folder / "done").exists():
            print(f"{name} ...", flush=True)
            run(folder)
            (folder / "done").touch()
    document = {
        "detector": detector.name,
        "machine": str(host.describe()),
        "data": {"name": faces.name, "digest": faces.digest},
        "minutes": given.minutes,
        "space": space.to_toml(),
        "rivals": judged(start, given.out, tuple(rivals)),
    }
    write_atomically(RESULTS, (json_text(document) + "\n").encode())
    for name, row in document["rivals"].items():
        print(f"{name:10s} {row['hypervolume']:.2f} {row['candidates']} candidates")


def width_pipelines(start: Start) -> Iterator[str]:
    """Returns the pipelines of scaling by hand, the widest first."""
    for factor in WIDTHS:
        made = f"{BASELINE},scale-width{{factor={factor}}},{start.recovery}"
        yield from (made, f"{made},quantize-int8")


def tfmot_pipelines(start: Start) -> Iterator[str]:
    """Returns tfmot's recipes, as lmopt runs them on tfmot's own layers."""
    epochs = sum(start.space.epochs)
    pruned = f"prune{{method=magnitude,amount=0.5,epochs={epochs:g}}}"
    yield f"{BASELINE},quantize-int8"
    yield f"{BASELINE},qat{{epochs={epochs:g}}}"
    yield f"{BASELINE},{pruned}"
    yield f"{BASELINE},{pruned},quantize-int8"


def by_list(start: Start, out: Path, pipelines: Iterator[str]) -> None:
    """Makes pipelines until the time is over; what is being made then is still finished."""
    minutes = clock(out)
    with opened(start, out, 0) as bench:
        for text in pipelines:
            if minutes() > start.minutes:
                return
            attempt(bench, out, text)


def by_sampler(start: Start, out: Path, sampler: Sampler, seed: int) -> None:
    """Asks a sampler and trains every candidate to its end."""
    minutes = clock(out)
    url = f"sqlite:///{(out / 'study.db').resolve()}"
    space = Undesigned(**vars(start.space))
    study = Study(url, sampler, space, {}, seed=seed, sampler=sampler)
    with opened(start, out, seed) as bench:
        base, _ = obtain(bench, Journal(out), Pipeline.parse(BASELINE))
        while minutes() < start.minutes:
            asked = study.ask()
            if asked is None:
                return
            parts = (BASELINE, asked.sketch.before, start.recovery, asked.sketch.after)
            made = attempt(bench, out, ",".join(filter(None, parts)))
            if made is None:
                study.fail(asked.number, "failed")
                continue
            files = {item.digest: Path(item.model) for item in (base, made)}
            found = harness.compare(files, threads=thread_counts(start.target, None), max_seconds=8)
            slower = ratio(*(harness.best(found, item.digest) for item in (made, base)))
            study.tell(asked.number, made.val_nme_percent, slower.value)


def by_search(start: Start, out: Path, seed: int) -> None:
    """Searches as `lmopt search` does."""
    minutes = clock(out)
    request = SearchRequest(
        target="host", detector=start.detector.name, budget_minutes=start.minutes, seed=seed
    )
    journal = Journal(out)
    url = f"sqlite:///{(out / 'study.db').resolve()}"
    study = Study(url, "lmopt", start.space, {}, seed=seed, sampler="tpe")
    with opened(start, out, seed) as bench:
        crew = Alone(bench, journal)
        print(explorer_of(request, study, bench, journal, crew).run(minutes))


def opened(start: Start, out: Path, seed: int) -> Workbench:
    """Returns a workbench that shares nothing with the other rivals'."""
    return Workbench(start.detector, start.faces, start.target, seed=seed, cache=Journal(out).cache)


def attempt(bench: Workbench, out: Path, text: str) -> Trained | None:
    """Returns a candidate and notes it; None where it cannot be made, which is told."""
    try:
        return obtain(bench, Journal(out), Pipeline.parse(text))[0]
    except (PassError, BackendError) as error:
        print(f"  {text}: {error}", flush=True)
        return None


def clock(out: Path) -> Minutes:
    """Returns the minutes that a rival has had, over all runs; kept every time it is read."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "minutes"
    before = float(path.read_text()) if path.exists() else 0.0
    begun = time.monotonic()

    def minutes() -> float:
        spent = before + (time.monotonic() - begun) / 60.0
        write_atomically(path, f"{spent}".encode())
        return spent

    return minutes


def judged(start: Start, out: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns every rival's front, measured in one run and scored on the test faces."""
    fronts = {name: front_of(out / name.replace(" ", "-")) for name in names}
    with opened(start, out / "judge", 0) as bench:
        base, _ = obtain(bench, Journal(out / "judge"), Pipeline.parse(BASELINE))
        everything = {item.digest: item for front in fronts.values() for item in (*front, base)}
        files = {digest: Path(item.model) for digest, item in everything.items()}
        threads = thread_counts(start.target, None)
        found = harness.compare(files, threads=threads, max_seconds=5.0 * len(files))
        nme = {digest: bench.score(path, "test").nme_percent for digest, path in files.items()}
    reference = harness.best(found, base.digest)
    speed = {digest: ratio(reference, harness.best(found, digest)) for digest in files}
    corner = (SLACK[0] * nme[base.digest], math.log2(SLACK[1]))

    def row(name: str) -> dict[str, Any]:
        points = [
            {
                "pipeline": item.pipeline,
                "nme_percent": nme[item.digest],
                "val_nme_percent": item.val_nme_percent,
                "speedup": speed[item.digest].to_json(),
            }
            for item in (base, *fronts[name])
        ]
        plane = [(p["nme_percent"], -math.log2(p["speedup"]["value"])) for p in points]
        return {
            "hypervolume": hypervolume(plane, corner),
            "candidates": len(kept(out / name.replace(" ", "-"))),
            "front": points,
        }

    return {name: row(name) for name in names}


def kept(folder: Path) -> list[Trained]:
    """Returns everything a rival made."""
    journal = (folder / "journal.jsonl").read_text(encoding="utf-8")
    rows = (json.loads(line)["candidate"] for line in journal.splitlines())
    return [Trained(**{**row, "notes": tuple(row["notes"])}) for row in rows]


def front_of(folder: Path) -> tuple[Trained, ...]:
    """Returns what a rival would ship: its front of validation NME and MACs by storage.

    Latency is measured afterwards in one run for all, so files that another of the same storage
    beats in NME and MACs are left out here only to keep that run short.
    """
    files = [item for item in kept(folder) if item.pipeline != BASELINE]
    whole = [
        item for item in files if "quantize" not in item.pipeline and "qat" not in item.pipeline
    ]
    small = [item for item in files if item not in whole]
    fronts = (
        Front.of(group, lambda item: (item.val_nme_percent, float(item.macs))).points
        for group in (whole, small)
    )
    return tuple(item for front in fronts for item in front)


if __name__ == "__main__":
    main()
