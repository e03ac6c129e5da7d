"""SavedModel folders to float .tflite, by TensorFlow's own converter in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lmopt.errors import BackendError, InputError

MARK = "saved_model.pb"
CONTRACT_FILE = Path("assets.extra", "lmopt_contract.json")
"""Where a SavedModel that lmopt writes says what it eats and gives."""
TIMEOUT_S = 900.0
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
_TAIL = 1500


def is_saved_model(folder: Path) -> bool:
    """Returns whether a folder holds a SavedModel."""
    return (folder / MARK).is_file()


def convert(folder: Path, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """Returns the float .tflite file of a SavedModel, which `lmopt.frontend.tflite` reads.

    The converter loads the model's graph; use folders from people you trust.

    Args:
        folder: With `saved_model.pb` in it; the signature `serving_default` is converted.
        timeout_s: Time limit in seconds, the start of TensorFlow included.

    Raises:
        InputError: The folder holds no SavedModel.
        BackendError: The converter failed, or took too long.
    """
    if not is_saved_model(folder):
        raise InputError(
            f"the folder holds no {MARK}",
            where=str(folder),
            hint="give a SavedModel folder, or save the model as model.keras",
        )
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "model.tflite")
        command = [sys.executable, "-P", "-m", "lmopt.frontend.savedmodel", str(folder), str(made)]
        try:
            ran = subprocess.run(
                command,
                env=os.environ | _QUIET,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BackendError(
                f"TensorFlow's converter took longer than {timeout_s:g} s",
                where=str(folder),
                hint="convert the model yourself and give the .tflite file",
            ) from error
        if ran.returncode != 0 or not made.is_file():
            raise BackendError(
                f"TensorFlow's converter failed: {ran.stderr.strip()[-_TAIL:]}",
                where=str(folder),
                hint="the model needs a signature 'serving_default' of built-in operators",
            )
        return made.read_bytes()


def _main(folder: str, made: str) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    Path(made).write_bytes(converter.convert())


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
