"""Target files: the strict schema, and every target that lmopt ships."""

import pytest

from lmopt.errors import InputError, UsageError
from lmopt.pipeline.manager import Pipeline
from lmopt.target.catalog import installed, load_target
from lmopt.target.profile import FORMS
from lmopt.target.schema import read_target

SHIPPED = (
    "desktop-cpu",
    "desktop-cuda",
    "host",
    "htc10-cpu",
    "p30-cpu",
    "p30-gpu",
    "velvet-apu",
    "velvet-cpu",
    "velvet-gpu",
)
GOOD = """
title = "A board"
engine = "npu"
storage = ["u8"]
supported_ops = ["conv2d"]
pipelines = ["fold-batchnorm,quantize-uint8"]
[quantities]
peak_u8 = { value = 100.0, unit = "GMAC/s", kind = "guess", source = "box" }
conv_share = { value = 0.5, unit = "1", kind = "guess", source = "none" }
depthwise_share = { value = 0.1, unit = "1", kind = "guess", source = "none" }
bandwidth = { value = 10.0, unit = "GB/s", kind = "guess", source = "none" }
kernel_overhead = { value = 10.0, unit = "us", kind = "guess", source = "none" }
invoke_overhead = { value = 10.0, unit = "us", kind = "guess", source = "none" }
error = { value = 0.5, unit = "1", kind = "guess", source = "none" }
"""


def test_every_target_of_the_studies_is_installed():
    assert tuple(sorted(installed())) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_target_is_whole(name):
    target = load_target(name)
    assert target.name == name
    assert target.fallback is None or target.fallback in SHIPPED
    assert all(q.source and q.unit for q in target.quantities.values())
    assert (name == "host") == (not target.quantities)
    pipelines = [Pipeline.parse(text) for text in target.pipelines]
    assert len(set(pipelines)) == len(target.pipelines) >= 5
    ends = {pipeline.passes[-1].name for pipeline in pipelines}
    wanted = {"npu": "quantize-uint8", "cpu": "quantize-int8", "gpu": "to-float16"}
    assert wanted.get(target.engine, "to-float16") in ends


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_target_says_what_may_ship_there_and_why(name):
    target = load_target(name)
    assert target.runtime is not None and target.runtime.version and target.runtime.source
    assert set(target.forms) == set(FORMS)
    assert all(rule.reason and rule.source for rule in target.forms.values())
    assert target.forms[target.preferred].legal
    assert (target.runtime.format == "savedmodel") == (name == "desktop-cuda")
    wanted = {"velvet-apu": "uint8", "velvet-cpu": "int8", "p30-cpu": "int8"}
    wanted |= dict.fromkeys(("velvet-gpu", "p30-gpu", "desktop-cuda"), "float16")
    assert wanted.get(name, "float32") == target.preferred
    last = {Pipeline.parse(text).passes[-1] for text in target.pipelines}
    stored = {"quantize-int8": "int8", "quantize-uint8": "uint8", "to-float16": "float16"}
    forms = {getattr(p, "storage", stored.get(p.name, "float32")) for p in last}
    assert all(target.rule(form).legal for form in forms) and target.preferred in forms


def test_a_profile_without_rules_decides_by_its_storage():
    target = read_target(GOOD, "board", "board.toml")
    assert target.runtime is None and target.preferred == "uint8"
    legal = {form: target.rule(form).legal for form in FORMS}
    assert {form for form in FORMS if legal[form]} == {"uint8"}
    half = read_target(
        GOOD.replace('["u8"]', '["f16"]').replace("peak_u8", "peak_f16"), "board", "board.toml"
    )
    assert half.preferred == "float16" and half.rule("float32").legal


RULES = """
[runtime]
name = "Board runtime"
version = "3"
kind = "sourced"
source = "manual"
[forms.uint8]
legal = false
reason = "broken in version 3"
kind = "sourced"
source = "errata"
[limits.max_rank]
value = 4
kind = "sourced"
source = "manual"
[ends]
input = "uint8"
output = "float32"
kind = "guess"
source = "none"
"""


def test_rules_of_a_profile_are_read_and_win_over_its_storage():
    target = read_target(GOOD + RULES, "board", "board.toml")
    assert str(target.runtime) == "Board runtime 3" and target.runtime.format == "tflite"
    assert str(target.rule("uint8")) == "broken in version 3 (sourced: errata)"
    assert target.limits["max_rank"].value == 4 and target.ends.output == "float32"
    with pytest.raises(InputError, match="no storage form is legal on 'board'"):
        _ = target.preferred


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("limits.max_rank", "limits.max_rang", r"'max_rang'[\s\S]*'max_rank'"),
        ("value = 4", 'value = ["u8"]', "wanted a number"),
        ("limits.max_rank", "limits.border", "wanted a list of storage types"),
        ("forms.uint8", "forms.uint9", "uint9"),
        ('output = "float32"', 'output = "float"', "ends.output"),
        ('reason = "', 'raison = "', r"'raison'[\s\S]*'reason'"),
    ],
)
def test_a_wrong_rule_is_refused(old, new, what):
    with pytest.raises(InputError, match=what):
        read_target(GOOD + RULES.replace(old, new), "board", "board.toml")


def test_a_file_of_the_user_is_a_target(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text(GOOD)
    target = load_target(str(path))
    assert (target.name, target.storage) == ("board", ("u8",))
    assert target.quantities["peak_u8"].value == 100.0


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("title =", "titel =", "titel", r"unknown key 'titel'[\s\S]*'title'"),
        ('kind = "guess"', 'kind = "rumour"', "kind", "rumour"),
        ('unit = "GB/s"', 'unit = "MB/s"', "bandwidth.unit", "wanted 'GB/s'"),
        ("bandwidth =", "bandwith =", "quantities", r"'bandwith'[\s\S]*'bandwidth'"),
        ('["conv2d"]', '["conv2"]', "supported_ops", r"'conv2'[\s\S]*'conv2d'"),
        ("value = 100.0", "value = -1.0", "peak_u8.value", "greater than 0"),
        ("error = ", "# error = ", "quantities", "missing quantities: error"),
        ("[quantities]", "[quantities", "board.toml", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_reason(tmp_path, old, new, where, what):
    path = tmp_path / "board.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=what) as caught:
        load_target(path)
    assert where in str(caught.value) and "board.toml" in str(caught.value)


def test_an_unknown_target_suggests_the_nearest():
    with pytest.raises(UsageError, match=r"'velvet-apuu'[\s\S]*did you mean 'velvet-apu'"):
        load_target("velvet-apuu")


def test_a_number_needs_a_source():
    with pytest.raises(InputError, match=r"source"):
        read_target(GOOD.replace('source = "box"', 'source = ""'), "board", "board.toml")
