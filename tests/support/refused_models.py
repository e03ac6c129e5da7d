"""SavedModels that TensorFlow's converter refuses.

Run as a script it writes them, in a process of its own: `refused_models.py FOLDER`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

UNKNOWN_OPERATORS, NO_SIGNATURE = "erf", "unsigned"


def write_all(root: Path) -> None:
    """Writes both SavedModels below a folder."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, str(root)]
    ran = subprocess.run(
        command, env=os.environ | quiet, capture_output=True, timeout=240, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()[-3000:]


def _write(folder: Path) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([1, 8])])  # type: ignore[untyped-decorator]
    def erf(x: tf.Tensor) -> tf.Tensor:
        with tf.name_scope("inner"):
            return tf.math.erf(x) + 1.0

    tf.saved_model.save(tf.Module(), str(folder / NO_SIGNATURE))
    module = tf.Module()
    module.erf = erf
    tf.saved_model.save(module, str(folder / UNKNOWN_OPERATORS), signatures=erf)


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
