"""The text of a graph is the graph: round trips, digests, stores, edits."""

from __future__ import annotations

import pickle
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lmopt.ir import Graph, Node
from lmopt.ir.ops import OPS
from lmopt.ir.store import load_graph, save_graph
from lmopt.ir.text import parse_graph, print_graph, weights_of
from lmopt.ir.verify import verify
from lmopt.testing.float_graphs import GROWERS, graphs

ANY = graphs(kinds=frozenset(GROWERS), initialized=False)
FAST = settings(max_examples=40, deadline=None)


def test_the_strategy_draws_every_op():
    assert set(GROWERS) - {"block"} | {"input"} == set(OPS)


@FAST
@given(ANY)
def test_parsing_the_text_gives_the_same_graph(graph: Graph):
    again = parse_graph(str(graph), weights_of(graph))
    assert again == graph
    assert print_graph(again) == print_graph(graph)
    assert again.digest() == graph.digest()


@FAST
@given(ANY)
def test_pickling_gives_the_same_graph(graph: Graph):
    assert pickle.loads(pickle.dumps(graph)) == graph


@settings(max_examples=20, deadline=None)
@given(ANY)
def test_a_stored_graph_comes_back_with_its_provenance(graph: Graph):
    touched = Graph(graph.name, tuple(_touched(node) for node in graph.nodes), graph.outputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.npz")
        save_graph(touched, path)
        again = load_graph(path)
    assert again == graph
    assert [node.loc for node in again.nodes] == [node.loc for node in touched.nodes]


@FAST
@given(st.lists(graphs(max_nodes=2, initialized=False), min_size=2, max_size=4))
def test_digests_are_equal_exactly_when_graphs_are(drawn: list[Graph]):
    for a in drawn:
        for b in drawn:
            assert (a.digest() == b.digest()) == (a == b)


@FAST
@given(ANY, st.data())
def test_a_change_of_one_weight_changes_the_digest(graph: Graph, data: st.DataObject):
    weighted = [n for n in graph.nodes for w in n.weights.values() if w.array is not None]
    if not weighted:
        return
    node = data.draw(st.sampled_from(weighted))
    key = data.draw(st.sampled_from([k for k, w in node.weights.items() if w.array is not None]))
    edit = graph.edit()
    edit.set_weights(node.name, **{key: node.weights[key].array + 1})
    changed = edit.done()
    assert changed != graph
    assert changed.digest() != graph.digest()


@FAST
@given(ANY)
def test_an_edit_without_changes_gives_the_same_graph(graph: Graph):
    assert graph.edit().done() == graph


@FAST
@given(ANY, st.data())
def test_bypassing_a_node_verifies_and_prunes(graph: Graph, data: st.DataObject):
    bypassable = [
        n for n in graph.nodes if len(n.inputs) == 1 and graph.input_types(n)[0] == n.results[0]
    ]
    if not bypassable:
        return
    node = data.draw(st.sampled_from(bypassable))
    edit = graph.edit()
    edit.rewire(node.value, node.inputs[0])
    edit.prune_dead()
    smaller = edit.done()
    verify(smaller)
    assert node.name not in smaller
    assert graph.parameters >= smaller.parameters
    assert graph.digest() != smaller.digest()


def _touched(node: Node) -> Node:
    return replace(node, loc=node.loc.via("one-pass").via("another"))
