"""What 8 bits cost, here and elsewhere: one detector through lmopt and its peers, face by face.

    python -m benchmarks.bench_quantization --data FACES/afw --data FACES/helen --data FACES/lfpw \
        --peers --edge-python ENVIRONMENT/bin/python

Differences are paired by test face, with a 95 % bootstrap interval. What is trained is compared
with the same float weights fine-tuned on as many images; everything else with the float file. One
training differs from the next by more than what rounding costs, so every training is run with
`--seeds` seeds, and a face's error is the mean over them.
`--peers` adds TFLiteConverter and tfmot; `--edge-python` adds ai-edge-quantizer, which wants an
environment of its own (`pip install ai-edge-quantizer==0.10.0`). All calibrate on the same faces.
The files are timed in one interleaved run, one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lmopt
from benchmarks import peers
from lmopt import zoo
from lmopt.calibration.observe import FaceCalibrator
from lmopt.data.augment import TrainingFaces
from lmopt.data.dataset import Dataset
from lmopt.detector.contract import Contract
from lmopt.errors import LmoptError
from lmopt.flow.folding import folded
from lmopt.flow.sources import load_faces
from lmopt.latency.harness import compare
from lmopt.latency.measurement import ratio
from lmopt.pipeline.services import TrainingPlan
from lmopt.scoring.metrics import normalising_distance, point_errors
from lmopt.scoring.protocols import Score, ScoringProtocol, difference
from lmopt.units import human_bytes

RESULTS = Path(__file__).parent / "results"
FACES = 200
FLOAT, TUNED = "float", "float fine-tuned"
FOLD = "fold-batchnorm"


@dataclass(frozen=True)
class Row:
    """A file to make and to judge.

    Attributes:
        name: In the table; files of lmopt have their pipeline.
        make: Gives the file's bytes for a seed.
        against: Row whose faces it is compared with; None for a file in float.
        output: The output's name where it is not the contract's.
        seeds: How many files to make: one where nothing is trained.
    """

    name: str
    make: Callable[[int], bytes]
    against: str | None = FLOAT
    output: str | None = None
    seeds: int = 1


@dataclass
class Subject:
    """A detector, its faces, and what all peers start from."""

    name: str
    data: list[Path]
    plan: TrainingPlan
    seeds: int

    @cached_property
    def contract(self) -> Contract:
        return zoo.load(self.name).require_contract()

    @cached_property
    def faces(self) -> Dataset:
        return load_faces(self.data, self.contract)

    @cached_property
    def crops(self) -> peers.Crops:
        calibrator = FaceCalibrator(self.faces.split("train"), self.contract)
        return self.contract.normalize(calibrator.crops(FACES)).astype(np.float32)

    @cached_property
    def keras(self) -> Any:
        return peers.keras_model(folded(zoo.load(self.name).graph))

    def compiled(self, passes: str) -> Callable[[int], bytes]:
        return lambda seed: lmopt.compile(self.name, passes, data=self.faces, seed=seed).data

    def own(self) -> list[Row]:
        options = f"epochs={self.plan.epochs:g}, learning-rate={self.plan.learning_rate:g}"
        passes = {
            "int8": "quantize-int8",
            "uint8": "quantize-uint8",
            "int8 mixed": "quantize-mixed",
            "uint8 mixed": "quantize-mixed{storage=uint8}",
        }
        trained = {"int8 qat": f"qat{{{options}}}", "uint8 qat": f"qat{{{options}, storage=uint8}}"}
        rows = [
            Row(FLOAT, self.compiled(FOLD), None),
            *(Row(name, self.compiled(f"{FOLD},{text}")) for name, text in passes.items()),
        ]
        if not self.plan.epochs:
            return rows
        tuned = self.compiled(f"{FOLD},finetune{{{options}}}")
        return [
            *rows,
            Row(TUNED, tuned, None, seeds=self.seeds),
            *(
                Row(name, self.compiled(f"{FOLD},{text}"), TUNED, seeds=self.seeds)
                for name, text in trained.items()
            ),
        ]

    def tensorflow(self) -> list[Row]:
        rows = [Row("TFLiteConverter int8", lambda _: peers.converted(self.keras, self.crops))]
        if self.plan.epochs:
            rows.append(Row("tfmot qat int8", self._tfmot, TUNED, "quant_landmarks", self.seeds))
        return rows

    def _tfmot(self, seed: int) -> bytes:
        faces = TrainingFaces(self.faces.split("train"), self.contract)
        return peers.tfmot_trained(self.keras, faces, self.contract, self.plan, seed)

    def edge(self, python: Path) -> list[Row]:
        source = peers.converted(self.keras)

        def quantized(recipe: str) -> Callable[[int], bytes]:
            return lambda _: peers.edge_quantized(source, self.crops, recipe, python)

        return [
            Row("ai-edge-quantizer int8", quantized("static_wi8_ai8")),
            Row("ai-edge-quantizer 16x8", quantized("static_wi8_ai16")),
        ]


def main() -> None:
    """Runs the benchmark and writes results/quantization_<detector>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", default="pfld-0.25@300w")
    parser.add_argument("--data", action="append", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=3.0, help="0: nothing that trains")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--peers", action="store_true", help="TFLiteConverter and tfmot too")
    parser.add_argument("--edge-python", type=Path, help="interpreter with ai-edge-quantizer")
    args = parser.parse_args()
    plan = TrainingPlan(epochs=args.epochs, learning_rate=args.learning_rate)
    subject = Subject(args.detector, args.data, plan, args.seeds)
    rows = subject.own()
    if args.peers:
        rows += subject.tensorflow()
    if args.edge_python:
        rows += subject.edge(args.edge_python)
    table = judged(rows, subject)
    given = lmopt.evaluate(args.detector, subject.faces, box="given")
    print(f"float, given boxes: NME {given.nme_percent:.3f} % on {given.faces} faces")
    table.append({"name": "float, given boxes", **given.to_json()})
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"quantization_{args.detector.replace('/', '-')}.json"
    out.write_text(json.dumps(table, indent=1) + "\n")


def judged(rows: list[Row], subject: Subject) -> list[dict[str, Any]]:
    """Returns a line per file: NME and its change, failures, largest shift, time, bytes, effort."""
    files: dict[str, bytes] = {}
    seconds: dict[str, float] = {}
    failed: list[dict[str, Any]] = []
    judges: dict[str, Judge] = {}
    for row in rows:
        start = time.monotonic()
        try:
            made = [row.make(seed) for seed in range(row.seeds)]
            seconds[row.name] = (time.monotonic() - start) / row.seeds
            judges[row.name] = Judge.of(made, row, subject)
        except LmoptError as error:
            failed.append({"name": row.name, "failed": str(error)})
            print(f"{row.name:24s} failed: {error}", flush=True)
            continue
        files[row.name] = made[0]
        print(f"made {row.name} in {seconds[row.name]:.0f} s", flush=True)
    times = compare({row.name: files[row.name] for row in rows if row.name in files})
    table = []
    for row in (row for row in rows if row.name in files):
        one, data = judges[row.name], files[row.name]
        speed = ratio(times[row.name, 1], times[FLOAT, 1])
        line = {
            "name": row.name,
            "against": row.against,
            "seconds": round(seconds[row.name], 1),
            "size_bytes": len(data),
            "latency_ms": times[row.name, 1].p50,
            "time_over_float": [speed.value, speed.low, speed.high],
            **one.score.to_json(),
            "nme_percent_of_seeds": [score.nme_percent for score in one.scores],
        }
        text = f"{row.name:24s} NME {one.score.nme_percent:.3f} %"
        if row.against is not None:
            base = judges[row.against]
            gap = difference(one.score, base.score)
            shift = one.largest_shift_percent(base)
            line |= {"change": [gap.mean, gap.low, gap.high], "largest_shift_percent": shift}
            text += f" {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] shift {shift:.1f} %"
        print(
            f"{text} failures {one.score.failure_rate_percent:.1f} % time {speed.value:.2f}x "
            f"({human_bytes(len(data))}, {seconds[row.name]:.0f} s)",
            flush=True,
        )
        table.append(line)
    return table + failed


@dataclass(frozen=True, eq=False)
class Judge:
    """What the files of a row find on the test faces, one file per seed."""

    scores: tuple[Score, ...]
    points: tuple[NDArray[np.float64], ...]
    protocol: ScoringProtocol

    @classmethod
    def of(cls, files: list[bytes], row: Row, subject: Subject) -> Judge:
        contract = subject.contract
        if row.output is not None:
            contract = replace(contract, output=row.output)
        protocol = ScoringProtocol(contract, subject.faces.split("test"))
        return cls(tuple(map(protocol.score, files)), tuple(map(protocol.predict, files)), protocol)

    @cached_property
    def score(self) -> Score:
        """Returns the score with every face's error averaged over the seeds."""
        mean = np.mean([score.per_face for score in self.scores], axis=0)
        return replace(self.scores[0], per_face=tuple(mean.tolist()))

    def largest_shift_percent(self, other: Judge) -> float:
        """Returns how far any landmark of any face lies from where the other's files find it."""
        size = normalising_distance(self.protocol.truth, self.protocol.contract.scheme)
        return max(
            float(np.max(100.0 * point_errors(mine, theirs).max(axis=1) / size))
            for mine in self.points
            for theirs in other.points
        )


if __name__ == "__main__":
    main()
