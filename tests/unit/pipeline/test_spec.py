"""Pipeline text: syntax, options by annotation, faults with a caret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmopt.errors import UsageError
from lmopt.ir import DType, Graph
from lmopt.pipeline.base import Pass, PassContext, PassResult
from lmopt.pipeline.spec import bind, parse_pipeline, print_pass


@dataclass(frozen=True)
class Sample(Pass):
    """A pass with every kind of option."""

    name: ClassVar[str] = "sample"
    count: int = 1
    learning_rate: float = 0.5
    flag: bool = False
    title: str = "plain"
    mode: Literal["fast", "slow", "none"] = "fast"
    names: tuple[str, ...] = ()
    window: tuple[int, int] = (2, 2)
    limit: float | None = None
    storage: DType = DType.F32

    def __post_init__(self) -> None:
        if self.count < 0:
            raise UsageError(f"count is {self.count}, wanted at least 0")

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        return PassResult(graph, False)


@dataclass(frozen=True)
class Strict(Pass):
    """A pass with an option that must be given."""

    name: ClassVar[str] = "strict"
    must: int

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        return PassResult(graph, False)


def read(text: str, cls: type[Pass] = Sample) -> Pass:
    (spec,) = parse_pipeline(text)
    return bind(spec, cls, text)


def test_items_spans_and_free_whitespace():
    text = " scale-width { factor = 0.5 } ,\n finetune{epochs=2},to-float16 "
    specs = parse_pipeline(text)
    assert [spec.name for spec in specs] == ["scale-width", "finetune", "to-float16"]
    assert [text[slice(*spec.span)] for spec in specs] == [
        "scale-width { factor = 0.5 }",
        "finetune{epochs=2}",
        "to-float16",
    ]


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_text_is_the_empty_pipeline(text: str):
    assert parse_pipeline(text) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sample", Sample()),
        ("sample{}", Sample()),
        ("sample{learning-rate=1e-3}", Sample(learning_rate=0.001)),
        ("sample{learning-rate=2}", Sample(learning_rate=2.0)),
        ("sample{count=-0}", Sample(count=0)),
        ("sample{flag=true}", Sample(flag=True)),
        ("sample{title=block/conv_1:0}", Sample(title="block/conv_1:0")),
        ('sample{title="a, {b} \\"c\\""}', Sample(title='a, {b} "c"')),
        ("sample{mode=none}", Sample(mode="none")),
        ("sample{names=(a, b)}", Sample(names=("a", "b"))),
        ("sample{names=a}", Sample(names=("a",))),
        ("sample{names=()}", Sample()),
        ("sample{window=3}", Sample(window=(3, 3))),
        ("sample{window=(3,1)}", Sample(window=(3, 1))),
        ("sample{limit=0.1}", Sample(limit=0.1)),
        ("sample{limit=none}", Sample()),
        ("sample{storage=i8}", Sample(storage=DType.I8)),
    ],
)
def test_values_follow_the_annotation(text: str, expected: Sample):
    found = read(text)
    assert found == expected
    for name, value in vars(expected).items():
        assert type(getattr(found, name)) is type(value)


@settings(max_examples=150, deadline=None)
@given(
    st.builds(
        Sample,
        count=st.integers(0, 10**12),
        learning_rate=st.floats(allow_nan=False),
        flag=st.booleans(),
        title=st.text(),
        mode=st.sampled_from(["fast", "slow", "none"]),
        names=st.lists(st.text(max_size=4), max_size=3).map(tuple),
        window=st.tuples(st.integers(), st.integers()),
        limit=st.none() | st.floats(allow_nan=False),
        storage=st.sampled_from(DType),
    )
)
def test_print_and_parse_are_inverse(item: Sample):
    assert read(print_pass(item)) == item


def test_printing_leaves_defaults_out():
    assert print_pass(Sample()) == "sample"
    changed = Sample(learning_rate=1e-3, names=("a",), window=(3, 3))
    assert print_pass(changed) == "sample{learning-rate=0.001,names=(a),window=3}"


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("sample,", "1:7", "a trailing comma", None),
        (",", "1:1", "an empty item", None),
        ("sample,,sample", "1:8", "an empty item", None),
        ("sample sample", "1:8", "expected ',' between passes, got 'sample'", None),
        ("sample{count=1", "1:15", "got the end", None),
        ("sample{count=1,}", "1:15", "a trailing comma", None),
        ("sample{,count=1}", "1:8", "expected a name", None),
        ("sample{count=}", "1:14", "expected a value", None),
        ("sample{count 1}", "1:14", "expected '='", None),
        ("sample{count=1,count=1}", "1:16", "'count' is given twice", None),
        ("sample}", "1:7", "expected ','", None),
        ("3", "1:1", "expected the name of a pass", None),
        ('sample{title="open}', "1:14", "expected a closing quote", None),
        ("sample{learning_rate=1}", "1:8", "no option 'learning_rate'", "'learning-rate'"),
        ("sample{cuont=1}", "1:8", "no option 'cuont'", "'count'"),
        ("sample{count=1.5}", "1:14", "count wants int, got '1.5'", None),
        ("sample{count=true}", "1:14", "count wants int, got 'true'", None),
        ("sample{learning-rate=fast}", "1:22", "learning-rate wants float", None),
        ("sample{learning-rate=nan}", "1:22", "learning-rate wants float", None),
        ("sample{flag=1}", "1:13", "flag wants bool, got '1'", None),
        ("sample{mode=fats}", "1:13", "mode wants fast|slow|none, got 'fats'", "'fast'"),
        ("sample{mode=(fast)}", "1:13", "got a tuple", None),
        ("sample{window=(1,2,3)}", "1:15", "window wants 2 values, got 3", None),
        ("sample{window=(1,x)}", "1:18", "window wants int, got 'x'", None),
        ("sample{storage=f8}", "1:16", "storage wants f32|f16", None),
        ("\n sample{count=x}", "2:15", "count wants int", None),
        ("sample{count=-1}", "1:1", "sample: count is -1, wanted at least 0", None),
    ],
)
def test_faults_are_placed(text: str, place: str, message: str, hint: str | None):
    with pytest.raises(UsageError) as caught:
        read(text)
    assert caught.value.where == f"pipeline:{place}"
    assert message in caught.value.what
    assert (caught.value.hint or "").endswith(f"{hint}?" if hint else "")
    line, caret = caught.value.what.splitlines()[-2:]
    row, column = map(int, place.split(":"))
    assert line == f"  {text.splitlines()[row - 1]}"
    assert caret == " " * (column + 1) + "^"


def test_a_required_option():
    assert read("strict{must=3}", Strict) == Strict(3)
    assert print_pass(Strict(3)) == "strict{must=3}"
    with pytest.raises(UsageError, match="strict needs 'must'"):
        read("strict", Strict)
