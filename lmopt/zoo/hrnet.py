"""HRNet: parallel branches at four resolutions that exchange what they see, as IR."""

from __future__ import annotations

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv2D,
    DecodeMethod,
    HeatmapDecode,
    Relu,
    ResizeBilinear,
)

SIZE = 256
LANDMARKS = 68
EPSILON = 1e-3
WIDTHS = (18, 36, 72, 144)
MODULES = (1, 4, 3)
BLOCKS = 4
HEATMAPS = "heatmaps"
OUTPUT = "landmarks"


def build(
    name: str,
    size: int = SIZE,
    *,
    decode: DecodeMethod | None = "argmax",
    folded: bool = False,
) -> Graph:
    """Returns an uninitialised HRNet-W18 for 68 landmarks.

    Args:
        name: Of the graph.
        size: Input height and width, a multiple of 32; the heatmaps are a quarter of it.
        decode: How coordinates are read from the heatmaps; None gives the bare heatmaps.
        folded: Whether batch norms are already folded into convolutions with bias and ReLU fused.

    Source: Sun et al., "High-Resolution Representations for Labeling Pixels and Regions", 2019
        (arXiv:1904.04514), HRNetV2-W18 with its landmark head.
    """
    graph = _Builder(name, size, folded).build()
    return graph if decode is None else decoded(graph, decode)


def decoded(heatmaps: Graph, method: DecodeMethod = "argmax") -> Graph:
    """Returns a graph of heatmaps with coordinates for output; weights are shared."""
    edit = Edit(heatmaps.name)
    for node in heatmaps.nodes:
        edit.put(node)
    ((_, value),) = heatmaps.outputs
    edit.output(OUTPUT, edit.add(edit.fresh(OUTPUT), HeatmapDecode(method), value))
    return edit.done()


def bare(graph: Graph) -> Graph:
    """Returns a graph of coordinates with its heatmaps for output; weights are shared."""
    edit = Edit(graph.name)
    ((_, value),) = graph.outputs
    for node in graph.nodes:
        if node.value != value:
            edit.put(node)
    edit.output(HEATMAPS, graph.producer(value).inputs[0])
    return edit.done()


class _Builder:
    def __init__(self, name: str, size: int, folded: bool) -> None:
        self.edit = Edit(name)
        self.size = size
        self.folded = folded

    def build(self) -> Graph:
        x = self.edit.input("image", (None, self.size, self.size, 3))
        x = self._conv("stem1", x, 64, stride=2)
        x = self._conv("stem2", x, 64, stride=2)
        for index in range(1, 5):
            x = self._bottleneck(f"layer1_{index}", x)
        branches = [x]
        for stage, modules in enumerate(MODULES, 2):
            branches = self._transition(f"stage{stage}", branches)
            for module in range(1, modules + 1):
                name = f"stage{stage}_{module}"
                branches = [
                    self._blocks(f"{name}_branch{k}", branch)
                    for k, branch in enumerate(branches, 1)
                ]
                branches = self._fuse(name, branches)
        sides = (self.size // 4, self.size // 4)
        maps = [
            self.edit.add(f"head_resize{k}", ResizeBilinear(sides), branch) if k > 1 else branch
            for k, branch in enumerate(branches, 1)
        ]
        x = self.edit.add("head_concat", Concat(), *maps)
        x = self._conv("head_conv", x, sum(WIDTHS), kernel=1)
        heatmaps = self.edit.add(HEATMAPS, Conv2D(LANDMARKS, (1, 1), use_bias=False), x)
        self.edit.output(HEATMAPS, heatmaps)
        return self.edit.done()

    def _transition(self, name: str, branches: list[Value]) -> list[Value]:
        """Returns the branches with one more at half of the last one's resolution."""
        made = list(branches)
        if len(branches) == 1:  # the stem's 256 channels become the first branch
            made[0] = self._conv(f"{name}_enter1", branches[0], WIDTHS[0])
        made.append(
            self._conv(f"{name}_enter{len(made) + 1}", branches[-1], WIDTHS[len(made)], stride=2)
        )
        return made

    def _fuse(self, name: str, branches: list[Value]) -> list[Value]:
        """Returns every branch plus all the others brought to its resolution."""
        fused = []
        for to, total in enumerate(branches):
            others = [origin for origin in range(len(branches)) if origin != to]
            for origin in others:
                part = self._bring(f"{name}_from{origin + 1}_to{to + 1}", branches, origin, to)
                sum_name = f"{name}_sum{to + 1}_{origin + 1}"
                total = self._add(sum_name, total, part, relu=origin == others[-1])
            fused.append(total)
        return fused

    def _bring(self, name: str, branches: list[Value], origin: int, to: int) -> Value:
        x = branches[origin]
        if to < origin:
            side = self.size // 4 // 2**to
            x = self._conv(name, x, WIDTHS[to], kernel=1, relu=False)
            return self.edit.add(f"{name}_resize", ResizeBilinear((side, side)), x)
        for step in range(origin, to):
            last = step == to - 1
            width = WIDTHS[to] if last else WIDTHS[origin]
            x = self._conv(f"{name}_{step + 1}", x, width, stride=2, relu=not last)
        return x

    def _blocks(self, name: str, x: Value) -> Value:
        for index in range(1, BLOCKS + 1):
            width = self._channels(x)
            y = self._conv(f"{name}_{index}a", x, width)
            y = self._conv(f"{name}_{index}b", y, width, relu=False)
            x = self._add(f"{name}_{index}_add", y, x)
        return x

    def _bottleneck(self, name: str, x: Value) -> Value:
        y = self._conv(f"{name}_reduce", x, 64, kernel=1)
        y = self._conv(f"{name}_conv", y, 64)
        y = self._conv(f"{name}_expand", y, 256, kernel=1, relu=False)
        if self._channels(x) != 256:
            x = self._conv(f"{name}_skip", x, 256, kernel=1, relu=False)
        return self._add(f"{name}_add", y, x)

    def _conv(
        self,
        name: str,
        x: Value,
        filters: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        relu: bool = True,
    ) -> Value:
        op = Conv2D(
            filters,
            (kernel, kernel),
            (stride, stride),
            use_bias=self.folded,
            activation=self._fused(relu),
        )
        x = self.edit.add(name, op, x)
        if self.folded:
            return x
        x = self.edit.add(f"{name}_bn", BatchNorm(EPSILON), x)
        return self.edit.add(f"{name}_relu", Relu(), x) if relu else x

    def _add(self, name: str, left: Value, right: Value, *, relu: bool = True) -> Value:
        total = self.edit.add(name, Add(self._fused(relu)), left, right)
        return self.edit.add(f"{name}_relu", Relu(), total) if relu and not self.folded else total

    def _fused(self, relu: bool) -> Activation:
        return "relu" if self.folded and relu else "none"

    def _channels(self, x: Value) -> int:
        channels = self.edit.node(x.node).results[x.index].shape[-1]
        assert channels is not None
        return channels
