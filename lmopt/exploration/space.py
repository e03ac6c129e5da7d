"""Search spaces: pipelines with open choices, and the small TOML in which a user writes them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import TypeAdapter, ValidationError

from lmopt.errors import InputError, LmoptError, UsageError, did_you_mean
from lmopt.pipeline.base import Need
from lmopt.pipeline.manager import Pipeline

PRINTED = "lmopt search --show-space prints a space to begin with"
_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_RANGE = re.compile(
    rf"(?P<key>[\w-]+)=(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})(?::(?P<step>{_NUMBER}))?"
)


class Suggest(Protocol):
    """Chooses; an Optuna trial is one."""

    def suggest_categorical(self, name: str, choices: Sequence[str], /) -> str:
        """Returns one of the choices."""
        ...

    def suggest_float(self, name: str, low: float, high: float, /, *, step: float) -> float:
        """Returns `low`, or any whole number of steps more, up to `high`."""
        ...


@dataclass(frozen=True)
class Range:
    """An open number in a pipeline's text: `amount=0.1..0.9:0.05`.

    Attributes:
        key: The option.
        low, high, step: The numbers it may be; whole ones step by 1 where no step is written.
        span: Where it stands in the text.
    """

    key: str
    low: float
    high: float
    step: float
    span: tuple[int, int]

    @property
    def middle(self) -> float:
        """Returns the number in the middle of the grid."""
        return self.low + self.step * (round((self.high - self.low) / self.step) // 2)


@dataclass(frozen=True)
class Sketch:
    """A pipeline without its training: passes before the recovery and after it, as text."""

    before: str
    after: str

    def __str__(self) -> str:
        return _joined([self.before, self.after]) or "as it is"


@dataclass(frozen=True)
class SearchSpace:
    """What a search may try.

    A stage is a list of alternative texts, of which one is taken; an empty one does nothing. In a
    text, `option=LOW..HIGH:STEP` leaves a number open. Stages stand in the pipeline in their order.

    Attributes:
        before: Stages that change the float graph, which then is trained again.
        after: Stages behind the recovery: storage forms.
        begin: Passes that every pipeline begins with.
        recovery: The training pass, without epochs.
        epochs: Of the recovery at every fidelity, each continuing where the one before ended.
        further: Passes that make a trained candidate smaller, for descendants that inherit its
            weights; empty for none.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "strict": True}
    before: tuple[tuple[str, ...], ...]
    after: tuple[tuple[str, ...], ...] = ()
    begin: str = "fold-batchnorm"
    recovery: str = "finetune"
    epochs: tuple[float, ...] = (1.0, 3.0, 12.0, 36.0, 108.0, 324.0)
    further: str = ""

    def __post_init__(self) -> None:
        if not self.epochs or min(self.epochs) <= 0:
            raise UsageError(f"epochs are {list(self.epochs)}; wanted one or more above 0")
        for place, stage in enumerate(self.stages, start=1):
            if not stage:
                raise UsageError(f"stage {place} has no alternatives; an empty text is one")
            for text in stage:
                _check(text, place)
        Pipeline.parse(_joined([self.begin, self.further]))
        for pipeline in self._recovery(len(self.epochs)):
            if not any(Need.TRAINER in item.required() for item in Pipeline.parse(pipeline).passes):
                raise UsageError(f"recovery is '{self.recovery}', which trains nothing")

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """Returns all stages in the order of the pipeline."""
        return (*self.before, *self.after)

    @property
    def size(self) -> int:
        """Returns how many different sketches there are."""
        total = 1
        for stage in self.stages:
            total *= sum(_count(text) for text in stage)
        return total

    def draw(self, suggest: Suggest) -> Sketch:
        """Returns the sketch that `suggest` chooses."""
        texts = []
        for place, stage in enumerate(self.stages, start=1):
            text = stage[0]
            if len(stage) > 1:
                text = suggest.suggest_categorical(_stage_name(place), stage)
            numbers = [
                suggest.suggest_float(name, found.low, found.high, step=found.step)
                for name, found in _named_ranges(place, text)
            ]
            texts.append(_filled(text, numbers))
        split = len(self.before)
        return Sketch(_joined(texts[:split]), _joined(texts[split:]))

    def design(self) -> tuple[dict[str, Any], ...]:
        """Returns the parameters of sketches that vary one stage at a time, for a start.

        Each alternative is taken once with its numbers in the middle and every other stage at its
        first alternative. What changes nothing at all is left out.
        """
        firsts = {
            _stage_name(place): stage[0]
            for place, stage in enumerate(self.stages, start=1)
            if len(stage) > 1
        }
        choices = {
            place: stage
            for place, stage in enumerate(self.stages, start=1)
            if len(stage) > 1 or ranges(stage[0])
        }
        found: list[dict[str, Any]] = []
        for place, stage in enumerate(self.stages, start=1):
            for text in stage:
                chosen: dict[str, Any] = {
                    **firsts,
                    **({_stage_name(place): text} if len(stage) > 1 else {}),
                }
                for other, alternatives in enumerate(self.stages, start=1):
                    taken = chosen.get(_stage_name(other), alternatives[0])
                    chosen.update({n: r.middle for n, r in _named_ranges(other, taken)})
                texts = {chosen.get(_stage_name(k), texts[0]) for k, texts in choices.items()}
                if chosen not in found and texts != {""}:
                    found.append(chosen)
        return tuple(found)

    def pipeline(self, sketch: Sketch, fidelity: int) -> Pipeline:
        """Returns a sketch's pipeline; fidelity 0 trains nothing, 1 the first epochs, and so on."""
        trained = self._recovery(fidelity)
        return Pipeline.parse(_joined([self.begin, sketch.before, *trained, sketch.after]))

    def descendant(self, sketch: Sketch, fidelity: int) -> Sketch:
        """Returns a sketch that goes on from what another one is after a fidelity."""
        trained = self._recovery(fidelity)
        return Sketch(_joined([sketch.before, *trained, self.further]), sketch.after)

    def twins(self, sketch: Sketch) -> tuple[Sketch, ...]:
        """Returns the sketches that a sketch's training serves as well: other stages behind it.

        Those with open numbers are for `draw`.
        """
        fixed = [[text for text in stage if not ranges(text)] for stage in self.after]
        texts = [_joined(chosen) for chosen in product(*fixed)]
        return tuple(Sketch(sketch.before, text) for text in texts if text != sketch.after)

    def _recovery(self, fidelity: int) -> list[str]:
        name, brace, options = self.recovery.partition("{")
        rest = f",{options}" if brace else "}"
        return [f"{name}{{epochs={epochs:g}{rest}" for epochs in self.epochs[:fidelity]]

    def to_toml(self) -> str:
        """Returns the text that `load_space` reads as this space."""

        def stages(name: str, value: tuple[tuple[str, ...], ...]) -> Iterator[str]:
            yield f"{name} = ["
            yield from (f"  {json.dumps(list(stage))}," for stage in value)
            yield "]"

        return "\n".join(
            (
                "# One text of every stage is taken; LOW..HIGH:STEP leaves a number open.",
                f"begin = {json.dumps(self.begin)}",
                *stages("before", self.before),
                f"recovery = {json.dumps(self.recovery)}",
                f"epochs = {json.dumps(list(self.epochs))}"
                "  # of each fidelity, one continuing the other",
                f"further = {json.dumps(self.further)}  # descendants of trained ones",
                *stages("after", self.after),
                "",
            )
        )


_READER = TypeAdapter(SearchSpace)


def load_space(path: Path) -> SearchSpace:
    """Returns the space in a TOML file.

    Raises:
        InputError: The file cannot be read, or is no space; names the file and what is wrong.
    """
    blame = partial(InputError, where=str(path))
    try:
        return parse_space(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise blame(f"the space cannot be read: {error.strerror}", hint=PRINTED) from error
    except UnicodeDecodeError as error:
        raise blame(f"no TOML: {error}", hint=PRINTED) from error


def parse_space(text: str, where: str) -> SearchSpace:
    """Returns the space that `SearchSpace.to_toml` wrote, or a user.

    Args:
        text: TOML.
        where: It comes from, for messages.

    Raises:
        InputError: The text is no space; names the place and what is wrong.
    """
    blame = partial(InputError, where=where)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise blame(f"no TOML: {error}", hint=PRINTED) from error
    keys = tuple(field.name for field in fields(SearchSpace))
    for key in document:
        if key not in keys:
            hint = did_you_mean(key, keys) or f"choose {', '.join(keys)}"
            raise blame(f"no '{key}' in a space", hint=hint)
    try:
        # As JSON, because strict reading takes lists for tuples only there.
        return _READER.validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise blame(
            f"'{key}' is {problem['input']!r}: {problem['msg']}",
            hint=PRINTED,
        ) from error
    except LmoptError as error:
        raise blame(error.what, hint=error.hint or PRINTED) from error


def ranges(text: str) -> tuple[Range, ...]:
    """Returns the open numbers of a stage's text.

    Raises:
        UsageError: A range that is empty, or a fraction without a step.
    """
    found = []
    for match in _RANGE.finditer(text):
        low, high, step = (match[name] for name in ("low", "high", "step"))
        whole = not any("." in number or "e" in number for number in (low, high))
        if step is None and not whole:
            raise UsageError(f"'{match[0]}' has no step; write {match[0]}:STEP")
        width = float(step) if step is not None else 1.0
        if width <= 0 or float(high) <= float(low):
            raise UsageError(f"'{match[0]}' holds no numbers; wanted LOW..HIGH:STEP, rising")
        span = (match.start("low"), match.end())
        found.append(Range(match["key"], float(low), float(high), width, span))
    return tuple(found)


def _check(text: str, place: int) -> None:
    """Raises UsageError unless a stage's text is a pipeline at both ends of its ranges."""
    for end in (lowest(text), _filled(text, [found.high for found in ranges(text)])):
        try:
            Pipeline.parse(end)
        except UsageError as error:
            raise UsageError(f"stage {place}, '{text}': {error.what}", hint=error.hint) from error


def lowest(text: str) -> str:
    """Returns a text with every open number at its lowest."""
    return _filled(text, [found.low for found in ranges(text)])


def _named_ranges(place: int, text: str) -> list[tuple[str, Range]]:
    return [
        (f"{_stage_name(place)}, {k}: {found.key} of {text}", found)
        for k, found in enumerate(ranges(text), start=1)
    ]


def _stage_name(place: int) -> str:
    return f"stage {place}"


def _filled(text: str, numbers: Sequence[float]) -> str:
    for found, number in reversed(list(zip(ranges(text), numbers, strict=True))):
        low, high = found.span
        text = f"{text[:low]}{number:.6g}{text[high:]}"
    return text


def _count(text: str) -> int:
    total = 1
    for found in ranges(text):
        total *= int((found.high - found.low) / found.step + 1e-9) + 1
    return total


def _joined(texts: Sequence[str]) -> str:
    return ",".join(text for text in texts if text)
