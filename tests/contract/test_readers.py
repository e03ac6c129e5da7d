"""What every reader of annotations keeps: one suite over `READERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from lmopt.data import load_dataset
from lmopt.data.export import write_dataset
from lmopt.data.readers import READERS
from lmopt.errors import InputError
from tests.support.annotated import (
    row,
    smooth_picture,
    write_cofw,
    write_folder,
    write_picture,
    write_pts,
)

FACES = 3


def _points(count: int, face: int) -> np.ndarray:
    return np.random.default_rng(face).uniform(9, 55, (count, 2)).round(2)


def _text(values: np.ndarray, separator: str) -> str:
    return separator.join(map(str, np.ravel(values).tolist()))


def _pictures(folder: Path) -> list[str]:
    names = [f"face {k}.png" for k in range(FACES)]
    for seed, name in enumerate(names):
        write_picture(folder / name, smooth_picture(seed))
    return names


def _folder(place: Path) -> None:
    write_folder(place, [row(f"face {k}.png", _points(68, k)) for k in range(FACES)])


def _pts(place: Path) -> None:
    for k, name in enumerate(_pictures(place)):
        write_pts((place / name).with_suffix(".pts"), _points(68, k) + 1)


def _wflw(place: Path) -> None:
    names = _pictures(place / "WFLW_images")
    lines = [f"{_text(_points(98, k), ' ')} 8 8 56 56 0 0 0 0 0 0 {n}" for k, n in enumerate(names)]
    (place / "list_98pt_rect_attr_train.txt").write_text("\n".join(lines))


def _dlib(place: Path) -> None:
    images = []
    for k, name in enumerate(_pictures(place)):
        parts = [f"<part name='{i}' x='{x}' y='{y}'/>" for i, (x, y) in enumerate(_points(68, k))]
        box = f"<box left='8' top='8' width='48' height='48'>{''.join(parts)}</box>"
        images.append(f"<image file='{name}'>{box}</image>")
    text = f"<dataset><images>{''.join(images)}</images></dataset>"
    (place / "faces.xml").write_text(text)


def _cofw(place: Path) -> None:
    lines = [
        f"{n},{_text(_points(29, k).T + 1, ',')}" for k, n in enumerate(_pictures(place / "images"))
    ]
    (place / "cofw.txt").write_text("\n".join(lines))


def _matlab(place: Path) -> None:
    marks = np.stack([_points(29, k).T.ravel() + 1 for k in range(FACES)])
    write_cofw(
        place / "COFW_train_color.mat",
        [smooth_picture(k) for k in range(FACES)],
        np.hstack([marks, np.zeros((FACES, 29))]),
        np.tile([9.0, 9.0, 48.0, 48.0], (FACES, 1)),
    )


def _pixels(place: Path) -> None:
    lines = [
        f"{_text(_points(68, k), ',')},{_text(smooth_picture(k)[..., 0], ' ')}"
        for k in range(FACES)
    ]
    (place / "faces.csv").write_text("\n".join(lines))


SAMPLES: Mapping[str, Callable[[Path], None]] = {
    "folder": _folder,
    "300-W": _pts,
    "WFLW": _wflw,
    "dlib": _dlib,
    "COFW": _cofw,
    "COFW .mat": _matlab,
    "pixels": _pixels,
}


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def place(name: str, tmp_path: Path) -> Path:
    folder = tmp_path / "sample"
    folder.mkdir()
    SAMPLES[name](folder)
    # What lies about in such folders.
    (folder / "README").write_text("faces\n")
    (folder / "notes.txt").write_text("a.png 1 2 3\n")
    (folder / "junk.csv").write_bytes(bytes(range(256)) * 20)
    (folder / "junk.xml").write_bytes(b"")
    return folder


def test_a_sample_fits_its_reader_alone(name: str, place: Path):
    assert [other for other, reader in READERS.items() if reader.fits(place)] == [name]


def test_nothing_else_fits(name: str, tmp_path: Path):
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "empty.txt").write_bytes(b"\n\n")
    assert not READERS[name].fits(tmp_path)
    assert not any(READERS[name].fits(file) for file in tmp_path.iterdir())


def test_faces_are_whole_and_have_their_place(name: str, place: Path):
    dataset = load_dataset([place], strict=True)
    assert len(dataset) == FACES
    for k, face in enumerate(dataset.faces):
        assert face.source == "sample" and face.id.startswith("sample/")
        assert np.allclose(face.landmarks, _points(dataset.scheme.count, k), atol=1e-9)
        file, _, line = face.where.rpartition(":")
        assert Path(file).is_file() and int(line) >= 1
    assert len({face.group for face in dataset.faces}) == FACES


def test_every_reader_says_what_it_wants(name: str, tmp_path: Path):
    with pytest.raises(InputError) as caught:
        load_dataset([tmp_path])
    assert READERS[name].layout in (caught.value.hint or "")


def test_what_is_read_can_be_imported_without_loss(name: str, place: Path, tmp_path: Path):
    dataset = load_dataset([place])
    write_dataset(dataset, tmp_path / "out")
    assert load_dataset([tmp_path / "out"], strict=True).digest == dataset.digest


def test_a_picture_that_is_gone_is_one_skipped_annotation(name: str, place: Path):
    if name in ("pixels", "COFW .mat"):
        pytest.skip("its pictures are inside of the file")
    next(place.rglob("face 1.png")).unlink()
    dataset = load_dataset([place])
    assert len(dataset) == FACES - 1
    (error,) = dataset.skipped
    assert "face 1" in error.what
    assert error.where and error.hint
