"""prune where there are calibration faces: its ranking, and what makes up for channels that go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmopt.ir.channels import living, map_channels, slice_channels
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import Concat, Conv2D, Conv2DTranspose, Dense, Mean, Relu, Reshape
from lmopt.pipeline.base import Need, PassContext
from lmopt_passes import channel_readers
from lmopt_passes.channel_readers import find_readers, made_up
from lmopt_passes.prune import Prune
from tests.support.services import DrawnCalibrator, answers_of

FACES = PassContext(services={Need.CALIBRATOR: DrawnCalibrator()})
READERS = {
    "pointwise": Conv2D(5, (1, 1), activation="relu"),
    "window": Conv2D(3, (3, 3), (2, 2), use_bias=False),
    "valid": Conv2D(3, (3, 2), padding="valid"),
    "transpose": Conv2DTranspose(2, (2, 2), (2, 2), use_bias=False),
    "pixel dense": Dense(3),
}


class Net:
    """Grows a net with drawn weights; `kernels` may be given."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.edit = Edit("net")

    def add(self, name: str, op, *inputs: Value, **given: NDArray[np.floating]) -> Value:
        shapes = op.params([self.edit.node(v.node).results[0] for v in inputs])
        drawn = {key: self.rng.normal(size=shape) for key, shape in shapes.items()}
        weights = {key: np.float32(array) for key, array in {**drawn, **given}.items()}
        return self.edit.add(name, op, *inputs, weights=weights)


def redundant(seed: int, reader: str, free: int, tied: int) -> Graph:
    """A net in which the last `tied` channels of %made are combinations of the first ones."""
    net = Net(seed)
    image = net.edit.input("image", (None, 7, 7, 2))
    kernel, bias = net.rng.normal(size=(3, 3, 2, free)), net.rng.normal(size=free)
    mix = net.rng.normal(size=(free, tied))
    made = net.add(
        "made",
        Conv2D(free + tied),
        image,
        kernel=np.concatenate([kernel, kernel @ mix], axis=-1),
        bias=np.concatenate([bias, bias @ mix]),
    )
    others = net.add("others", Conv2D(2, activation="relu"), image)
    both = net.add("both", Concat(), others, made)
    read = net.add("read", READERS[reader], both)
    pooled = net.add(
        "features", Concat(), net.add("mean", Mean(), read), net.add("m", Mean(), both)
    )
    net.edit.output("landmarks", net.add("landmarks", Dense(4), pooled))
    return net.edit.done()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    reader=st.sampled_from(sorted(READERS)),
    free=st.integers(1, 4),
    tied=st.integers(1, 3),
)
def test_channels_that_are_combinations_of_others_go_without_a_trace(
    seed: int, reader: str, free: int, tied: int
) -> None:
    graph = redundant(seed, reader, free, tied)
    channels, keep = map_channels(graph), {"made": range(free)}
    readers = find_readers(graph, channels, DrawnCalibrator(), faces=4)
    sliced = slice_channels(graph, keep, channels)
    whole = made_up(sliced, readers, living(channels, keep), kernels=True)
    assert whole.macs == sliced.macs < graph.macs
    wanted = answers_of(graph)
    # The ridge holds directions that hardly vary; what they lack is a small part of the answer.
    np.testing.assert_allclose(answers_of(whole), wanted, atol=0.02 * np.abs(wanted).max())


def constant(steady: int, moving: int, last: float) -> Graph:
    """A net in which the first channels of %made are 3 everywhere and have large kernels behind."""
    net = Net(1)
    image = net.edit.input("image", (None, 4, 4, 1))
    kernel = np.concatenate([np.zeros((1, 1, 1, steady)), np.ones((1, 1, 1, moving))], axis=-1)
    bias = np.concatenate([np.full(steady, 3.0), np.linspace(0.1, 0.4, moving)])
    made = net.add(
        "made", Conv2D(steady + moving, (1, 1), activation="relu"), image, kernel=kernel, bias=bias
    )
    rows = np.concatenate(
        [np.full((steady, 4), 50.0), np.linspace(1, 2, moving * 4).reshape(-1, 4)]
    )
    rows[-1] *= last
    head = net.add(
        "landmarks", Dense(4, use_bias=False), net.add("mean", Mean(), made), kernel=rows
    )
    net.edit.output("landmarks", head)
    return net.edit.done()


@pytest.mark.parametrize("reconstruct", [False, True])
def test_a_channel_that_never_changes_becomes_a_bias(reconstruct: bool) -> None:
    graph = constant(steady=3, moving=2, last=1.0)
    item = Prune(0.5, min_channels=1, align=1, reconstruct=reconstruct)
    result = item.apply(graph, FACES)
    assert np.ptp(result.graph.node("made").weight("kernel").real()) == 0  # those that move stay
    np.testing.assert_allclose(
        result.graph.node("landmarks").weight("bias").real(), np.full(4, 450.0), rtol=1e-6
    )
    np.testing.assert_allclose(answers_of(result.graph), answers_of(graph), rtol=1e-6)
    wanted = (
        "re-fitted on up to 200 faces: 1"
        if reconstruct
        else "biases stand for means of what went: 1"
    )
    assert wanted in result.notes[1]


def test_importance_is_the_share_of_the_answer_s_variance() -> None:
    graph = constant(steady=1, moving=2, last=0.0)
    channels = map_channels(graph)
    (reader,) = find_readers(graph, channels, DrawnCalibrator(), faces=4)
    # Channels 1 and 2 move alike; the kernel reads only one of them.
    np.testing.assert_allclose(reader.shares(channels.group("made")), [0, 1, 0], atol=1e-9)


def test_a_variance_below_zero_by_rounding_brings_nothing() -> None:
    graph = constant(steady=1, moving=2, last=1.0)
    channels = map_channels(graph)
    (reader,) = find_readers(graph, channels, DrawnCalibrator(), faces=4)
    covariance = reader.covariance.copy()
    covariance[0, 0] = -1e-17
    shares = replace(reader, covariance=covariance).shares(channels.group("made"))
    assert shares[0] == 0.0 < min(shares[1:])


def test_a_kernel_too_large_to_fit_gets_its_bias_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel_readers, "MOST_ROWS", 4)
    graph = constant(steady=3, moving=2, last=1.0)
    result = Prune(0.5, min_channels=1, align=1).apply(graph, FACES)
    assert result.notes[1] == (
        "kernels re-fitted on up to 200 faces: 0; too large for that: %landmarks"
    )
    np.testing.assert_allclose(answers_of(result.graph), answers_of(graph), rtol=1e-6)


def test_re_fitted_kernels_come_nearer_to_the_answers() -> None:
    graph = _small()
    wanted = answers_of(graph)

    def error(**options: object) -> float:
        found = Prune(0.4, align=1, **options).apply(graph, FACES).graph
        return float(np.square(answers_of(found) - wanted).mean())

    old = error(importance="magnitude", reconstruct=False)
    assert error() < 0.3 * error(reconstruct=False) < 0.3 * old
    assert error(importance="magnitude") < 0.5 * old


def _small() -> Graph:
    net = Net(2)
    x = net.edit.input("image", (None, 12, 12, 3))
    for index, filters in enumerate((12, 16, 24)):
        x = net.add(f"conv{index}", Conv2D(filters, (3, 3), (2, 2)), x)
        x = net.add(f"relu{index}", Relu(), x)
    net.edit.output("landmarks", net.add("landmarks", Dense(6), net.add("flat", Reshape(), x)))
    return net.edit.done()


def test_without_faces_norms_decide_and_that_is_said() -> None:
    graph = _small()
    alone = Prune(0.4, align=1).apply(graph, PassContext())
    plain = Prune(0.4, align=1, importance="magnitude", reconstruct=False)
    assert "no calibration faces: ranked by weights" in alone.notes[-1]
    for context in (PassContext(), FACES):
        result = plain.apply(graph, context)
        assert result.graph.digest() == alone.graph.digest()
        assert len(result.notes) == 1


def test_what_a_run_lacks_is_part_of_what_was_read() -> None:
    reads: list[Mapping[str, str]] = []
    for services in ({}, {Need.CALIBRATOR: DrawnCalibrator()}):
        ctx = PassContext(services=services)
        Prune(0.4, align=1).apply(_small(), ctx)
        reads.append(ctx.reads)
    assert reads == [{Need.CALIBRATOR: "absent"}, {Need.CALIBRATOR: "drawn"}]
