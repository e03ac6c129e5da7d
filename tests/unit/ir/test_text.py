"""The text of graphs: form, hand-written literals, and faults with their place."""

from __future__ import annotations

import numpy as np
import pytest

from lmopt.errors import GraphError
from lmopt.ir import DType, Quant, TensorType, Value, Weight
from lmopt.ir.ops import Conv2D, MaxPool2D
from lmopt.ir.text import parse_graph, print_graph, weights_of

TEXT = """\
graph two-branches
%image = input() : f32[?,8,8,3]
// a comment
%stem = conv2d(%image) {filters=4, stride=2, padding=valid, kernel=(3,1)} \
[bias=f32[4]=0.5, kernel=f32[3,1,3,4]~7]
%"odd name" = max_pool2d(%stem) {size=1, stride=(1,2)}
%q = quantize(%"odd name") : i8[?,3,2,4]<0.5:-3>
%both = concat(%q, %q)
output map = %both
output "and that" = %stem
"""


def test_it_prints_as_promised():
    graph = parse_graph(TEXT)
    kernel, bias = (graph.node("stem").weights[key].digest for key in ("kernel", "bias"))
    assert str(graph) == (
        "graph two-branches\n"
        "%image = input() : f32[?,8,8,3]\n"
        "%stem = conv2d(%image) {filters=4, kernel=(3,1), stride=2, padding=valid} "
        f"[bias=f32[4]@{bias}, kernel=f32[3,1,3,4]@{kernel}] : f32[?,3,4,4]\n"
        '%"odd name" = max_pool2d(%stem) {size=1, stride=(1,2)} : f32[?,3,2,4]\n'
        '%q = quantize(%"odd name") : i8[?,3,2,4]<0.5:-3>\n'
        "%both = concat(%q, %q) : i8[?,3,2,8]<0.5:-3>\n"
        "output map = %both\n"
        'output "and that" = %stem\n'
    )


def test_it_parses_into_ops_types_and_values():
    graph = parse_graph(TEXT)
    stem = graph.node("stem")
    assert stem.op == Conv2D(4, kernel=(3, 1), stride=(2, 2), padding="valid")
    assert graph.node("odd name").op == MaxPool2D((1, 1), (1, 2))
    assert graph.node("both").inputs == (Value("q"), Value("q"))
    assert graph.type(Value("q")) == TensorType(
        DType.I8, (None, 3, 2, 4), Quant.per_tensor(0.5, -3)
    )
    assert graph.outputs == (("map", Value("both")), ("and that", Value("stem")))
    np.testing.assert_array_equal(stem.weight("bias").real(), np.full(4, 0.5, np.float32))


def dense(weight: str) -> Weight:
    text = (
        f"graph g\n%x = input() : f32[?,2]\n%y = dense(%x) {{units=2, use_bias=false}} [{weight}]"
    )
    return parse_graph(f"{text}\noutput out = %y").node("y").weight("kernel")


def test_literals_draws_and_unset_weights():
    np.testing.assert_array_equal(dense("kernel=f32[2,2]=[1, 2.5, -3e-1, 4]").array[0], [1, 2.5])
    drawn = dense("kernel=f32[2,2]~7").array
    expected = np.random.default_rng(7).normal(size=(2, 2)) / np.sqrt(2)
    np.testing.assert_array_equal(drawn, expected.astype(np.float32))
    assert dense("kernel=f32[2,2]~8") != dense("kernel=f32[2,2]~7")
    assert dense("kernel=f16[2,2]=0.1").type.dtype is DType.F16
    assert dense("kernel=f32[2,2]@unset").array is None


def test_integer_weights_keep_their_grids():
    per_channel = dense("kernel=i8[2,2]<0.5:0, 0.25:0 axis 1>=[1,2,3,-4]")
    assert per_channel.type.quant == Quant((0.5, 0.25), (0, 0), 1)
    np.testing.assert_array_equal(per_channel.real(), [[0.5, 0.5], [1.5, -1.0]])
    drawn = dense("kernel=u8[2,2]<0.02:128>~3")
    real = np.random.default_rng(3).normal(size=(2, 2)) / np.sqrt(2)
    assert np.abs(drawn.real() - real).max() <= 0.01001


def test_a_per_channel_grid_comes_back_with_or_without_values():
    for tail in ("=[1,2,3,-4]", "@unset"):
        text = (
            "graph g\n%x = input() : f32[?,2]\n%y = dense(%x) {units=2, use_bias=false} "
            f"[kernel=i8[2,2]<0.5:0, 0.25:0 axis 1>{tail}]\noutput out = %y"
        )
        graph = parse_graph(text)
        assert parse_graph(str(graph), weights_of(graph)) == graph


@pytest.mark.parametrize(
    ("old", "new", "place", "message", "hint"),
    [
        ("conv2d", "conv2e", "4:9", "unknown operation 'conv2e'", "'conv2d'"),
        ("stride=2,", "strude=2,", "4:36", "no option 'strude'", "'stride'"),
        ("=valid", "=valit", "4:54", "padding wants same|valid, got 'valit'", "'valid'"),
        ("filters=4, ", "", "4:9", "conv2d needs 'filters'", None),
        ("filters=4", "filters=4.5", "4:33", "filters wants int, got '4.5'", None),
        ("(3,1)", "(3,1,1)", "4:68", "kernel wants 2 values, got 3", None),
        ("stride=2,", "stride=2, stride=2,", "4:46", "'stride' is given twice", None),
        ("(%stem)", "(%sten)", "5:26", "%sten is not defined before", "'stem'"),
        ("f32[?,8", "f33[?,8", "2:20", "unknown element type 'f33'", "'f32'"),
        (": f32[?,8,8,3]", "", "4:1", "an input needs its type", None),
        ("~7]", "~7 ", "5:1", "expected ']', got", None),
        ("=0.5,", "=[0.5],", "4:88", "f32[4] holds 4 numbers, got 1", None),
        ("%both =", "%stem =", "7:1", "a node '%stem' exists already", None),
        ("output map", "outputs map", "8:1", "or the end, got 'outputs map", None),
        ("-3>", "-3", "7:1", "expected '>', got", None),
        ("0.5:-3", "-0.5:-3", "6:42", "finite and above 0", None),
        ("output", "optput", "8:1", "expected '%', 'output' or the end", None),
    ],
)
def test_faults_are_placed(old: str, new: str, place: str, message: str, hint: str | None):
    with pytest.raises(GraphError) as caught:
        parse_graph(TEXT.replace(old, new, 1), where="net.lmir")
    assert caught.value.where == f"net.lmir:{place}"
    assert message in caught.value.what
    assert (caught.value.hint or "").endswith(f"{hint}?" if hint else "")


def test_a_weight_that_is_not_given_or_differs_is_an_error():
    graph = parse_graph(TEXT)
    with pytest.raises(GraphError, match="no weight with digest"):
        parse_graph(print_graph(graph))
    stored = weights_of(graph)
    wrong = print_graph(graph).replace("bias=f32[4]", "bias=f16[4]")
    with pytest.raises(GraphError, match=r"is f32\[4\], not f16\[4\]"):
        parse_graph(wrong, stored)


def test_what_parses_is_verified():
    with pytest.raises(GraphError, match="should have the shapes of"):
        parse_graph("graph g\n%x = input() : f32[?,2]\n%y = relu(%x) : f32[?,3]\noutput o = %y")
    with pytest.raises(GraphError, match="at least one output"):
        parse_graph("graph g\n%x = input() : f32[?,2]")


def test_negative_zero_and_zero_attributes_are_one_graph():
    text = "graph g\n%x = input() : f32[?,2]\n%y = leaky_relu(%x) {{alpha={}}}\noutput o = %y"
    a, b = (parse_graph(text.format(alpha)) for alpha in ("0.0", "-0.0"))
    assert a == b
    assert a.digest() == b.digest()
