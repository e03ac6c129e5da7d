"""The catalog of installed passes: lazy, owned, explained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from lmopt.errors import PassError, UsageError
from lmopt.pipeline.catalog import Catalog, installed
from lmopt.pipeline.manager import Pipeline


@dataclass(frozen=True)
class Dist:
    name: str


@dataclass(frozen=True)
class Point:
    """What the catalog reads of an entry point."""

    dist: Dist
    value: str
    passes: Mapping[str, str]

    def load(self) -> Mapping[str, str]:
        return self.passes


def test_a_pass_is_found_and_loaded():
    cls = installed().load("fold-batchnorm")
    assert cls.name == "fold-batchnorm"
    assert "lmopt" in installed().owners["fold-batchnorm"]


def test_listing_imports_no_pass():
    code = (
        "import sys; from lmopt.pipeline.catalog import installed; assert installed().targets; "
        "print(*(m for m in sys.modules if m.startswith(('lmopt_passes.', 'tensorflow'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_an_unknown_pass_is_placed_in_the_pipeline():
    with pytest.raises(UsageError) as caught:
        Pipeline.parse("to-float16, quantise-uint8")
    assert str(caught.value).splitlines() == [
        "pipeline:1:13: unknown pass 'quantise-uint8'",
        "  to-float16, quantise-uint8",
        "              ^",
        "hint: did you mean 'quantize-uint8'? list: lmopt passes",
    ]
    with pytest.raises(UsageError, match="unknown pass 'xyz'\n") as caught:
        Pipeline.parse("xyz")
    assert caught.value.hint == "list: lmopt passes"


def test_an_empty_catalog_says_how_to_install():
    with pytest.raises(UsageError, match="pip install"):
        Catalog.of([]).load("fold-batchnorm")


def test_two_owners_of_a_name_are_both_named():
    points = [
        Point(Dist("lmopt"), "a:CATALOG", {"prune": "a.prune:Prune"}),
        Point(Dist("other"), "b:CATALOG", {"prune": "b.prune:Prune"}),
    ]
    with pytest.raises(UsageError, match=r"'prune': lmopt \(a:CATALOG\) and other \(b:CATALOG\)"):
        Catalog.of(points)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:Prune", "No module named 'no_such_module'"),
        ("json:Prune", "has no attribute 'Prune'"),
        ("json:JSONDecoder", "is not a Pass named 'broken'"),
        ("lmopt_passes.to_float16:ToFloat16", "is not a Pass named 'broken'"),
    ],
)
def test_a_broken_entry_names_its_owner(target: str, message: str):
    catalog = Catalog.of([Point(Dist("other"), "b:CATALOG", {"broken": target})])
    with pytest.raises(PassError, match="pass 'broken' of other") as caught:
        catalog.load("broken")
    assert message in str(caught.value)


def test_descriptions_hold_options_with_types_and_defaults():
    info = installed().describe("quantize-int8")
    assert info.needs == ("calibrator",)
    observer = next(option for option in info.options if option.name == "observer")
    assert observer.type == "min-max|percentile|mse|kl"
    assert observer.default in observer.type.split("|")
    assert observer.summary.startswith("How an activation's range is chosen")
    assert [d.name for d in installed().descriptions()] == sorted(installed().targets)
