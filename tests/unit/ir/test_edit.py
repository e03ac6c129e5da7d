"""Edits and the verifier: what they do, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from lmopt.errors import GraphError
from lmopt.ir import Edit, Graph, Node, TensorType, Value
from lmopt.ir.ops import Add, Conv2D, Input, Relu
from lmopt.ir.text import parse_graph
from lmopt.ir.types import DType
from lmopt.ir.verify import verify

GRAPH = parse_graph(
    "graph g\n%x = input() : f32[?,4,4,2]\n%a = relu(%x)\n%b = add(%a, %a)\n%c = relu6(%b)\n"
    "output out = %c\noutput mid = %a"
)


def test_fresh_names_and_uses():
    edit = GRAPH.edit()
    assert edit.fresh("new") == "new"
    assert edit.fresh("a") == "a_2"
    assert edit.uses(Value("a")) == 3  # twice by the sum, once as an output
    assert edit.uses(Value("c")) == 1


def test_rewiring_all_users_moves_outputs_too():
    edit = GRAPH.edit()
    edit.rewire(Value("a"), Value("x"))
    edit.remove("a")
    graph = edit.done()
    assert graph.node("b").inputs == (Value("x"), Value("x"))
    assert dict(graph.outputs)["mid"] == Value("x")
    assert "a" in GRAPH


def test_rewiring_some_users_leaves_outputs():
    edit = GRAPH.edit()
    edit.rewire(Value("a"), Value("x"), only=["b"])
    assert dict(edit.done().outputs)["mid"] == Value("a")


def test_shapes_follow_a_change_upstream():
    edit = Edit("g")
    x = edit.input("x", (None, 8, 8, 3))
    c = edit.add("c", Conv2D(4, stride=(2, 2)), x)
    edit.output("out", edit.add("r", Relu(), c))
    edit.set_op("c", Conv2D(4, stride=(4, 4)))
    assert edit.done().type(Value("r")).shape == (None, 2, 2, 4)


def test_nodes_are_sorted_and_dead_ones_pruned():
    edit = Edit("g")
    x = edit.input("x", (None, 2))
    edit.output("out", edit.add("last", Relu(), x))
    edit.add("dead", Relu(), x)
    edit.set_inputs("last", edit.add("first", Relu(), x))
    edit.prune_dead()
    assert [node.name for node in edit.done().nodes] == ["x", "first", "last"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.remove("a"), "used by b, output mid"),
        (lambda e: e.node("zz"), "no node '%zz'"),
        (lambda e: e.add("a", Relu(), Value("x")), "exists already"),
        (lambda e: e.add("n", Relu(), Value("zz")), "does not exist"),
        (lambda e: e.add("n", Add(), Value("x")), "takes 2 operand"),
        (lambda e: e.output("o", Value("x", 1)), "does not exist"),
        (lambda e: (e.set_inputs("a", Value("c")), e.done()), "cycle"),
        (lambda e: (e.set_weights("a", w=np.zeros(1, np.float32)), e.done()), "wants"),
        (lambda e: (e.set_type(Value("a"), TensorType(DType.I8, (1,))), e.done()), "without a"),
    ],
)
def test_what_does_not_fit_is_refused(change, message: str):
    with pytest.raises(GraphError, match=message):
        change(GRAPH.edit())


def test_the_verifier_sees_order_duplicates_and_outputs():
    x = Node("x", Input(), (), (TensorType(DType.F32, (None, 2)),))
    r = Node("r", Relu(), (Value("x"),), x.results)
    out = (("out", Value("r")),)
    verify(Graph("g", (x, r), out))
    for bad, message in [
        (Graph("g", (r, x), out), "not defined before"),
        (Graph("g", (x, x, r), out), "share this name"),
        (Graph("g", (x, r), ()), "at least one output"),
        (Graph("g", (x, r), (*out, *out)), "two outputs share a name"),
        (Graph("g", (x, r), (("out", Value("r", 1)),)), "does not exist"),
    ]:
        with pytest.raises(GraphError, match=message):
            verify(bad)
