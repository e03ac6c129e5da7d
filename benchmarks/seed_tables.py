r"""The studies' tables again, from detectors that have weights: our figures beside the published.

    python -m benchmarks.seed_tables --data FACES/afw FACES/helen FACES/lfpw
    python -m benchmarks.seed_tables --data FACES/afw --model basic=basic@out/train-basic/basic.npz
    python -m benchmarks.seed_tables --data rendered --only --out benchmarks/results/rendered \
        --model pfld-0.25=pfld-0.25@synthetic --model pfld-1.0=pfld-1.0@synthetic

Rendered faces bring labels for the thesis' categories. Writes results/seed_tables.json and
results/seed_tables.md. Every ordering the studies publish is listed as reproduced, not reproduced
or not testable, with the numbers. A detector whose NME is above 8 % in landmark boxes counts as not
trained, and nothing is claimed of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lmopt
from benchmarks import studies
from benchmarks.claims import Claim, Figures, all_claims
from lmopt import zoo
from lmopt.data.dataset import Dataset, summary
from lmopt.files import write_atomically
from lmopt.flow.sources import as_faces
from lmopt.report.json_document import json_text
from lmopt.scoring.evaluation import Evaluation
from lmopt.scoring.rows import NotTestable, Scored
from lmopt.scoring.settings import Settings
from lmopt.zoo.catalog import DETECTORS, shipped_weights

RESULTS = Path(__file__).parent / "results"
WEIGHTS = Path("weights")
TRAINED_BELOW_PERCENT = 8.0
PROTOCOLS = ("nme", "boxes", "categories", "stability", "resolution", "blur", "occlusion")


def main() -> None:
    """Evaluates, compares and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME=SPEC",
        default=[],
        help="a study's detector and its file or zoo name, besides (or instead of) those kept here",
    )
    parser.add_argument("--only", action="store_true", help="no others than those of --model")
    parser.add_argument(
        "--update", action="store_true", help="--only; the others' figures are those in --out"
    )
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--stability-faces", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    given = dict(part.split("=", 1) for part in args.model)
    data = as_faces(args.data, None)
    models, figures = found_before(args.out, data) if args.update else ({}, {})
    asked = given if args.only or args.update else kept() | given
    models |= asked
    for name, spec in asked.items():
        found = lmopt.evaluate_protocols(
            spec,
            data,
            protocols=PROTOCOLS,
            labels=args.labels,
            settings=Settings(stability_faces=args.stability_faces),
        )
        figures[name] = figures_of(found)
        print(f"{name:12s} {spec}: NME {figures[name]['boxes/landmarks']:.3f} %", flush=True)
    sizes = known_parameters()
    claims = tuple(all_claims(trained(figures), sizes))
    document = {
        "data": described(data),
        "models": models,
        "parameters": sizes,
        "figures": figures,
        "claims": [asdict(claim) for claim in claims],
    }
    write_atomically(args.out / "seed_tables.json", (json_text(document) + "\n").encode())
    text = markdown(described(data), models, sizes, figures, claims)
    write_atomically(args.out / "seed_tables.md", text.encode())


def found_before(folder: Path, data: Dataset) -> tuple[dict[str, str], dict[str, Figures]]:
    """Returns the detectors and figures of an earlier run on the same faces."""
    document = json.loads((folder / "seed_tables.json").read_text(encoding="utf-8"))
    if document["data"]["digest"] != data.digest:
        raise SystemExit(f"the figures in {folder} are of other faces: run without --update")
    return document["models"], document["figures"]


def kept() -> dict[str, str]:
    """Returns the detectors whose weights lie in the package or in weights/, real faces first."""
    found = {name: sorted(shipped_weights(name), key="300w".__ne__) for name in DETECTORS}
    packed = {name: f"{name}@{weights[0]}" for name, weights in found.items() if weights}
    beside = {path.stem: f"{path.stem}@{path}" for path in sorted(WEIGHTS.glob("*.npz"))}
    first = {
        name: f"{name}@{WEIGHTS / entry.begins}.npz"
        for name, entry in DETECTORS.items()
        if entry.begins in beside
    }
    return packed | beside | first


def known_parameters() -> dict[str, float]:
    """Returns the parameters of the studies' detectors that the zoo builds."""
    names = (*studies.THESIS, *studies.PAPER)
    return {
        name: float(zoo.load(f"{name}@none").graph.parameters)
        for name in names
        if name in DETECTORS
    }


def figures_of(found: Evaluation) -> Figures:
    """Returns a detector's figures by protocol and condition.

    What follows a comma in a condition, a count or a seed, is not part of the name.
    """
    figures = {}
    for protocol, rows in found.rows.items():
        for row in rows:
            if not isinstance(row, NotTestable):
                figures[f"{protocol}/{row.condition.partition(',')[0]}"] = row.mean_percent
    (nme,) = found.rows["nme"]
    if isinstance(nme, Scored):
        figures |= {"accuracy": nme.accuracy, "rmse_px": nme.rmse_px}
        figures["auc"] = nme.score.auc
        figures["failure_rate_percent"] = nme.score.failure_rate_percent
    return figures


def trained(figures: Mapping[str, Figures]) -> dict[str, Figures]:
    """Returns the figures of the detectors that count as trained."""
    return {
        name: row for name, row in figures.items() if row["boxes/landmarks"] < TRAINED_BELOW_PERCENT
    }


def described(data: Dataset) -> dict[str, Any]:
    """Returns the faces in numbers."""
    counts = summary(data)
    return {
        "name": data.name,
        "digest": data.digest,
        "train": sum(source.train for source in counts),
        "validation": sum(source.validation for source in counts),
        "test": sum(source.test for source in counts),
    }


def markdown(
    data: Mapping[str, Any],
    models: Mapping[str, str],
    sizes: Figures,
    figures: Mapping[str, Figures],
    claims: Sequence[Claim],
) -> str:
    """Returns the tables and the claims as Markdown."""
    return "\n".join(_lines(data, models, sizes, figures, claims)) + "\n"


def _lines(
    data: Mapping[str, Any],
    models: Mapping[str, str],
    sizes: Figures,
    figures: Mapping[str, Figures],
    claims: Sequence[Claim],
) -> Iterator[str]:
    given = ", ".join(f"{name} = {spec}" for name, spec in models.items())
    yield "# The studies' tables again\n"
    yield (
        f"Ours: {data['test']} test faces of {data['name']} (digest {data['digest']}); detectors: "
        f"{given}. This data has {data['train']} training and {data['validation']} validation "
        f"faces; the thesis trained on {studies.TRAINING_FACES} and tested on 554 + 135 others, so "
        "that its figures and ours are of different faces. NME and STD in percent of the distance "
        f"of the outer eye corners. `-`: not published as a number, or no weights. A detector "
        f"above {TRAINED_BELOW_PERCENT:g} % counts as not trained."
    )
    untrained = sorted(set(figures) - set(trained(figures)))
    yield f"\nNot trained by that rule: {', '.join(untrained) or 'none of those listed'}."
    both = (*studies.THESIS, *studies.PAPER)
    yield "\n## Thesis, table 2; paper, file sizes\n"
    yield from _table(
        ("detector", "parameters", "published", "float32 MB", "published MB"),
        (
            (
                name,
                _n(sizes.get(name), ",.0f"),
                _n(studies.PARAMETERS.get(name), ",.0f"),
                _n(4e-6 * sizes[name] if name in sizes else None, ".1f"),
                _n(studies.POOLED.get(name, {}).get("file MB"), ".1f"),
            )
            for name in both
        ),
    )
    yield "\n## Thesis, tables 4 and 6: NME by the box\n"
    yield from _table(
        (
            *("detector", "ours: landmark box", "given box", "jittered box"),
            *("thesis: truth, full", "MTCNN, full"),
        ),
        (
            (
                name,
                *_ours(figures, name, "boxes", ("landmarks", "given", "jittered 5%"), ".3f"),
                _n(studies.LANDMARK_BOXES.get(name, {}).get("full"), ".3f"),
                _n(studies.DETECTOR_BOXES.get(name, {}).get("full"), ".3f"),
            )
            for name in both
        ),
    )
    yield from _beside(
        "Thesis, table 8: NME by category", "categories", studies.CATEGORIES, figures
    )
    yield from _beside("Thesis, table 9: STD", "stability", studies.STABILITY, figures)
    for kind, conditions in (
        ("resolution", ("x1", "x2", "x3", "x4", "x8", "x16", "x32", "x64")),
        ("blur", ("x1", "x2", "x3", "x4", "x8", "x16", "x32", "x64")),
        ("occlusion", ("0%", "10%", "20%", "30%")),
    ):
        yield f"\n## Thesis, {kind}: NME (published as a figure only)\n"
        yield from _table(
            ("detector", *conditions),
            ((name, *_ours(figures, name, kind, conditions, ".2f")) for name in figures),
        )
    yield "\n## Paper, table 1: pooled networks\n"
    yield from _table(
        ("detector", "accuracy", "published", "RMSE px", "published loss"),
        (
            (
                name,
                _n(figures.get(name, {}).get("accuracy"), ".3f"),
                _n(studies.POOLED.get(name, {}).get("accuracy"), ".2f"),
                _n(figures.get(name, {}).get("rmse_px"), ".2f"),
                _n(studies.POOLED.get(name, {}).get("loss"), ".2f"),
            )
            for name in (*studies.PAPER, *(name for name in figures if name not in studies.PAPER))
        ),
    )
    yield "\n## Claims\n"
    for verdict in ("reproduced", "not reproduced", "not testable"):
        found = [claim for claim in claims if claim.verdict == verdict]
        yield f"\n### {verdict.capitalize()}: {len(found)}\n"
        yield from _table(
            ("where", "claim", "numbers"), ((c.source, c.text, c.numbers) for c in found)
        )


def _beside(
    title: str, protocol: str, published: studies.Table, figures: Mapping[str, Figures]
) -> Iterator[str]:
    columns = tuple(next(iter(published.values())))
    yield f"\n## {title}\n"
    rows = []
    for name, row in published.items():
        rows.append((name, "published", *(_n(row[column], ".3f") for column in columns)))
        rows.append((name, "ours", *_ours(figures, name, protocol, columns, ".3f")))
    yield from _table(("detector", "", *columns), rows)


def _ours(
    figures: Mapping[str, Figures], name: str, protocol: str, conditions: Sequence[str], form: str
) -> tuple[str, ...]:
    row = figures.get(name, {})
    return tuple(_n(row.get(f"{protocol}/{condition}"), form) for condition in conditions)


def _n(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(
    head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]
) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    main()
