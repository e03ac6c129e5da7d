"""Estimates of the studied networks on the studied devices, and what a claim comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from lmopt import zoo
from lmopt.cost.estimate import Estimate, estimate
from lmopt.flow.folding import folded
from lmopt.ir.graph import Graph
from lmopt.latency.micronets import stored
from lmopt.target.catalog import load_target
from lmopt.target.profile import Target
from lmopt.zoo.hrnet import bare

Verdict = Literal["reproduced", "not reproduced", "not testable"]
NETS = ("pfld-0.25", "pfld-1.0", "dan1", "dan2", "hrnet-w18")
PFLD = NETS[:2]
PHONES = ("p30-cpu", "velvet-cpu")
DSP, GPU, DESKTOP = "velvet-apu", "desktop-cuda", "desktop-cpu"
GUESSED = (DSP, DESKTOP)
"""Targets whose numbers no published latency backs."""


@dataclass(frozen=True)
class Claim:
    """One claim and what became of it.

    Attributes:
        number: In the list of claims.
        lines: Of the text, where known.
        text: What it says.
        verdict: Whether the estimates say so too.
        numbers: What was compared.
        caution: Why the verdict weighs less than it looks; empty where it does not.
    """

    number: int
    lines: str
    text: str
    verdict: Verdict
    numbers: str
    caution: str = ""


def verdict(holds: bool) -> Verdict:
    """Returns what becomes of a claim that could be tested."""
    return "reproduced" if holds else "not reproduced"


@dataclass
class Bench:
    """Estimates of the studied networks on the studied devices, each made once."""

    _graphs: dict[tuple[str, str], Graph] = field(default_factory=dict)
    _found: dict[tuple[str, str, str, int | None], Estimate] = field(default_factory=dict)

    def graph(self, net: str, form: str = "f32") -> Graph:
        """Returns a folded network in a storage form; its weights are drawn, its ranges made up."""
        if (net, form) not in self._graphs:
            made = folded(zoo.load(f"{net}@none").graph)
            # The thesis timed the heatmaps; coordinates are read from them afterwards.
            made = bare(made) if net == "hrnet-w18" else made
            self._graphs[net, form] = stored(made, form)
        return self._graphs[net, form]

    def estimate(
        self, net: str, target: str, form: str = "f32", threads: int | None = None
    ) -> Estimate:
        """Returns the estimate of a network on a target."""
        key = (net, target, form, threads)
        if key not in self._found:
            self._found[key] = estimate(
                self.graph(net, form), self._target(target), threads=threads
            )
        return self._found[key]

    def ms(self, net: str, target: str, form: str = "f32", threads: int | None = None) -> float:
        """Returns the estimated milliseconds of a network on a target."""
        return self.estimate(net, target, form, threads).latency_ms

    def dsp_ms(self, net: str) -> float:
        """Returns the milliseconds on the accelerator, in the form that it runs fastest."""
        return self.ms(net, DSP, "u8")

    def _target(self, name: str) -> Target:
        target = load_target(name)
        if name == GPU:
            # TensorFlow runs on the CPU what its card does not.
            return replace(target, fallback=DESKTOP)
        if target.engine != "cpu":
            return target
        # The text tries every count up to the cores that there are.
        return replace(target, threads=tuple(range(1, 17 if name == DESKTOP else 9)))

    @cached_property
    def parameters(self) -> Mapping[str, int]:
        """Returns the parameters of every network."""
        return {net: zoo.load(f"{net}@none").graph.parameters for net in NETS}
