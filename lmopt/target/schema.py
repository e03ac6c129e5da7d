"""The schema of a target TOML, strict: an unknown key or a number without source is an error.

A target file holds::

    title = "LG Velvet 5G, APU 3.0"
    engine = "npu"                  # cpu, gpu, npu or cuda
    storage = ["u8", "f16"]         # what the engine runs, fastest first
    threads = [1]
    fallback = "velvet-cpu"         # who runs what the engine refuses; leave out for nobody
    supported_ops = ["conv2d"]      # IR op kinds
    pipelines = ["fold-batchnorm,quantize-uint8"]
    notes = ["..."]

    [quantities.peak_u8]
    value = 1200.0
    unit = "GMAC/s"
    kind = "derived"                # sourced, derived, inferred, fitted or guess
    source = "..."

    [runtime]                       # what the app or the system ships there
    name = "NNAPI"
    version = "1.2 (Android 10)"
    format = "tflite"               # or savedmodel
    kind = "sourced"
    source = "..."

    [forms.int8]                    # float32, float16, int8, uint8 or int16x8
    legal = false                   # leave out for true
    reason = "..."
    kind = "sourced"
    source = "..."

    [limits.max_rank]               # see LIMITS; checked before a file is written
    value = 4
    kind = "sourced"
    source = "..."

    [ends]                          # what quantized files had best take and give
    input = "uint8"
    output = "float32"
    kind = "sourced"
    source = "..."

    [[clusters]]                    # cores of a CPU, fastest first
    core = "Cortex-A77"
    cores = 4
    ghz = 2.0
    macs_per_cycle = { f32 = 8, f16 = 16, i8 = 32 }
    caches = "64 KiB + 64 KiB L1"   # leave out where nothing is known
    kind = "sourced"
    source = "..."

    [fusion]                        # what runs within the kernel of a neighbour
    activations = ["relu", "relu6"]
    into = ["conv2d", "depthwise_conv2d"]
    pads = true                     # padding within the convolution behind it
    sums = false                    # an addition within the convolution before it
    integers = false                # whether that goes for activations of integers too
    kind = "sourced"
    source = "..."

    [experience]                    # what the quantities were fitted on: estimates beyond say so
    networks = 5
    framework = "Paddle-Lite 2.11"
    macs = [56e6, 4.1e9]
    storages = ["f32", "i8"]
    works = ["pointwise", "square", "window", "depthwise", "dense", "memory"]
    threads = [1]
    kind = "sourced"
    source = "..."

    [device]                        # how a phone on a cable is known to be this one
    names = ["kirin980"]            # what its system calls chip or board, in lower case
    accelerator = "neuron-ann"      # NNAPI driver, for engine npu
    kind = "sourced"
    source = "..."

`storage` also orders the forms: the first legal one is what `lmopt optimize` aims at.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmopt.errors import InputError
from lmopt.ir.ops import OPS
from lmopt.target.profile import (
    Cluster,
    DeviceNames,
    Ends,
    EndType,
    Engine,
    Experience,
    FormRule,
    Fusion,
    Limit,
    ModelFormat,
    NumberKind,
    Quantity,
    Runtime,
    StorageForm,
    Target,
)
from lmopt.target.vocabulary import LIMITS, REQUIRED, STORAGES, UNITS


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Quantity(_Strict):
    value: float = Field(gt=0)
    unit: str
    kind: NumberKind
    source: str = Field(min_length=1)


class _Stated(_Strict):
    kind: NumberKind
    source: str = Field(min_length=1)


class _Runtime(_Stated):
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    format: ModelFormat = "tflite"


class _Form(_Stated):
    legal: bool = True
    reason: str = Field(min_length=1)


class _Limit(_Stated):
    value: float | Annotated[list[str], Field(min_length=1)]


class _Ends(_Stated):
    input: EndType
    output: EndType


class _Cluster(_Stated):
    core: str = Field(min_length=1)
    cores: int = Field(gt=0)
    ghz: float = Field(gt=0)
    macs_per_cycle: dict[str, Annotated[float, Field(gt=0)]]
    caches: str = ""


class _Fusion(_Stated):
    activations: list[str] = []
    into: list[str] = []
    pads: bool = False
    sums: bool = False
    integers: bool = True


class _Experience(_Stated):
    networks: int = Field(gt=0)
    framework: str = Field(min_length=1)
    macs: Annotated[list[float], Field(min_length=2, max_length=2)]
    storages: list[str] = Field(min_length=1)
    works: list[str] = Field(min_length=1)
    threads: list[int] = Field(min_length=1)


class _Device(_Stated):
    names: list[str] = Field(min_length=1)
    accelerator: str | None = None


class _TargetFile(_Strict):
    title: str = Field(min_length=1)
    engine: Engine
    storage: list[str] = Field(min_length=1)
    threads: list[int] = Field(default=[1], min_length=1)
    fallback: str | None = None
    supported_ops: list[str] = Field(min_length=1)
    pipelines: list[str] = []
    notes: list[str] = []
    quantities: dict[str, _Quantity] = {}
    runtime: _Runtime | None = None
    forms: dict[StorageForm, _Form] = {}
    limits: dict[str, _Limit] = {}
    ends: _Ends | None = None
    clusters: list[_Cluster] = []
    fusion: _Fusion | None = None
    experience: _Experience | None = None
    device: _Device | None = None


_TABLES: Mapping[str, type[BaseModel]] = {
    "quantities": _Quantity,
    "runtime": _Runtime,
    "forms": _Form,
    "limits": _Limit,
    "ends": _Ends,
    "clusters": _Cluster,
    "fusion": _Fusion,
    "experience": _Experience,
    "device": _Device,
}


def read_target(text: str, name: str, where: str) -> Target:
    """Returns the target a TOML text describes.

    Args:
        text: The file's content.
        name: The target's name, the file's stem.
        where: The file, for messages.

    Raises:
        InputError: Syntax, an unknown or missing key, a unit that does not belong, an unknown op.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not valid TOML: {error}", where=where) from error
    try:
        file = _TargetFile.model_validate(data)
    except ValidationError as error:
        raise _explain(error, where) from error
    for key, quantity in file.quantities.items():
        _known(key, UNITS, "quantity", f"{where}: quantities")
        if quantity.unit != UNITS[key]:
            raise InputError(
                f"unit '{quantity.unit}', wanted '{UNITS[key]}'",
                where=f"{where}: quantities.{key}.unit",
            )
    for key, limit in file.limits.items():
        _check_limit(key, limit, f"{where}: limits")
    for kinds, table in _op_lists(file):
        for op in kinds:
            _known(op, OPS, "op kind", f"{where}: {table}")
    for storages, table in _storage_lists(file):
        for storage in storages:
            _known(storage, STORAGES, "storage type", f"{where}: {table}")
    if any("f32" not in cluster.macs_per_cycle for cluster in file.clusters):
        raise InputError("a cluster wants macs_per_cycle.f32", where=f"{where}: clusters")
    if file.engine != "cpu" or name != "host":
        _check_complete(file, where)
    return Target(
        name=name,
        title=file.title,
        engine=file.engine,
        storage=tuple(file.storage),
        supported_ops=frozenset(file.supported_ops),
        quantities={
            key: Quantity(q.value, q.unit, q.kind, q.source) for key, q in file.quantities.items()
        },
        pipelines=tuple(file.pipelines),
        threads=tuple(file.threads),
        fallback=file.fallback,
        notes=tuple(file.notes),
        runtime=None if file.runtime is None else Runtime(**file.runtime.model_dump()),
        forms={form: FormRule(**rule.model_dump()) for form, rule in file.forms.items()},
        limits={key: _read_limit(limit) for key, limit in file.limits.items()},
        ends=None if file.ends is None else Ends(**file.ends.model_dump()),
        clusters=tuple(Cluster(**cluster.model_dump()) for cluster in file.clusters),
        fusion=None if file.fusion is None else Fusion(**_frozen(file.fusion)),
        experience=None if file.experience is None else Experience(**_frozen(file.experience)),
        device=None if file.device is None else _read_device(file.device),
    )


def _frozen(table: BaseModel) -> dict[str, Any]:
    """Returns a table's entries with tuples for lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in table.model_dump().items()}


def _op_lists(file: _TargetFile) -> Iterator[tuple[Iterable[str], str]]:
    yield file.supported_ops, "supported_ops"
    if file.fusion is not None:
        yield (*file.fusion.activations, *file.fusion.into), "fusion"


def _storage_lists(file: _TargetFile) -> Iterator[tuple[Iterable[str], str]]:
    yield file.storage, "storage"
    for cluster in file.clusters:
        yield cluster.macs_per_cycle, "clusters.macs_per_cycle"
    if file.experience is not None:
        yield file.experience.storages, "experience.storages"


def read_target_file(path: Path) -> Target:
    """Returns the target in a TOML file of the user.

    Raises:
        InputError: It cannot be read or does not fit the schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the target: {error}", where=str(path)) from error
    return read_target(text, path.stem, str(path))


def json_schema() -> dict[str, Any]:
    """Returns the schema of a target file for editors, in the words of JSON Schema.

    `target.schema.json` beside this module is its text; editors check TOML against it too.
    """
    schema = _TargetFile.model_json_schema()
    fields = schema["properties"]
    quantity = schema["$defs"]["_Quantity"]
    fields["quantities"] = _table_of(
        {
            name: {**quantity, "properties": {**quantity["properties"], "unit": {"const": unit}}}
            for name, unit in UNITS.items()
        }
    )
    fields["limits"] = _table_of({name: {"$ref": "#/$defs/_Limit"} for name in LIMITS})
    fields["supported_ops"]["items"] = {"enum": sorted(OPS)}
    fields["storage"]["items"] = {"enum": list(STORAGES)}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _table_of(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _check_complete(file: _TargetFile, where: str) -> None:
    wanted = (*REQUIRED, *(f"peak_{storage}" for storage in file.storage))
    missing = [key for key in wanted if key not in file.quantities]
    if missing:
        raise InputError(
            f"missing quantities: {', '.join(missing)}",
            where=f"{where}: quantities",
            hint="every number needs value, unit, kind and source; `guess` is an honest kind",
        )


def _check_limit(key: str, limit: _Limit, where: str) -> None:
    _known(key, LIMITS, "limit", where)
    listed = isinstance(limit.value, list)
    if listed != (LIMITS[key] is tuple):
        wanted = "a list of storage types" if LIMITS[key] is tuple else "a number"
        raise InputError(f"got {limit.value!r}, wanted {wanted}", where=f"{where}.{key}.value")
    for storage in limit.value if isinstance(limit.value, list) else ():
        _known(storage, STORAGES, "storage type", f"{where}.{key}.value")


def _read_limit(limit: _Limit) -> Limit:
    if isinstance(limit.value, list):
        return Limit(0.0, tuple(limit.value), limit.kind, limit.source)
    return Limit(limit.value, (), limit.kind, limit.source)


def _read_device(device: _Device) -> DeviceNames:
    names = frozenset(name.lower() for name in device.names)
    return DeviceNames(names, device.accelerator, device.kind, device.source)


def _known(got: str, known: Any, what: str, where: str) -> None:
    if got in known:
        return
    near = difflib.get_close_matches(got, list(known), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"
    raise InputError(f"unknown {what} '{got}'", where=where, hint=hint)


def _explain(error: ValidationError, where: str) -> InputError:
    # A misspelt key is also a missing one: the spelling is what helps.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        parent = first["loc"][0] if len(first["loc"]) > 1 else None
        known = _TABLES.get(str(parent), _TargetFile).model_fields
        near = difflib.get_close_matches(str(first["loc"][-1]), list(known), n=1)
        return InputError(
            f"unknown key '{first['loc'][-1]}'",
            where=f"{where}: {place}",
            hint=f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}",
        )
    return InputError(f"{first['msg']}, got {first['input']!r}", where=f"{where}: {place}")
