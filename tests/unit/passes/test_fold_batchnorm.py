"""fold-batchnorm and to-float16: the very numbers."""

from __future__ import annotations

import numpy as np

from lmopt.ir.text import parse_graph
from lmopt.ir.types import DType
from lmopt.pipeline.base import PassContext
from lmopt.pipeline.manager import Pipeline

BLOCK = """graph g
%x = input() : f32[?,4,4,2]
%c = {kernel}
%n = batch_norm(%c) {{epsilon=0.0}} [beta=f32[4]=[1,0,0,2], gamma=f32[4]=[2,1,1,-1], \
mean=f32[4]=[0.5,0,1,0], variance=f32[4]=[4,0.25,1,1]]
%r = relu(%n)
output out = %r
"""


def fold(kernel: str):
    graph = parse_graph(BLOCK.format(kernel=kernel))
    return Pipeline.parse("fold-batchnorm").run(graph, PassContext(), verify_each=True).graph


def test_a_convolution_takes_scale_and_shift():
    kernel = "conv2d(%x) {filters=4, kernel=1, use_bias=false} [kernel=f32[1,1,2,4]=1]"
    node = fold(kernel).node("c")
    np.testing.assert_allclose(node.weight("kernel").real()[0, 0], [[1, 2, 1, -1]] * 2)
    np.testing.assert_allclose(node.weight("bias").real(), [0.5, 0, -1, 2])
    assert node.op.activation == "relu"
    assert node.loc.source == "c"
    assert node.loc.passes == ("fold-batchnorm", "fold-batchnorm")


def test_a_bias_before_the_norm_is_scaled():
    kernel = "conv2d(%x) {filters=4, kernel=1} [bias=f32[4]=1, kernel=f32[1,1,2,4]=1]"
    np.testing.assert_allclose(fold(kernel).node("c").weight("bias").real(), [1.5, 2, 0, 1])


def test_a_transposed_convolution_takes_scale_and_shift():
    kernel = "conv2d_transpose(%x) {filters=4, kernel=1, use_bias=false} [kernel=f32[1,1,2,4]=1]"
    node = fold(kernel).node("c")
    np.testing.assert_allclose(node.weight("kernel").real()[0, 0], [[1, 2, 1, -1]] * 2)
    assert (node.op.use_bias, node.op.activation) == (True, "relu")


def test_a_depthwise_kernel_is_scaled_per_channel_and_multiplier():
    kernel = "depthwise_conv2d(%x) {kernel=1, multiplier=2, use_bias=false} [kernel=f32[1,1,2,2]=1]"
    node = fold(kernel).node("c")
    np.testing.assert_allclose(node.weight("kernel").real()[0, 0], [[1, 2], [1, -1]])


def test_nothing_to_fold_gives_the_same_graph_back():
    graph = parse_graph("graph g\n%x = input() : f32[?,2]\n%r = tanh(%x)\noutput o = %r")
    result = Pipeline.parse("fold-batchnorm").run(graph, PassContext())
    assert result.graph is graph
    assert not result.steps[0].changed


def test_float16_weights_are_rounded_to_nearest_and_twice_is_once():
    text = (
        "graph g\n%x = input() : f32[?,1]\n%y = dense(%x) {units=3, use_bias=false} "
        "[kernel=f32[1,3]=[0.1, 2049, -65504]]\noutput o = %y"
    )
    once = Pipeline.parse("to-float16").run(parse_graph(text), PassContext()).graph
    weight = once.node("y").weight("kernel")
    assert weight.type.dtype is DType.F16
    np.testing.assert_array_equal(weight.real(), [[np.float32(np.float16(0.1)), 2048, -65504]])
    again = Pipeline.parse("to-float16").run(once, PassContext())
    assert again.graph is once
    assert not again.steps[0].changed
