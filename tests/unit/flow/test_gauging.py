"""Latencies of candidates during a search, and the limits that are told before measuring."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.errors import BackendError, UsageError
from lmopt.exploration.candidate import Trained
from lmopt.flow.gauging import Gauge, is_measured_here
from lmopt.flow.request import SearchRequest
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Conv2D, Dense, Mean
from lmopt.target.catalog import load_target


def graph(filters: int) -> Graph:
    edit = Edit("small")
    x = edit.input("image", (None, 32, 32, 3))
    x = edit.add("conv", Conv2D(filters, (3, 3), activation="relu"), x)
    edit.output("points", edit.add("answer", Dense(136), edit.add("mean", Mean(), x)))
    return zoo.initialize(edit.done(), seed=0)


def made(folder: Path, filters: int) -> Trained:
    found = graph(filters)
    path = folder / f"{filters}.tflite"
    path.write_bytes(emit(found))
    size = path.stat().st_size
    return Trained("p", str(filters), str(path), size, 5.0, found.parameters, found.macs, 1.0)


def gauge(folder: Path, target: str = "p30-cpu", **limits: object) -> Gauge:
    request = SearchRequest(target, **limits)  # type: ignore[arg-type]
    return Gauge(request, load_target(target), made(folder, 32))


def test_estimates_are_relative_to_the_baseline(tmp_path: Path) -> None:
    found = gauge(tmp_path)
    same, smaller = found.of(made(tmp_path, 32)), found.of(made(tmp_path, 8))
    assert same.relative == (1.0, 1.0, 1.0)
    assert smaller.relative.value < 1
    assert smaller.ms == pytest.approx(smaller.relative.value * same.ms)


def test_this_host_measures_both_in_one_run(tmp_path: Path) -> None:
    request = SearchRequest("p30-cpu", latency="measure", threads=1)
    assert is_measured_here(request, load_target("p30-cpu"))
    found = Gauge(request, load_target("p30-cpu"), made(tmp_path, 256)).of(made(tmp_path, 8))
    assert found.relative.low <= found.relative.value <= found.relative.high < 1


def test_what_needs_too_much_memory_is_refused_with_both_figures(tmp_path: Path) -> None:
    # 32x32x(3 + 8) float32 values are alive at once: 44 KiB, and some KiB of weights
    allowed = gauge(tmp_path, max_memory_bytes=60 * 1024)
    assert allowed.of(made(tmp_path, 8)).ms > 0
    with pytest.raises(BackendError, match=r"needs 1[56]\d\.\d KiB, allowed 60\.0 KiB"):
        allowed.of(made(tmp_path, 32))


def test_what_falls_off_the_engine_is_refused_by_name(tmp_path: Path) -> None:
    assert gauge(tmp_path, "p30-gpu").of(made(tmp_path, 8)).ms > 0
    with pytest.raises(BackendError, match="%mean falls off the engine: "):
        gauge(tmp_path, "p30-gpu", delegate_only=True).of(made(tmp_path, 8))


@pytest.mark.parametrize(
    ("latency", "device", "final"),
    [("measure", "auto", "host"), ("estimate", "auto", "auto"), ("measure", "adb", "adb")],
)
def test_the_front_is_judged_by_the_latencies_that_the_search_went_by(
    latency: str, device: str, final: str, tmp_path: Path
) -> None:
    request = SearchRequest("p30-cpu", latency=latency, device=device)  # type: ignore[arg-type]
    assert request.final((), tmp_path).device == final


def test_losing_nothing_is_a_limit_and_less_is_none(tmp_path: Path) -> None:
    assert SearchRequest("p30-cpu", max_nme_drop=0.0).final((), tmp_path).max_nme_drop == 0.0
    with pytest.raises(UsageError, match="wanted 0 or more"):
        SearchRequest("p30-cpu", max_nme_drop=-0.1)
