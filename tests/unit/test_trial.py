"""Files tried out in a process of their own."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from lmopt.errors import InputError
from lmopt.trial import try_out


def test_modules_in_the_working_folder_are_not_taken_for_the_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "sound.h5", "w") as file:
        file["numbers"] = [1, 2, 3]
    (tmp_path / "h5py.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    try_out(tmp_path / "sound.h5")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # what a user asks for by name is obeyed
    (tmp_path / "other.h5").write_bytes((tmp_path / "sound.h5").read_bytes())
    with pytest.raises(InputError, match="status 3"):
        try_out(tmp_path / "other.h5")
