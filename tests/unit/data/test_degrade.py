"""Worse pictures, moved boxes and frames: what they are by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmopt.data.degrade import blurred, downscaled, noisy, occluded
from lmopt.data.frames import read_frames
from lmopt.data.jitter import jittered
from lmopt.errors import InputError
from tests.support.annotated import smooth_picture, write_picture

BOX = (10.0, 12.0, 50.0, 52.0)


def test_down_scaling_averages_blocks() -> None:
    picture = smooth_picture(1)
    wanted = picture.reshape(16, 4, 16, 4, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(downscaled(picture, 4) - wanted).max() <= 0.5
    assert downscaled(picture, 64).shape == (1, 1, 3)
    assert downscaled(picture, 1000).shape == (1, 1, 3)


def test_blur_keeps_size_and_brightness_and_loses_detail() -> None:
    picture = smooth_picture(2, 48, 80)
    soft = blurred(picture, 16)
    assert soft.shape == picture.shape
    assert abs(soft.mean() - picture.mean()) < 2.0
    assert soft.std() < 0.75 * picture.std()


@given(st.integers(0, 99), st.integers(3, 70), st.integers(3, 70))
@settings(max_examples=20, deadline=None)
def test_no_degradation_is_the_picture_itself(seed: int, height: int, width: int) -> None:
    picture, rng = smooth_picture(seed, height, width), np.random.default_rng(seed)
    for same in (
        downscaled(picture, 1),
        blurred(picture, 1),
        occluded(picture, (0.0, 0.0, width - 1.0, height - 1.0), 0.0, rng),
        noisy(picture, 0.0, rng),
    ):
        np.testing.assert_array_equal(same, picture)


@given(st.integers(0, 10_000), st.floats(0.05, 0.6))
@settings(max_examples=40, deadline=None)
def test_the_stated_fraction_of_the_box_is_hidden(seed: int, fraction: float) -> None:
    # No colour of the shapes is 300: what is hidden can be told from what is not.
    picture = np.full((64, 64, 3), 300, np.int32)
    hidden = (occluded(picture, BOX, fraction, np.random.default_rng(seed)) != 300).any(axis=2)
    inside = hidden[12:53, 10:51]
    assert 0.95 * fraction <= inside.mean() <= 1.05 * fraction + 8 / inside.size
    again = occluded(picture, BOX, fraction, np.random.default_rng(seed))
    np.testing.assert_array_equal(hidden, (again != 300).any(axis=2))


def test_a_box_outside_the_picture_hides_nothing() -> None:
    picture = smooth_picture(0)
    there = occluded(picture, (100.0, 100.0, 150.0, 150.0), 0.3, np.random.default_rng(0))
    np.testing.assert_array_equal(there, picture)


def test_noise_has_its_sigma() -> None:
    gray = np.full((64, 64, 3), 128, np.uint8)
    difference = noisy(gray, 0.1, np.random.default_rng(0)).astype(float) - 128
    assert difference.std() == pytest.approx(25.5, rel=0.03)
    assert difference.mean() == pytest.approx(0.0, abs=1.0)


def test_jitter_depends_on_the_face_alone_and_has_its_sigma() -> None:
    assert jittered(BOX, "a/1") == jittered(BOX, "a/1")
    assert jittered(BOX, "a/1") != jittered(BOX, "a/2")
    assert jittered(BOX, "a/1") != jittered(BOX, "a/1", seed=1)
    assert jittered(BOX, "a/1", sigma=0.0) == BOX
    moved = np.array([jittered(BOX, f"face {k}", sigma=0.05) for k in range(2000)])
    np.testing.assert_allclose((moved - BOX).std(axis=0), 0.05 * 40, rtol=0.06)
    np.testing.assert_allclose((moved - BOX).mean(axis=0), 0.0, atol=0.2)
    assert (moved[:, 2:] > moved[:, :2]).all()


def test_frames_come_from_a_folder_in_order_and_from_a_video(tmp_path: Path) -> None:
    pictures = [np.full((48, 64, 3), value, np.uint8) for value in (50, 100, 150)]
    for k, picture in enumerate(pictures):
        write_picture(tmp_path / "still" / f"{k}.png", picture)
    (tmp_path / "still" / "notes.txt").write_text("no picture")
    assert [int(f[0, 0, 0]) for f in read_frames(tmp_path / "still")] == [50, 100, 150]
    file = str(tmp_path / "still.avi")
    video = cv2.VideoWriter(file, cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    assert video.isOpened()
    for picture in pictures:
        video.write(picture)
    video.release()
    found = [float(f.mean()) for f in read_frames(Path(file))]
    np.testing.assert_allclose(found, [50, 100, 150], atol=3)


def test_what_holds_no_frames_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "broken").mkdir()
    good = write_picture(tmp_path / "good" / "0.png", smooth_picture(0)).read_bytes()
    (tmp_path / "broken" / "0.png").write_bytes(good[:50])
    for place, reason in (
        ("nowhere", "no such folder or video"),
        ("empty", "no picture in this folder"),
        ("text.mp4", "no frame of this video"),
        ("broken", "cannot be decoded"),
    ):
        with pytest.raises(InputError, match=reason):
            list(read_frames(tmp_path / place))
