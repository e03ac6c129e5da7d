"""What 8 bits cost: NME of float, post-training and trained files of one detector, face by face.

    python -m benchmarks.bench_quantization --data FACES/afw --data FACES/helen --data FACES/lfpw

Differences are paired by test face, with a 95 % bootstrap interval. `qat` is compared with the
same float weights fine-tuned for as many epochs; everything else with the float file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import lmopt
from lmopt.scoring.protocols import difference
from lmopt.units import human_bytes

RESULTS = Path(__file__).parent / "results"
FOLD = "fold-batchnorm"


def main() -> None:
    """Runs the benchmark and writes results/quantization_<detector>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", default="pfld-0.25@300w")
    parser.add_argument("--data", action="append", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=6.0)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    args = parser.parse_args()
    training = f"{{epochs={args.epochs:g}, learning-rate={args.learning_rate:g}}}"
    qat = f"{{epochs={args.epochs:g}, learning-rate={args.learning_rate:g}"
    rows = (
        ("float", FOLD, None),
        ("int8 post-training", f"{FOLD},quantize-int8", "float"),
        ("uint8 post-training", f"{FOLD},quantize-uint8", "float"),
        ("int8 mixed", f"{FOLD},quantize-mixed{{max-nme-drop=0}}", "float"),
        ("uint8 mixed", f"{FOLD},quantize-mixed{{max-nme-drop=0,storage=uint8}}", "float"),
        ("float fine-tuned", f"{FOLD},finetune{training}", None),
        ("int8 qat", f"{FOLD},qat{qat}}}", "float fine-tuned"),
        ("uint8 qat", f"{FOLD},qat{qat}, storage=uint8}}", "float fine-tuned"),
    )
    scores, table = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, pipeline, against in rows:
            path = Path(folder) / f"{name.replace(' ', '-')}.tflite"
            start = time.monotonic()
            lmopt.compile(args.detector, pipeline, data=args.data, out=path)
            seconds = time.monotonic() - start
            scores[name] = lmopt.evaluate(path, args.data)
            row = {
                "name": name,
                "pipeline": pipeline,
                "seconds": round(seconds, 1),
                "size_bytes": path.stat().st_size,
                **scores[name].to_json(),
            }
            text = f"{name:22s} NME {scores[name].nme_percent:.3f} %"
            if against is not None:
                gap = difference(scores[name], scores[against])
                row |= {"against": against, "change": [gap.mean, gap.low, gap.high]}
                text += f"  {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] against {against}"
            print(f"{text}  ({human_bytes(path.stat().st_size)}, {seconds:.0f} s)", flush=True)
            table.append(row)
    given = lmopt.evaluate(args.detector, args.data, box="given")
    print(f"{'float, given boxes':22s} NME {given.nme_percent:.3f} % on {given.faces} faces")
    table.append({"name": "float, given boxes", **given.to_json()})
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"quantization_{args.detector}.json"
    out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
