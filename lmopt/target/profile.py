"""Target profiles: what lmopt knows of a device, every number with unit, kind and source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NumberKind = Literal["sourced", "derived", "inferred", "fitted", "guess"]
Engine = Literal["cpu", "gpu", "npu", "cuda"]


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, how it is known, and where from."""

    value: float
    unit: str
    kind: NumberKind
    source: str


@dataclass(frozen=True)
class Target:
    """A device and the engine on it that runs the model.

    Attributes:
        name: File stem of its TOML.
        title: For people.
        engine: What runs the graph.
        storage: Storage types the engine runs, fastest first (f32, f16, i8, u8).
        supported_ops: Op kinds the engine takes; the rest falls back to `fallback`.
        quantities: Named numbers (peaks, bandwidth, overheads), see the schema.
        pipelines: Pipeline texts that `lmopt optimize` tries, in order.
        threads: Thread counts worth trying.
        fallback: Target that runs what the engine refuses, or None.
        notes: What a user should know.
    """

    name: str
    title: str
    engine: Engine
    storage: tuple[str, ...]
    supported_ops: frozenset[str]
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    pipelines: tuple[str, ...] = ()
    threads: tuple[int, ...] = (1,)
    fallback: str | None = None
    notes: tuple[str, ...] = ()
