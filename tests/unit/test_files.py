"""Folders that appear whole, and what killed processes leave of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lmopt.files import whole_folder
from lmopt.units import human_bytes

DAY_S = 24 * 3600


def left(folder: Path, name: str, age_s: float) -> Path:
    """An unfinished folder with a file in it, `age_s` old."""
    place = folder / name
    place.mkdir(parents=True)
    (place / "half").write_bytes(b"x")
    then = time.time() - age_s
    for each in (place / "half", place):
        os.utime(each, (then, then))
    return place


@pytest.mark.parametrize("is_cache", [True, False])
def test_what_a_killed_process_left_is_removed_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cache: bool
):
    monkeypatch.setenv("LMOPT_CACHE", str(tmp_path if is_cache else tmp_path / "elsewhere"))
    folder = tmp_path / "faces"
    own = left(folder, ".made.123.part", 2 * DAY_S)
    others = left(folder, ".other.77.part", 2 * DAY_S)
    kept = [
        left(folder, ".made.124.part", 0.5 * DAY_S),
        left(folder, ".made.half.part", 2 * DAY_S),
        left(folder, "made.123.part", 2 * DAY_S),
    ]
    growing = left(folder, ".made.125.part", 2 * DAY_S)
    (growing / "new").write_bytes(b"y")
    os.utime(growing, (0, 0))
    with whole_folder(folder / "made") as partial:
        (partial / "face").write_bytes(b"z")
    assert (folder / "made" / "face").read_bytes() == b"z"
    assert not own.exists()
    assert others.exists() is not is_cache
    assert all(place.is_dir() for place in (*kept, growing))


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_500, "1023.9 KiB")]
    + [(1_048_570, "1.0 MiB"), (1_258_291, "1.2 MiB")],
)
def test_sizes_are_said_in_one_way(size: int, text: str):
    assert human_bytes(size) == text
