"""Estimates say where they leave what their numbers were fitted on."""

import re
from dataclasses import replace

import pytest

from lmopt.cost.kernels import Kernel
from lmopt.cost.trust import doubts
from lmopt.target.catalog import load_target

P30 = load_target("p30-cpu")


def kernel(macs: int = 10**9, **changes: object) -> Kernel:
    return replace(Kernel("a", "pointwise", "f32", macs, 100, kind="conv2d"), **changes)  # type: ignore[arg-type]


def test_within_the_experience_there_is_no_doubt() -> None:
    assert doubts([kernel()], P30, 4) == ()


@pytest.mark.parametrize(
    ("found", "threads", "told"),
    [
        (kernel(10**6), 4, "1 M multiply-accumulates"),
        (kernel(10**11), 4, "1e\\+05 M multiply-accumulates"),
        (kernel(storage="u8"), 4, r"u8 \(f32, i8\)"),
        (kernel(kind="warp", work="memory"), 4, "warp, written as several operators"),
        (kernel(), 8, r"8 threads \(1, 2, 4\)"),
    ],
)
def test_sizes_types_ops_and_threads_beyond_it_are_named(
    found: Kernel, threads: int, told: str
) -> None:
    (reason,) = doubts([found], P30, threads)
    assert reason.startswith("outside of what p30-cpu was fitted on (5 networks, Paddle-Lite")
    assert re.search(told, reason)


def test_a_profile_without_data_says_so() -> None:
    (reason,) = doubts([kernel(storage="u8")], load_target("velvet-apu"), 1)
    assert reason == "not fitted: no network was measured for the numbers of velvet-apu"
