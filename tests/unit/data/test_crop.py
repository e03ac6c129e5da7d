from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmopt.data import load_dataset
from lmopt.data.crop import cut, cut_all, face_box, frame_of, transform
from lmopt.data.picture import read_picture
from lmopt.detector import Contract, CropRule
from lmopt.detector.scheme import scheme_for
from lmopt.errors import InputError
from tests.support.annotated import face, row, smooth_picture, write_folder, write_picture

SQUARE = np.array([[10, 10], [18, 10], [18, 18], [10, 18], [12, 14]], np.float64)
CONTRACT = Contract(
    height=16,
    width=16,
    color="rgb",
    mean=(0.0,) * 3,
    std=(255.0,) * 3,
    crop=CropRule("landmarks", 2.0, True),
    output="landmarks",
    order="xyxy",
    unit="unit",
    scheme=scheme_for(5),
)


def test_an_unscaled_crop_is_the_pictures_own_pixels():
    picture = smooth_picture()
    # Box 10..18, twice as wide: 16 pixels from 6 to 22, whose first centre is 6.5.
    crop = cut(picture, face(landmarks=SQUARE + 0.5), CONTRACT)
    assert np.array_equal(crop.pixels, picture[7:23, 7:23])
    assert np.allclose(crop.to_picture, [[16, 0, 6.5], [0, 16, 6.5]])
    assert np.allclose(crop.landmarks[0], [0.25, 0.25])
    assert np.allclose(transform(crop.to_picture, crop.landmarks), SQUARE + 0.5)


def test_a_unit_coordinate_is_the_pixel_centre_plus_a_half():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[14, 12] = 255
    corners = SQUARE + 0.5
    corners[4] = (12, 14)
    crop = cut(picture, face(landmarks=corners), CONTRACT)
    ((y, x),) = np.argwhere(crop.pixels[..., 0])
    assert np.allclose(crop.landmarks[4], [(x + 0.5) / 16, (y + 0.5) / 16])


def test_outside_the_picture_is_black():
    picture = np.full((20, 20, 3), 200, np.uint8)
    crop = cut(picture, face(landmarks=SQUARE - 9.5), CONTRACT)
    # The crop spans -3.5..12.5 in pixel centres: pixels -3 to 12.
    assert not crop.pixels[:3].any()
    assert not crop.pixels[:, :3].any()
    assert (crop.pixels[3:, 3:] == 200).all()


def test_shrinking_is_area_filtered():
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255
    picture = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    points = (SQUARE - 14) * 16.3 + 250.2
    crop = cut(picture, face(landmarks=points), CONTRACT)
    assert np.abs(crop.pixels.astype(int) - 127.5).max() <= 6
    gradient = np.repeat(np.linspace(0, 255, 512)[None, :, None], 512, axis=0)
    smooth = cut(np.repeat(gradient, 3, axis=2).astype(np.uint8), face(landmarks=points), CONTRACT)
    at = smooth.to_picture[0, 0] * (np.arange(16) + 0.5) / 16 + smooth.to_picture[0, 2]
    assert np.abs(smooth.pixels[8, :, 0] - (at * 255 / 511)).max() < 1.5


@pytest.mark.parametrize("size", [(16, 16), (24, 16)])
def test_rules_choose_box_margin_and_sides(size: tuple[int, int]):
    given = face(landmarks=SQUARE, box=(0.0, 10.0, 20.0, 20.0))
    wide = CropRule("given", 1.5, False)
    frame = frame_of(face_box(given, wide), wide)
    assert (frame.x, frame.y, frame.width, frame.height) == (10.0, 15.0, 30.0, 15.0)
    assert frame_of(face_box(given, wide), replace(wide, square=True)).height == 30.0
    contract = replace(CONTRACT, crop=wide, height=size[0], width=size[1])
    crop = cut(smooth_picture(), given, contract)
    assert crop.pixels.shape == (*size, 3)
    assert np.allclose(
        transform(crop.to_picture, np.array([[0, 0], [1, 1]])), [[-5, 7.5], [25, 22.5]]
    )


def test_colours_follow_the_contract():
    picture = smooth_picture()
    one = face(landmarks=SQUARE)
    rgb = cut(picture, one, CONTRACT).pixels
    assert np.array_equal(cut(picture, one, replace(CONTRACT, color="bgr")).pixels, rgb[..., ::-1])
    gray = replace(CONTRACT, color="gray", mean=(0.0,), std=(255.0,))
    luma = cut(picture, one, gray).pixels
    assert luma.shape == (16, 16, 1)
    assert np.abs(luma[..., 0] - rgb @ [0.299, 0.587, 0.114]).max() < 2


def test_a_face_without_a_usable_box_is_refused():
    given = replace(CONTRACT, crop=CropRule("given"))
    with pytest.raises(InputError, match=r"made.csv:a: .*has none"):
        cut(smooth_picture(), face(), given)
    with pytest.raises(InputError, match="no area"):
        cut(smooth_picture(), face(landmarks=np.ones((5, 2))), CONTRACT)


def test_all_faces_are_cut_in_order_whatever_the_threads(tmp_path: Path):
    dataset = load_dataset([write_folder(tmp_path / "d", [row(f"{k}.png") for k in range(5)])])
    crops = cut_all(dataset, CONTRACT, threads=3)
    assert len(crops) == 5
    assert crops.faces == dataset.faces
    for index, one in enumerate(dataset.faces):
        alone = cut(read_picture(one), one, CONTRACT)
        assert np.array_equal(crops.pixels[index], alone.pixels)
        assert np.array_equal(crops.landmarks[index], alone.landmarks)
        assert np.array_equal(crops.to_picture[index], alone.to_picture)
    none = cut_all(dataset.keep(lambda _: False), CONTRACT)
    assert none.pixels.shape == (0, 16, 16, 3)


def test_pictures_are_read_as_rgb_without_rotation(tmp_path: Path):
    picture = smooth_picture(height=20, width=30)
    assert np.array_equal(read_picture(face(write_picture(tmp_path / "a.png", picture))), picture)
    gray = tmp_path / "gray.png"
    gray.write_bytes(cv2.imencode(".png", picture[..., 0])[1].tobytes())
    assert np.array_equal(read_picture(face(gray)), np.repeat(picture[..., :1], 3, axis=2))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_cut_off_picture_is_refused(tmp_path: Path, suffix: str):
    file = write_picture(tmp_path / f"a{suffix}", smooth_picture())
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match=rf"made.csv:a: picture .*a{suffix}"):
        read_picture(face(file))


def test_what_is_no_picture_is_refused(tmp_path: Path):
    file = tmp_path / "a.jpg"
    for data in (b"", b"no picture"):
        file.write_bytes(data)
        with pytest.raises(InputError, match="can be decoded"):
            read_picture(face(file))
    with pytest.raises(InputError, match="No such file"):
        read_picture(face(tmp_path / "gone.jpg"))
    dataset = load_dataset([write_folder(tmp_path / "d", [row("a.png")])])
    dataset.faces[0].image.write_bytes(b"spoilt")
    with pytest.raises(InputError, match=r"landmarks.csv:2: picture"):
        cut_all(dataset, CONTRACT)
