"""drop-block: residual blocks removed, the shortcut stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import Add
from lmopt.ir.size import size_change
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult
from lmopt.pipeline.precondition import require_float, require_weights
from lmopt_passes.map_fit import fit_where_faces_are


@dataclass(frozen=True)
class DropBlock(Pass):
    """Removes the residual blocks that the answer misses least.

    A block is a sum of a value and of what was computed from it; without it the value passes
    through. Each block is taken out alone and the rest scored on the validation faces; the `count`
    blocks with the lowest NME go. Every kernel of a block goes with it, so that small networks,
    whose kernels cost more to start than to compute, gain most. Where there are calibration faces,
    the kernels behind are fitted to answer on them what they answered
    (`passes/lmopt_passes/map_fit.py`).

    Attributes:
        count: Blocks to remove.
        reconstruct: Whether kernels are fitted where there are calibration faces.
        faces: Calibration faces, of the training split.

    Source: Veit et al., "Residual Networks Behave Like Ensembles of Relatively Shallow Networks",
        2016, section 4.1.
    """

    name: ClassVar[str] = "drop-block"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SCORER})
    count: int = 1
    reconstruct: bool = True
    faces: int = 100

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"count is {self.count}, wanted at least 1")
        if self.faces < 1:
            raise UsageError(f"faces is {self.faces}, wanted at least 1")

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        require_weights(graph, self.name)
        shortcuts = residual_shortcuts(graph)
        if len(shortcuts) < self.count:
            raise PassError(
                f"{self.name} wants {self.count} residual blocks, found {len(shortcuts)}",
                where=graph.name,
                hint=f"ask for at most {len(shortcuts)}" if shortcuts else "",
            )
        harm = {
            block: ctx.scorer.nme_percent(without_blocks(graph, {block: shortcut}))
            for block, shortcut in shortcuts.items()
        }
        chosen = sorted(harm, key=lambda block: harm[block])[: self.count]
        result = without_blocks(graph, {block: shortcuts[block] for block in chosen})
        alone = ", ".join(f"{block} ({harm[block]:.2f} % without it)" for block in chosen)
        notes: tuple[str, ...] = (f"dropped {alone}; {size_change(graph, result)}",)
        if self.reconstruct:
            result, refitted = fit_where_faces_are(graph, result, ctx, faces=self.faces)
            notes += refitted
        return PassResult(result, True, notes)


def residual_shortcuts(graph: Graph) -> dict[str, Value]:
    """Returns the shortcut of every residual block, by the name of the block's sum."""
    found: dict[str, Value] = {}
    above: dict[str, frozenset[str]] = {}
    for node in graph.nodes:
        parents = {value.node for value in node.inputs}
        above[node.name] = frozenset(parents).union(*(above[name] for name in parents))
        if isinstance(node.op, Add) and len(node.inputs) == 2:
            for shortcut, branch in (node.inputs, node.inputs[::-1]):
                same = graph.type(shortcut).shape == node.results[0].shape
                if same and shortcut.node in above[branch.node]:
                    found[node.name] = shortcut
    return found


def without_blocks(graph: Graph, shortcuts: Mapping[str, Value]) -> Graph:
    """Returns the graph with these sums replaced by their shortcuts."""
    edit = Edit.of(graph)
    for node in reversed(graph.nodes):  # a shortcut may be the sum of another dropped block
        if node.name in shortcuts:
            edit.rewire(node.value, shortcuts[node.name])
    edit.prune_dead()
    return edit.done()
