"""A small invented result for renderers."""

from __future__ import annotations

from pathlib import Path

from lmopt.exploration.candidate import Candidate, Failure, Latency, LatencyKind, Trained
from lmopt.exploration.result import Dominated, OptimizeResult

HOST = "Some CPU, 2 cores"
BASELINE_MS = 20.0


def candidate(
    pipeline: str,
    ms: float,
    nme: float,
    *,
    kind: LatencyKind = "estimated",
    host_ms: float = 1.0,
    test: float | None = None,
    model: Path = Path("/models/m.tflite"),
) -> Candidate:
    """A candidate whose intervals are 10 % wide to either side."""
    made = Trained(pipeline, f"digest of {pipeline}", str(model), 2048, nme, 10, 20, 1.5)
    here = Latency(host_ms, "measured", HOST, host_ms * 0.9, host_ms * 1.1, threads=2)
    there = Latency(ms, "estimated", "velvet-apu", ms * 0.9, ms * 1.1, threads=1)
    times = BASELINE_MS / host_ms
    speedup = (times, times * 0.9, times * 1.1)
    return Candidate(made, there if kind == "estimated" else here, here, speedup, test)


def result(kind: LatencyKind = "estimated", pipeline: str = "quantize-uint8") -> OptimizeResult:
    """A float baseline of 20 ms, and a front of 10 ms at +0.2 and 5 ms at +2 points."""
    base = candidate("fold-batchnorm", 20, 5.0, kind=kind, host_ms=20, test=5.1)
    front = (
        candidate("scale-width", 5, 7.0, kind=kind, host_ms=5, test=7.1),
        candidate(pipeline, 10, 5.2, kind=kind, host_ms=10, test=5.3),
        base,
    )
    slow = candidate("to-float16", 40, 6.0, kind=kind, host_ms=40)
    return OptimizeResult(
        target="velvet-apu" if kind == "estimated" else "host",
        detector="pfld-0.25",
        data={
            "name": "made",
            "digest": "d",
            "faces": {"train": 9, "validation": 3, "test": 4},
            "normaliser": "inter-ocular",
            "crop": "landmarks box x1.25, square",
            "kind": "rendered faces",
        },
        baseline=base,
        front=front,
        dominated=(Dominated(slow, "dominated by quantize-uint8"),),
        failures=(Failure("qat", "failed", "the runtime crashed <badly>"),),
        environment={"lmopt": "0.1.0", "busy": False, "out": "/models"},
    )
