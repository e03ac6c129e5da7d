"""Contracts as documents: TOML for people, JSON in the metadata of emitted files.

Both have the same keys, all of them required except those marked optional, and no others::

    height = 112                 # input size in pixels
    width = 112
    color = "rgb"                # rgb, bgr or gray
    mean = [0, 0, 0]             # input = (pixel - mean) / std, pixel in 0..255; one per channel
    std = [255, 255, 255]
    output = "landmarks"         # the output that holds the coordinates
    order = "xyxy"               # xyxy: x0,y0,x1,y1,...   xxyy: all x before all y
    unit = "unit"                # unit: 0..1, pixel: input pixels, centered: -1..1
    scheme = "ibug-68"           # wflw-98, cofw-29, points-N (N of unknown meaning), or a table

    [crop]
    box = "landmarks"            # their bounding box; jittered: the same, placed as a face
                                 # detector places it; given: the data's box
    margin = 1.25                # factor on the box's sides
    square = true                # the longer side is used for both

A scheme of one's own takes the place of the name; its landmarks count from 0::

    [scheme]
    name = "five-points"
    count = 5
    mirror = [1, 0, 2, 4, 3]     # optional: who takes whose place in a mirrored face
    eye_corners = [0, 1]         # optional: for inter-ocular NME
    pupils = [[0], [1]]          # optional: landmarks whose means are the pupils

    [scheme.regions]             # optional: named parts of the face
    mouth = [3, 4]
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from lmopt.detector.contract import (
    BoxSource,
    Color,
    Contract,
    CoordinateOrder,
    CoordinateUnit,
    CropRule,
)
from lmopt.detector.scheme import SCHEMES, LandmarkScheme
from lmopt.errors import InputError

CONTRACT_KEY = "lmopt.contract"
"""The entry of a file's metadata that holds its contract."""

_Item = TypeVar("_Item")
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(allow_inf_nan=False, gt=0)]
_Side = Annotated[int, Field(ge=1)]
_Index = Annotated[int, Field(ge=0)]
_Text = Annotated[str, Field(min_length=1)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _SchemeDocument(_Document):
    name: _Text
    count: _Side
    mirror: list[_Index] | None = None
    eye_corners: Annotated[list[_Index], Field(min_length=2, max_length=2)] | None = None
    pupils: Annotated[list[list[_Index]], Field(min_length=2, max_length=2)] | None = None
    regions: dict[str, list[_Index]] = {}

    def scheme(self) -> LandmarkScheme:
        return LandmarkScheme(
            self.name,
            self.count,
            mirror=None if self.mirror is None else tuple(self.mirror),
            eye_corners=None if self.eye_corners is None else _pair(self.eye_corners),
            pupils=None if self.pupils is None else _pair([tuple(eye) for eye in self.pupils]),
            regions={name: tuple(points) for name, points in self.regions.items()},
        )


def _pair(items: Sequence[_Item]) -> tuple[_Item, _Item]:
    return items[0], items[1]


def _by_name(value: object) -> object:
    """Turns a scheme's name into what a table would have given."""
    if not isinstance(value, str):
        return value
    scheme = scheme_named(value)
    return _SchemeDocument.model_construct(
        **{f.name: getattr(scheme, f.name) for f in fields(scheme)}
    )


class _CropDocument(_Document):
    box: BoxSource
    margin: _Positive
    square: bool


class _ContractDocument(_Document):
    height: _Side
    width: _Side
    color: Color
    mean: list[_Finite]
    std: list[_Positive]
    crop: _CropDocument
    output: _Text
    order: CoordinateOrder
    unit: CoordinateUnit
    scheme: Annotated[_SchemeDocument, BeforeValidator(_by_name)]

    def contract(self) -> Contract:
        return Contract(
            height=self.height,
            width=self.width,
            color=self.color,
            mean=tuple(self.mean),
            std=tuple(self.std),
            crop=CropRule(self.crop.box, self.crop.margin, self.crop.square),
            output=self.output,
            order=self.order,
            unit=self.unit,
            scheme=self.scheme.scheme(),
        )


def load_contract(path: Path) -> Contract:
    """Returns the contract in a TOML file.

    Raises:
        InputError: The file cannot be read, or is no contract; names the file and the key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"the contract cannot be read: {error.strerror}",
            where=str(path),
            hint="name a contract file (TOML)",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"no TOML: {error}", where=str(path), hint="correct it") from error
    return contract_from_document(document, str(path))


def contract_from_json(text: str, where: str) -> Contract:
    """Returns the contract in a JSON text that comes from `where`.

    Raises:
        InputError: The text is no contract; names `where` and the key.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"no JSON: {error}", where=where, hint="give the contract with --contract FILE.toml"
        ) from error
    return contract_from_document(document, where)


def contract_to_json(contract: Contract) -> str:
    """Returns a contract as JSON, the same text for equal contracts.

    >>> from lmopt.detector.scheme import IBUG_68
    >>> rule = CropRule("landmarks", 1.25, True)
    >>> gray = Contract(9, 9, "gray", (0.0,), (255.0,), rule, "points", "xyxy", "unit", IBUG_68)
    >>> contract_from_json(contract_to_json(gray), "metadata") == gray
    True
    """
    return json.dumps(contract_to_document(contract), sort_keys=True, allow_nan=False)


def contract_to_toml(contract: Contract) -> str:
    """Returns a contract as the TOML that `load_contract` reads.

    >>> from lmopt.detector.scheme import IBUG_68
    >>> rule = CropRule("landmarks", 1.25, True)
    >>> gray = Contract(9, 9, "gray", (0.0,), (255.0,), rule, "points", "xyxy", "unit", IBUG_68)
    >>> contract_from_document(tomllib.loads(contract_to_toml(gray)), "text") == gray
    True
    """
    document = contract_to_document(contract)
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(document[key])}" for key in document if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {json.dumps(table[key])}" for key in table if key != "regions"]
        if regions := table.get("regions"):
            lines += ["", f"[{name}.regions]"]
            lines += [f"{json.dumps(key)} = {json.dumps(regions[key])}" for key in regions]
    return "\n".join(lines) + "\n"


def contract_to_document(contract: Contract) -> dict[str, object]:
    """Returns a contract as the tables and values of its document."""
    document = asdict(contract)
    scheme = contract.scheme
    if _is_known(scheme):
        document["scheme"] = scheme.name
    else:
        kept = {"regions": dict(scheme.regions)} if scheme.regions else {}
        for key in ("name", "count", "mirror", "eye_corners", "pupils"):
            if getattr(scheme, key) is not None:
                kept[key] = getattr(scheme, key)
        document["scheme"] = kept
    # Lists and floats throughout, so that equal contracts give equal documents.
    for key in ("mean", "std"):
        document[key] = [float(value) for value in document[key]]
    document["crop"]["margin"] = float(contract.crop.margin)
    return document


def contract_from_document(document: object, where: str) -> Contract:
    """Returns the contract in a parsed document that comes from `where`.

    Raises:
        InputError: It is no contract; names `where` and the key.
    """
    try:
        return _ContractDocument.model_validate(document).contract()
    except ValidationError as error:
        # A misspelt key is also a missing one: say the former.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        raise _complaint(problems[0], where) from error
    except InputError as error:
        hint = error.hint or "correct it in the contract"
        raise InputError(error.what, where=where, hint=hint) from error


def scheme_named(name: str) -> LandmarkScheme:
    """Returns a scheme by its name, `points-N` included.

    >>> scheme_named("ibug-68").count, scheme_named("points-5").count
    (68, 5)

    Raises:
        InputError: No such scheme.
    """
    if name in SCHEMES:
        return SCHEMES[name]
    if found := re.fullmatch(r"points-([1-9]\d*)", name):
        return LandmarkScheme(name, int(found[1]))
    raise InputError(
        f"unknown landmark scheme '{name}'",
        hint=f"there are {', '.join(SCHEMES)}, points-N (5: points-5) and a table [scheme]",
    )


def _is_known(scheme: LandmarkScheme) -> bool:
    try:
        return scheme_named(scheme.name) == scheme
    except InputError:
        return False


def _complaint(problem: ErrorDetails, where: str) -> InputError:
    path = [str(part) for part in problem["loc"]]
    key, got = ".".join(path), problem["input"]
    known = _keys_of(path[:-1])
    if problem["type"] == "extra_forbidden":
        return InputError(f"unknown key '{key}'", where=where, hint=_suggestion(path[-1], known))
    if problem["type"] == "missing":
        return InputError(f"no key '{key}'", where=where, hint=f"wanted here: {', '.join(known)}")
    wanted = problem["msg"].replace("Input should be", "wanted")
    wanted = re.sub(r"a valid dictionary or instance of \w+", "a table", wanted)
    place = f"'{key}'" if key else "the contract"
    return InputError(
        f"{place} is {got!r}: {wanted}", where=where, hint="correct it in the contract"
    )


def _keys_of(path: Sequence[str]) -> Sequence[str]:
    tables: Mapping[str, type[_Document]] = {"crop": _CropDocument, "scheme": _SchemeDocument}
    document = tables[path[0]] if path and path[0] in tables else _ContractDocument
    return list(document.model_fields)


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(known)}"
