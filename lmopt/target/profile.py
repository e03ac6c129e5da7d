"""Target profiles: what lmopt knows of a device, every number with unit, kind and source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lmopt.errors import InputError
from lmopt.ir.types import DType

NumberKind = Literal["sourced", "derived", "inferred", "fitted", "guess"]
Engine = Literal["cpu", "gpu", "npu", "cuda"]
StorageForm = Literal["float32", "float16", "int8", "uint8", "int16x8"]
"""Forms a detector ships in: int8 has kernels per channel, uint8 per tensor.

int16x8 has int16 activations and int8 kernels per channel.
"""
EndType = Literal["float32", "uint8", "int8", "int16"]
ModelFormat = Literal["tflite", "savedmodel"]

FORMS: Mapping[StorageForm, str] = {
    "float32": "f32",
    "float16": "f16",
    "int8": "i8",
    "uint8": "u8",
    "int16x8": "i16",
}
"""Every form, and the storage type it computes in."""


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, how it is known, and where from."""

    value: float
    unit: str
    kind: NumberKind
    source: str


@dataclass(frozen=True)
class Runtime:
    """What runs the file on the device, in the version that the app or the system ships.

    Attributes:
        name: As its makers call it.
        version: Decides which forms are legal.
        format: What it loads.
        kind, source: How that is known, and where from.
    """

    name: str
    version: str
    format: ModelFormat
    kind: NumberKind
    source: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class FormRule:
    """Whether an app may ship a form to the runtime, and what speaks for or against it."""

    legal: bool
    reason: str
    kind: NumberKind
    source: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.kind}: {self.source})"


@dataclass(frozen=True)
class Limit:
    """A bound that the runtime sets to graphs; see `lmopt.target.vocabulary.LIMITS`.

    Attributes:
        number: Of limits that are one; else 0.
        storages: Of limits that list storage types; else none.
        kind, source: How it is known, and where from.
    """

    number: float
    storages: tuple[str, ...]
    kind: NumberKind
    source: str

    @property
    def value(self) -> float | tuple[str, ...]:
        """Returns the number or the list, whichever it is."""
        return self.storages or self.number


@dataclass(frozen=True)
class Ends:
    """Element types that a quantized file had best take and give on a device."""

    input: EndType
    output: EndType
    kind: NumberKind
    source: str


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind at one clock.

    Attributes:
        core: As its makers call it.
        cores: How many.
        ghz: Highest clock.
        macs_per_cycle: Multiply-accumulates per cycle and core by storage type: vector units, and
            dot products where the core has them.
        caches: What is known of them, for people.
        kind, source: How that is known, and where from.
    """

    core: str
    cores: int
    ghz: float
    macs_per_cycle: Mapping[str, float]
    caches: str
    kind: NumberKind
    source: str


@dataclass(frozen=True)
class Fusion:
    """What the engine runs within the kernel of a neighbour.

    Attributes:
        activations: Op kinds that run within what makes their operand.
        into: Op kinds that take them.
        pads: Whether padding runs within the convolution behind it.
        sums: Whether an addition runs within the convolution before it.
        kind, source: How that is known, and where from.
        integers: Whether that goes for activations of integers too; else only for those in one op.
    """

    activations: tuple[str, ...]
    into: tuple[str, ...]
    pads: bool
    sums: bool
    kind: NumberKind
    source: str
    integers: bool = True


DEFAULT_FUSION = Fusion(
    ("relu", "relu6"),
    ("conv2d", "conv2d_transpose", "depthwise_conv2d", "dense"),
    pads=False,
    sums=False,
    kind="inferred",
    source="what every runtime of TensorFlow Lite fuses",
)


@dataclass(frozen=True)
class Experience:
    """What a profile's numbers were fitted on; estimates beyond it say so.

    Attributes:
        networks: How many.
        framework: That ran them.
        macs: Least and most multiply-accumulates.
        storages: Storage types they computed in.
        works: Classes of kernels among them (`lmopt.cost.kernels.KernelClass`).
        threads: Thread counts.
        kind, source: How that is known, and where from.
    """

    networks: int
    framework: str
    macs: tuple[float, float]
    storages: tuple[str, ...]
    works: tuple[str, ...]
    threads: tuple[int, ...]
    kind: NumberKind
    source: str


@dataclass(frozen=True)
class KernelPrices:
    """What a machine takes for the work in kernels, at one thread count.

    Attributes:
        us: Microseconds of one unit of every term that `lmopt.cost.micro` splits work into.
        error: From an estimate to the upper end of its interval, as part of the estimate.
    """

    us: Mapping[str, float]
    error: float


@dataclass(frozen=True)
class DeviceNames:
    """How a phone on a cable is known to be the device of a profile.

    Attributes:
        names: What its system calls chip or board, in lower case.
        accelerator: The NNAPI driver that the profile means, where it means one.
        kind, source: How that is known, and where from.
    """

    names: frozenset[str]
    accelerator: str | None
    kind: NumberKind
    source: str


@dataclass(frozen=True)
class Target:
    """A device and the engine on it that runs the model.

    Attributes:
        name: File stem of its TOML.
        title: For people.
        engine: What runs the graph.
        storage: Storage types the engine runs, fastest first (f32, f16, i8, u8, i16).
        supported_ops: Op kinds the engine takes; the rest falls back to `fallback`.
        quantities: Named numbers (peaks, bandwidth, overheads), see the schema.
        pipelines: Pipeline texts that `lmopt optimize` tries, in order.
        threads: Thread counts worth trying.
        fallback: Target that runs what the engine refuses, or None.
        notes: What a user should know.
        runtime: What loads the file there; None where the profile does not say.
        forms: What is to be said about every form the profile names.
        limits: Bounds on graphs, by name.
        ends: Preferred inputs and outputs of quantized files, or None.
        clusters: Cores of a CPU, fastest first.
        fusion: What the engine fuses; None where the profile does not say.
        experience: What the numbers were fitted on; None where they were not.
        kernel_prices: Of a machine that was calibrated, by threads; finer than `quantities`.
        device: How the device is known on a cable, or None where it is no phone.
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
    runtime: Runtime | None = None
    forms: Mapping[StorageForm, FormRule] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    ends: Ends | None = None
    clusters: tuple[Cluster, ...] = ()
    fusion: Fusion | None = None
    experience: Experience | None = None
    kernel_prices: Mapping[int, KernelPrices] = field(default_factory=dict)
    device: DeviceNames | None = None

    def rule(self, form: StorageForm) -> FormRule:
        """Returns what holds for a form; a profile that does not name it decides by its storage."""
        if form in self.forms:
            return self.forms[form]
        legal = self.runs(form)
        told = "lists" if legal else "does not list"
        return FormRule(
            legal, f"`storage` of {self.name} {told} {FORMS[form]}", "inferred", "the profile"
        )

    def runs(self, form: StorageForm) -> bool:
        """Returns whether the engine itself computes in a form's storage."""
        return FORMS[form] in self.storage or (
            form in ("float32", "float16") and not {"f32", "f16"}.isdisjoint(self.storage)
        )

    def computes(self, storage: str) -> bool:
        """Returns whether kernels of a storage run there: the engine's, or slower ones beside it.

        Those beside it are the runtime's own, of 16 bits, known by their rate; no form is
        preferred for their sake.
        """
        beside = storage == DType.I16 and "peak_i16" in self.quantities
        return beside or storage in self.storage

    @property
    def preferred(self) -> StorageForm:
        """Returns the legal form that the engine runs fastest.

        Raises:
            InputError: No form is legal.
        """
        for storage in self.storage:
            for form, stored in FORMS.items():
                if stored == storage and self.rule(form).legal:
                    return form
        raise InputError(
            f"no storage form is legal on '{self.name}'",
            hint=f"`storage` must name one of {', '.join(FORMS.values())} whose form is legal",
        )
