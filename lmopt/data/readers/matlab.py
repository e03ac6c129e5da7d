"""Reader of COFW as its authors give it: MATLAB files that hold pictures, boxes and landmarks.

Source: Burgos-Artizzu et al., "Robust face landmark estimation under occlusion", ICCV 2013; the
variables are those of COFW_train.mat, COFW_test.mat and their `_color` versions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Face, assign_split
from lmopt.data.readers import cofw
from lmopt.data.readers.row import Row, row, tables
from lmopt.errors import InputError
from lmopt.trial import REFUSED, try_out

LAYOUT = (
    "a .mat of COFW: pictures IsTr, landmarks phisTr (29 x, 29 y, 29 flags of occlusion) and boxes "
    "bboxesTr (x, y, width, height), or IsT, phisT and bboxesT"
)
_KINDS = ("Is", "phis", "bboxes")
_PARTS = ("Tr", "T")  # for training and for the test
_MARKS, _BOX = 87, 4
_MOST_COMPRESSION = 1100
"""Bytes that one byte can stand for; Deflate has 1032."""
_HINT = "the file is damaged or not COFW's: download it again"


@dataclass(frozen=True)
class MatlabPicture:
    """A picture in a cell of a MATLAB file, read when it is asked for.

    Attributes:
        file: The file.
        variable: The cell array.
        index: The cell, counted from 1.
        channels: 1 (gray) or 3 (RGB).
    """

    file: Path
    variable: str
    index: int
    channels: int

    @property
    def name(self) -> str:
        """The file name the picture would have."""
        suffix = "pgm" if self.channels == 1 else "ppm"
        return f"{self.file.stem}-{self.variable}-{self.index}.{suffix}"

    def read_bytes(self) -> bytes:
        """Returns the picture as a PGM or PPM file; raises OSError where the cell holds none."""
        try:
            with _opened(self.file) as variables:
                pixels = variables.pixels(self.variable, self.index - 1)
        except REFUSED as error:
            raise OSError(f"the cell cannot be read: {error}") from error
        kind = b"P5" if self.channels == 1 else b"P6"
        return kind + b" %d %d 255\n" % pixels.shape[1::-1] + pixels.tobytes()

    def __str__(self) -> str:
        return f"{self.file}: {self.variable}{{{self.index}}}"


def fits(place: Path) -> bool:
    """Returns whether a file is COFW's, or a folder holds one."""
    if place.is_dir():
        return bool(tables(place, (".mat",), fits))
    if place.suffix.lower() != ".mat":
        return False
    if "cofw" in place.stem.lower():  # its reader says what is wrong with it
        return True
    try:
        return bool(_parts(_names(place)))
    except REFUSED:
        return False


def read(place: Path, source: str) -> Iterator[Row]:
    """Yields the faces of a file, or of those in a folder, in order; `file:line` is the cell.

    What the landmarks, flags and boxes mean is that of COFW's tables. The variables say which
    faces are for the test. Files of MATLAB 7.3 are read picture by picture; older ones are kept
    in memory while their pictures are asked for.
    """
    for file in tables(place, (".mat",), fits):
        try:
            _names(file)
            try_out(file)
            with _opened(file) as variables:
                parts = _parts(variables.names)
                if not parts:
                    raise _wrong(file, "it holds nothing of COFW")
                for part in parts:
                    yield from _part(file, variables, part, source)
        except REFUSED as error:
            what = f"the MATLAB file cannot be read: {error or type(error).__name__}"
            raise _wrong(file, what) from error


def _wrong(file: Path, what: str) -> InputError:
    return InputError(what, where=str(file), hint=f"{_HINT}; wanted {LAYOUT}")


def _parts(names: Collection[str]) -> list[str]:
    """Returns the parts of COFW of which a file with variables of these names holds anything."""
    return [part for part in _PARTS if any(_name(kind, part) in names for kind in _KINDS)]


def _names(file: Path) -> list[str]:
    """Returns the names of a file's variables, without reading them.

    Raises:
        ValueError: One claims more elements than the file can hold, compressed or not.
    """
    import h5py
    from scipy.io import whosmat
    from scipy.io.matlab import MatReadError

    if h5py.is_hdf5(file):
        with h5py.File(file, "r") as opened:
            return list(opened)
    try:
        shapes = {name: shape for name, shape, _ in whosmat(str(file))}
    except MatReadError as error:
        raise OSError(str(error)) from error
    most = file.stat().st_size * _MOST_COMPRESSION
    for name, shape in shapes.items():
        if math.prod(shape) > most:
            raise ValueError(f"{name} is said to be {list(shape)}, more than such a file can hold")
    return list(shapes)


def _name(kind: str, part: str) -> str:
    return f"{kind}{part}"


def _part(file: Path, variables: _Variables, part: str, source: str) -> Iterator[Row]:
    pictures, marks, boxes = (_name(kind, part) for kind in _KINDS)
    for name in (pictures, marks, boxes):
        if name not in variables.names:
            raise _wrong(file, f"it holds no {name}")
    count = variables.count(pictures)
    values = np.hstack(
        [
            _matrix(file, variables, marks, count, _MARKS),
            _matrix(file, variables, boxes, count, _BOX),
        ]
    )
    for index in range(count):
        yield row(_face, file, variables, pictures, index, values[index], source)


def _matrix(
    file: Path, variables: _Variables, name: str, rows: int, columns: int
) -> NDArray[np.float64]:
    found = variables.matrix(name)
    if found.shape != (rows, columns) or found.dtype.kind not in "fiub":
        got = f"{found.dtype}{list(found.shape)}"
        raise _wrong(file, f"{name} holds {got}, wanted numbers [{rows}, {columns}]")
    return found.astype(np.float64)


def _face(
    file: Path,
    variables: _Variables,
    name: str,
    index: int,
    values: NDArray[np.float64],
    source: str,
) -> Face:
    where = f"{file}:{index + 1}"
    try:
        dtype, shape = variables.form(name, index)
    except REFUSED as error:
        what = f"{name}{{{index + 1}}} cannot be read: {error}"
        raise InputError(what, where=where, hint=_HINT) from error
    if dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,)):
        raise InputError(
            f"{name}{{{index + 1}}} holds {dtype}{list(shape)}, wanted a picture uint8[height, "
            "width] or [height, width, 3]",
            where=where,
            hint=_HINT,
        )
    channels = 3 if shape[2:] == (3,) else 1
    marks = cofw.meaning(values)
    cell = f"{name}:{index + 1}"  # the same for the gray and the colour version of a file
    return Face(
        id=f"{source}/{cell}",
        source=source,
        image=MatlabPicture(file, name, index + 1, channels),
        landmarks=marks.landmarks,
        box=marks.box,
        group=cell,
        split=assign_split(name == _name("Is", "T"), source, cell),
        where=where,
        labels=marks.labels,
        visible=marks.visible,
    )


class _Variables(Protocol):
    """The variables of an open MATLAB file; arrays have MATLAB's order of dimensions."""

    names: frozenset[str]

    def count(self, name: str) -> int:
        """Returns the number of cells of a cell array."""

    def matrix(self, name: str) -> NDArray[Any]:
        """Returns a matrix."""

    def form(self, name: str, index: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Returns element type and shape of what a cell holds."""

    def pixels(self, name: str, index: int) -> NDArray[Any]:
        """Returns what a cell holds."""


class _Hdf5Variables:
    """Variables of MATLAB 7.3, whose files are HDF5 with all dimensions in reverse."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.names = frozenset(file)

    def count(self, name: str) -> int:
        return int(self._stored(name).size)

    def matrix(self, name: str) -> NDArray[Any]:
        return np.asarray(self._stored(name)[()]).T

    def form(self, name: str, index: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
        stored = self._cell(name, index)
        return stored.dtype, stored.shape[::-1]

    def pixels(self, name: str, index: int) -> NDArray[Any]:
        return np.ascontiguousarray(self._cell(name, index)[()].T)

    def _cell(self, name: str, index: int) -> Any:
        cells = self._stored(name)
        place = np.unravel_index(index, cells.shape)
        return self._stored(cells[place])

    def _stored(self, key: Any) -> Any:
        """Returns a dataset by name or reference; what lies in another file is refused."""
        import h5py

        if isinstance(key, str) and not isinstance(
            self._file.get(key, getlink=True), h5py.HardLink
        ):
            raise ValueError(f"{key} is a link to another place")
        found = self._file[key]
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            raise ValueError(f"{key} is no array of this file")
        return found


class _OldVariables:
    """Variables of MATLAB before 7.3."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._arrays = arrays
        self.names = frozenset(arrays)

    def count(self, name: str) -> int:
        return self._arrays[name].size

    def matrix(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def form(self, name: str, index: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
        held = self.pixels(name, index)
        return held.dtype, held.shape

    def pixels(self, name: str, index: int) -> NDArray[Any]:
        # Elements lie column by column in MATLAB's arrays of cells as in any other.
        return np.ascontiguousarray(self._arrays[name].ravel(order="F")[index])


@contextmanager
def _opened(file: Path) -> Iterator[_Variables]:
    import h5py

    if h5py.is_hdf5(file):
        with h5py.File(file, "r") as opened:
            yield _Hdf5Variables(opened)
    else:
        yield _loaded(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _loaded(file: Path, changed_ns: int) -> _OldVariables:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    names = [_name(kind, part) for kind in _KINDS for part in _PARTS]
    try:
        arrays = loadmat(str(file), variable_names=names)
    except MatReadError as error:
        raise OSError(str(error)) from error
    return _OldVariables({name: arrays[name] for name in names if name in arrays})
