"""Graphs as SavedModels: written, read again and asked by TensorFlow in a process of its own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import BackendError, LmoptError
from lmopt.ir.graph import Graph
from lmopt.training.weights import require_trainable

FORMS = ("float32", "float16")
"""What the weights are kept and the graph is computed in; inputs and outputs are float32."""
SIGNATURE = "serving_default"
TIMEOUT_S = 1800.0
ENVIRONMENT: Mapping[str, str] = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    # The same answers wherever it is written: a GPU rounds float32 products in other ways.
    "CUDA_VISIBLE_DEVICES": "-1",
}
_TAIL = 1500

Arrays = Mapping[str, NDArray[np.float32]]


def export(graph: Graph, folder: Path, feeds: Arrays) -> Mapping[str, Arrays]:
    """Returns what the written SavedModels answer to `feeds`, by form and output name.

    Args:
        graph: Float, of one input, with weights.
        folder: Where `float32` and `float16` are written; it exists.
        feeds: A batch for the input, by its name.

    Raises:
        PassError: The graph holds integers.
        BackendError: TensorFlow fails, or takes too long.
    """
    require_trainable(graph)
    try:
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "lmopt.training.export"],
            input=pickle.dumps((graph, folder, dict(feeds)), pickle.HIGHEST_PROTOCOL),
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BackendError(
            f"writing the SavedModels took longer than {TIMEOUT_S:g} s", where=str(folder)
        ) from error
    if ran.returncode != 0:
        tail = ran.stderr.decode(errors="replace").strip()[-_TAIL:]
        raise BackendError(f"TensorFlow cannot write the SavedModels: {tail}", where=str(folder))
    answer = pickle.loads(ran.stdout)
    if isinstance(answer, LmoptError):
        raise answer
    found: Mapping[str, Arrays] = answer
    return found
