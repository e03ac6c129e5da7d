"""Files of other programs, read once in a process of their own before this one reads them.

The libraries of some formats do not survive damage: libhdf5 turns in circles on a wrong length in
its heap, and MATLAB's dimensions are believed whatever they are. What the trial gets through, this
process gets through too: it reads the same bytes.
"""

from __future__ import annotations

import subprocess
import sys
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from lmopt.errors import InputError

TIMEOUT_S = 120.0
"""Besides what the size of a file takes."""
_BYTES_PER_S = 5e6
REFUSED = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError,
    EOFError, zlib.error,
)  # fmt: skip
"""What the libraries raise on files that they do notice to be damaged."""


def try_out(path: Path) -> None:
    """Reads everything in an HDF5 file, or in an older MATLAB file, in a process of its own.

    What the libraries refuse is not reported: whoever reads the file says it better. A file that
    has not changed since is not tried again.

    Raises:
        InputError: Reading does not end in time, or ends the process.
    """
    state = path.stat()
    _try_out(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _try_out(path: Path, size: int, changed_ns: int) -> None:
    limit_s = TIMEOUT_S + size / _BYTES_PER_S
    command = [sys.executable, "-P", "-m", "lmopt.trial", str(path)]
    try:
        ran = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise _damaged(path, f"reading it does not end within {limit_s:.0f} s") from error
    if ran.returncode != 0:
        raise _damaged(path, f"reading it ends the process with status {ran.returncode}")


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        what, where=str(path), hint="the file is damaged: copy, download or save it again"
    )


def _read_hdf5(path: Path) -> None:
    import h5py

    seen: set[int] = set()

    def read(held: Any) -> None:
        with suppress(*REFUSED):
            for name in held.attrs:
                with suppress(*REFUSED):
                    held.attrs[name]
        if isinstance(held, h5py.Dataset):
            with suppress(*REFUSED):
                held[()]

    with suppress(*REFUSED), h5py.File(path, "r") as file:
        waiting: list[Any] = [file]
        while waiting:
            held = waiting.pop()
            read(held)
            if not isinstance(held, h5py.Group):
                continue
            with suppress(*REFUSED):
                for name in held:
                    with suppress(*REFUSED):
                        if isinstance(held.get(name, getlink=True), h5py.HardLink):
                            inner = held[name]
                            place = h5py.h5o.get_info(inner.id).addr
                            if place not in seen:
                                seen.add(place)
                                waiting.append(inner)


def _read_matlab(path: Path) -> None:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    with suppress(MatReadError, *REFUSED):
        loadmat(str(path))


def _main(path: Path) -> None:
    import h5py

    (_read_hdf5 if h5py.is_hdf5(path) else _read_matlab)(path)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
