"""Training throughput: images/s of each detector, and of the faces alone.

    python -m benchmarks.bench_training --data FACES/afw --data FACES/helen

Run it on an otherwise idle machine. Every row is a training in a process of its own: as built (with
batch norms) and folded, batch 32 and 64, oneDNN on and off. `faces` is what the input pipeline
gives when nobody trains; it has to be above every training row of its detector, or the input would
be the bottleneck.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmopt import zoo
from lmopt.data.augment import TrainingFaces
from lmopt.data.dataset import Dataset
from lmopt.flow.folding import folded
from lmopt.flow.recipe import recipe_for
from lmopt.flow.sources import load_faces
from lmopt.ir.graph import Graph
from lmopt.latency import host
from lmopt.pipeline.services import TrainingPlan, TrainingProgress
from lmopt.training.service import ENVIRONMENT, TrainingService

WARM_UP = 2
"""Reports of about a second that do not count."""

RESULTS = Path(__file__).parent / "results"


class Enough(Exception):
    """Ends a training that has been watched long enough."""


def main() -> None:
    """Runs the benchmark and writes results/training.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", action="append", help="default: all of the zoo")
    parser.add_argument("--data", action="append", type=Path, default=[], help="default: rendered")
    parser.add_argument("--batch", action="append", type=int, help="default: 32 and 64")
    parser.add_argument("--seconds", type=float, default=20.0, help="of training per row")
    args = parser.parse_args()
    table = []
    with host.exclusive("a benchmark of training"):
        for name in args.detector or zoo.DETECTORS:
            contract = zoo.load(f"{name}@none").require_contract()
            faces = load_faces(args.data, contract).split("train")
            alone = faces_per_second(faces, name, args.seconds)
            print(f"{name:10s} faces alone {alone:8.1f} faces/s", flush=True)
            table.append({"detector": name, "what": "faces", "per_second": alone})
            for row in rows(name, faces, args.batch or (32, 64), args.seconds):
                verdict = "" if row["per_second"] < alone else "  INPUT IS THE BOTTLENECK"
                print(
                    f"{name:10s} {row['form']:8s} batch {row['batch']:3d} "
                    f"oneDNN {row['onednn']:3s} {row['per_second']:8.1f} images/s{verdict}",
                    flush=True,
                )
                table.append({"detector": name, "what": "training", **row})
    RESULTS.mkdir(exist_ok=True)
    document = {"host": str(host.describe()), "rows": table}
    (RESULTS / "training.json").write_text(json.dumps(document, indent=1) + "\n")


def faces_per_second(faces: Dataset, name: str, seconds: float) -> float:
    contract = zoo.load(f"{name}@none").require_contract()
    batches = TrainingFaces(faces, contract).batches(64, seed=0)
    next(batches)
    start, count = time.monotonic(), 0
    while time.monotonic() - start < seconds / 4:
        count += len(next(batches)[0])
    return count / (time.monotonic() - start)


def rows(
    name: str, faces: Dataset, batches: Sequence[int], seconds: float
) -> Iterator[dict[str, Any]]:
    built = zoo.initialize(zoo.load(f"{name}@none").graph, 0)
    forms = {"built": built, "folded": folded(built)}
    for form, graph in forms.items():
        if form == "folded" and graph.digest() == built.digest():
            continue  # there is no batch norm to fold
        for batch in batches:
            for onednn in ("on", "off"):
                speed = images_per_second(graph, name, faces, batch, onednn, seconds)
                yield {"form": form, "batch": batch, "onednn": onednn, "per_second": speed}


def images_per_second(
    graph: Graph, name: str, faces: Dataset, batch: int, onednn: str, seconds: float
) -> float:
    speeds: list[float] = []

    def watch(progress: TrainingProgress) -> None:
        speeds.append(progress.images_per_second)
        if time.monotonic() - started > seconds and len(speeds) > WARM_UP:
            raise Enough

    environment = {**ENVIRONMENT, "TF_ENABLE_ONEDNN_OPTS": "1" if onednn == "on" else "0"}
    plan = TrainingPlan(1e6, 1e-4, batch=batch, loss=recipe_for(name).loss, weight_average=0.998)
    contract = zoo.load(f"{name}@none").require_contract()
    with TrainingService(faces, contract, on_progress=watch, environment=environment) as service:
        started = time.monotonic()
        with suppress(Enough):
            service.train(graph, plan, seed=0)
    return statistics.median(speeds[WARM_UP:])


if __name__ == "__main__":
    main()
