"""What a target's runtime refuses, found in the graph before a file is written for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from lmopt.errors import BackendError, GraphError
from lmopt.ir.graph import Graph, Node
from lmopt.ir.ops import Constant, Dequantize, Input, Quantize
from lmopt.ir.types import DType
from lmopt.target.profile import FORMS, Limit, StorageForm, Target

_OF_STORAGE: Mapping[str, StorageForm] = {storage: form for form, storage in FORMS.items()}


def require_legal(graph: Graph, target: Target) -> None:
    """Checks that an app may ship a graph's file to a target.

    What the engine refuses but its fallback runs is legal: the estimate counts it.

    Args:
        graph: As it would be written.
        target: Where it is to run.

    Raises:
        BackendError: The first rule that it breaks, with the node and where the rule is from.
    """
    for check in (_check_form, _check_support):
        for node in graph.nodes:
            check(node, target)
    for name, limit in target.limits.items():
        for node, what in _FINDERS[name](graph, limit):
            raise BackendError(
                f"{what} ({name}, {limit.kind}: {limit.source})",
                where=f"{target.name}: %{node.name}",
                hint=f"lmopt targets {target.name} shows every limit",
            )


def form_of(node: Node) -> StorageForm | None:
    """Returns the form that a node's storage belongs to; None where it computes nothing in one.

    Raises:
        GraphError: No form has its storage type.
    """
    if isinstance(node.op, Input | Constant | Quantize | Dequantize):
        return None
    result = node.results[0].dtype
    if result is DType.F32 and any(w.type.dtype is DType.F16 for w in node.weights.values()):
        return "float16"
    if result not in _OF_STORAGE:
        raise GraphError(f"no storage form computes in {result}", where=f"%{node.name}")
    return _OF_STORAGE[result]


def require_legal_form(form: StorageForm, target: Target, where: str) -> None:
    """Raises BackendError unless an app may ship a form to a target.

    Args:
        form: Of the file.
        target: Where it is to run.
        where: What has that form.
    """
    rule = target.rule(form)
    if not rule.legal:
        raise BackendError(
            f"{form} is not legal: {rule}",
            where=f"{target.name}: {where}",
            hint=f"end the pipeline in the form {target.preferred}: lmopt storage --target "
            f"{target.name} shows the pass",
        )


def _check_form(node: Node, target: Target) -> None:
    form = form_of(node)
    if form is not None:
        require_legal_form(form, target, f"%{node.name}")


def _check_support(node: Node, target: Target) -> None:
    free = node.op.kind in ("input", "constant", "reshape")
    if free or target.fallback is not None or node.op.kind in target.supported_ops:
        return
    raise BackendError(
        f"the engine has no {node.op.kind}, and nothing runs what it refuses (supported_ops)",
        where=f"{target.name}: %{node.name}",
        hint="name a fallback in the target, or cut the model before this node",
    )


Found = Iterator[tuple[Node, str]]


def _ranks(graph: Graph, limit: Limit) -> Found:
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            continue
        for tensor in (*graph.input_types(node), *node.results):
            if len(tensor.shape) > limit.number:
                yield node, f"{node.op.kind} has {tensor} of rank {len(tensor.shape)}"


def _kernels(graph: Graph, limit: Limit) -> Found:
    for node in graph.nodes:
        kernel = node.weights.get("kernel")
        if kernel is None or kernel.type.quant is None or len(kernel.type.quant.scale) == 1:
            continue
        if kernel.type.dtype not in limit.storages:
            yield node, f"the {kernel.type.dtype} kernel has a scale per channel, legal is one"


def _borders(graph: Graph, limit: Limit) -> Found:
    ends = chain((n for n in graph.inputs), (graph.producer(v) for _, v in graph.outputs))
    for node in ends:
        dtype = node.results[0].dtype
        if dtype not in limit.storages:
            legal = ", ".join(limit.storages)
            yield node, f"{dtype} at the border, legal are {legal}"


def _steps(graph: Graph, limit: Limit) -> Found:
    for node in graph.nodes:
        grid = node.results[0].quant
        kernel = node.weights.get("kernel")
        if grid is None or kernel is None or kernel.type.quant is None:
            continue
        operand = graph.input_types(node)[0].quant
        if operand is None:
            continue
        ratio = operand.scale[0] * max(kernel.type.quant.scale) / grid.scale[0]
        if not ratio < limit.number:
            yield (
                node,
                f"input scale x kernel scale is {ratio:.4g} of the result's, wanted below "
                f"{limit.number:g}",
            )


_FINDERS: Mapping[str, Callable[[Graph, Limit], Found]] = {
    "max_rank": _ranks,
    "per_channel": _kernels,
    "border": _borders,
    "max_step_ratio": _steps,
}
