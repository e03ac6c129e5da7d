"""SavedModel folders to float .tflite, by TensorFlow's own converter in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lmopt.errors import BackendError, InputError

MARK = "saved_model.pb"
CONTRACT_FILE = Path("assets.extra", "lmopt_contract.json")
"""Where a SavedModel that lmopt writes says what it eats and gives."""
TIMEOUT_S = 900.0
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
_LONGEST = 300  # characters of what the converter says
_NAMED = 3  # places of an operator, in a message

_LISTED = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)
_REFUSED = re.compile(r"""fused\["(\w+):", "([^"@]+)[^\n]*'tf\.\1' op is neither a custom op""")
_RAISED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)$", re.MULTILINE)


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
            hint="give a SavedModel folder, a .keras, .h5 or .tflite file, or a zoo detector",
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
            raise failure(str(folder), ran.stderr, ran.returncode)
        return made.read_bytes()


def failure(where: str, said: str, code: int) -> BackendError:
    """Returns the error about a converter that failed.

    Args:
        where: The SavedModel.
        said: What the converter wrote: warnings, MLIR, a traceback.
        code: Its exit code.
    """
    refused = _refused(said)
    raised = _RAISED.search(said)
    hint = (
        "tf.lite.TFLiteConverter.from_saved_model(folder).convert() tells more; "
        "or save the model as model.keras"
    )
    if refused:
        what = f"TensorFlow's converter has no built-in operator for {refused}"
        hint = (
            "save the model again with what that operator reads as its output and do the rest in "
            "your program, or write it in other operators"
        )
    elif raised is None:
        what = f"TensorFlow's converter ended with exit code {code}"
    elif "signature key" in raised[1]:
        what = "the SavedModel has no signature"
        hint = "save it with one: model.export(folder), or signatures= of tf.saved_model.save"
    else:
        what = f"TensorFlow's converter failed: {raised[1]:.{_LONGEST}}"
    return BackendError(what, where=where, hint=hint)


def _refused(said: str) -> str:
    """Returns the operators that the converter has no built-in ones for, with their places."""
    places: dict[str, dict[str, None]] = {
        name: {} for listed in _LISTED.findall(said) for name in listed.split(", ")
    }
    for name, place in _REFUSED.findall(said):
        places.setdefault(name, {})[f"'{place}'"] = None
    return ", ".join(f"{name}{_at(list(found))}" for name, found in places.items())


def _at(places: Sequence[str]) -> str:
    if not places:
        return ""
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return f" (at {', '.join(places[:_NAMED])}{more})"


def _main(folder: str, made: str) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    Path(made).write_bytes(converter.convert())


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
