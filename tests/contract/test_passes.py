"""What holds of every registered pass, whoever wrote it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest

from lmopt.ir import Edit, Graph
from lmopt.ir.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    MaxPool2D,
    Mean,
    Relu,
    Reshape,
)
from lmopt.ir.text import parse_graph, print_graph, weights_of
from lmopt.ir.verify import verify
from lmopt.pipeline.base import Need, Pass, PassContext, Preserves
from lmopt.pipeline.catalog import installed
from lmopt.pipeline.manager import Pipeline
from lmopt.pipeline.spec import bind, parse_pipeline, print_pass
from lmopt.testing.float_graphs import draw_weights
from tests.support.services import full_context

NAMES = sorted(installed().targets)
each_pass = pytest.mark.parametrize("name", NAMES)


def detector(seed: int = 0) -> Graph:
    """A small detector with a residual, two scales and batch norms, all weights drawn."""
    edit = Edit("small")
    image = edit.input("image", (None, 16, 16, 3))

    def add(name, op, *inputs):
        shapes = op.params([edit.node(v.node).results[0] for v in inputs])
        weights = draw_weights(op.kind, shapes, seed + len(name))
        return edit.add(name, op, *inputs, weights=weights)

    stem = add("stem", Conv2D(16, stride=(2, 2), use_bias=False), image)
    stem = add("stem_relu", Relu(), add("stem_norm", BatchNorm(), stem))
    mid = add("dw", DepthwiseConv2D(use_bias=False), stem)
    mid = add("dw_norm", BatchNorm(), mid)
    mid = add("project", Conv2D(16, kernel=(1, 1)), mid)
    joined = add("join", Add(), stem, mid)
    pooled = add("pool", MaxPool2D(), joined)
    both = add("both", Concat(), add("flat", Reshape(), pooled), add("mean", Mean(), joined))
    edit.output("landmarks", add("head", Dense(10), both))
    return edit.done()


def folded() -> Graph:
    return Pipeline.parse("fold-batchnorm").run(detector(), PassContext()).graph


def load(name: str) -> type[Pass]:
    return installed().load(name)


def test_there_are_passes():
    assert {"fold-batchnorm", "to-float16", "finetune", "quantize-int8"} <= set(NAMES)


@each_pass
def test_name_file_and_class_agree(name: str):
    cls = load(name)
    assert cls.name == name
    assert Path(inspect.getfile(cls)).stem == name.replace("-", "_")
    assert cls.__name__ == "".join(part.capitalize() for part in name.split("-"))


@each_pass
def test_it_is_a_frozen_dataclass_whose_fields_all_have_defaults(name: str):
    cls = load(name)
    assert cls.__dataclass_params__.frozen
    assert cls() == cls()
    assert hash(cls()) == hash(cls())
    for field in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(cls(), field.name, getattr(cls(), field.name))


@each_pass
def test_it_is_documented_option_by_option(name: str):
    cls = load(name)
    module = importlib.import_module(cls.__module__)
    assert (module.__doc__ or "").startswith(f"{name}: ")
    info = installed().describe(name)
    assert info.summary.endswith(".")
    assert not info.summary.startswith(f"{cls.__name__}(")
    assert [option.name for option in info.options if not option.summary] == []


@each_pass
def test_every_option_goes_through_text_and_back(name: str):
    cls = load(name)
    assert print_pass(cls()) == name
    assert Pipeline.parse(name).passes == (cls(),)
    for option in installed().describe(name).options:
        value = _other(cls, option.name.replace("-", "_"))
        changed = dataclasses.replace(cls(), **{option.name.replace("-", "_"): value})
        text = print_pass(changed)
        assert option.name in text
        (spec,) = parse_pipeline(text)
        assert bind(spec, cls, text) == changed


def _other(cls: type[Pass], field: str) -> object:
    """Returns a value an option may take besides its default."""
    default = getattr(cls(), field)
    option = next(
        o for o in installed().describe(cls.name).options if o.name == field.replace("_", "-")
    )
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2 or 0.5
    if isinstance(default, tuple):
        return (*default, "block1", "stage2_*")
    if option.type == "str":
        return "another name"
    if option.type.split("|")[0] == "float":
        return 1.5
    choices = [choice for choice in option.type.split("|") if choice != str(default)]
    return choices[0]


@each_pass
def test_its_needs_are_checked_before_any_work(name: str):
    item = load(name)()
    assert item.required() <= set(Need)
    assert load(name).needs <= set(Need)
    pipeline = Pipeline((item,))
    if not item.required():
        pipeline.check(PassContext())
        return
    with pytest.raises(Exception, match=name) as caught:
        pipeline.check(PassContext())
    assert "--" in str(caught.value.hint)


@each_pass
def test_valid_graph_in_valid_graph_out_and_the_input_is_untouched(name: str):
    graph = folded()
    before, weights = print_graph(graph), weights_of(graph)
    result = load(name)().apply(graph, full_context())
    verify(result.graph)
    assert parse_graph(str(result.graph), weights_of(result.graph)) == result.graph
    assert print_graph(graph) == before
    assert parse_graph(before, weights) == graph
    assert result.changed == (result.graph.digest() != graph.digest())
    assert all(note and not note.endswith("\n") for note in result.notes)


@each_pass
def test_the_same_graph_and_seed_give_the_same_result(name: str):
    first = load(name)().apply(folded(), full_context(seed=7))
    second = load(name)().apply(folded(), full_context(seed=7))
    assert first.graph.digest() == second.graph.digest()
    assert first.notes == second.notes


@each_pass
def test_it_keeps_inputs_outputs_and_what_it_promises(name: str):
    graph = folded()
    result = Pipeline((load(name)(),)).run(graph, full_context(), verify_each=True).graph
    assert [n.name for n in result.inputs] == ["image"]
    assert [(k, result.type(v).shape) for k, v in result.outputs] == [("landmarks", (None, 10))]


@each_pass
def test_services_it_uses_are_recorded_for_the_cache(name: str):
    item = load(name)()
    ctx = full_context()
    item.apply(folded(), ctx)
    assert {str(need) for need in item.required()} <= set(ctx.reads)


@pytest.mark.parametrize("name", [n for n in NAMES if load(n).preserves is Preserves.VALUES])
def test_passes_that_preserve_values_are_checked_on_the_unfolded_graph(name: str):
    step = Pipeline((load(name)(),)).run(detector(), full_context(), verify_each=True).steps[0]
    assert step.changed
