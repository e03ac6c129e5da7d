"""A graph for pictures of another size is the graph its builder makes for that size."""

from __future__ import annotations

import pytest

from lmopt import zoo
from lmopt.errors import GraphError
from lmopt.ir.edit import Edit
from lmopt.ir.ops import Conv2D, ResizeBilinear
from lmopt.ir.resolution import at_resolution
from lmopt.zoo import dan, hrnet, pfld


@pytest.mark.parametrize("folded", [False, True])
def test_hrnet_becomes_what_its_builder_makes_and_comes_back(folded: bool) -> None:
    large = zoo.initialize(hrnet.build("hrnet", 128, folded=folded), 1)
    small = at_resolution(large, 64, 64)
    built = zoo.initialize(hrnet.build("hrnet", 64, folded=folded), 1)
    assert small.digest() == built.digest()
    assert at_resolution(small, 128, 128).digest() == large.digest()
    assert at_resolution(large, 128, 128) is large


def test_the_sides_are_scaled_apart() -> None:
    edit = Edit("half")
    image = edit.input("image", (None, 16, 32, 3))
    edit.output("y", edit.add("r", ResizeBilinear((8, 4)), edit.add("c", Conv2D(4), image)))
    made = at_resolution(edit.done(), 8, 64)
    assert made.node("c").results[0].shape == (None, 8, 64, 4)
    assert made.node("r").op == ResizeBilinear((4, 8))


def test_weights_that_depend_on_the_size_are_named() -> None:
    with pytest.raises(GraphError, match="made for pictures of 112x112, not 96x96") as caught:
        at_resolution(dan.build("dan1", 1), 96, 96)
    assert caught.value.where == "%stage1_hidden"
    with pytest.raises(GraphError, match="not 64x64"):
        at_resolution(pfld.build("pfld", pfld.QUARTER), 64, 64)


def test_a_map_cannot_end_between_two_pixels() -> None:
    edit = Edit("odd")
    image = edit.input("image", (None, 16, 16, 3))
    edit.output("y", edit.add("r", ResizeBilinear((7, 7)), image))
    with pytest.raises(GraphError, match=r"side of 7 would become 3\.5"):
        at_resolution(edit.done(), 8, 8)


def test_one_picture_is_wanted() -> None:
    edit = Edit("flat")
    edit.output("y", edit.input("numbers", (None, 4)))
    with pytest.raises(GraphError, match="wanted one picture"):
        at_resolution(edit.done(), 8, 8)
