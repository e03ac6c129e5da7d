"""Estimates for this machine against measurements of whole networks left out of its calibration.

Forty-one networks (the zoo at several widths, inputs and poolings; MobileNet-, ResNet-, HRNet- and
DAN-like ones), each in float32 and int8, are timed by turns on every thread count and compared with
what `lmopt targets calibrate host` lets one expect. A network's time is the lower quartile of its
visits, as in the calibration: whoever shares the machine only ever adds.

Run: `lmopt targets calibrate host`, then `python -m benchmarks.host_estimates`
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.stats import kendalltau

from benchmarks.published import classic, mobile
from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.cost.estimate import estimate
from lmopt.flow.calibrating import QUIET
from lmopt.flow.folding import folded
from lmopt.flow.host_profile import known_host
from lmopt.ir.graph import Graph
from lmopt.ir.resolution import at_resolution
from lmopt.latency import host
from lmopt.latency.micronets import stored
from lmopt.latency.visits import visits
from lmopt.zoo import pfld
from lmopt.zoo.pfld import PfldWidths

RESULTS = Path(__file__).parent / "results" / "host_estimates.md"
ROUNDS = 8


def _zoo(name: str, side: int | None = None) -> Graph:
    graph = folded(zoo.initialize(zoo.load(f"{name}@none").graph, 0))
    return graph if side is None else at_resolution(graph, side, side)


def _pfld(widths: PfldWidths) -> Graph:
    return pfld.build("pfld", widths, folded=True)


NETWORKS: Mapping[str, Callable[[], Graph]] = {
    **{name: partial(_zoo, name) for name in ("pfld-0.25", "pfld-1.0", "basic", "two-pool")},
    "one-pool": partial(_zoo, "one-pool"),
    "dan1": partial(_zoo, "dan1"),
    **{f"hrnet-w18, {size}": partial(_zoo, "hrnet-w18", size) for size in (64, 96, 128)},
    "pfld, half as wide": partial(_pfld, PfldWidths(32, 32, 64, 16, 32, 64)),
    "pfld, wide scales": partial(_pfld, PfldWidths(32, 24, 48, 32, 64, 128)),
    "pfld, wide": partial(_pfld, PfldWidths(64, 96, 192, 24, 48, 128)),
    "pfld, thin stem": partial(_pfld, PfldWidths(16, 16, 32, 8, 16, 32)),
    **{
        f"MobileNetV2 x{scale:g}, {size}": partial(mobile.mobilenet_v2, scale=scale, size=size)
        for scale, size in ((0.35, 96), (0.5, 112), (1.0, 112), (0.75, 160), (1.4, 96))
    },
    **{
        f"MobileNetV1 x{scale:g}, {size}": partial(mobile.mobilenet_v1, scale=scale, size=size)
        for scale, size in ((0.25, 96), (0.5, 112), (1.0, 128))
    },
    "MobileNetV3 small x0.75, 96": partial(mobile.mobilenet_v3, "small", scale=0.75, size=96),
    "MobileNetV3 small, 160": partial(mobile.mobilenet_v3, "small", size=160),
    "MobileNetV3 large x0.5, 128": partial(mobile.mobilenet_v3, "large", scale=0.5, size=128),
    "MobileNetV3 large, 112": partial(mobile.mobilenet_v3, "large", size=112),
    "SqueezeNet, 96": partial(classic.squeezenet, size=96),
    "SqueezeNet, 160": partial(classic.squeezenet, size=160),
    "ResNet18, 64": partial(classic.resnet, 18, size=64),
    "ResNet18, 96": partial(classic.resnet, 18, size=96),
    "ResNet34, 64": partial(classic.resnet, 34, size=64),
    "ShuffleNetV1, 112": partial(mobile.shufflenet_v1, size=112),
    "ShuffleNetV2 x0.5, 96": partial(mobile.shufflenet_v2, scale=0.5, size=96),
    "ShuffleNetV2, 128": partial(mobile.shufflenet_v2, size=128),
    "GhostNet, 128": partial(mobile.ghostnet, size=128),
    "MnasNet, 128": partial(mobile.mnasnet, size=128),
    "EfficientNet-B0, 96": partial(mobile.efficientnet_b0, size=96),
    "ProxylessNAS, 112": partial(mobile.proxylessnas, size=112),
    "RegNetY-400M, 112": partial(mobile.regnety_400m, size=112),
    "HRNet-W18-C, 64": partial(classic.hrnet, 18, size=64),
    "DenseNet121, 64": partial(classic.densenet_121, size=64),
    "GoogLeNet, 96": partial(classic.googlenet, size=96),
}


@dataclass(frozen=True)
class Row:
    """A network, what it took and what was expected."""

    name: str
    storage: str
    threads: int
    ms: float
    scatter: float
    estimate_ms: float
    covered: bool

    @property
    def error(self) -> float:
        """Returns the estimate over the measurement, less 1."""
        return self.estimate_ms / self.ms - 1


def _graphs() -> Iterator[tuple[str, str, Graph]]:
    for name, build in NETWORKS.items():
        drawn = zoo.initialize(build(), 0)
        for storage in ("f32", "i8"):
            yield name, storage, stored(drawn, storage)


def compare(rounds: int) -> list[Row]:
    """Returns every network at every thread count; prints progress."""
    target = known_host()
    if not target.kernel_prices:
        raise SystemExit("this machine is not calibrated: lmopt targets calibrate host")
    expected, files, us = {}, {}, {}
    with TemporaryDirectory() as folder:
        for name, storage, graph in _graphs():
            key = f"{name}/{storage}"
            files[key] = Path(folder) / f"{len(files)}.tflite"
            files[key].write_bytes(emit(graph))
            for threads in target.threads:
                began = time.perf_counter()
                expected[key, threads] = estimate(graph, target, threads=threads)
                spent = time.perf_counter() - began
                print(f"{key}, {threads}: estimated in {spent * 1e3:.1f} ms", flush=True)
        keys = list(expected)
        for number in range(rounds):
            order = [keys[k] for k in np.random.default_rng(number).permutation(len(keys))]
            for visit in visits(files, order):
                if visit.us is None:
                    raise SystemExit(f"{visit.name}: {visit.failure}")
                us.setdefault((visit.name, visit.threads), []).append(visit.us)
            print(f"round {number + 1} of {rounds}", flush=True)
    rows = []
    for (key, threads), found in expected.items():
        name, _, storage = key.partition("/")
        told = np.array(us[key, threads])
        ms = float(np.quantile(told, QUIET)) / 1e3
        low, high = np.percentile(told, [25, 75]) / 1e3
        covered = found.low_ms <= ms <= found.high_ms
        rows.append(
            Row(name, storage, threads, ms, (high - low) / ms, found.latency_ms, bool(covered))
        )
    return rows


def _summary(rows: list[Row]) -> str:
    errors = np.abs([row.error for row in rows])
    tau = kendalltau([row.ms for row in rows], [row.estimate_ms for row in rows])[0]
    signed = np.median([row.error for row in rows])
    return (
        f"{len(rows)} | {np.median(errors):.1%} | {signed:+.1%} | {np.mean(errors <= 0.1):.0%} | "
        f"{tau:.3f} | {np.mean([row.covered for row in rows]):.0%} | "
        f"{np.median([row.scatter for row in rows]):.1%}"
    )


def _text(rows: list[Row]) -> str:
    target = known_host()
    assert target.experience is not None
    lines = [
        "# Estimates for a calibrated machine",
        "",
        (__doc__ or "").partition("\n\n")[2].strip(),
        "",
        f"{host.describe()}; fitted on {target.experience.networks} "
        f"{target.experience.source}; stated: "
        + ", ".join(
            f"+-{found.error:.0%} on {n} thread{'s' if n > 1 else ''}"
            for n, found in target.kernel_prices.items()
        )
        + ".",
        "",
        "Scatter is the width of the middle half of a network's own visits, over its median: no",
        "estimate can be surer than that.",
        "",
        "| threads, storage | networks | median error | bias | within 10 % | Kendall tau | "
        "interval holds | scatter |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for threads in target.threads:
        chosen = [row for row in rows if row.threads == threads]
        lines.append(f"| {threads}, all | {_summary(chosen)} |")
        for storage in ("f32", "i8"):
            part = [row for row in chosen if row.storage == storage]
            lines.append(f"| {threads}, {storage} | {_summary(part)} |")
    lines += [
        "",
        "| network | storage | threads | measured ms | estimated ms | error | scatter |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.storage} | {row.threads} | {row.ms:.3g} | {row.estimate_ms:.3g} | "
        f"{row.error:+.1%} | {row.scatter:.1%} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Times the networks and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = compare(given.rounds)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(_text(rows), encoding="utf-8")
    print(json.dumps({"written": str(given.out), "networks": len({r.name for r in rows})}))


if __name__ == "__main__":
    main()
