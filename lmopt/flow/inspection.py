"""The use case `inspect`: what a detector or a model file is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmopt.codegen.tflite import emit
from lmopt.cost.advice import Advice, advise
from lmopt.cost.estimate import Estimate, estimate
from lmopt.detector.contract import Contract
from lmopt.detector.detector import Detector
from lmopt.detector.document import contract_to_document
from lmopt.errors import BackendError, InputError
from lmopt.flow.events import Listener, ignore
from lmopt.flow.folding import folded
from lmopt.flow.host_profile import HOST, host_target, target_named
from lmopt.flow.sources import as_detector, is_model_file, read_bytes
from lmopt.ir.graph import Graph


@dataclass(frozen=True)
class TensorSummary:
    """An input or output: name and type (`f32[?,112,112,3]`)."""

    name: str
    type: str


@dataclass(frozen=True)
class Inspection:
    """What there is to know about a model without running it.

    Attributes:
        name: As the user called it.
        parameters: Weight elements; batch-norm statistics count.
        macs: Multiply-accumulates of one inference.
        size_bytes: Of the .tflite, or of the folded float .tflite a detector becomes.
        nodes: Nodes of the graph, inputs and constants included.
        ops: How often each op kind occurs.
        inputs, outputs: Tensors.
        initialized: Whether every weight has values.
        contract: What it eats and gives, or None.
        estimates: On the targets asked for; a text says why there is none.
        graph: The graph itself; its text is the IR.
        advice: Kernel by kernel, on the targets that have an estimate.
    """

    name: str
    parameters: int
    macs: int
    size_bytes: int
    nodes: int
    ops: Mapping[str, int]
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    initialized: bool
    contract: Contract | None
    estimates: Mapping[str, Estimate | str]
    graph: Graph
    advice: Mapping[str, tuple[Advice, ...]]

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report, without the IR."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "macs": self.macs,
            "size_bytes": self.size_bytes,
            "nodes": self.nodes,
            "ops": dict(self.ops),
            "inputs": [{"name": t.name, "type": t.type} for t in self.inputs],
            "outputs": [{"name": t.name, "type": t.type} for t in self.outputs],
            "initialized": self.initialized,
            "contract": None if self.contract is None else contract_to_document(self.contract),
            "estimates": {
                name: _estimate_json(found, self.advice.get(name, ()))
                for name, found in self.estimates.items()
            },
        }


def inspect(
    source: str | Path | Detector,
    *,
    contract: Contract | Path | None = None,
    targets: Sequence[str | Path] = (),
    listen: Listener = ignore,
) -> Inspection:
    """Returns what a detector or model file is.

    Args:
        source: Zoo name, .keras, .h5 or .tflite file, or a loaded detector.
        contract: Of a user's model.
        targets: Names or TOML paths to estimate the latency on. The rates of `host` are measured
            when it is asked for first, and kept.
        listen: Hears of that measurement.

    Raises:
        UsageError: Unknown detector or target.
        InputError: The file cannot be read.
        BackendError: The rates of this machine cannot be measured now.
    """
    detector = as_detector(source, contract)
    graph = detector.graph
    ready = graph
    if not isinstance(source, Detector) and is_model_file(source):
        size = len(read_bytes(Path(source)))
    else:
        ready = folded(graph)
        size = len(emit(ready))
    devices = [host_target(listen) if t == HOST else target_named(t) for t in targets]
    found: dict[str, Estimate | str] = {}
    advice: dict[str, tuple[Advice, ...]] = {}
    for device in devices:
        try:
            made = estimate(ready, device)
            found[device.name], advice[device.name] = made, advise(made, device)
        except (BackendError, InputError) as error:
            found[device.name] = str(error)
    kinds = Counter(node.op.kind for node in graph.nodes)
    return Inspection(
        name=detector.name,
        parameters=graph.parameters,
        macs=graph.macs,
        size_bytes=size,
        nodes=len(graph.nodes),
        ops=dict(sorted(kinds.items())),
        inputs=tuple(TensorSummary(n.name, str(n.results[0])) for n in graph.inputs),
        outputs=tuple(TensorSummary(name, str(graph.type(v))) for name, v in graph.outputs),
        initialized=graph.is_initialized,
        contract=detector.contract,
        estimates=found,
        graph=graph,
        advice=advice,
    )


def _estimate_json(found: Estimate | str, advice: Sequence[Advice]) -> dict[str, Any]:
    if isinstance(found, str):
        return {"kind": "none", "reason": found}
    return {
        "kind": "estimated",
        "latency_ms": found.latency_ms,
        "error_ms": found.error_ms,
        "low_ms": found.low_ms,
        "high_ms": found.high_ms,
        "threads": found.threads,
        "model": found.model,
        "arena_bytes": found.memory.arena_bytes,
        "weight_bytes": found.memory.weight_bytes,
        "transfers_ms": found.transfers_ms,
        "notes": list(found.notes),
        "kernels": [_kernel_json(advised) for advised in advice],
    }


def _kernel_json(advised: Advice) -> dict[str, Any]:
    time, kernel = advised.time, advised.time.kernel
    return {
        "node": kernel.node,
        "op": kernel.kind,
        "fused": list(kernel.fused),
        "class": kernel.work,
        "storage": kernel.storage,
        "engine": time.engine,
        "us": time.us,
        "arithmetic_us": time.arithmetic_us,
        "memory_us": time.memory_us,
        "launch_us": time.launch_us,
        "float_us": advised.float_us,
        "refused": kernel.refused,
        "change": advised.change,
    }
