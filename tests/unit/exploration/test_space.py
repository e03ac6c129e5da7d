"""Search spaces: choices drawn from texts, files written and read back, mistakes named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmopt.errors import InputError, UsageError
from lmopt.exploration.space import SearchSpace, Sketch, load_space, ranges
from lmopt.pipeline.manager import Pipeline

SPACE = SearchSpace(
    before=(("", "drop-block{count=1..3}"), ("prune{amount=0.2..0.8:0.2}",)),
    after=(("", "quantize-int8"),),
    recovery="finetune{learning-rate=2e-3}",
    epochs=(0.5, 2.0),
)


class Chooser:
    """Takes what it is told, else the first choice and the highest number."""

    def __init__(self, **chosen: object) -> None:
        self.chosen, self.asked = chosen, {}

    def suggest_categorical(self, name, choices):
        self.asked[name] = tuple(choices)
        return self.chosen.get(name.replace(" ", "_"), choices[0])

    def suggest_float(self, name, low, high, *, step):
        self.asked[name] = (low, high, step)
        return high


class Drawn:
    """Draws with hypothesis."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def suggest_categorical(self, name, choices):
        return self.data.draw(st.sampled_from(choices))

    def suggest_float(self, name, low, high, *, step):
        return low + step * self.data.draw(st.integers(0, round((high - low) / step)))


def test_a_sketch_fills_open_numbers_and_leaves_empty_stages_out() -> None:
    assert SPACE.draw(Chooser()) == Sketch("prune{amount=0.8}", "")
    chosen = {"stage_1": "drop-block{count=1..3}", "stage_3": "quantize-int8"}
    sketch = SPACE.draw(Chooser(**chosen))
    assert sketch == Sketch("drop-block{count=3},prune{amount=0.8}", "quantize-int8")


def test_only_what_is_open_is_asked() -> None:
    chooser = Chooser()
    SPACE.draw(chooser)
    assert chooser.asked == {
        "stage 1": ("", "drop-block{count=1..3}"),
        "stage 2, 1: amount of prune{amount=0.2..0.8:0.2}": (0.2, 0.8, 0.2),
        "stage 3": ("", "quantize-int8"),
    }


def test_fidelities_continue_each_other_and_begin_alike() -> None:
    sketch = Sketch("prune{amount=0.4}", "quantize-int8")
    untrained, short, full = (str(SPACE.pipeline(sketch, k)) for k in range(3))
    tune = "finetune{epochs=%s,learning-rate=0.002}"
    assert untrained == "fold-batchnorm,prune{amount=0.4},quantize-int8"
    assert short == f"fold-batchnorm,prune{{amount=0.4}},{tune % '0.5'},quantize-int8"
    assert full.startswith(short.removesuffix("quantize-int8") + "finetune{learning-rate=0.002}")


def test_the_design_varies_one_stage_at_a_time() -> None:
    class Fixed(Chooser):
        def suggest_float(self, name, low, high, *, step):
            return self.parameters[name]

        def suggest_categorical(self, name, choices):
            return self.parameters[name]

    sketches = []
    for parameters in SPACE.design():
        chooser = Fixed()
        chooser.parameters = parameters
        sketches.append(str(SPACE.draw(chooser)))
    assert sketches == [
        "prune{amount=0.4}",
        "drop-block{count=2},prune{amount=0.4}",
        "prune{amount=0.4},quantize-int8",
    ]


def test_the_design_leaves_out_what_only_has_a_stage_without_a_choice() -> None:
    space = SearchSpace(before=(("", "drop-block"),), after=(("debias",), ("", "quantize-int8")))
    assert [list(found.values()) for found in space.design()] == [
        ["drop-block", ""],
        ["", "quantize-int8"],
    ]


def test_the_size_counts_every_sketch() -> None:
    assert SPACE.size == (1 + 3) * 4 * 2


@given(st.data())
def test_every_sketch_is_a_pipeline_at_every_fidelity(data: st.DataObject) -> None:
    sketch = SPACE.draw(Drawn(data))
    for fidelity in range(3):
        text = str(SPACE.pipeline(sketch, fidelity))
        assert text.count("finetune") == fidelity
        for number in ranges(SPACE.before[1][0]):
            assert number.low <= float(text.partition("amount=")[2].partition("}")[0]) <= 0.8


def test_a_written_space_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(SPACE.to_toml())
    assert load_space(path) == SPACE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('before = [["prune{amount=0.1..0.5}"]]', "no step"),
        ('before = [["prune{amount=0.5..0.1:0.1}"]]', "holds no numbers"),
        ('before = [["prone{amount=0.5}"]]', "unknown pass 'prone'"),
        (
            'before = [["prune{amount=0.5..1.5:0.5}"]]',
            r"(?s)stage 1, 'prune\{amount=0.5..1.5:0.5\}': .* below 1.*options: lmopt passes",
        ),
        ("before = [[]]", "stage 1 has no alternatives"),
        ('before = [[""]]\nepochs = []', "epochs"),
        ('before = [[""]]\nrecovery = "prune"', "trains nothing"),
        ('before = [[""]]\nafterwards = []', r"no 'afterwards' (?s:.*) mean 'after'"),
        ('before = "prune"', "'before' is 'prune'"),
        ("before = [", "no TOML"),
    ],
)
def test_a_mistake_in_a_space_is_named_with_its_file(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises((InputError, UsageError), match=message) as caught:
        load_space(path)
    assert caught.value.hint
    assert caught.value.where is not None
    assert str(path) in caught.value.where


def test_a_descendant_goes_on_from_what_its_parent_was() -> None:
    space = SearchSpace(
        before=(("prune{amount=0.5}",),),
        after=(("quantize-int8",),),
        recovery="finetune{distill=0.5}",
        epochs=(1.0, 3.0),
        further="prune{amount=0.3}",
    )
    parent = Sketch("prune{amount=0.5}", "quantize-int8")
    child = space.descendant(parent, 1)
    wanted = (
        "fold-batchnorm,prune{amount=0.5},finetune{epochs=1,distill=0.5},prune{amount=0.3},"
        "finetune{epochs=1,distill=0.5},quantize-int8"
    )
    assert space.pipeline(child, 1) == Pipeline.parse(wanted)
    before = str(space.pipeline(parent, 1)).removesuffix(",quantize-int8")
    assert str(space.pipeline(child, 0)).startswith(before)


def test_twins_share_the_training_and_have_no_open_numbers() -> None:
    space = SearchSpace(
        before=(("", "prune{amount=0.5}"),),
        after=(("debias",), ("", "quantize-int8", "quantize-int8{faces=10..20:10}")),
    )
    one = Sketch("prune{amount=0.5}", "debias")
    twin = Sketch("prune{amount=0.5}", "debias,quantize-int8")
    assert space.twins(one) == (twin,) and space.twins(twin) == (one,)
    assert space.twins(Sketch("", "other")) == (Sketch("", "debias"), Sketch("", twin.after))
