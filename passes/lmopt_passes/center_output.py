"""center-output: answers as a constant mean and what kernels add to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.ops import Add, Constant, Conv2D, Conv2DTranspose, Dense, DepthwiseConv2D
from lmopt.ir.types import DType
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult, Preserves

Array = NDArray[np.float64]
_Kernel = Conv2D | Conv2DTranspose | Dense | DepthwiseConv2D


@dataclass(frozen=True)
class CenterOutput(Pass):
    """Moves the mean of every answer out of its kernels into a constant that is added at the end.

    What the kernels then give are offsets from the mean shape: a small range, which eight bits
    divide finely. The quantizing passes do this by themselves where answers are float32.

    Attributes:
        faces: Calibration faces, of the training split, over which the mean is taken.
    """

    name: ClassVar[str] = "center-output"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATOR})
    preserves: ClassVar[Preserves] = Preserves.VALUES
    faces: int = 200

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        answers = linear_answers(graph)
        others = [name for name, value in graph.outputs if value not in answers]
        notes = tuple(f"'{name}' stays: no kernel without activation gives it" for name in others)
        kernels = [kernel for answer in answers.values() for kernel in answer.kernels]
        means = ctx.calibrator.means(graph, [k.value for k in kernels], faces=self.faces)
        if not answers:
            return PassResult(graph, False, notes)
        centred = center(graph, answers, {value.node: mean for value, mean in means.items()})
        return PassResult(centred[0], True, notes)


@dataclass(frozen=True)
class LinearAnswer:
    """An answer that is what kernels without activation give, summed.

    Attributes:
        kernels: The nodes, which nothing else reads where there are several.
        sums: Names of the additions between them and the answer.
        constant: Name of a constant among the addends, if any.
    """

    kernels: tuple[Node, ...]
    sums: tuple[str, ...] = ()
    constant: str | None = None


def linear_answers(graph: Graph) -> dict[Value, LinearAnswer]:
    """Returns the outputs that are sums of what float kernels give, each once."""
    found = {value: _linear(graph, value) for _, value in graph.outputs}
    return {value: answer for value, answer in found.items() if answer and answer.kernels}


def _linear(graph: Graph, value: Value) -> LinearAnswer | None:
    node = graph.producer(value)
    if node.results[0].dtype is not DType.F32:
        return None
    if isinstance(node.op, _Kernel) and node.op.activation == "none":
        return LinearAnswer((node,))
    if not isinstance(node.op, Add) or node.op.activation != "none":
        return None
    kernels: tuple[Node, ...] = ()
    sums: tuple[str, ...] = (node.name,)
    constant: str | None = None
    for operand in node.inputs:
        if len(graph.users(operand)) != 1 or graph.is_output(operand):
            return None
        source = graph.producer(operand)
        if isinstance(source.op, Constant):
            part: LinearAnswer | None = LinearAnswer((), (), source.name)
        else:
            part = _linear(graph, operand) if graph.type(operand) == graph.type(value) else None
        if part is None:
            return None
        kernels, sums, constant = (
            kernels + part.kernels,
            sums + part.sums,
            constant or part.constant,
        )
    return LinearAnswer(kernels, sums, constant)


def center(
    graph: Graph, answers: Mapping[Value, LinearAnswer], means: Mapping[str, Array]
) -> tuple[Graph, frozenset[str]]:
    """Returns the graph with answers as sums of a mean and the rest, and the names of the sums.

    Args:
        graph: A float graph.
        answers: What is centred.
        means: Of what each kernel to be centred gives, by name; channels have one mean each.
    """
    edit, added = graph.edit(), set[str]()
    for value, answer in answers.items():
        whole = np.zeros(graph.type(value).shape[-1] or 1)
        for kernel in answer.kernels:
            if kernel.name in means:
                mean = _per_channel(means[kernel.name])
                _shift_kernel(edit, kernel.name, -mean)
                whole += mean
        if answer.constant is not None:
            _shift_constant(edit, answer.constant, whole)
        else:
            added.add(_add_constant(edit, graph, value, whole))
        added.update(answer.sums)
    return edit.done(), frozenset(added)


def shift_answer(edit: Edit, answer: LinearAnswer, shift: Array) -> None:
    """Adds something to every item's answer: to its constant, else to the bias of a kernel."""
    if answer.constant is not None:
        _shift_constant(edit, answer.constant, _per_channel(shift))
    else:
        _shift_kernel(edit, answer.kernels[0].name, _per_channel(shift))


def shift_behind(edit: Edit, output: str, value: Value, shift: Array) -> str:
    """Adds something to an output behind all that computes it; returns the name of the sum."""
    weights = {"value": shift.astype(np.float32)}
    by = edit.add(edit.fresh(f"{value.node}_shift"), Constant(shift.shape), weights=weights)
    shifted = edit.add(edit.fresh(f"{value.node}_shifted"), Add(), value, by)
    edit.output(output, shifted)
    return shifted.node


def _add_constant(edit: Edit, graph: Graph, value: Value, constant: Array) -> str:
    """Adds a constant to a value for all its readers, and returns the name of the sum."""
    name = edit.fresh(f"{value.node}_mean")
    weights = {"value": constant.astype(np.float32)}
    added = edit.add(name, Constant(constant.shape), weights=weights)
    whole = edit.add(edit.fresh(f"{value.node}_placed"), Add(), value, added)
    edit.rewire(value, whole, only=[node.name for node, _ in graph.users(value)])
    for name, output in graph.outputs:
        if output == value:
            edit.output(name, whole)
    return whole.node


def _shift_constant(edit: Edit, name: str, shift: Array) -> None:
    value = edit.node(name).weight("value").real() + shift
    edit.set_op(name, Constant(value.shape))
    edit.set_weights(name, value=value.astype(np.float32))


def _shift_kernel(edit: Edit, name: str, shift: Array) -> None:
    node = edit.node(name)
    assert isinstance(node.op, _Kernel)
    before = node.weight("bias").real() if "bias" in node.weights else 0.0
    edit.set_op(name, replace(node.op, use_bias=True))
    edit.set_weights(name, bias=(before + shift).astype(np.float32))


def _per_channel(mean: Array) -> Array:
    return np.asarray(mean.reshape(-1, mean.shape[-1]).mean(axis=0), np.float64)
