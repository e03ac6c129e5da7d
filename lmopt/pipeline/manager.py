"""Pipelines: parsed from text, checked before any work, run pass by pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import LmoptError, PassError, UsageError
from lmopt.ir.graph import Graph
from lmopt.ir.types import TensorType
from lmopt.ir.verify import verify
from lmopt.pipeline.base import NEED_HINTS, Need, Pass, PassContext, PassResult, Preserves
from lmopt.pipeline.cache import PipelineCache
from lmopt.pipeline.catalog import Catalog, installed
from lmopt.pipeline.spec import bind, blame_for, parse_pipeline, print_pass


@dataclass(frozen=True)
class PassStep:
    """What one pass of a pipeline did.

    Attributes:
        text: The pass with its options.
        seconds: Wall time, or the time to fetch a cached result.
        changed: Whether the graph differs from before.
        cached: Whether the result came from the cache.
        notes: What a user should know.
        digest: Digest of the graph after the pass.
    """

    text: str
    seconds: float
    changed: bool
    cached: bool
    notes: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class PassEvent:
    """A pass begins or has ended; `step` and `graph` belong to its end.

    Attributes:
        kind: `started` or `finished`.
        index: Position of the pass, from 0.
        count: Passes in the pipeline.
        text: The pass with its options.
    """

    kind: Literal["started", "finished"]
    index: int
    count: int
    text: str
    step: PassStep | None = None
    graph: Graph | None = None


@dataclass(frozen=True)
class PipelineResult:
    """The graph after the last pass, and what every pass did."""

    graph: Graph
    steps: tuple[PassStep, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns the notes of all passes, in order."""
        return tuple(note for step in self.steps for note in step.notes)


Listener = Callable[[PassEvent], None]


@dataclass(frozen=True)
class Pipeline:
    """Passes in order; `Pipeline.parse(str(pipeline)) == pipeline`."""

    passes: tuple[Pass, ...]

    @classmethod
    def parse(cls, text: str, catalog: Catalog | None = None) -> Pipeline:
        """Returns the pipeline that `text` describes, its passes found in the catalog.

        Raises:
            UsageError: Syntax, an unknown pass or option, or a value that does not fit, with its
                position in the text.
        """
        known = installed() if catalog is None else catalog
        passes: list[Pass] = []
        for spec in parse_pipeline(text):
            try:
                found = known.load(spec.name)
            except UsageError as error:
                raise blame_for(text)(error.what, spec.span[0], error.hint) from error
            passes.append(bind(spec, found, text))
        return cls(tuple(passes))

    def __str__(self) -> str:
        return ",".join(map(print_pass, self.passes))

    def check(self, ctx: PassContext) -> None:
        """Raises PassError unless the context has every service the passes need."""
        for index, item in enumerate(self.passes):
            for need in sorted(item.required()):
                if not _is_present(ctx, need):
                    raise PassError(
                        f"{item.name} needs {_NEED_NAMES[need]}, and this run has none",
                        where=_step_place(index, item),
                        hint=NEED_HINTS[need],
                    )

    def run(
        self,
        graph: Graph,
        ctx: PassContext,
        observe: Listener | None = None,
        cache: PipelineCache | None = None,
        verify_each: bool = False,
    ) -> PipelineResult:
        """Returns the graph after every pass, and what each did.

        Args:
            graph: The graph to start from.
            ctx: What the passes may read; its `reads` are extended.
            observe: Called when a pass starts and when it has finished.
            cache: Where results of equal beginnings are kept.
            verify_each: Whether what a pass promises to preserve is checked on drawn inputs.

        Raises:
            LmoptError: A need is missing, a pass failed, or it broke its promise.
        """
        self.check(ctx)
        if ctx.tutor is None and ctx.contract is not None:
            ctx = replace(ctx, tutor=(graph, ctx.contract))  # `reads` stays the caller's
        steps: list[PassStep] = []
        for index, item in enumerate(self.passes):
            event = PassEvent("started", index, len(self.passes), print_pass(item))
            if observe is not None:
                observe(event)
            try:
                after, step = _run_pass(item, graph, ctx, cache)
                notes = _verify_pass(item, graph, after, ctx.seed) if verify_each else ()
            except LmoptError as error:
                place = error.where or _step_place(index, item)
                raise type(error)(error.what, where=place, hint=error.hint) from error
            graph = after
            steps.append(replace(step, notes=(*step.notes, *notes)))
            if observe is not None:
                observe(replace(event, kind="finished", step=steps[-1], graph=graph))
        return PipelineResult(graph, tuple(steps))


_NEED_NAMES = {
    Need.TRAINER: "training faces",
    Need.CALIBRATOR: "calibration faces",
    Need.SCORER: "faces to score on",
    Need.COST: "a target with numbers to estimate by",
    Need.CONTRACT: "the detector's contract",
}


def _step_place(index: int, item: Pass) -> str:
    return f"pass {index + 1} ({item.name})"


def _is_present(ctx: PassContext, need: Need) -> bool:
    if need is Need.CONTRACT:
        return ctx.contract is not None
    return ctx.services.get(need) is not None


def _run_pass(
    item: Pass, graph: Graph, ctx: PassContext, cache: PipelineCache | None
) -> tuple[Graph, PassStep]:
    started = time.perf_counter()
    found: PassResult | None = None
    notes: tuple[str, ...] = ()
    if cache is not None:
        found, notes = cache.get(graph, item, ctx)
    if found is not None:
        result = found
    else:
        own = replace(ctx, reads={})
        result = item.apply(graph, own)
        ctx.reads.update(own.reads)
        if cache is not None:
            notes += cache.put(graph, item, own.reads, result)
    step = PassStep(
        print_pass(item),
        time.perf_counter() - started,
        result.changed,
        found is not None,
        (*result.notes, *notes),
        result.graph.digest(),
    )
    return result.graph, step


def _verify_pass(item: Pass, before: Graph, after: Graph, seed: int) -> tuple[str, ...]:
    """Returns notes on what could not be checked; raises LmoptError on a broken promise."""
    verify(after)
    if item.preserves is Preserves.NOTHING:
        return ()
    if _shapes(before) != _shapes(after):
        raise PassError(
            f"{item.name} promises to keep the shapes of inputs and outputs, but made "
            f"{_shapes(after)} of {_shapes(before)}"
        )
    if item.preserves is Preserves.SHAPES:
        return ()
    if not before.is_initialized:
        return (f"{item.name}: values not compared, the graph has no weights",)
    difference = value_difference(before, after, seed)
    if not difference <= item.tolerance:
        raise PassError(
            f"{item.name} promises to keep values within {item.tolerance:g} of the largest output, "
            f"but changed them by {difference:.3g}"
        )
    return ()


def value_difference(before: Graph, after: Graph, seed: int) -> float:
    """Returns the largest difference of outputs on drawn inputs, relative to the largest output."""
    from lmopt.ir.interp import run

    rng = np.random.default_rng(seed)
    inputs = {node.name: _draw(node.results[0], rng) for node in before.inputs}
    old, new = run(before, inputs), run(after, inputs)
    return max((output_gap(values, new[name]) for name, values in old.items()), key=_nan_last)


def output_gap(old: NDArray[np.generic], new: NDArray[np.generic]) -> float:
    """Returns the largest difference of two arrays, relative to the largest value of the first."""
    a, b = np.asarray(old, np.float64), np.asarray(new, np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    size = max(float(np.abs(a[np.isfinite(a)]).max(initial=0.0)), 1e-30)
    return float(np.abs(a[~same] - b[~same]).max(initial=0.0)) / size


def _nan_last(value: float) -> float:
    return float("inf") if np.isnan(value) else value


def _draw(type: TensorType, rng: np.random.Generator) -> NDArray[np.generic]:
    shape = tuple(2 if d is None else d for d in type.shape)
    if type.dtype.is_float:
        return np.asarray(rng.normal(size=shape), type.dtype.numpy)
    low, high = type.dtype.bounds
    return np.asarray(rng.integers(low, high, shape, endpoint=True), type.dtype.numpy)


def _shapes(graph: Graph) -> str:
    inputs = [f"{n.name}{list(n.results[0].shape)}" for n in graph.inputs]
    outputs = [f"{name}{list(graph.type(value).shape)}" for name, value in graph.outputs]
    return f"{', '.join(inputs)} -> {', '.join(outputs)}"
