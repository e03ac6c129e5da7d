"""What each compression pass does to one detector: NME before and after recovery, time, bytes.

    python -m benchmarks.bench_passes --data FACES/afw FACES/helen FACES/lfpw

Every pass alone behind `fold-batchnorm`, then with `finetune`; NME on the validation faces,
all files measured interleaved in one run on this host. What was made is kept: the command goes on
where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lmopt.errors import LmoptError
from lmopt.exploration.candidate import Trained
from lmopt.files import write_atomically
from lmopt.flow.candidates import obtain, thread_counts
from lmopt.flow.host_profile import target_named
from lmopt.flow.journal import Journal
from lmopt.flow.pipelines import BASELINE
from lmopt.flow.sources import as_faces, load
from lmopt.flow.workbench import Workbench
from lmopt.latency import harness, host
from lmopt.latency.measurement import ratio
from lmopt.pipeline.manager import Pipeline
from lmopt.report.json_document import json_text

RESULTS = Path(__file__).parent / "results" / "passes.json"
PASSES = (
    "prune{amount=0.3}",
    "prune{amount=0.6}",
    "prune{amount=0.6,by=latency}",
    "prune{method=magnitude,amount=0.5,epochs=4}",
    "scale-width{factor=0.5}",
    "drop-block{count=2}",
    "drop-block{count=4}",
    "insert-pool",
    "remove-pool",
    "resize-input{size=96}",
    "resize-input{size=80}",
    "factorize",
    "factorize{energy=0.999}",
    "fuse-block{count=1}",
    "fuse-block{count=4}",
    "substitute-activation",
    "quantize-int8",
    "quantize-mixed",
)
RECOVERED = frozenset(
    {"quantize-int8", "quantize-mixed", "prune{method=magnitude,amount=0.5,epochs=4}"}
)
"""What needs no recovery, or brings its own."""


def main() -> None:
    """Makes, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--detector", default="pfld-1.0@300w")
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=Path("out/bench_passes"))
    given = parser.parse_args()
    detector, faces, target = load(given.detector), as_faces(given.data, None), target_named("host")
    journal = Journal(given.out)
    recovery = f"finetune{{epochs={given.epochs:g},learning-rate=5e-4}}"
    made: dict[str, dict[str, Trained]] = {}
    refused: dict[str, str] = {}
    with Workbench(detector, faces, target, cache=journal.cache) as bench:
        base, _ = obtain(bench, journal, Pipeline.parse(BASELINE))
        for text in ("", *PASSES):
            plain = ",".join(filter(None, (BASELINE, text)))
            try:
                rows = {"before": obtain(bench, journal, Pipeline.parse(plain))[0]}
                if text not in RECOVERED:
                    rows["after"] = obtain(bench, journal, Pipeline.parse(f"{plain},{recovery}"))[0]
            except LmoptError as error:
                refused[text] = error.what
                print(f"{text}: {error}", flush=True)
                continue
            made[text or "nothing"] = rows
            nme = ", ".join(f"{when} {row.val_nme_percent:.3f} %" for when, row in rows.items())
            print(f"{text or 'nothing'}: {nme}", flush=True)
    files = {row.digest: Path(row.model) for rows in made.values() for row in rows.values()}
    found = harness.compare(
        files, threads=thread_counts(target, None), max_seconds=5.0 * len(files)
    )
    reference = harness.best(found, base.digest)

    def shown(rows: dict[str, Trained]) -> dict[str, Any]:
        last = tuple(rows.values())[-1]
        return {
            **{f"nme_percent_{when}": row.val_nme_percent for when, row in rows.items()},
            "speedup": ratio(reference, harness.best(found, last.digest)).to_json(),
            "ms": harness.best(found, last.digest).p50,
            "size_bytes": last.size_bytes,
            "macs": last.macs,
            "parameters": last.parameters,
        }

    document = {
        "detector": detector.name,
        "machine": str(host.describe()),
        "data": {"name": faces.name, "digest": faces.digest, "split": "validation"},
        "recovery": recovery,
        "passes": {text: shown(rows) for text, rows in made.items()},
        "refused": refused,
    }
    write_atomically(RESULTS, (json_text(document) + "\n").encode())


if __name__ == "__main__":
    main()
