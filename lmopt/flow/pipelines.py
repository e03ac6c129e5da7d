"""Pipelines as a target or a user wants them: other epochs, other ends, a storage form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lmopt.pipeline.base import Need, Pass
from lmopt.pipeline.manager import Pipeline
from lmopt.target.legality import require_legal_form
from lmopt.target.profile import EndType, StorageForm, Target

BASELINE = "fold-batchnorm"
"""Gives the float file that everything is compared with."""
_ENDINGS: Mapping[StorageForm, str] = {
    "float32": "",
    "float16": ",to-float16",
    "int8": ",quantize-int8",
    "uint8": ",quantize-uint8",
    "int16x8": ",quantize-int16",
}


def of_form(form: StorageForm) -> Pipeline:
    """Returns the pipeline that puts a detector into a form and changes nothing else."""
    return Pipeline.parse(BASELINE + _ENDINGS[form])


def require_legal_end(pipeline: Pipeline, target: Target) -> None:
    """Raises BackendError where a pipeline ends in a form that its target does not take.

    It is told before any work; what else a target refuses shows in the finished graph.
    """
    endings = {text.lstrip(","): form for form, text in _ENDINGS.items() if text}
    for number, item in enumerate(pipeline.passes, start=1):
        form = endings.get(item.name)
        if Need.TRAINER in item.required() and "storage" in _options(item):
            form = getattr(item, "storage")  # noqa: B009 - an option
        if form is not None:
            require_legal_form(form, target, f"pass {number} ({item.name})")


def scaled(pipeline: Pipeline, effort: float) -> Pipeline:
    """Returns the pipeline with the epochs of every training pass multiplied by `effort`."""

    def factor(item: Pass) -> dict[str, Any]:
        if Need.TRAINER not in item.required() or "epochs" not in _options(item):
            return {}
        return {"epochs": getattr(item, "epochs") * effort}  # noqa: B009 - an option

    return Pipeline(tuple(replace(item, **factor(item)) for item in pipeline.passes))


def with_ends(pipeline: Pipeline, input: EndType | None, output: EndType | None) -> Pipeline:
    """Returns the pipeline with other ends of its quantizing passes; None keeps an end."""
    wanted = {key: v for key, v in (("input", input), ("output", output)) if v is not None}
    return Pipeline(
        tuple(
            replace(item, **wanted) if wanted.keys() <= _options(item) else item
            for item in pipeline.passes
        )
    )


def has_ends(pipeline: Pipeline) -> bool:
    """Returns whether a pass of the pipeline lets one choose inputs and outputs."""
    return any({"input", "output"} <= _options(item) for item in pipeline.passes)


def _options(item: Pass) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(item))
