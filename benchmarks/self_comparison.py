"""A model compared with itself: how often the interval of the ratio holds 1, and how wide it is.

Run: `python -m benchmarks.self_comparison`, on a machine with nothing else to do
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.flow.folding import folded
from lmopt.latency import host
from lmopt.latency.harness import compare
from lmopt.latency.measurement import ratio

RESULTS = Path(__file__).parent / "results" / "self_comparison.json"
DETECTOR = "pfld-0.25@none"


def main() -> None:
    """Repeats the comparison and keeps every ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    data = emit(folded(zoo.initialize(zoo.load(DETECTOR).graph, 0)))
    found = []
    for k in range(given.repeats):
        measured = compare(
            {"a": data, "b": data}, threads=(given.threads,), max_seconds=given.seconds, seed=k
        )
        a, b = (measured[label, given.threads] for label in ("a", "b"))
        ratios = ratio(a, b)
        found.append({**ratios.to_json(), "other_load": a.other_load, "rounds": a.rounds})
        holds = np.mean([r["low"] <= 1 <= r["high"] for r in found])
        width = np.median([(r["high"] - r["low"]) / 2 for r in found])
        print(
            f"{k + 1}: {ratios}; held so far {holds:.0%}, half width {width:.1%} (median)",
            flush=True,
        )
        document = {
            "detector": DETECTOR,
            "machine": str(host.describe()),
            "seconds": given.seconds,
            "threads": given.threads,
            "held": float(holds),
            "half_width": float(width),
            "ratios": found,
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
