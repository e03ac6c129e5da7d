"""What becomes one kernel, what it works on, and who runs it."""

from collections import Counter
from dataclasses import replace

import pytest
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.schema_py_generated import ModelT

from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.cost.estimate import estimate
from lmopt.cost.kernels import COMPOSITE, Kernel, kernels
from lmopt.cost.memory import peak_memory
from lmopt.cost.prices import TERMS, amounts, prices
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.op import Op
from lmopt.ir.ops import (
    Add,
    AvgPool2D,
    Conv2D,
    DepthwiseConv2D,
    HardSwish,
    LeakyRelu,
    Maximum,
    MaxPool2D,
    Mean,
    Minimum,
    Mul,
    Pad,
    PRelu,
    Relu,
    Relu6,
    Reshape,
    ResizeBilinear,
    ResizeNearest,
    Sigmoid,
    Softmax,
    Sub,
    Tanh,
)
from lmopt.latency.micronets import stored
from lmopt.target.catalog import load_target
from lmopt.target.profile import DEFAULT_FUSION, Target
from lmopt.target.threads import equal_split, speedup
from tests.support.op_zoo import COMPOSED, initialized

CPU = load_target("p30-cpu")
GPU = load_target("p30-gpu")


def block() -> Graph:
    """Returns a padded convolution, a sum with a relu behind it, and a mean."""
    edit = Edit("block")
    image = edit.input("image", (None, 8, 8, 4))
    padded = edit.add("pad", Pad(1, 1, 1, 1), image)
    a = edit.add("conv", Conv2D(4, (3, 3), padding="valid"), padded)
    b = edit.add("pointwise", Conv2D(4, (1, 1)), a)
    total = edit.add("relu", Relu(), edit.add("sum", Add(), a, b))
    swish = edit.add("swish", HardSwish(), edit.add("depthwise", DepthwiseConv2D(), total))
    edit.output("y", edit.add("mean", Mean(), swish))
    return edit.done()


def named(graph: Graph, target: Target) -> dict[str, Kernel]:
    return {kernel.node: kernel for kernel in kernels(graph, target)}


def test_every_target_fuses_by_its_own_rules() -> None:
    on_cpu = named(block(), CPU)
    assert list(on_cpu) == ["conv", "pointwise", "sum", "depthwise", "swish", "mean"]
    assert on_cpu["conv"].fused == ("pad",) and on_cpu["sum"].fused == ("relu",)
    on_gpu = named(block(), GPU)
    assert list(on_gpu) == ["pad", "conv", "pointwise", "depthwise", "mean"]
    assert on_gpu["pointwise"].fused == ("sum", "relu")
    assert on_gpu["depthwise"].fused == ("swish",)
    plain = replace(CPU, fusion=None)
    assert "relu" in named(block(), plain) and DEFAULT_FUSION.pads is False


def test_where_the_engine_clamps_floats_alone_integers_have_a_kernel_more() -> None:
    edit = Edit("separate")
    image = edit.input("image", (None, 8, 8, 4))
    edit.output("y", edit.add("relu", Relu(), edit.add("conv", Conv2D(4, (1, 1)), image)))
    drawn = zoo.initialize(edit.done(), 0)
    assert "relu" not in named(drawn, CPU)
    assert "relu" in named(stored(drawn, "i8"), CPU)
    assert "relu" not in named(stored(drawn, "u8"), load_target("velvet-apu"))


@pytest.mark.parametrize("storage", ["f32", "i8", "u8"])
@pytest.mark.parametrize(
    "op",
    [
        *(HardSwish(), PRelu(), Relu(), Relu6(), LeakyRelu(0.1), Sigmoid(), Tanh(), Softmax()),
        *(AvgPool2D((3, 3), (1, 1), "same"), MaxPool2D((3, 3), (1, 1), "same")),
        *(Mul(), Sub(), Maximum(), Minimum(), ResizeNearest((16, 16)), ResizeBilinear((16, 16))),
    ],
    ids=lambda op: op.kind,
)
def test_changes_are_those_of_the_runtime(op: Op, storage: str) -> None:
    edit = Edit("between")
    image = edit.input("image", (None, 8, 8, 16))
    before = edit.add("before", Conv2D(16, (1, 1)), image)
    between = edit.add("between", op, *(before,) * op.arity)
    edit.output("y", edit.add("behind", Conv2D(16, (1, 1)), between))
    graph = stored(zoo.initialize(edit.done(), 0), storage)
    interpreter = Interpreter(model_content=emit(graph), num_threads=1)
    interpreter.allocate_tensors()
    parts = sum(o["op_name"] == "DELEGATE" for o in interpreter._get_ops_details())
    changes = sum(kernel.resumes for kernel in kernels(graph, load_target("host")))
    assert (parts, changes) in [(1, 0), (2, 2)]


def test_sixteen_bits_run_beside_an_engine_that_does_not_take_them() -> None:
    edit = Edit("two")
    image = edit.input("image", (None, 16, 16, 8))
    conv = edit.add("conv", Conv2D(8, (3, 3)), image)
    edit.output("y", edit.add("depthwise", DepthwiseConv2D((3, 3)), conv))
    float_net = initialized(edit.done())
    found = {s: estimate(stored(float_net, s), CPU, threads=1) for s in ("f32", "i8", "i16")}
    assert "i16" not in CPU.storage and CPU.preferred == "int8"
    assert found["i16"].latency_ms > max(found["f32"].latency_ms, found["i8"].latency_ms)
    times = {time.kernel.node: time for time in found["i16"].kernels}
    for name, key in (("conv", "peak_i16"), ("depthwise", "depthwise_i16")):
        rate = times[name].kernel.macs / times[name].arithmetic_us / 1e3
        assert rate == pytest.approx(CPU.quantities[key].value)
    told = f"3 of 4 kernels in i16 run beside the engine: {CPU.rule('int16x8').reason}"
    assert found["i16"].notes[0] == told
    # its own kernels have one thread, whatever the engine is given
    four = {
        time.kernel.node: time.us
        for time in estimate(stored(float_net, "i16"), CPU, threads=4).kernels
    }
    assert four["depthwise"] == pytest.approx(times["depthwise"].us, rel=0.05)


def test_a_value_that_others_read_is_not_fused_away() -> None:
    edit = Edit("shared")
    conv = edit.add("conv", Conv2D(4, (1, 1)), edit.input("image", (None, 8, 8, 4)))
    edit.output("y", edit.add("relu", Relu(), conv))
    edit.output("z", conv)
    assert list(named(edit.done(), CPU)) == ["conv", "relu"]


def test_classes_and_amounts_by_hand() -> None:
    found = named(block(), CPU)
    assert [k.work for k in found.values()] == [
        *("square", "pointwise", "memory", "depthwise", "memory", "memory")
    ]
    # 100 padded and 64 resulting pixels of 4 channels, a 3x3x4x4 kernel with bias.
    row = dict(zip(TERMS, amounts([found["conv"]])[0], strict=True))
    assert row["square"] == pytest.approx(64 * 4 * 36 / 1e6)
    assert row["activations"] == pytest.approx(4 * 4 * (100 + 64) / 1e3)
    assert row["weights"] == pytest.approx(4 * (144 + 4) / 1e3) and row["launches"] == 1
    assert sum(value != 0 for value in row.values()) == 4


def test_half_precision_moves_half_and_a_fused_sum_reads_its_other_operand() -> None:
    found = named(block(), GPU)
    assert found["conv"].storage == "f16" and found["conv"].moved_bytes == 2 * 4 * (100 + 64)
    assert found["pointwise"].moved_bytes == 2 * 4 * 64 * 3


def test_a_refusal_says_why() -> None:
    found = named(block(), GPU)
    assert found["mean"].refused == "the engine has no mean" and not found["mean"].delegated
    uint8 = replace(CPU, storage=("u8",))
    assert named(block(), uint8)["conv"].refused == "the engine does not compute in f16"


def test_memory_holds_what_lives_at_once() -> None:
    graph = block()
    memory = peak_memory(graph, kernels(graph, CPU))
    # The padded picture and the bare sum never exist; the image stays, and what relu gives is
    # written while both operands of the sum are still read.
    assert memory.arena_bytes == 4 * 4 * 64 * 4
    assert memory.weight_bytes == 4 * (148 + 20 + 40)
    assert memory.total_bytes == memory.arena_bytes + memory.weight_bytes


def test_a_reshape_takes_no_memory_of_its_own() -> None:
    edit = Edit("flat")
    image = edit.input("image", (None, 4, 4, 2))
    edit.output("y", edit.add("flat", Reshape((-1,)), edit.add("conv", Conv2D(2, (1, 1)), image)))
    graph = edit.done()
    assert peak_memory(graph, kernels(graph, CPU)).arena_bytes == 2 * 4 * 32


def test_threads_divide_arithmetic_and_lengthen_launches() -> None:
    one, four = prices(CPU, "f32", 1), prices(CPU, "f32", 4)
    gain = CPU.quantities["speedup_4"].value
    assert four[:5] * gain == pytest.approx(one[:5])
    assert four[TERMS.index("activations")] == one[TERMS.index("activations")]
    extra = CPU.quantities["thread_overhead"].value * 3
    assert four[-1] == pytest.approx(one[-1] + extra)
    # Rounding limits integers, and threads share it.
    int8 = prices(CPU, "i8", 4)[TERMS.index("activations")]
    assert int8 * gain == pytest.approx(prices(CPU, "i8", 1)[TERMS.index("activations")])


def test_threads_beyond_the_fast_cores_wait_for_slow_ones() -> None:
    assert equal_split(CPU, 4) == pytest.approx(4 * 1.92 / 2.6)
    assert equal_split(CPU, 8) == pytest.approx(8 * 1.8 * 4 / (2.6 * 8))
    assert speedup(CPU, 8) == pytest.approx(
        speedup(CPU, 4) * equal_split(CPU, 8) / equal_split(CPU, 4)
    )
    assert speedup(CPU, 5) < speedup(CPU, 4)
    assert speedup(CPU, 16) == speedup(CPU, 8)
    assert speedup(replace(CPU, clusters=()), 8) == speedup(CPU, 4)


def test_operators_of_composite_ops_are_those_that_are_written() -> None:
    edit = Edit("composed")
    image = edit.input("image", (None, 9, 10, 6))
    edit.input("other", (None, 9, 10, 6))
    for name, case in COMPOSED.items():
        edit.output(name, case(edit, name, image))
    graph = initialized(edit.done())
    file = ModelT.InitFromPackedBuf(emit(graph), 0).subgraphs[0]
    made = [file.tensors[operator.outputs[0]].name.decode() for operator in file.operators]
    written = Counter(name.split("/")[0] for name in made)
    for node in graph.nodes:
        if node.name in COMPOSED and "softargmax" not in node.name:
            launches, passes = COMPOSITE[node.op.kind]
            assert written[node.name] == pytest.approx(launches, rel=0.15), node.name
            assert 1 <= passes <= launches
