import numpy as np
import pytest

from lmopt import zoo
from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.op import Op
from lmopt.ir.ops import (
    Add,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    MaxPool2D,
    Mean,
    Relu,
    Reshape,
)
from lmopt.pipeline.base import PassContext
from lmopt_passes.insert_pool import InsertPool


def apply(graph: Graph, after: str, size: int = 2) -> Graph:
    return InsertPool(after, size).apply(graph, PassContext()).graph


def test_one_pool_becomes_two_pool_becomes_basic() -> None:
    two = apply(zoo.load("one-pool@none").graph, "conv2")
    assert two.parameters == zoo.load("two-pool@none").graph.parameters == 31_558_340
    basic = apply(two, "conv1")
    assert basic.parameters == zoo.load("basic@none").graph.parameters == 8_326_340
    assert basic.macs == zoo.load("basic@none").graph.macs


def test_pfld_keeps_its_one_pixel_feature() -> None:
    graph = zoo.initialize(zoo.load("pfld-0.25@none").graph, 0)
    result = InsertPool("stem_depthwise").apply(graph, PassContext())
    pooled = result.graph
    assert pooled.node("stem_depthwise_relu_pool").op == MaxPool2D((2, 2), (2, 2))
    assert pooled.node("s3").op.kernel == (4, 4)
    assert pooled.node("s3").results[0].shape == (None, 1, 1, 128)
    old = graph.node("s3").weight("kernel").real()
    new = pooled.node("s3").weight("kernel").real()
    np.testing.assert_allclose(new[0, 0], old[:2, :2].sum(axis=(0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new.sum(axis=(0, 1)), old.sum(axis=(0, 1)), rtol=1e-4, atol=1e-5)
    assert "kernel of %s3 7x7x32x128 -> 4x4x32x128" in result.notes
    assert result.notes[0].startswith("max-pool 2x2 after %stem_depthwise_relu (56x56 -> 28x28)")
    assert pooled.node("s3").loc.passes == ("insert-pool",)


def _flat_net(head: str) -> Graph:
    edit = Edit("net")
    image = edit.input("image", (None, 8, 8, 2))
    x = edit.add("conv", Conv2D(4, (1, 1), activation="relu"), image)
    if head == "dense":
        parts = [edit.add("flat", Reshape(), x), edit.add("mean", Mean(), x)]
        parts.append(edit.add("again", Reshape((8 * 8 * 4,)), edit.add("relu", Relu(), x)))
        x = edit.add("joined", Concat(), *parts)
    else:
        x = edit.add("whole", Conv2D(6, (8, 8), padding="valid"), x)
        x = edit.add("flat", Reshape(), x)
    edit.output("landmarks", edit.add("landmarks", Dense(6), x))
    return zoo.initialize(edit.done(), 4)


@pytest.mark.parametrize("head", ["dense", "whole"])
def test_maps_without_detail_give_the_same_answer(head: str) -> None:
    graph = _flat_net(head)
    coarse = np.random.default_rng(0).standard_normal((3, 4, 4, 2)).astype(np.float32)
    image = {"image": coarse.repeat(2, axis=1).repeat(2, axis=2)}
    pooled = apply(graph, "conv")
    assert pooled.parameters < graph.parameters
    before, after = run(graph, image)["landmarks"], run(pooled, image)["landmarks"]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_auto_takes_the_place_nearest_to_half_of_the_macs() -> None:
    graph = zoo.load("pfld-0.25@none").graph
    result = InsertPool().apply(graph, PassContext())
    assert "stem_depthwise_relu_pool" in result.graph
    assert abs(result.graph.macs / graph.macs - 0.5) < abs(
        apply(graph, "block1_expand").macs / graph.macs - 0.5
    )


def test_the_rest_of_a_residual_is_named_when_it_does_not_fit() -> None:
    with pytest.raises(PassError, match=r"%block2_add: insert-pool after %block2_expand_relu"):
        apply(zoo.load("pfld-0.25@none").graph, "block2_expand")


def test_silent_broadcasts_are_refused() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 2, 2, 3))
    a, b = edit.add("a", Conv2D(4), image), edit.add("b", Conv2D(4), image)
    edit.output("out", edit.add("mean", Mean(), edit.add("sum", Add(), a, b)))
    with pytest.raises(PassError, match=r"%sum: .*operands would become"):
        apply(edit.done(), "a")


def test_changed_outputs_are_refused() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 8, 8, 3))
    x = edit.add("b", Conv2D(4), edit.add("a", Conv2D(4), image))
    edit.output("heat", x)
    with pytest.raises(PassError, match="output 'heat' would change"):
        apply(edit.done(), "a")
    with pytest.raises(PassError, match="nothing reads"):
        apply(edit.done(), "b")
    with pytest.raises(PassError, match="fits behind no convolution"):
        apply(edit.done(), "auto")


def test_wrong_places() -> None:
    graph = zoo.load("basic@none").graph
    with pytest.raises(PassError, match="did you mean 'conv2'"):
        apply(graph, "conv_2")
    with pytest.raises(PassError, match=r"%dense1: .*a node that gives a map"):
        apply(graph, "dense1")
    with pytest.raises(PassError, match="leaves nothing of 11x11"):
        apply(graph, "pool3", size=12)
    with pytest.raises(UsageError, match="size is 1"):
        InsertPool(size=1)


@pytest.mark.parametrize("op", [Conv2D(3, (1, 1)), DepthwiseConv2D((1, 1))])
def test_pixels_that_become_channels_are_no_fewer_features_to_fit(op: Op) -> None:
    edit = Edit("net")
    x = edit.add("relu", Relu(), edit.input("image", (None, 4, 4, 2)))
    x = edit.add("flat", Reshape((1, 1, -1)), x)
    edit.output("y", edit.add("behind", op, x))
    with pytest.raises(PassError, match="'kernel' cannot be fitted to fewer features") as caught:
        apply(zoo.initialize(edit.done(), 0), "relu")
    assert caught.value.where == "%behind"
