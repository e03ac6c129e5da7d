"""The text of pipelines: `scale-width{factor=0.5},finetune{epochs=2},to-float16`.

Items stand between commas; options stand in braces, in kebab-case. Whitespace is free. A value is
a word, a number (`1e-3` too), `true`, `false`, a text in double quotes, or several in parentheses:
`insert-pool{after=(conv1,conv2)}`. An empty text is the pipeline that does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from lmopt.errors import LmoptError, UsageError
from lmopt.ir.syntax import Blame, Raw, Scanner, build, field_texts, scan_fields
from lmopt.pipeline.base import Pass

_NAME = re.compile(r"[A-Za-z][\w-]*")


@dataclass(frozen=True)
class PassSpec:
    """One item of a pipeline as written.

    Attributes:
        name: The pass.
        options: Option to value and position.
        span: First and last position (exclusive) in the pipeline's text.
    """

    name: str
    options: Mapping[str, tuple[Raw, int]]
    span: tuple[int, int]


def parse_pipeline(text: str) -> tuple[PassSpec, ...]:
    """Returns the items of a pipeline, not yet looked up.

    Raises:
        UsageError: Bad syntax, with its position and a caret under it.
    """
    scan = Scanner(text, blame_for(text))
    specs: list[PassSpec] = []
    while not (scan.done and not specs):
        if scan.sees(","):
            scan.fail("an empty item: two commas, or one before the first pass")
        if scan.done:
            scan.fail("a trailing comma", at=text.rindex(","))
        start = scan.skip()
        name = scan.match(_NAME, "the name of a pass")
        end, options = scan.position, {}
        if scan.accept("{"):
            options = scan_fields(scan, "}")
            end = scan.position
        specs.append(PassSpec(name, options, (start, end)))
        if scan.done:
            break
        if not scan.accept(","):
            scan.fail(f"expected ',' between passes, got {scan.rest()}")
    return tuple(specs)


def bind(spec: PassSpec, cls: type[Pass], text: str) -> Pass:
    """Returns the pass that an item of the pipeline `text` describes.

    Raises:
        UsageError: An unknown option, or a value that does not fit.
    """
    blame = blame_for(text)
    try:
        made = build(
            cls, spec.options, Scanner(text, blame), spec.name, spec.span[0], spell=kebab_case
        )
    except LmoptError as error:
        if error.where is not None:
            raise
        hint = error.hint or "options: lmopt passes"
        raise blame(f"{spec.name}: {error.what}", spec.span[0], hint) from error
    return cast(Pass, made)


def print_pass(item: Pass) -> str:
    """Returns the text of a pass; options at their default are left out."""
    options = ",".join(f"{kebab_case(key)}={text}" for key, text in field_texts(item).items())
    return f"{item.name}{{{options}}}" if options else item.name


def kebab_case(name: str) -> str:
    """Returns a field's name as pipelines spell it."""
    return name.replace("_", "-")


def blame_for(text: str) -> Blame:
    """Returns what makes errors in a pipeline's text: place, caret line, hint."""

    def blame(what: str, position: int, hint: str | None) -> LmoptError:
        line = text.count("\n", 0, position)
        column = position - (text.rfind("\n", 0, position) + 1)
        shown = text.split("\n")[line].replace("\t", " ")
        return UsageError(
            f"{what}\n  {shown}\n  {' ' * column}^",
            where=f"pipeline:{line + 1}:{column + 1}",
            hint=hint,
        )

    return blame
