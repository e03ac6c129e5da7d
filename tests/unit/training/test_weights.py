from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmopt.errors import BackendError, GraphError, InputError, PassError
from lmopt.ir.types import DType, Weight
from lmopt.training.checkpoint import load_checkpoint, save_checkpoint
from lmopt.training.weights import require_trainable, with_arrays
from tests.support.training_graphs import detector


def test_arrays_take_the_type_the_weight_had() -> None:
    edit = detector().edit()
    edit.set_weights("stem", bias=Weight.of(np.zeros(8, np.float16)))
    changed = with_arrays(edit.done(), {"stem/bias": np.full(8, 0.1, np.float32)})
    bias = changed.node("stem").weight("bias")
    assert bias.type.dtype is DType.F16
    assert bias.real()[0] == np.float16(0.1)


def test_an_array_that_fits_no_weight() -> None:
    with pytest.raises(GraphError, match="nowhere"):
        with_arrays(detector(), {"nowhere/kernel": np.zeros(1, np.float32)})
    with pytest.raises(GraphError, match="stem"):
        with_arrays(detector(), {"stem/bias": np.zeros(9, np.float32)})


def test_a_graph_without_values_is_not_trained() -> None:
    edit = detector().edit()
    edit.set_weights("stem", bias=Weight(detector().node("stem").weight("bias").type))
    with pytest.raises(PassError, match=r"1 weight\(s\) have no values yet \('stem/bias'"):
        require_trainable(edit.done())


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "c.npz"
    arrays = [np.arange(12.0).reshape(3, 4), np.array(7, np.int64)]
    save_checkpoint(file, "mine", 3, arrays)
    save_checkpoint(file, "mine", 5, arrays)
    step, loaded = load_checkpoint(file, "mine")
    assert step == 5
    assert all(np.array_equal(a, b) for a, b in zip(arrays, loaded, strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_checkpoint_of_another_training_or_in_pieces(tmp_path: Path) -> None:
    file = tmp_path / "c.npz"
    save_checkpoint(file, "mine", 3, [np.arange(1000.0)])
    with pytest.raises(InputError, match="belongs to another training"):
        load_checkpoint(file, "yours")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(file, "mine")


def test_checkpoint_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BackendError, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "file" / "c.npz", "mine", 1, [])
