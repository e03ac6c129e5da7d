"""Fixtures that whole runs share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of rendered faces, few enough to train on in seconds."""
    from lmopt.data.synthetic.dataset import rendered_dataset

    cache = tmp_path_factory.mktemp("rendered")
    dataset = rendered_dataset(train=64, validation=16, test=8, cache=cache)
    return dataset.faces[0].image.parent.parent
