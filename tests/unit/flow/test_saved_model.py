"""SavedModels for CUDA: written whole, equal to the .tflite, in half precision op by op."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lmopt
from lmopt.detector.detector import Detector
from lmopt.detector.document import contract_from_json
from lmopt.errors import BackendError, InputError
from lmopt.flow import saved_model
from lmopt.frontend.savedmodel import CONTRACT_FILE
from tests.support.training_graphs import BINARY, CONTRACT, LANDMARK, UNARY, detector, single

pytestmark = pytest.mark.slow


def test_desktop_cuda_gets_two_saved_models(tmp_path: Path) -> None:
    source = Detector("tiny", detector(), CONTRACT)
    out = tmp_path / "models"
    made = lmopt.compile(source, "fold-batchnorm", target="desktop-cuda", out=out)
    assert made.path == out
    assert [saved.form for saved in made.saved_models] == ["float32", "float16"]
    single_, half = made.saved_models
    assert single_.mean_percent < 1e-3 < half.mean_percent < 0.5
    assert "noise" in half.pictures and half.nme_change is None
    assert saved_model.saved_models_at(out) == made.saved_models
    sizes = [
        sum(f.stat().st_size for f in Path(saved.path, "variables").iterdir())
        for saved in made.saved_models
    ]
    assert sizes[1] < 0.8 * sizes[0]
    text = (Path(half.path) / CONTRACT_FILE).read_text()
    assert contract_from_json(text, "contract") == CONTRACT
    with pytest.raises(InputError, match="there is something already"):
        lmopt.compile(source, "fold-batchnorm", target="desktop-cuda", out=out)


def test_answers_that_differ_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(graph, folder, feeds):  # type: ignore[no-untyped-def]
        answer = np.full((saved_model.FACES, 4), np.nan, np.float32)
        for form in saved_model.FORMS:
            (folder / form).mkdir()
        return {form: {CONTRACT.output: answer} for form in saved_model.FORMS}

    monkeypatch.setattr(saved_model, "export", wrong)
    source = Detector("tiny", detector(), CONTRACT)
    with pytest.raises(BackendError, match=r"SavedModel float32: its landmarks lie nan %"):
        lmopt.compile(source, "fold-batchnorm", target="desktop-cuda", out=tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*UNARY, *BINARY, *LANDMARK])
def test_every_op_is_computed_in_half_precision(name: str) -> None:
    from lmopt.training.backend import tf
    from lmopt.training.export import Network

    graph = single({**UNARY, **BINARY, **LANDMARK}[name])
    x = np.random.default_rng(0).uniform(-1, 1, (2, 9, 7, 6)).astype(np.float32)
    exact, half = (Network(graph, tf.as_dtype(d)).run(x)["out"].numpy() for d in saved_model.FORMS)
    assert half.dtype == np.float32
    scale = np.abs(exact).max()
    np.testing.assert_allclose(half, exact, atol=0.02 * scale)
