"""Measures SavedModels on a CUDA device of this machine, interleaved, by TensorFlow."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmopt.errors import BackendError, InputError
from lmopt.frontend.savedmodel import MARK, is_saved_model
from lmopt.latency import host
from lmopt.latency.harness import MIN_ROUNDS
from lmopt.latency.measurement import Measurement

PER_ROUND = 10
MAX_ROUNDS = 200
START_S = 600.0
"""Limit for starting TensorFlow and loading the models."""
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}
_TAIL = 1500


def compare_saved_models(
    folders: Mapping[str, Path],
    *,
    max_seconds: float = 20.0,
    warmup: int = 3,
    seed: int = 0,
    device: str = "GPU:0",
) -> dict[str, Measurement]:
    """Returns a measurement of every SavedModel at batch 1, taken interleaved.

    A sample is one inference, the way of the picture to the device and of the answer back
    included. The machine is held exclusively.

    Args:
        folders: SavedModels by label.
        max_seconds: When to stop at the latest, after `MIN_ROUNDS` rounds.
        warmup: Unmeasured inferences before each visit.
        seed: Draws the order of visits.
        device: As TensorFlow names it.

    Raises:
        InputError: A folder holds no SavedModel.
        BackendError: There is no such device here, or TensorFlow fails on a model.
    """
    for folder in folders.values():
        if not is_saved_model(folder):
            raise InputError(f"the folder holds no {MARK}", where=str(folder))
    request = {
        "folders": {label: str(folder.resolve()) for label, folder in folders.items()},
        "device": device,
        "per_round": PER_ROUND,
        "min_rounds": MIN_ROUNDS,
        "max_rounds": MAX_ROUNDS,
        "max_seconds": max_seconds,
        "warmup": warmup,
        "seed": seed,
    }
    with host.exclusive("measuring"):
        found = _measured(request, START_S + 10 * max_seconds)
    session = uuid.uuid4().hex
    return {
        label: Measurement(
            target="cuda",
            digest=_digest(folder),
            samples_ms=tuple(found["samples_ms"][label]),
            per_round=PER_ROUND,
            warmup=warmup,
            threads=1,
            tool=f"TensorFlow {found['tensorflow']}",
            where=f"{found['name']} of {host.describe().system}",
            session=session,
            other_load=found["other_load"],
        )
        for label, folder in folders.items()
    }


def _measured(request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Returns what the process says of the device, its samples and the load meanwhile."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lmopt.training.cuda"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **_QUIET},
        )
        watch = threading.Timer(timeout_s, process.kill)
        watch.start()
        try:
            device = _ask(process, json.dumps(request))
            if "missing" in device:
                raise BackendError(
                    "no CUDA device here: TensorFlow sees none",
                    where=request["device"],
                    hint="run this on a machine with an NVIDIA GPU, its driver, and "
                    "pip install 'tensorflow[and-cuda]'; lmopt optimize estimates meanwhile",
                )
            meter = host.LoadMeter([process.pid])
            samples = _ask(process, "go")
            return {**device, **samples, "other_load": meter.cores()}
        except (EOFError, BrokenPipeError) as error:
            process.wait()
            errors.seek(0)
            tail = errors.read().decode(errors="replace").strip()[-_TAIL:]
            raise BackendError(
                f"TensorFlow failed while measuring, or took longer than {timeout_s:g} s: {tail}",
                where=request["device"],
            ) from error
        finally:
            watch.cancel()
            process.kill()
            process.communicate()


def _ask(process: subprocess.Popen[str], line: str) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    print(line, file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise EOFError
    found: dict[str, Any] = json.loads(answer)
    return found


def _digest(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
