"""resize-input: what is fitted, what is refused, what the file computes."""

import numpy as np
import pytest

from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.ops import (
    Add,
    Concat,
    Conv2D,
    Dense,
    HeatmapDecode,
    LandmarkHeatmap,
    MaxPool2D,
    Mean,
    Mul,
    Reshape,
    ResizeBilinear,
)
from lmopt.ir.types import DType
from lmopt.pipeline.base import PassContext, PassResult
from lmopt.pipeline.manager import Pipeline
from lmopt.runtime.parity import prove
from lmopt.zoo import dan
from lmopt_passes.resize_input import ResizeInput
from tests.support.services import full_context


def apply(graph: Graph, size: int) -> PassResult:
    return ResizeInput(size).apply(graph, PassContext())


def smooth(faces: int, height: int, width: int, channels: int) -> np.ndarray:
    """Planes: what a bilinear resize, away from the border, moves without error."""
    rows = (np.arange(height)[:, None, None] + 0.5) / height
    columns = (np.arange(width)[:, None] + 0.5) / width
    slopes = np.random.default_rng(0).normal(size=(3, faces, 1, 1, channels))
    return (slopes[0] + slopes[1] * rows + slopes[2] * columns).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "size", "macs", "fitted"),
    [
        ("pfld-0.25", 96, 38.5, "kernel of %s3 7x7x32x128 -> 6x6x32x128"),
        ("pfld-1.0", 80, 139.2, "kernel of %s3 7x7x32x128 -> 5x5x32x128"),
        ("basic", 64, 10.1, "kernel of %dense1 7744x1000 -> 3136x1000"),
        ("dan1", 96, 1878.6, "kernel of %stage1_hidden 25088x256 -> 18432x256"),
    ],
)
def test_detectors_compute_on_less_and_eat_the_same(
    name: str, size: int, macs: float, fitted: str
) -> None:
    graph = zoo.load(f"{name}@none").graph
    result = apply(graph, size)
    assert result.graph.inputs == graph.inputs
    assert result.graph.macs / 1e6 == pytest.approx(macs, abs=0.05)
    assert (
        f"-> {size}x{size} behind %image; MACs {graph.macs / 1e6:.1f} M -> {macs} M"
        in (result.notes[0])
    )
    assert result.notes[1:] == (fitted,)


def heatmaps(side: int) -> Graph:
    """Two resolutions that meet again, an eighth of the input decoded."""
    edit = Edit("heatmaps")
    x = edit.add("stem", Conv2D(4, stride=(4, 4)), edit.input("image", (None, side, side, 3)))
    half = edit.add("half", Conv2D(4, stride=(2, 2)), x)
    quarter = edit.add("quarter", Conv2D(4, stride=(2, 2)), half)
    up = edit.add("up", ResizeBilinear((side // 8, side // 8)), quarter)
    edit.output("landmarks", edit.add("decode", HeatmapDecode(), edit.add("sum", Add(), half, up)))
    return zoo.initialize(edit.done(), 1)


def test_a_heatmap_detector_becomes_the_one_built_for_that_size() -> None:
    image = np.random.default_rng(0).uniform(size=(2, 128, 128, 3)).astype(np.float32)
    edit = Edit("resize")
    picture = edit.input("image", (None, 128, 128, 3))
    edit.output("y", edit.add("y", ResizeBilinear((64, 64)), picture))
    less = run(edit.done(), {"image": image})["y"]
    small = apply(heatmaps(128), 64).graph
    np.testing.assert_array_equal(
        run(small, {"image": image})["landmarks"],
        run(heatmaps(64), {"image": less})["landmarks"],
    )


def test_maps_that_would_give_other_coordinates_are_refused() -> None:
    with pytest.raises(PassError, match=r"%decode: .*16x16 would become 12x12") as caught:
        apply(heatmaps(128), 93)  # as many cells as 96 pixels have, but of another picture
    assert caught.value.hint == "sizes near it that fit: 80, 96"
    with pytest.raises(PassError, match=r"%sum: .*from 128x128 to 100x100 does not fit"):
        apply(heatmaps(128), 100)


def test_hrnet_fits_a_multiple_of_its_coarsest_pixel() -> None:
    graph = zoo.load("hrnet-w18@none").graph
    assert apply(graph, 192).graph.node("heatmaps").results[0].shape == (None, 48, 48, 68)


def test_maps_drawn_beside_the_picture_shrink_with_it() -> None:
    graph = dan.build("dan2", 2, 32, folded=True)
    result = apply(graph, 16)
    assert result.graph.node("stage2_maps").results[0].shape == (None, 16, 16, 3)
    assert result.graph.node("stage2_heatmap").op == LandmarkHeatmap((16, 16))
    assert result.graph.node("stage2_seen_map").results[0].shape == (None, 16, 16, 1)
    assert {"%stage2_heatmap gives 16x16", "%stage2_seen_resize gives 16x16"} <= set(result.notes)
    edit = Edit("half")
    x = edit.input("image", (None, 8, 8, 1))
    points = edit.add("points", Dense(4), edit.add("flat", Reshape(), x))
    pool = edit.add("pool", MaxPool2D(), x)
    both = edit.add("both", Concat(), pool, edit.add("map", LandmarkHeatmap((4, 4)), points))
    edit.output("y", edit.add("mean", Mean(), both))
    assert apply(edit.done(), 6).graph.node("both").results[0].shape == (None, 3, 3, 2)
    with pytest.raises(PassError, match=r"%map: .*side of 4 would become 2\.5"):
        apply(edit.done(), 5)


@pytest.mark.parametrize("head", ["flat", "whole"])
def test_a_plane_gives_the_same_answer_from_fewer_pixels(head: str) -> None:
    edit = Edit("net")
    x = edit.input("image", (None, 12, 18, 2))
    x = edit.add("conv", Conv2D(3, (1, 1)), x)
    if head == "whole":
        x = edit.add("whole", Conv2D(5, (12, 18), padding="valid"), x)
    edit.output("landmarks", edit.add("dense", Dense(6), edit.add("flat", Reshape(), x)))
    graph = zoo.initialize(edit.done(), 0)
    name = "whole" if head == "whole" else "dense"
    # A kernel of low frequency, as its sums see what a map is on the whole.
    window = smooth(1, 12, 18, 2 if head == "whole" else 3)[0, ..., :1]
    kernel = graph.node(name).weight("kernel").real()
    even = np.broadcast_to(window, (12, 18, 3))[..., None] * kernel.reshape(12, 18, 3, -1)[:1, :1]
    edit = graph.edit()
    edit.set_weights(name, kernel=even.reshape(kernel.shape).astype(np.float32))
    graph = edit.done()
    small = apply(graph, 15).graph
    assert small.node("conv").results[0].shape == (None, 10, 15, 3)
    image = {"image": smooth(4, 12, 18, 2)}
    wanted, found = run(graph, image)["landmarks"], run(small, image)["landmarks"]
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def test_entries_are_shared_by_what_pixels_overlap() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 3, 3, 1))
    kernel = np.arange(1, 10, dtype=np.float32).reshape(9, 1)
    flat = edit.add("flat", Reshape(), image)
    edit.output("y", edit.add("y", Dense(1, use_bias=False), flat, weights={"kernel": kernel}))
    small = apply(edit.done(), 2).graph.node("y").weight("kernel").real()
    # The middle row and column are shared half and half.
    assert small[:, 0].tolist() == [5.25, 8.25, 14.25, 17.25]


def test_a_second_resize_replaces_the_first() -> None:
    graph = zoo.initialize(zoo.load("pfld-0.25@none").graph, 0)
    twice = apply(apply(graph, 96).graph, 80).graph
    assert [n.op for n in twice.nodes if n.op.kind == "resize_bilinear"] == [
        ResizeBilinear((80, 80))
    ]
    assert twice.macs == apply(graph, 80).graph.macs
    again = apply(twice, 80)
    assert again.graph is twice and not again.changed
    assert again.notes == ("it computes on 80x80 pixels already",)


def test_strides_that_part_a_map_otherwise_are_noted() -> None:
    notes = apply(zoo.load("pfld-0.25@none").graph, 104).notes
    assert [note for note in notes if "begin elsewhere" in note] == [
        "windows of %s2 begin elsewhere: its stride parts 13x13 otherwise than 14x14; landmarks "
        "may move until it is trained"
    ]


def test_factors_as_large_as_the_picture_are_refused() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 8, 8, 3))
    mask = edit.add("mask", Dense(192), edit.add("flat", Reshape(), image))
    mask = edit.add("map", Reshape((8, 8, 3)), mask)
    edit.output("y", edit.add("mean", Mean(), edit.add("masked", Mul(), image, mask)))
    with pytest.raises(PassError, match=r"%masked: .*operands would become") as caught:
        apply(edit.done(), 6)
    assert caught.value.hint == "no smaller size fits"


def test_wrong_inputs() -> None:
    with pytest.raises(UsageError, match="size is 0"):
        ResizeInput(0)
    edit = Edit("flat")
    edit.output("y", edit.add("y", Dense(2), edit.input("numbers", (None, 4))))
    with pytest.raises(PassError, match=r"1 input\(s\), 0 of them a picture"):
        apply(edit.done(), 8)


@pytest.mark.parametrize(
    ("storage", "dtype"), [("quantize-int8", DType.I8), ("quantize-uint8", DType.U8)]
)
def test_the_file_computes_what_the_graph_says(storage: str, dtype: DType) -> None:
    edit = Edit("net")
    x = edit.input("image", (None, 14, 14, 3))
    x = edit.add("conv", Conv2D(8, stride=(2, 2), activation="relu"), x)
    edit.output("landmarks", edit.add("dense", Dense(4), edit.add("flat", Reshape(), x)))
    graph = zoo.initialize(edit.done(), 0)
    text = f"resize-input{{size=12}},{storage}"
    result = Pipeline.parse(text).run(graph, full_context()).graph
    resize = result.node("image_resize")
    assert resize.op == ResizeBilinear((12, 12)) and resize.results[0].dtype is dtype
    image = np.random.default_rng(0).uniform(size=(1, 14, 14, 3)).astype(np.float32)
    # Raises unless the reference kernels equal the interpreter, integers bit for bit.
    assert prove(result, emit(result), {"image": image}, "net").unchecked == ()
