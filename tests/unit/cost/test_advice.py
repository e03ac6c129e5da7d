"""Advice names what is refused, what integers lose, and what launches cost."""

from dataclasses import replace

import pytest

from lmopt.cost.advice import Advice, advise
from lmopt.cost.estimate import estimate
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Add, Conv2D, Mean, Relu
from lmopt.ir.types import DType, ValueRange
from lmopt.latency.micronets import stored
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.assign import plan_grids, quantize_graph
from lmopt.target.catalog import load_target
from lmopt.target.profile import Quantity, Target
from tests.support.op_zoo import initialized


def net(filters: int = 6) -> Graph:
    edit = Edit("net")
    x = edit.add("conv", Conv2D(filters, (3, 3)), edit.input("image", (None, 32, 32, 8)))
    edit.output("y", edit.add("mean", Mean(), edit.add("wide", Conv2D(128, (1, 1)), x)))
    return initialized(edit.done())


def on(graph: Graph, target: Target) -> dict[str, Advice]:
    found = advise(estimate(graph, target, threads=1), target)
    return {advice.time.kernel.node: advice for advice in found}


def test_what_a_delegate_refuses_comes_with_what_to_take_instead() -> None:
    target = load_target("velvet-gpu")
    found = on(net(), target)
    mean = found["mean"]
    assert mean.time.engine == "velvet-cpu" and mean.time.kernel.refused == "the engine has no mean"
    assert "legalize" in mean.change
    sized = replace(target, quantities={**target.quantities, **_price("kernel_overhead", 1e-3)})
    assert on(net(), sized)["conv"].change == "6 channels cost as much as 8"
    assert on(net(8), sized)["conv"].change == ""
    dear = replace(target, quantities={**target.quantities, **_price("kernel_overhead", 1e6)})
    assert on(net(), dear)["conv"].change == "mostly its launch: fewer, larger layers"


def _price(name: str, us: float) -> dict[str, Quantity]:
    return {name: Quantity(us, "us", "guess", "test")}


def test_integers_that_lose_against_floats_say_by_how_much() -> None:
    cpu = load_target("p30-cpu")
    slow = {"integer_bandwidth": Quantity(0.2, "GB/s", "guess", "test")}
    scheme = QuantScheme(DType.I8, per_channel=True)
    ranges = dict.fromkeys(plan_grids(net(), scheme).owners, ValueRange(-6.0, 6.0))
    graph = quantize_graph(net(), ranges, scheme)
    good = on(graph, cpu)["wide"]
    assert good.float_us is not None and good.time.us < good.float_us and good.change == ""
    bad = on(graph, replace(cpu, quantities={**cpu.quantities, **slow}))["wide"]
    assert bad.float_us == pytest.approx(good.float_us)
    assert bad.change.startswith(f"{bad.float_us:.1f} us in floating point: keep it real")
    # The float twin costs what the float graph's kernel does.
    assert on(net(), cpu)["wide"].time.us == pytest.approx(good.float_us, rel=0.01)
    assert on(graph, cpu)["image_stored"].float_us is None


def test_a_relu_of_integers_belongs_into_the_layer_before() -> None:
    edit = Edit("net")
    conv = edit.add("conv", Conv2D(8, (3, 3)), edit.input("image", (None, 32, 32, 8)))
    inner = edit.add("inner", Relu(), conv)
    edit.output("y", edit.add("outer", Relu(), edit.add("sum", Add(), inner, conv)))
    found = on(stored(initialized(edit.done()), "i8"), load_target("p30-cpu"))
    assert found["outer"].change.startswith("fold-batchnorm, before quantizing")
    assert "fold-batchnorm" not in found["inner"].change  # the convolution has another user


def test_storage_that_the_engine_lacks_is_named() -> None:
    apu = replace(load_target("velvet-apu"), storage=("u8",))
    conv = on(net(), apu)["conv"]
    assert conv.time.kernel.refused == "the engine does not compute in f16"
    assert conv.change == "store it in one of u8" and conv.float_us is None
