"""What the quantizing passes share: equalized channels, centred answers, a corrected mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import Constant, HeatmapDecode, TransformLandmarks
from lmopt.ir.types import DType, ValueRange
from lmopt.pipeline.services import Calibrator, Observer, QuantScheme, Rounding
from lmopt.quant.assign import (
    check_quantizable,
    legal_ranges,
    plan_grids,
    quantize_graph,
)
from lmopt.quant.rounding import can_round, round_kernel
from lmopt.quant.segment import stages_of
from lmopt.quant.weights import RoundedKernel
from lmopt.target.profile import EndType
from lmopt_passes.center_output import center, linear_answers, shift_answer, shift_behind
from lmopt_passes.drowned import drowned
from lmopt_passes.equalize import equalized
from lmopt_passes.float_head import float_head

Array = NDArray[np.float64]
WORTH_DOUBLING = 0.05
"""Part of the least rounding error that twice the calibration faces must save."""
LANDMARKS = TransformLandmarks | HeatmapDecode
"""Ops without an integer form that give landmarks."""
MEAN_FACES = 100
"""Faces that tell the mean of answers, of the float and the integer file alike.

Their difference counts, whose error is a tenth of one face's: it adds half a percent to what
rounding shifts the landmarks by.
"""


class Options(Protocol):
    """Options that every pass has which quantizes without training."""

    @property
    def observer(self) -> Observer:
        """How an activation's range is chosen."""

    @property
    def faces(self) -> int:
        """Calibration faces; 0 takes as many as pay."""

    @property
    def equalize(self) -> bool:
        """Whether channels are rescaled first, so that rounding makes the least noise."""

    @property
    def float_head(self) -> bool:
        """Whether the last, cheap layers stay in float32 where the answers are float32.

        So do vectors that eight bits cannot hold; see `lmopt_passes.drowned`.
        """

    @property
    def input(self) -> EndType:
        """Element type of the inputs."""

    @property
    def output(self) -> EndType:
        """Element type of the outputs."""


@dataclass(frozen=True, eq=False)
class PostTraining:
    """A float graph with what is needed to put it on grids without training.

    Attributes:
        graph: The float graph, equalized if wanted; answers that a kernel gives are written as a
            mean and what is added to it, so that eight bits divide the small range around the mean.
        scheme: Storage and what stays real; the sum of mean and rest always does.
        ranges: Of every value that is no constant; those of a cascade's later stages as they are
            when the stages before are integer.
        means: Of each corrected answer over the calibration faces, by output name.
        centered: Answers that are written as a mean and a rest, as the nodes that give the rest.
        remarks: What was done to the graph before, for the report.
        calibrator: Measures the means of the quantized graph.
        faces: Calibration faces.
        options: Of the pass.
        rounded: Kernels that are not rounded to the nearest, by node.
        wide_ranges: From least to greatest, of values on 16 bits; none where no part may have them.
    """

    graph: Graph
    scheme: QuantScheme
    ranges: Mapping[Value, ValueRange]
    means: Mapping[str, Array]
    centered: tuple[Value, ...]
    remarks: tuple[str, ...]
    calibrator: Calibrator
    faces: int
    options: Options
    rounded: Mapping[str, RoundedKernel] = field(default_factory=dict)
    wide_ranges: Mapping[Value, ValueRange] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        graph: Graph,
        scheme: QuantScheme,
        calibrator: Calibrator,
        options: Options,
        *,
        rounding: Rounding = "nearest",
        wide: bool = False,
    ) -> PostTraining:
        """Calibrates a float graph; for parts on 16 bits too where there may be `wide` ones.

        Raises:
            PassError: The graph cannot be quantized, or there are no faces.
        """
        check_quantizable(graph)
        if options.float_head and options.output == "float32":
            scheme = replace(scheme, real=scheme.real | float_head(graph))
        faces, remarks = min(options.faces, calibrator.available), list[str]()
        if not options.faces:
            faces, note = _enough_faces(graph, scheme, calibrator, options.observer)
            remarks.append(note)
        if options.equalize:
            graph, note = equalized(graph, calibrator, scheme, faces=faces)
            remarks.append(note)
        answers = linear_answers(graph)
        kernels = [kernel.value for answer in answers.values() for kernel in answer.kernels]
        corrected = {
            name: value
            for name, value in graph.outputs
            if value in answers
            or (options.output == "float32" and isinstance(graph.producer(value).op, LANDMARKS))
        }
        watched = list(dict.fromkeys([*corrected.values(), *kernels]))
        found = calibrator.means(graph, watched, faces=min(faces, MEAN_FACES))
        means = {name: found[value] for name, value in corrected.items()}
        centered: tuple[Value, ...] = ()
        if options.output == "float32":
            away = {v.node: found[v] for v in kernels if v.node not in scheme.real}
            apart = {
                value: answer
                for value, answer in answers.items()
                if any(kernel.name in away for kernel in answer.kernels)
            }
            graph, added = center(graph, apart, away)
            scheme = replace(scheme, real=scheme.real | added)
            centered = tuple(kernel for kernel in kernels if kernel.node in away)
        values = [node.value for node in graph.nodes if not isinstance(node.op, Constant)]
        ranges = calibrator.ranges(
            graph, values, options.observer, faces=faces, storage=scheme.storage
        )
        if scheme.storage is DType.I16 and options.output in ("uint8", "int8"):
            # Eight bits have no steps to spare for what no face showed.
            owner = plan_grids(graph, scheme).owner
            ends = [owner[value] for _, value in graph.outputs if value in owner]
            narrow = calibrator.ranges(graph, ends, "mse", faces=faces, storage=DType.U8)
            ranges = {**ranges, **narrow}
        if options.float_head and options.output == "float32" and scheme.storage is not DType.I16:
            lost = drowned(graph, scheme, ranges, calibrator, faces=min(faces, MEAN_FACES))
            scheme = replace(scheme, real=scheme.real | {value.node for value in lost})
            remarks += [
                f"{value} in float32: what tells most faces apart is {ratio:.0f} dB above its "
                "rounding error, as rare faces stretch its range"
                for value, ratio in lost.items()
            ]
        made = cls(
            graph, scheme, ranges, means, centered, tuple(remarks), calibrator, faces, options
        )
        if wide:
            made = replace(made, wide_ranges=made._least_to_greatest(graph, values))
        made = made._calibrated_in_sequence()
        return made if rounding == "nearest" else made._reconstructed()

    def _calibrated_in_sequence(self) -> PostTraining:
        """Returns the same with the ranges that later stages of a cascade have behind integers."""
        made, before = self, frozenset[str]()
        owners = plan_grids(self.graph, self.scheme).owners
        for stage in stages_of(self.graph, self.scheme):
            if before:
                integer = made._with_only(before)._stored(self.graph, "float32", "float32")
                watched = [value for value in owners if value.node in stage]
                found = self.calibrator.ranges(
                    integer,
                    watched,
                    self.options.observer,
                    faces=self.faces,
                    storage=self.scheme.storage,
                )
                made = replace(made, ranges={**made.ranges, **found})
                if made.wide_ranges:
                    found = made._least_to_greatest(integer, watched)
                    made = replace(made, wide_ranges={**made.wide_ranges, **found})
            before |= stage
        return made

    def _least_to_greatest(
        self, graph: Graph, values: Sequence[Value]
    ) -> Mapping[Value, ValueRange]:
        return self.calibrator.ranges(graph, values, "min-max", faces=self.faces, storage=DType.I16)

    def _reconstructed(self) -> PostTraining:
        """Returns the same with kernels rounded so that what they give errs least."""
        stored = self._stored(self.graph, "float32", "float32")
        kernels = [
            node
            for node in self.graph.nodes
            if "kernel" in node.weights and stored.node(node.name).weight("kernel").type.quant
        ]
        names = [node.name for node in kernels if can_round(node)]
        moments = self.calibrator.kernel_inputs(
            self.graph, names, faces=min(self.faces, MEAN_FACES)
        )
        rounded = {
            name: round_kernel(
                self.graph.node(name), stored.node(name).weight("kernel"), moments[name]
            )
            for name in names
        }
        note = f"{len(rounded)} of {len(kernels)} kernels rounded by what they give"
        return replace(self, rounded=rounded, remarks=(*self.remarks, note))

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns what was done, for the report."""
        plan = plan_grids(self.graph, self.scheme)
        note = (
            f"{len(plan.owners)} {self.options.observer} ranges from {self.faces} "
            f"training faces, storage {self.scheme.storage}"
        )
        notes = [note, *self.remarks]
        if plan.real:
            notes.append(f"nodes in float32: %{', %'.join(sorted(plan.real))}")
        ranges = self._ranges
        legal = legal_ranges(self.graph, ranges, self.scheme)
        wide = [f"{value}" for value in plan.owners if legal.get(value) != ranges.get(value)]
        if wide:
            notes.append(f"ranges widened to what the runtime takes: {', '.join(wide)}")
        return tuple(notes)

    def keeping(self, names: frozenset[str]) -> PostTraining:
        """Returns the same with more nodes that stay real."""
        return replace(self, scheme=replace(self.scheme, real=self.scheme.real | names))

    def widening(self, names: frozenset[str]) -> PostTraining:
        """Returns the same with more nodes that have 16 bits where they do not stay real."""
        return replace(self, scheme=replace(self.scheme, wide=self.scheme.wide | names))

    def only(self, names: frozenset[str]) -> Graph:
        """Returns the graph with nothing but these nodes, and the inputs, on grids, corrected."""
        return self._with_only(names).corrected()

    @property
    def _ranges(self) -> Mapping[Value, ValueRange]:
        """Returns the ranges, of values that are nowhere in eight bits from least to greatest."""
        if not self.wide_ranges or not self.scheme.wide:
            return self.ranges
        plan = plan_grids(self.graph, self.scheme)
        narrow = {
            owner
            for value, owner in plan.owner.items()
            for name in (value.node, *(reader.name for reader, _ in self.graph.users(value)))
            if plan.storage[name] is self.scheme.storage
        }
        wide = {value: found for value, found in self.wide_ranges.items() if value not in narrow}
        return {**self.ranges, **wide}

    def _with_only(self, names: frozenset[str]) -> PostTraining:
        others = {node.name for node in self.graph.nodes if node.op.kind != "input"} - names
        return self.keeping(frozenset(others))

    def quantized(self) -> Graph:
        """Returns the graph on its grids, its mean answers not yet corrected."""
        return self._stored(self.graph, self.options.input, self.options.output)

    def corrected(self) -> Graph:
        """Returns the graph on its grids, its answers with the float graph's means."""
        return self.shifted().quantized()

    def shifted(self) -> PostTraining:
        """Returns the same with answers that have the float graph's means once they are on grids.

        Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
            Correction", 2019, section 4.2, with measured means, for what gives the answers.
            Landmarks that float32 computes behind integers are shifted at the end.
        """
        answers = {name: value for name, value in self.graph.outputs if name in self.means}
        measured = self._stored(self.graph, "float32", "float32")
        places = dict(measured.outputs)
        values = [places[name] for name in answers]
        got = self.calibrator.means(measured, values, faces=min(self.faces, MEAN_FACES))
        edit = self.graph.edit()
        linear = linear_answers(self.graph)
        added = set[str]()
        for value, name in {value: name for name, value in answers.items()}.items():
            shift = self.means[name] - got[places[name]]
            if value in linear:
                shift_answer(edit, linear[value], shift)
            else:
                added.add(shift_behind(edit, name, value, shift))
        return replace(self.keeping(frozenset(added)), graph=edit.done())

    def _stored(self, graph: Graph, input: EndType, output: EndType) -> Graph:
        return quantize_graph(
            graph,
            self._ranges,
            self.scheme,
            input_type=input,
            output_type=output,
            rounded=self.rounded,
        )


def _enough_faces(
    graph: Graph, scheme: QuantScheme, calibrator: Calibrator, observer: Observer
) -> tuple[int, str]:
    """Returns the least number of faces whose doubling does not pay, and the curve it is from.

    The curve of 16 bits is that of eight: their own ranges reach far beyond what faces show, and
    no rounding error tells when enough were seen.
    """
    owners = plan_grids(graph, scheme).owners
    if scheme.storage is DType.I16:
        curve = calibrator.excess_errors(graph, owners, "mse", storage=DType.I8)
    else:
        curve = calibrator.excess_errors(graph, owners, observer, storage=scheme.storage)
    counts = list(curve)
    chosen = next(
        (few for few, more in pairwise(counts) if curve[few] - curve[more] < WORTH_DOUBLING),
        counts[-1],
    )
    listed = ", ".join(f"{excess:.0%} with {count}" for count, excess in curve.items())
    return chosen, f"rounding error of other faces above the least: {listed} calibration faces"
