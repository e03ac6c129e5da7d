"""Target files: the strict schema, and every target that lmopt ships."""

import pytest

from lmopt.errors import InputError, UsageError
from lmopt.pipeline.manager import Pipeline
from lmopt.target.catalog import installed, load_target
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
