"""Claims of the thesis that no estimate can judge, but what was measured on real faces can."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.latency_bench import PFLD, Claim, verdict

RESULTS = Path(__file__).parent / "results"


def measured_claims(folder: Path = RESULTS) -> Iterator[Claim]:
    """Yields every claim on accuracy, judged by the results that the benchmarks left."""
    yield _accuracy(folder)
    yield _pruning(folder)


def _accuracy(folder: Path) -> Claim:
    text = "Accuracy does not deteriorate when PFLD is quantized (at most 0.05 points of NME)"
    told, holds = [], True
    for net in PFLD:
        path = folder / f"quantization_{net}@300w.json"
        if not path.exists():
            return Claim(27, "", text, "not testable", f"{path.name} is missing")
        for row in json.loads(path.read_text(encoding="utf-8")):
            if row["name"] in ("int8", "uint8"):
                change, low, high = row["change"]
                holds = holds and high <= 0.05
                told.append(f"{net} {row['name']} {change:+.3f} [{low:+.3f}, {high:+.3f}]")
    return Claim(27, "", text, verdict(holds), f"measured on 303 test faces: {', '.join(told)}")


def _pruning(folder: Path) -> Claim:
    text = "Pruning suits small networks badly (PFLD 0.25 loses accuracy for what it gains)"
    path = folder / "host_pfld-0.25@300w.json"
    if not path.exists():
        return Claim(28, "", text, "not testable", f"{path.name} is missing")
    points = json.loads(path.read_text(encoding="utf-8"))["front"]
    kinds = {tuple(part.split("{")[0] for part in p["pipeline"].split(",")): p for p in points}
    tuned = kinds.get(("fold-batchnorm", "finetune"))
    pruned = kinds.get(("fold-batchnorm", "prune", "finetune"))
    if tuned is None or pruned is None:
        return Claim(28, "", text, "not testable", f"{path.name} holds no pair to compare")
    return Claim(
        28,
        "",
        text,
        verdict(pruned["nme_percent"] > tuned["nme_percent"] + 0.05),
        f"measured: pruned {pruned['nme_percent']:.2f} % at {pruned['latency']['ms']:.2f} ms, "
        f"fine-tuned as long {tuned['nme_percent']:.2f} % at {tuned['latency']['ms']:.2f} ms",
        "on another host, and pruned by structure",
    )
