"""The first latency estimate: arithmetic by hand, fallbacks, threads."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from lmopt import zoo
from lmopt.cost.estimate import TargetCost, estimate
from lmopt.cost.kernels import islands, kernels
from lmopt.errors import BackendError, InputError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Conv2D, HardSwish, Relu
from lmopt.target.catalog import load_target
from lmopt.target.profile import Quantity, Target


def quantities(**values: float) -> dict[str, Quantity]:
    return {key: Quantity(value, "", "guess", "test") for key, value in values.items()}


BOARD = Target(
    name="board",
    title="A board",
    engine="cpu",
    storage=("f32",),
    supported_ops=frozenset({"conv2d", "relu"}),
    quantities=quantities(
        peak_f32=10.0,
        conv_share=0.5,
        depthwise_share=0.1,
        bandwidth=1.0,
        kernel_overhead=7.0,
        invoke_overhead=100.0,
        speedup_2=1.5,
        speedup_4=2.0,
        transfer_overhead=50.0,
        error=0.25,
    ),
    threads=(1, 2, 4),
)


def convolution(middle: bool = False) -> Graph:
    edit = Edit("net")
    value = edit.input("image", (None, 10, 10, 8))
    value = edit.add("conv", Conv2D(8, (3, 3), use_bias=False), value)
    value = edit.add("relu", Relu(), value)
    if middle:
        value = edit.add("swish", HardSwish(), value)
        value = edit.add("last", Conv2D(8, (3, 3), use_bias=False), value)
    edit.output("y", value)
    return edit.done()


def test_one_convolution_by_hand():
    graph = convolution()
    macs = 10 * 10 * 8 * 3 * 3 * 8
    arithmetic_us = macs / (10.0 * 0.5 * 1e3)
    memory_us = 4 * (800 + 800 + 576) / 1e3
    assert arithmetic_us > memory_us
    found = estimate(graph, BOARD, threads=1)
    assert found.latency_ms == pytest.approx((100 + 7 + arithmetic_us + memory_us) / 1e3)
    assert found.error_ms == pytest.approx(found.latency_ms / 4)
    assert found.low_ms == pytest.approx(found.latency_ms / 1.25)
    assert found.high_ms == pytest.approx(found.latency_ms * 1.25)
    (time,) = found.kernels
    parts = (arithmetic_us, memory_us, 7.0)
    assert (time.arithmetic_us, time.memory_us, time.launch_us) == pytest.approx(parts)
    assert time.kernel.fused == ("relu",)
    # The picture and the answer live at once; what the fused relu reads never exists.
    assert found.memory.arena_bytes == 2 * 4 * 800 and found.memory.weight_bytes == 4 * 576


def test_threads_divide_arithmetic_and_the_fastest_count_is_chosen():
    graph = convolution()
    by_threads = {n: estimate(graph, BOARD, threads=n).latency_ms for n in (1, 2, 4)}
    assert by_threads[1] > by_threads[2] >= by_threads[4]
    best = estimate(graph, BOARD)
    assert best.latency_ms == min(by_threads.values())
    assert estimate(graph, BOARD, threads=3).threads == 3


def test_an_activation_behind_one_convolution_is_no_kernel_of_its_own():
    assert [kernel.node for kernel in kernels(convolution(), BOARD)] == ["conv"]


def test_what_the_engine_refuses_falls_back_and_is_reported():
    graph = convolution(middle=True)
    found = kernels(graph, BOARD)
    assert [k.delegated for k in found] == [True, False, True] and islands(found) == 2
    with pytest.raises(BackendError, match=r"%swish[\s\S]*no fallback|no fallback[\s\S]*"):
        estimate(graph, BOARD)
    helped = estimate(graph, replace(BOARD, fallback="desktop-cpu"), threads=1)
    assert "1 of 3 kernels fall back to desktop-cpu (%swish), 2 transfers" in helped.notes[0]


def test_a_profile_without_numbers_is_not_estimated():
    with pytest.raises(InputError, match="no numbers"):
        estimate(convolution(), load_target("host"))


def test_width_orders_the_estimates_of_every_phone():
    small, large = zoo.load("pfld-0.25@none").graph, zoo.load("pfld-1.0@none").graph
    for name in ("p30-cpu", "velvet-cpu", "velvet-gpu", "velvet-apu", "htc10-cpu"):
        cost = TargetCost(load_target(name))
        assert 0.1 < cost.latency_ms(small) < cost.latency_ms(large) < 100


def test_a_digest_is_the_same_in_every_process() -> None:
    ask = (
        "from lmopt.cost.estimate import TargetCost; from lmopt.target.catalog import load_target;"
        "print(TargetCost(load_target('velvet-apu')).digest)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", ask],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
