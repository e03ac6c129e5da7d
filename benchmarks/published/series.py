"""Published latencies by processor, framework and precision, as samples for a fit."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.published.catalog import network
from lmopt.cost.fit import Sample
from lmopt.cost.kernels import Kernel, kernels
from lmopt.cost.prices import TERMS, amounts
from lmopt.errors import InputError
from lmopt.ir.ops import OPS
from lmopt.target.profile import Fusion, Target

SHARED = Path(__file__).parents[3] / "shared/facts/devices/measured_latency.csv"
"""Where the table lies beside a checkout; it is no part of the project."""

COLUMNS = ("soc", "processor", "framework", "precision", "threads", "model", "input", "ms", "note")
_INTO = ("conv2d", "conv2d_transpose", "depthwise_conv2d", "dense", "add", "mul", "concat")
_RELUS = Fusion(("relu", "relu6", "leaky_relu"), _INTO, False, False, "inferred", "its converter")
_ALL = Fusion(
    ("relu", "relu6", "leaky_relu", "hard_swish", "sigmoid"),
    _INTO,
    pads=True,
    sums=False,
    kind="inferred",
    source="its converter",
)
_CPU = {"activations": 12.0, "weights": 10.0, "launch": 3.0, "thread": 1.0, "call": 50.0}
_MOBILE_GPU = {"activations": 10.0, "weights": 12.0, "launch": 40.0, "call": 1000.0}
_CUDA = {"activations": 200.0, "weights": 200.0, "launch": 15.0, "call": 50.0}
_WINOGRAD = {"square": 1.5, "window": 0.7, "depthwise": 0.35, "dense": 0.5}
_PLAIN = {**_WINOGRAD, "square": 0.9}


@dataclass(frozen=True)
class Series:
    """Latencies of one framework on one processor in one precision.

    Attributes:
        name: For people.
        match: Beginnings of the table's columns that its rows have.
        storage: Element type computed in.
        expected: Constants as expected before any latency, for the fit.
        fusion: Of the framework.
        part: A part of the processor's name, where its beginning does not tell.
    """

    name: str
    match: Mapping[str, str]
    storage: str
    expected: Mapping[str, float]
    fusion: Fusion = _RELUS
    part: str = ""

    @property
    def target(self) -> Target:
        """Returns a target that fuses like the framework; its numbers are to be found."""
        return Target(
            name="published",
            title=self.name,
            engine="cpu",
            storage=("f16" if self.storage == "f16" else "f32",),
            supported_ops=frozenset(OPS),
            fusion=self.fusion,
        )


@dataclass(frozen=True)
class Network:
    """One network of a series.

    Attributes:
        name: In the table.
        samples: One per thread count.
        works: Classes of its kernels.
        macs: Multiply-accumulates.
    """

    name: str
    samples: tuple[Sample, ...]
    works: frozenset[str]
    macs: int


def _cpu(
    name: str,
    framework: str,
    soc: str,
    rate: float,
    *,
    precision: str = "fp32",
    storage: str = "f32",
    part: str = "CPU",
    fusion: Fusion = _RELUS,
    winograd: bool = True,
) -> Series:
    return Series(
        name,
        {"framework": framework, "soc": soc, "precision": precision},
        storage,
        {"rate": rate, **(_WINOGRAD if winograd else _PLAIN), **_CPU},
        fusion,
        part,
    )


def _gpu(
    name: str, framework: str, soc: str, rate: float, precision: str = "fp16", part: str = "GPU"
) -> Series:
    return Series(
        name,
        {"framework": framework, "soc": soc, "precision": precision},
        "f16",
        {"rate": rate, **_WINOGRAD, **_MOBILE_GPU},
        _ALL,
        part,
    )


def _t4(precision: str, storage: str, rate: float) -> Series:
    return Series(
        f"T4, TensorRT {precision}",
        {"framework": "Paddle Inference + TensorRT", "soc": "NVIDIA T4", "precision": precision},
        storage,
        {"rate": rate, **_WINOGRAD, **_CUDA},
        _RELUS,
    )


def _ncnn(name: str, soc: str, rate: float, storage: str = "f16", part: str = "CPU") -> Series:
    precision = "fp16 arith"
    return _cpu(
        name, "ncnn", soc, rate, precision=precision, storage=storage, part=part, fusion=_ALL
    )


SERIES: tuple[Series, ...] = (
    _cpu("Snapdragon 855 (A76), Paddle-Lite", "Paddle-Lite", "Snapdragon 855", 20),
    _t4("fp32", "f32", 2000),
    _t4("fp16", "f16", 4000),
    _ncnn("Snapdragon 855+ (A76), ncnn", "Snapdragon 855+", 40),
    _ncnn("RK3588 (A76), ncnn", "RK3588", 30, part="big cores"),
    _ncnn("RK3588 (A55), ncnn", "RK3588", 10, part="little cores"),
    _ncnn("Raspberry Pi 5 (A76), ncnn", "BCM2712", 30),
    _ncnn("Snapdragon 821 (Kryo), ncnn", "Snapdragon 821", 7, "f32"),
    _ncnn("Threadripper (Zen 2), ncnn", "Threadripper 3970X", 50, "f32"),
    _gpu("Adreno 640, ncnn", "ncnn", "Snapdragon 855+", 100, "fp16 storage"),
    _cpu("Kirin 980 (A76), Paddle-Lite 2.11", "Paddle-Lite 2.11", "Kirin 980", 20),
    _cpu(
        "Kirin 980 (A76), Paddle-Lite 2.11 int8",
        "Paddle-Lite 2.11",
        "Kirin 980",
        40,
        precision="int8",
        storage="i8",
    ),
    _cpu(
        "Kirin 980 (A76), TNN fp16",
        "TNN 0.3",
        "Kirin 980",
        40,
        precision="fp16",
        storage="f16",
    ),
    _gpu("Kirin 980 (Mali-G76), TNN", "TNN 0.3", "Kirin 980", 100),
    _gpu("Kirin 980 (Mali-G76), Paddle-Lite 2.11", "Paddle-Lite 2.11", "Kirin 980", 100),
    _cpu("Snapdragon 865 (A77), Paddle-Lite 2.11", "Paddle-Lite 2.11", "Snapdragon 865", 20),
    _cpu(
        "Snapdragon 865 (A77), Paddle-Lite 2.11 int8",
        "Paddle-Lite 2.11",
        "Snapdragon 865",
        40,
        precision="int8",
        storage="i8",
    ),
    _cpu("Snapdragon 821 (Kryo), XNNPACK", "XNNPACK", "Snapdragon 821", 7, winograd=False),
    _cpu("Snapdragon 835 (A73), XNNPACK", "XNNPACK", "Snapdragon 835", 8, winograd=False),
    _cpu("Snapdragon 855 (A76), TFLite", "TFLite", "Snapdragon 855", 15, winograd=False),
    _cpu("Snapdragon 845 (A75), TFLite", "TFLite", "Snapdragon 845", 12, winograd=False),
)
FROZEN_ON = SERIES[:3]
"""Where the model's form was chosen: at least 25 described networks each."""


def read_table(path: Path) -> list[dict[str, str]]:
    """Returns the rows of the table, without those that it calls suspect itself.

    Raises:
        InputError: There is no such file, or it is another table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except OSError as error:
        raise InputError(
            f"cannot read the published latencies: {error}",
            hint=f"give --table FILE.csv with the columns {', '.join(COLUMNS)}",
        ) from error
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(
            f"the table lacks the columns {', '.join(missing)}",
            where=str(path),
            hint=f"wanted: {', '.join(COLUMNS)}",
        )
    return [row for row in rows if "suspect" not in row["note"]]


def networks(series: Series, rows: Sequence[Mapping[str, str]]) -> list[Network]:
    """Returns the networks of a series that are described; of equal rows the median counts."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        if _belongs(series, row):
            threads = int(row["threads"] or 1) if series.part != "GPU" else 1
            by_threads = found.setdefault((row["model"], row["input"]), {})
            by_threads.setdefault(threads, []).append(float(row["ms"]))
    made = []
    for (model, size), by_threads in found.items():
        launched = _kernels(model, size, series)
        if launched is None:
            continue
        work = _amounts(launched, series.storage)
        made.append(
            Network(
                model,
                tuple(Sample(work, n, statistics.median(ms)) for n, ms in by_threads.items()),
                frozenset(kernel.work for kernel in launched),
                sum(kernel.macs for kernel in launched),
            )
        )
    return made


def described(rows: Sequence[Mapping[str, str]], series: Series) -> tuple[int, int]:
    """Returns how many networks of a series are described, and how many it has."""
    names = {(row["model"], row["input"]) for row in rows if _belongs(series, row)}
    return sum(_kernels(*name, series) is not None for name in names), len(names)


def _belongs(series: Series, row: Mapping[str, str]) -> bool:
    # Frameworks and chips are told apart to the end; precisions come with remarks.
    if row["framework"] != series.match["framework"] or series.part not in row["processor"]:
        return False
    soc = row["soc"].partition(" (")[0]
    return soc == series.match["soc"] and row["precision"].startswith(series.match["precision"])


def _kernels(model: str, size: str, series: Series) -> tuple[Kernel, ...] | None:
    return _launched(model, int(size), series.name) if size.isdigit() else None


@cache
def _launched(model: str, size: int, name: str) -> tuple[Kernel, ...] | None:
    graph = network(model, size)
    series = next(series for series in SERIES if series.name == name)
    return None if graph is None else kernels(graph, series.target)


def _amounts(launched: Sequence[Kernel], storage: str) -> tuple[float, ...]:
    total = amounts(launched).sum(axis=0)
    if storage == "i8":
        # The graphs are float; the framework kept a byte per element.
        bytes_ = [TERMS.index("activations"), TERMS.index("weights")]
        total[bytes_] /= 4
    return tuple(map(float, total))
