"""Small annotated picture folders, written by tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

from lmopt.data import Face

FIVE_POINTS = np.array([[20, 22], [44, 20], [32, 34], [24, 46], [42, 45]], np.float64)


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """Writes RGB pixels; the suffix of `path` is the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert done
    path.write_bytes(data.tobytes())
    return path


def smooth_picture(seed: int = 0, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """A smooth colourful picture that is like no mirror or rotation of itself."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4.0)
    return cv2.normalize(blurred, None, 10, 245, cv2.NORM_MINMAX).astype(np.uint8)


def row(file: str, points: NDArray[np.float64] = FIVE_POINTS, **columns: object) -> dict[str, str]:
    """A row of `landmarks.csv`, of role train unless `columns` says otherwise."""
    given = {"file": file, "role": "train", "group": file, **columns}
    named = {
        f"{axis}{k}": v
        for k, point in enumerate(points)
        for axis, v in zip("xy", point, strict=True)
    }
    return {name: str(value) for name, value in {**given, **named}.items()}


def write_folder(folder: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Writes the plain layout, a smooth picture for every row."""
    for seed, entry in enumerate(rows):
        write_picture(folder / "images" / entry["file"], smooth_picture(seed))
    columns = list(dict.fromkeys(name for entry in rows for name in entry))
    lines = [columns, *([entry.get(name, "") for name in columns] for entry in rows)]
    (folder / "landmarks.csv").write_text("\n".join(",".join(line) for line in lines) + "\n")
    return folder


def write_pts(file: Path, points: NDArray[np.float64]) -> Path:
    """Writes points as they are (the format counts from 1)."""
    lines = "\n".join(f"{x:.6f} {y:.6f}" for x, y in points)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"version: 1\nn_points:  {len(points)}\n{{\n{lines}\n}}\n")
    return file


def write_cofw(
    file: Path,
    pictures: Sequence[NDArray[np.uint8]],
    marks: NDArray[np.float64],
    boxes: NDArray[np.float64],
    *,
    part: str = "Tr",
    old: bool = False,
) -> Path:
    """Writes COFW's variables as MATLAB 7.3 does (HDF5, dimensions in reverse), or as before it."""
    names = (f"Is{part}", f"phis{part}", f"bboxes{part}")
    if old:
        cells = np.empty((len(pictures), 1), object)
        cells[:, 0] = pictures
        scipy.io.savemat(file, dict(zip(names, (cells, marks, boxes), strict=True)))
        return file
    with h5py.File(file, "w", userblock_size=512) as written:
        held = [
            written.create_dataset(f"#refs#/{k}", data=pixels.T).ref
            for k, pixels in enumerate(pictures)
        ]
        written.create_dataset(names[0], data=np.array([held], h5py.ref_dtype))
        written[names[1]], written[names[2]] = marks.T, boxes.T
    with file.open("r+b") as written:
        written.write(b"MATLAB 7.3 MAT-file".ljust(512))
    return file


def face(
    image: Path = Path("none.png"),
    landmarks: NDArray[np.float64] = FIVE_POINTS,
    *,
    name: str = "a",
    source: str = "made",
    box: tuple[float, float, float, float] | None = None,
    split: str = "train",
) -> Face:
    """A face as a reader would give it."""
    return Face(f"{source}/{name}", source, image, landmarks, box, name, split, f"made.csv:{name}")
