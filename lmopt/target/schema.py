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
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmopt.errors import InputError
from lmopt.ir.ops import OPS
from lmopt.target.profile import Engine, NumberKind, Quantity, Target

UNITS: Mapping[str, str] = {
    "peak_f32": "GMAC/s",
    "peak_f16": "GMAC/s",
    "peak_i8": "GMAC/s",
    "peak_u8": "GMAC/s",
    "conv_share": "1",
    "depthwise_share": "1",
    "integer_share": "1",
    "bandwidth": "GB/s",
    "kernel_overhead": "us",
    "invoke_overhead": "us",
    "transfer_overhead": "us",
    "speedup_2": "1",
    "speedup_4": "1",
    "speedup_8": "1",
    "error": "1",
}
"""Every quantity a target may give, and its unit."""

REQUIRED = (
    "bandwidth",
    "conv_share",
    "depthwise_share",
    "error",
    "invoke_overhead",
    "kernel_overhead",
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Quantity(_Strict):
    value: float = Field(gt=0)
    unit: str
    kind: NumberKind
    source: str = Field(min_length=1)


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
    for op in file.supported_ops:
        _known(op, OPS, "op kind", f"{where}: supported_ops")
    for storage in file.storage:
        _known(storage, ("f32", "f16", "i8", "u8", "i16"), "storage type", f"{where}: storage")
    for key, quantity in file.quantities.items():
        _known(key, UNITS, "quantity", f"{where}: quantities")
        if quantity.unit != UNITS[key]:
            raise InputError(
                f"unit '{quantity.unit}', wanted '{UNITS[key]}'",
                where=f"{where}: quantities.{key}.unit",
            )
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
    )


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


def _check_complete(file: _TargetFile, where: str) -> None:
    wanted = (*REQUIRED, *(f"peak_{storage}" for storage in file.storage if storage != "i16"))
    missing = [key for key in wanted if key not in file.quantities]
    if missing:
        raise InputError(
            f"missing quantities: {', '.join(missing)}",
            where=f"{where}: quantities",
            hint="every number needs value, unit, kind and source; `guess` is an honest kind",
        )


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
        known = _Quantity.model_fields if parent == "quantities" else _TargetFile.model_fields
        near = difflib.get_close_matches(str(first["loc"][-1]), list(known), n=1)
        return InputError(
            f"unknown key '{first['loc'][-1]}'",
            where=f"{where}: {place}",
            hint=f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}",
        )
    return InputError(f"{first['msg']}, got {first['input']!r}", where=f"{where}: {place}")
