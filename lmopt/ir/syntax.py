"""What IR text and pipeline text share: scanning, and dataclass fields as text."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from lmopt.errors import LmoptError, did_you_mean

Blame = Callable[[str, int, str | None], LmoptError]
"""Makes the error for a fault: what, position in the text, hint."""

_SPACE = re.compile(r"\s+")
_COMMENTED_SPACE = re.compile(r"(?:\s+|//[^\n]*)+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_BARE = re.compile(r'[^\s,(){}\[\]"=]+')
_INT = re.compile(r"[+-]?\d+")


class Scanner:
    """A position in a text; every fault becomes the error that `blame` makes."""

    def __init__(self, text: str, blame: Blame, *, comments: bool = False) -> None:
        self.text = text
        self.position = 0
        self._blame = blame
        self._blank = _COMMENTED_SPACE if comments else _SPACE

    def fail(self, what: str, *, at: int | None = None, hint: str | None = None) -> NoReturn:
        """Raises the error for a fault at `at`, or here."""
        raise self._blame(what, self.position if at is None else at, hint)

    def skip(self) -> int:
        """Skips blanks and returns the position."""
        if found := self._blank.match(self.text, self.position):
            self.position = found.end()
        return self.position

    @property
    def done(self) -> bool:
        """Returns whether only blanks are left."""
        return self.skip() == len(self.text)

    def sees(self, literal: str) -> bool:
        """Returns whether `literal` comes next; a word only where it ends."""
        end = self.skip() + len(literal)
        cut = literal[-1].isalnum() and self.text[end : end + 1].isalnum()
        return self.text.startswith(literal, self.position) and not cut

    def accept(self, literal: str) -> bool:
        """Returns whether `literal` came next, and steps over it."""
        if not self.sees(literal):
            return False
        self.position += len(literal)
        return True

    def expect(self, literal: str) -> None:
        """Steps over `literal`, which must come next."""
        if not self.accept(literal):
            self.fail(f"expected '{literal}', got {self.rest()}")

    def match(self, pattern: re.Pattern[str], wanted: str) -> str:
        """Returns the text that matches `pattern` next and steps over it."""
        found = pattern.match(self.text, self.skip())
        if found is None:
            self.fail(f"expected {wanted}, got {self.rest()}")
        self.position = found.end()
        return found.group()

    def word(self, pattern: re.Pattern[str], wanted: str) -> str:
        """Returns a name: what matches `pattern`, or any text in double quotes."""
        return self.quoted() if self.sees('"') else self.match(pattern, wanted)

    def quoted(self) -> str:
        """Returns the text of a double-quoted string."""
        start = self.skip()
        try:
            return str(json.loads(self.match(_QUOTED, "a closing quote")))
        except json.JSONDecodeError as error:
            self.fail(f"malformed string: {error.msg}", at=start)

    def rest(self) -> str:
        """Returns what comes next, shortened, for a message."""
        if self.done:
            return "the end"
        line = self.text[self.position :].splitlines()[0]
        return repr(line if len(line) <= 20 else line[:20] + "...")


@dataclass(frozen=True)
class Raw:
    """A value as written: a word, or several in parentheses."""

    content: str | tuple[Raw, ...]
    position: int
    quoted: bool = False


def scan_value(scanner: Scanner) -> Raw:
    """Returns the value that comes next: a word, a quoted string or `(value, ...)`."""
    start = scanner.skip()
    if scanner.sees('"'):
        return Raw(scanner.quoted(), start, quoted=True)
    if not scanner.accept("("):
        return Raw(scanner.match(_BARE, "a value"), start)
    items: list[Raw] = []
    while not scanner.accept(")"):
        if items:
            scanner.expect(",")
        items.append(scan_value(scanner))
    return Raw(tuple(items), start)


def scan_fields(scanner: Scanner, close: str) -> dict[str, tuple[Raw, int]]:
    """Returns `key=value, ...` up to `close`: key to value and the key's position."""
    fields: dict[str, tuple[Raw, int]] = {}
    if scanner.accept(close):
        return fields
    while True:
        start = scanner.skip()
        key = scanner.match(re.compile(r"[A-Za-z][\w-]*"), "a name")
        if key in fields:
            scanner.fail(f"'{key}' is given twice", at=start)
        scanner.expect("=")
        fields[key] = (scan_value(scanner), start)
        if scanner.accept(close):
            return fields
        comma = scanner.skip()
        if not scanner.accept(","):
            scanner.fail(f"expected ',' or '{close}', got {scanner.rest()}")
        if scanner.sees(close):
            scanner.fail("a trailing comma", at=comma)


@cache
def field_types(cls: type[Any]) -> Mapping[str, Any]:
    """Returns the annotations of a dataclass' fields, resolved."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def field_texts(instance: Any) -> dict[str, str]:
    """Returns name and text of each field that differs from its default."""
    texts: dict[str, str] = {}
    hints = field_types(instance.__class__)
    for item in dataclasses.fields(instance):
        value = getattr(instance, item.name)
        if item.default is dataclasses.MISSING or value != item.default:
            texts[item.name] = format_value(value, hints[item.name])
    return texts


def build(
    cls: type,
    given: Mapping[str, tuple[Raw, int]],
    scanner: Scanner,
    label: str,
    at: int,
    spell: Callable[[str], str] = str,
) -> Any:
    """Returns an instance of a dataclass from its fields as written.

    Args:
        cls: The dataclass.
        given: Field as spelled to value and position.
        scanner: Where faults are reported.
        label: What the messages call the thing.
        at: Position of the thing itself.
        spell: How a field's name is spelled in the text.
    """
    hints = {spell(name): hint for name, hint in field_types(cls).items()}
    names = {spell(name): name for name in field_types(cls)}
    values: dict[str, object] = {}
    for key, (raw, position) in given.items():
        if key not in hints:
            known = ", ".join(hints) or "none"
            scanner.fail(
                f"{label} has no option '{key}' (it has: {known})",
                at=position,
                hint=did_you_mean(key, hints),
            )
        values[names[key]] = _bind(raw, hints[key], scanner, f"{label}: {key}")
    for item in dataclasses.fields(cls):
        required = item.default is item.default_factory is dataclasses.MISSING
        if required and item.name not in values:
            scanner.fail(f"{label} needs '{spell(item.name)}'", at=at)
    return cls(**values)


def format_value(value: Any, annotation: Any) -> str:
    """Returns the text of a field's value; `scan_value` and the annotation read it back."""
    annotation = _unwrap(annotation)
    if value is None:
        return "none"
    if get_origin(annotation) is tuple:
        items = tuple(value)
        if _is_pair(annotation) and items[0] == items[1]:
            return format_value(items[0], get_args(annotation)[0])
        kinds = _item_types(annotation, len(items))
        return f"({','.join(format_value(v, k) for v, k in zip(items, kinds, strict=True))})"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    if annotation is float:
        return repr(float(value) + 0.0)  # no -0.0: it equals 0.0
    if isinstance(value, str) and get_origin(annotation) is not Literal:
        plain = _BARE.fullmatch(value) and value != "none" and "//" not in value
        return value if plain else json.dumps(value)
    return str(value)


def type_text(annotation: Any) -> str:
    """Returns how a listing names the values a field takes."""
    if get_origin(annotation) is Literal:
        return "|".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return "|".join(type_text(part) for part in get_args(annotation))
    if annotation is type(None):
        return "none"
    if get_origin(annotation) is tuple:
        parts = ["..." if part is ... else type_text(part) for part in get_args(annotation)]
        return f"({','.join(parts)})"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(member.value) for member in annotation)
    return str(annotation.__name__)


def _bind(raw: Raw, annotation: Any, scanner: Scanner, label: str) -> object:
    if raw.content == "none" and not raw.quoted and _is_optional(annotation):
        return None
    annotation = _unwrap(annotation)
    if get_origin(annotation) is tuple:
        items = raw.content if isinstance(raw.content, tuple) else (raw,)
        if not isinstance(raw.content, tuple) and _is_pair(annotation):
            items = (raw, raw)
        kinds = _item_types(annotation, len(items))
        if len(kinds) != len(items):
            scanner.fail(f"{label} wants {len(kinds)} values, got {len(items)}", at=raw.position)
        pairs = zip(items, kinds, strict=True)
        return tuple(_bind(item, kind, scanner, label) for item, kind in pairs)
    if isinstance(raw.content, tuple):
        scanner.fail(f"{label} wants {type_text(annotation)}, got a tuple", at=raw.position)
    try:
        return _atom(raw.content, annotation)
    except ValueError:
        choices = type_text(annotation).split("|")
        scanner.fail(
            f"{label} wants {type_text(annotation)}, got '{raw.content}'",
            at=raw.position,
            hint=did_you_mean(raw.content, choices) if len(choices) > 1 else None,
        )


def _atom(text: str, annotation: Any) -> object:
    if get_origin(annotation) is Literal:
        return {str(choice): choice for choice in get_args(annotation)}[_known(text, annotation)]
    if annotation is bool:
        return {"true": True, "false": False}[_known(text, Literal["true", "false"])]
    if annotation is int:
        if not _INT.fullmatch(text):
            raise ValueError(text)
        return int(text)
    if annotation is float:
        number = float(text)
        if math.isnan(number):
            raise ValueError(text)
        return number
    if annotation is str:
        return text
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return annotation(text)
    raise TypeError(f"no text form for a field of type {annotation}")


def _known(text: str, annotation: Any) -> str:
    if text not in map(str, get_args(annotation)):
        raise ValueError(text)
    return text


def _is_optional(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def _unwrap(annotation: Any) -> Any:
    if not _is_optional(annotation):
        return annotation
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if len(parts) != 1:
        raise TypeError(f"no text form for a field of type {annotation}")
    return parts[0]


def _is_pair(annotation: Any) -> bool:
    args = get_args(annotation)
    return len(args) == 2 and args[0] == args[1]


def _item_types(annotation: Any, count: int) -> tuple[Any, ...]:
    args = get_args(annotation)
    return (args[0],) * count if len(args) == 2 and args[1] is ... else args
