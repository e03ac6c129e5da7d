"""factorize: exact at full rank, the best stand-in below it, only where it pays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmopt import zoo
from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.factor import answer_directions, can_factor, factor_node, operand_directions
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.ops import Conv2D, Dense, DepthwiseConv2D, Mean, Relu
from lmopt.pipeline.base import Need, PassContext
from lmopt_passes.factorize import Factorize
from tests.support.services import answers_of, full_context


def layer(op: Conv2D | Dense, shape: tuple[int, ...], seed: int = 0) -> Graph:
    """One layer of drawn weights."""
    edit = Edit("layer")
    edit.output("y", edit.add("layer", op, edit.input("x", (None, *shape))))
    rng = np.random.default_rng(seed)
    graph = edit.done()
    drawn = {k: rng.normal(size=w.type.shape) for k, w in graph.node("layer").weights.items()}
    edit = graph.edit()
    edit.set_weights("layer", **{k: array.astype(np.float32) for k, array in drawn.items()})
    return edit.done()


def kernel_of(graph: Graph, name: str = "layer") -> np.ndarray:
    return graph.node(name).weight("kernel").real().astype(np.float64)


convolutions = st.builds(
    Conv2D,
    filters=st.integers(1, 5),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilation=st.just((1, 1)) | st.just((2, 1)),
    padding=st.sampled_from(["same", "valid"]),
    use_bias=st.booleans(),
    activation=st.sampled_from(["none", "relu", "relu6"]),
)
denses = st.builds(
    Dense,
    units=st.integers(1, 6),
    use_bias=st.booleans(),
    activation=st.sampled_from(["none", "relu"]),
)


@settings(max_examples=40, deadline=None)
@given(
    op=convolutions | denses,
    channels=st.integers(1, 5),
    sides=st.sampled_from([(True, False), (False, True), (True, True)]),
    on_data=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_all_directions_compute_what_the_layer_did(
    op: Conv2D | Dense, channels: int, sides: tuple[bool, bool], on_data: bool, seed: int
) -> None:
    graph = layer(op, (5, 6, channels) if isinstance(op, Conv2D) else (channels,), seed)
    node, kernel, rng = graph.node("layer"), kernel_of(graph), np.random.default_rng(seed)
    count, spread = kernel.shape[-1], rng.normal(size=(2, 7, max(kernel.shape[-2:])))
    seen = spread[0, :, :channels], spread[1, :, :count]
    covariances = [np.cov(rows.T, bias=True).reshape(rows.shape[1], -1) for rows in seen]
    operand = operand_directions(kernel, *((seen[0].mean(0), covariances[0]) if on_data else ()))
    answer = answer_directions(kernel, covariances[1] if on_data else None)
    assert answer.lost[-1] == operand.lost[-1] == 0
    enters = sides[0] and isinstance(op, Conv2D)
    edit = graph.edit()
    factor_node(
        edit,
        node,
        (operand, channels) if enters else None,
        (answer, count) if sides[1] else None,
        seen[1].mean(0) if on_data else None,
        "factorize",
    )
    made = edit.done()
    assert len(made.nodes) == 2 + enters + sides[1]
    x = {"x": rng.normal(size=(2, *graph.inputs[0].results[0].shape[1:])).astype(np.float32)}
    wanted = run(graph, x)["y"]
    np.testing.assert_allclose(run(made, x)["y"], wanted, rtol=1e-3, atol=2e-4)


def test_no_projection_of_that_rank_errs_less_on_the_data() -> None:
    rng = np.random.default_rng(0)
    graph = layer(Dense(6), (8,))
    data = (rng.normal(size=(500, 3)) @ rng.normal(size=(3, 8)) + 2).astype(np.float32)
    data += 0.1 * rng.normal(size=data.shape).astype(np.float32)
    answers = run(graph, {"x": data})["y"].astype(np.float64)
    covariance, mean = np.cov(answers.T, bias=True), answers.mean(0)
    directions = answer_directions(kernel_of(graph), covariance)
    edit = graph.edit()
    factor_node(edit, graph.node("layer"), None, (directions, 2), mean, "factorize")
    errors = run(edit.done(), {"x": data})["y"] - answers
    total = ((answers - mean) ** 2).sum()
    # The best of all matrices of rank 2 around the mean is the truncated SVD (Eckart and Young).
    singular = np.linalg.svd(answers - mean, compute_uv=False)
    assert (errors**2).sum() == pytest.approx((singular[2:] ** 2).sum(), rel=1e-3)
    assert directions.lost[2] == pytest.approx((errors**2).sum() / total, rel=1e-3)
    np.testing.assert_allclose(errors.mean(0), 0, atol=1e-4)


def test_data_decides_which_channels_are_read() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 2))
    kernel[:, :, 3] = 0  # nobody reads it
    covariance, mean = np.diag([9.0, 9.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 0.0])
    directions = operand_directions(kernel, mean, covariance)
    columns, back = directions.first(2)
    np.testing.assert_allclose((columns @ back)[:2, :2], np.eye(2), atol=1e-3)
    assert directions.lost[2] < 1e-3 < directions.lost[1]
    # A steady channel that the kernels read counts, though it does not vary.
    assert operand_directions(kernel, np.array([0, 0, 5.0, 0]), covariance).lost[2] > 0.1
    without = operand_directions(kernel).lost
    assert without[3] == pytest.approx(0, abs=1e-9) and without[2] > 0.1


def narrow(seed: int = 0) -> Graph:
    """A detector whose second convolution and dense layer have rank 8, all else full rank."""
    rng = np.random.default_rng(seed)
    edit = Edit("narrow")

    def low(*shape: int) -> dict[str, np.ndarray]:
        left, right = rng.normal(size=(*shape[:-1], 8)), rng.normal(size=(8, shape[-1]))
        return {"kernel": (left @ right / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)}

    x = edit.input("image", (None, 8, 8, 3))
    x = edit.add("stem", Conv2D(24, activation="relu"), x)
    x = edit.add("depthwise", DepthwiseConv2D(), x)
    x = edit.add("wide", Conv2D(40, use_bias=False), x, weights=low(3, 3, 24, 40))
    x = edit.add("mean", Mean(), edit.add("relu", Relu(), x))
    edit.output("y", edit.add("head", Dense(32, use_bias=False), x, weights=low(40, 32)))
    graph, edit = edit.done(), edit.done().edit()
    for node in graph.nodes:
        unset = {k: w.type.shape for k, w in node.weights.items() if w.array is None}
        drawn = {k: 0.3 * rng.normal(size=shape) for k, shape in unset.items()}
        edit.set_weights(node.name, **{k: array.astype(np.float32) for k, array in drawn.items()})
    return edit.done()


@pytest.mark.parametrize("by", ["answers", "kernels"])
def test_layers_of_low_rank_are_found_and_their_answers_kept(by: str) -> None:
    graph = narrow()
    context = full_context() if by == "answers" else PassContext()
    result = Factorize(energy=0.9999, by=by).apply(graph, context)
    assert result.notes[0].startswith("2 of 3 layers factorized; MACs ")
    assert result.notes[1] == "%wide 3x3x24x40: 8 given, 0.00% of the variance lost"
    assert result.graph.node("wide_core").op == Conv2D(8, use_bias=False)
    assert result.graph.node("head_core").op == Dense(8, use_bias=False)
    assert result.graph.macs < 0.5 * graph.macs
    assert result.graph.node("wide").loc.passes == ("factorize",)
    # On the pictures that were seen: four tell less than all directions of the head.
    np.testing.assert_allclose(answers_of(result.graph), answers_of(graph), rtol=1e-3, atol=1e-3)


def test_what_saves_too_little_stays() -> None:
    result = Factorize(energy=0.9999, gain=0.9).apply(narrow(), full_context())
    assert not result.changed
    assert result.notes == ("no layer whose factors keep 99.99% and save 90%",)


def test_energy_is_lowered_until_the_macs_are_gone() -> None:
    graph = narrow()
    loose = Factorize(energy=0.9999, keep=0.9).apply(graph, full_context())
    assert (
        loose.graph.digest() == Factorize(energy=0.9999).apply(graph, full_context()).graph.digest()
    )
    tight = Factorize(energy=0.9999, keep=0.22).apply(graph, full_context()).graph
    assert tight.macs <= 0.22 * graph.macs < loose.graph.macs
    # A window reads fewer channels where that saves most.
    assert tight.node("wide_enter").op == Conv2D(8, (1, 1), use_bias=False)
    with pytest.raises(PassError, match=r"cannot leave 1% of 0\.\d M MACs") as caught:
        Factorize(keep=0.01).apply(graph, full_context())
    least = float(caught.value.hint.split()[3].rstrip(","))
    assert Factorize(keep=least).apply(graph, full_context()).graph.macs <= least * graph.macs


def test_grouped_and_depthwise_convolutions_stay() -> None:
    assert not can_factor(layer(Conv2D(4, groups=2), (4, 4, 4)).node("layer"))
    assert not can_factor(narrow().node("depthwise"))


def test_options_services_and_weights_are_checked() -> None:
    for options, match in (
        ({"energy": 0.0}, "energy is 0"),
        ({"keep": 1.5}, "keep is 1.5"),
        ({"gain": 1.0}, "gain is 1"),
        ({"align": 0}, "align is 0"),
        ({"faces": 0}, "faces is 0"),
    ):
        with pytest.raises(UsageError, match=match):
            Factorize(**options)
    with pytest.raises(PassError, match="--data"):
        Factorize().apply(narrow(), PassContext())
    assert Factorize().required() == {Need.CALIBRATOR}
    assert Factorize(by="kernels").required() == frozenset()
    with pytest.raises(PassError, match="factorize reads weights"):
        Factorize().apply(zoo.load("pfld-0.25@none").graph, full_context())
