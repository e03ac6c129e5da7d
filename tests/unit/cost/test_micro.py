"""Prices of kernels: terms by hand, prices found again, what has none goes by the rates."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lmopt import zoo
from lmopt.cost import micro
from lmopt.cost.estimate import MODEL, estimate
from lmopt.cost.kernels import Kernel, kernels
from lmopt.cost.micro import Timed, fit_prices, fold_errors, stated_error, terms
from lmopt.cost.parts import parts_us
from lmopt.errors import BackendError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Add, Conv2D, Dense, DepthwiseConv2D, HardSwish, Mean, Mul, Transpose
from lmopt.latency.micronets import stored
from lmopt.target.catalog import load_target
from lmopt.target.profile import Experience, KernelPrices, Quantity

HOST = load_target("host")


def network(side: int, width: int, blocks: int) -> Graph:
    edit = Edit("net")
    value = edit.input("image", (None, side, side, 3))
    value = edit.add("stem", Conv2D(width, (3, 3), (2, 2)), value)
    for k in range(blocks):
        made = edit.add(f"deep{k}", DepthwiseConv2D((3, 3)), value)
        made = edit.add(f"point{k}", Conv2D(width, (1, 1)), made)
        value = edit.add(f"sum{k}", Add(), value, made)
    value = edit.add("mean", Mean(), value)
    edit.output("y", edit.add("head", Dense(10), value))
    return edit.done()


def work(side: int, width: int, blocks: int) -> tuple[Kernel, ...]:
    return kernels(network(side, width, blocks), HOST)


DRAWN = [
    work(side, width, blocks)
    for side in (8, 16, 30, 56)
    for width in (8, 12, 24, 64, 200)
    for blocks in (1, 2, 5)
]


def model_bytes(found: tuple[Kernel, ...]) -> int:
    return sum(kernel.weight_bytes for kernel in found)


def whole_us(found: tuple[Kernel, ...], prices: dict[str, float]) -> float:
    parts = [micro.parts_us(kernel, prices, model_bytes(found)) for kernel in found]
    return prices[micro.CALL] + sum(map(sum, parts))


def test_terms_of_a_convolution_and_of_a_depthwise_one_by_hand() -> None:
    stem, deep, *_ = work(16, 12, 1)
    assert terms(stem, 1e3) == pytest.approx(
        {
            "f32/window/launch": 1,
            "f32/window/macs by 8": 64 * 16 * 27 / 1e6,  # 12 channels take as long as 16
            "f32/window/macs by 16": 64 * 16 * 27 / 1e6,
            "f32/window/macs of images": 64 * 12 * 27 / 1e6,
            "f32/window/pixels": 0.064,
            "f32/window/rows": 64 * 27 / 1e6,
            "f32/window/results": 64 * 12 / 1e6,
            "f32/window/operands": 16 * 16 * 3 / 1e6,
            "f32/window/weights": 27 * 12 / 1e6,
            **{f"cold beyond {size >> 10} KiB": 0.0 for size in micro.CACHES},
        }
    )
    found = terms(deep, 1 << 21)
    assert found["f32/depthwise/macs by 8"] == pytest.approx(64 * 16 * 9 / 1e6)
    assert found["f32/depthwise/channels"] == 0.012
    bytes_read = 4 * 10 * 12 / 1e6  # nine weights and a bias per channel
    assert found["cold beyond 512 KiB"] == pytest.approx(bytes_read)
    assert found["cold beyond 2048 KiB"] == pytest.approx(bytes_read / 2)
    assert found["cold beyond 8192 KiB"] == 0.0


def test_integers_are_summed_eight_channels_at_a_time() -> None:
    graph = stored(zoo.initialize(network(16, 20, 1), 0), "i8")
    stem, point = (k for k in kernels(graph, HOST) if k.work in ("window", "pointwise"))
    assert terms(stem, 1e3)["i8/window/macs by 8"] == pytest.approx(64 * 24 * 9 * 8 / 1e6)
    found = terms(point, 1e3)
    assert found["i8/pointwise/macs by 8"] == pytest.approx(64 * 24 * 24 / 1e6)
    assert found["i8/pointwise/macs by 16"] == pytest.approx(64 * 32 * 24 / 1e6)


def test_kernels_of_one_kind_that_run_otherwise_are_groups_of_their_own() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 8, 8, 16))
    grouped = edit.add("grouped", Conv2D(16, (3, 3), groups=4), image)
    thin = edit.add("thin", Conv2D(16, (1, 1), groups=2), grouped)
    wide = edit.add("wide", DepthwiseConv2D((5, 5)), thin)
    slow = edit.add("slow", DepthwiseConv2D((7, 7)), wide)
    mean = edit.add("mean", Mean(keepdims=True), slow)
    scaled = edit.add("scaled", Mul(), slow, mean)
    total = edit.add("total", Add(), scaled, image)
    turned = edit.add("turned", Transpose((0, 2, 1, 3)), total)
    edit.output("y", edit.add("shuffled", Transpose((0, 1, 3, 2)), turned))
    names = {"grouped", "thin", "wide", "slow", "mean", "scaled", "total", "turned", "shuffled"}
    for storage in ("f32", "i8"):
        found = kernels(stored(zoo.initialize(edit.done(), 0), storage), HOST)
        groups = {kernel.node: micro.group_of(kernel) for kernel in found}
        assert {name: groups[name] for name in groups if name in names} == {
            "grouped": f"{storage}/grouped",
            "thin": f"{storage}/grouped pointwise",
            "wide": f"{storage}/wide depthwise",
            "slow": f"{storage}/wide slow depthwise",
            "mean": f"{storage}/mean",
            "scaled": f"{storage}/broadcast mul",
            "total": f"{storage}/add",
            "turned": f"{storage}/transpose",
            "shuffled": f"{storage}/transpose of channels",
        }
    assert terms(found[1], 1e3)["i8/grouped/groups"] == 4


def test_a_change_to_the_runtimes_own_kernels_has_a_price_and_dense_weights_theirs() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 8, 8, 16))
    swish = edit.add("swish", HardSwish(), edit.add("before", Conv2D(16, (1, 1)), image))
    mean = edit.add("mean", Mean(), edit.add("behind", Conv2D(16, (1, 1)), swish))
    edit.output("y", edit.add("head", Dense(10), mean))
    drawn = zoo.initialize(edit.done(), 0)
    for storage, changes in (("f32", set()), ("i8", {"swish", "behind"})):
        found = kernels(stored(drawn, storage), HOST)
        priced = {k.node for k in found if terms(k, 1e3).get(micro.CHANGE)}
        assert priced == {k.node for k in found if k.resumes} == changes
    launches = micro.parts_us(found[2], {micro.CHANGE: 4.0, "i8/hard_swish/launch": 3.0}, 1e3)[2]
    assert found[2].node == "swish" and launches == 7.0
    dense = terms(next(k for k in found if k.work == "dense"), 1 << 30)
    assert dense["cold dense beyond 512 KiB"] > 0 and "cold beyond 512 KiB" not in dense


def test_prices_that_made_the_times_are_found_again() -> None:
    rng = np.random.default_rng(0)
    names = {name for found in DRAWN for kernel in found for name in terms(kernel, 1e6)}
    true = {name: float(rng.uniform(1, 10)) for name in sorted(names)} | {micro.CALL: 5.0}
    samples = [Timed(found, whole_us(found, true), mixed=True) for found in DRAWN]
    fitted = fit_prices(samples[::2])
    for sample in samples[1::2]:
        assert whole_us(sample.kernels, fitted) == pytest.approx(sample.us, rel=0.03)
    assert min(fitted.values()) >= 0
    errors = fold_errors(samples)
    assert len(errors) == len(samples) and np.median(errors) < 0.03


def test_a_few_disturbed_times_hardly_move_the_rest() -> None:
    true = {name: 1.0 for found in DRAWN for kernel in found for name in terms(kernel, 1e6)}
    true[micro.CALL] = 5.0
    samples = [Timed(found, whole_us(found, true), mixed=True) for found in DRAWN]
    disturbed = [replace(s, us=3 * s.us) if k % 12 == 0 else s for k, s in enumerate(samples)]
    fitted = fit_prices(disturbed)
    off = [whole_us(s.kernels, fitted) / s.us - 1 for s in samples]
    assert np.median(np.abs(off)) < 0.03


def test_the_stated_error_holds_nineteen_of_twenty() -> None:
    errors = np.log(1 + np.linspace(0, 1, 101))
    assert stated_error(errors) == pytest.approx(0.95)


def test_nothing_and_nonsense_are_refused() -> None:
    with pytest.raises(BackendError, match="wanted networks with times above 0"):
        fit_prices([])
    with pytest.raises(BackendError, match="wanted networks with times above 0"):
        fit_prices([Timed(DRAWN[0], 0.0, mixed=True)])
    for samples in ([], [Timed(found, 1.0, mixed=k < 4) for k, found in enumerate(DRAWN)]):
        with pytest.raises(BackendError, match="wanted at least 5, to leave some out"):
            fold_errors(samples)


def test_an_estimate_adds_up_prices_and_goes_by_rates_where_there_are_none() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 8, 8, 16))
    value = edit.add("conv", Conv2D(16, (1, 1)), image)
    edit.output("y", edit.add("swish", HardSwish(), value))
    graph = edit.done()
    rates = {
        "peak_f32": 10.0,
        "conv_share": 1.0,
        "bandwidth": 1.0,
        "kernel_overhead": 7.0,
        "invoke_overhead": 100.0,
        "error": 0.5,
        "speedup_2": 1.5,
    }
    prices = KernelPrices(
        {micro.CALL: 3.0, "f32/pointwise/launch": 2.0, "f32/pointwise/macs by 8": 1000.0}, error=0.1
    )
    target = replace(
        HOST,
        quantities={key: Quantity(value, "", "guess", "test") for key, value in rates.items()},
        threads=(1, 2),
        kernel_prices={1: prices},
        experience=Experience(
            networks=9,
            framework="LiteRT",
            macs=(0.0, 1e9),
            storages=("f32",),
            works=("pointwise", "memory"),
            threads=(1, 2),
            kind="fitted",
            source="networks timed here",
        ),
    )
    found = estimate(graph, target)
    conv, swish = found.kernels
    assert (conv.arithmetic_us, conv.memory_us, conv.launch_us) == pytest.approx(
        (64 * 16 * 16 / 1e3, 0.0, 2.0)
    )
    assert swish.us == pytest.approx(7.0 + 2 * 4 * 64 * 16 / 1e3)
    assert found.latency_ms == pytest.approx((3.0 + conv.us + swish.us) / 1e3)
    assert found.high_ms == pytest.approx(1.1 * found.latency_ms)
    assert found.model == micro.MODEL
    assert "by prices fitted on 9 networks timed here" in found.notes
    rated = estimate(graph, target, threads=2)
    assert rated.model == MODEL and not any("by prices" in note for note in rated.notes)


def test_a_kernel_alone_is_told_how_large_its_model_is() -> None:
    found = work(16, 12, 1)
    us = {micro.CALL: 0.0, "f32/window/launch": 0.0, "cold beyond 512 KiB": 1e6}
    target = replace(HOST, kernel_prices={1: KernelPrices(us, error=0.1)})
    (small,) = parts_us(found[:1], target, 1)
    (large,) = parts_us(found[:1], target, 1, model_bytes=1 << 22)
    assert small.memory_us == 0.0
    assert large.memory_us == pytest.approx(found[0].weight_bytes)
    assert math.isclose(sum(large), large.memory_us)
