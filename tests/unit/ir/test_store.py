"""Graph files: whole or not at all, damaged ones refused."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lmopt.errors import InputError
from lmopt.ir.store import load_graph, save_graph
from lmopt.ir.text import parse_graph

GRAPH = parse_graph(
    "graph g\n%x = input() : f32[?,2]\n"
    "%y = dense(%x) {units=2} [bias=f32[2]=1, kernel=i8[2,2]<0.5:0, 0.25:0 axis 1>=[1,2,3,4]]\n"
    "output out = %y"
)


def test_it_comes_back_and_leaves_no_other_file(tmp_path: Path):
    save_graph(GRAPH, tmp_path / "g.npz")
    save_graph(GRAPH, tmp_path / "g.npz")
    assert load_graph(tmp_path / "g.npz") == GRAPH
    assert [p.name for p in tmp_path.iterdir()] == ["g.npz"]


@pytest.mark.parametrize("size", [0, 1, 100, 400, -30])
def test_a_cut_file_is_an_input_error(tmp_path: Path, size: int):
    path = tmp_path / "g.npz"
    save_graph(GRAPH, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"g\.npz"):
        load_graph(path)


def test_a_changed_weight_is_an_input_error(tmp_path: Path):
    path = tmp_path / "g.npz"
    save_graph(GRAPH, path)
    with np.load(path) as archive:
        members = dict(archive)
    key = GRAPH.node("y").weight("bias").digest
    members[key] = members[key] + 1
    np.savez(path, **members)
    with pytest.raises(InputError, match=f"weight {key} is damaged"):
        load_graph(path)


def test_a_missing_file_a_foreign_file_and_an_unknown_format(tmp_path: Path):
    with pytest.raises(InputError, match="not a stored graph"):
        load_graph(tmp_path / "none.npz")
    np.savez(tmp_path / "foreign.npz", a=np.zeros(2))
    with pytest.raises(InputError, match="not a stored graph"):
        load_graph(tmp_path / "foreign.npz")
    header = np.frombuffer(b'{"format": 99}', np.uint8)
    np.savez(tmp_path / "newer.npz", header=header)
    with pytest.raises(InputError, match="format 99, wanted 1"):
        load_graph(tmp_path / "newer.npz")


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("exploded",))


def test_a_pickle_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(_Bomb()))
    np.savez(tmp_path / "inside.npz", header=np.array([_Bomb()], object))
    with zipfile.ZipFile(tmp_path / "inside.npz") as archive:
        assert archive.namelist() == ["header.npy"]
    for name in ("plain.npz", "inside.npz"):
        with pytest.raises(InputError):
            load_graph(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_an_unwritable_folder_is_the_callers_to_report(tmp_path: Path):
    with pytest.raises(OSError, match="none"):
        save_graph(GRAPH, tmp_path / "none" / "g.npz")
