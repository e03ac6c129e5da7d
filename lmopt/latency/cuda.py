"""Measures SavedModels on a CUDA device of this machine by TensorFlow, XLA on and off."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmopt.errors import BackendError, InputError
from lmopt.frontend.savedmodel import MARK, is_saved_model
from lmopt.latency import host
from lmopt.latency.harness import MIN_ROUNDS
from lmopt.latency.measurement import Measurement, Xla

PER_ROUND = 10
MAX_ROUNDS = 200
START_S = 600.0
"""Limit for starting TensorFlow."""
LOAD_S = 300.0
"""Limit for loading and compiling a model, on average."""
KIND = "GPU"
"""TensorFlow's word for CUDA devices."""
CHOICES: tuple[Xla, ...] = ("off", "on")
_NAME = re.compile(r"cuda(?::(\d+))?")
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}
_TAIL = 1500


def is_cuda(device: str) -> bool:
    """Returns whether a `--device` means a CUDA device.

    >>> is_cuda("cuda"), is_cuda("cuda:1"), is_cuda("cuda:one")
    (True, True, False)
    """
    return _NAME.fullmatch(device) is not None


@dataclass(frozen=True)
class CudaRun:
    """SavedModels measured on a device in one interleaved run.

    Attributes:
        measurements: By label, and whether XLA compiled the model.
        failures: Why a model has no measurement, likewise.
        apart: Largest difference of a model's answers with XLA from those without, over the
            largest of these, on a picture of noise; where it runs both ways.
    """

    measurements: Mapping[tuple[str, Xla], Measurement]
    failures: Mapping[tuple[str, Xla], BackendError]
    apart: Mapping[str, float]

    def best(self, label: str) -> Measurement:
        """Returns the measurement with or without XLA, whichever is faster.

        Raises:
            BackendError: TensorFlow does not run the model there.
        """
        own = [m for (name, _), m in self.measurements.items() if name == label]
        if not own:
            raise self.failures[label, "off"]
        return min(own, key=lambda m: m.p50)

    def notes(self, label: str) -> tuple[str, ...]:
        """Returns what is to be said of XLA beside the latencies of a model."""
        if label in self.apart:
            percent = 100 * self.apart[label]
            return (f"answers with XLA are within {percent:.2g} % of those without",)
        failed = {xla: error for (name, xla), error in self.failures.items() if name == label}
        return tuple(f"not measured with XLA {xla}: {error.what}" for xla, error in failed.items())


def compare_saved_models(
    folders: Mapping[str, Path],
    *,
    max_seconds: float = 20.0,
    warmup: int = 3,
    seed: int = 0,
    device: str = "cuda",
) -> CudaRun:
    """Returns measurements of every SavedModel at batch 1 with XLA on and off, all interleaved.

    A sample is one inference, the way of the picture to the device and of the answer back
    included; compiling is not. What XLA cannot compile is measured without it. The machine is
    held exclusively.

    Args:
        folders: SavedModels by label.
        max_seconds: When to stop at the latest, after `MIN_ROUNDS` rounds.
        warmup: Unmeasured inferences before each visit.
        seed: Draws the order of visits.
        device: `cuda` or `cuda:N`.

    Raises:
        InputError: A folder holds no SavedModel.
        BackendError: There is no such device here, or TensorFlow crashes.
    """
    for folder in folders.values():
        if not is_saved_model(folder):
            raise InputError(
                f"the folder holds no {MARK}",
                where=str(folder),
                hint="lmopt compile writes a SavedModel for each form: add /float16 or /float32",
            )
    request = {
        "folders": {label: str(folder.resolve()) for label, folder in folders.items()},
        "device": _tensorflow_name(device),
        "per_round": PER_ROUND,
        "min_rounds": MIN_ROUNDS,
        "max_rounds": MAX_ROUNDS,
        "max_seconds": max_seconds,
        "warmup": warmup,
        "seed": seed,
    }
    limit = START_S + LOAD_S * len(folders) + 10 * max_seconds
    with host.exclusive("measuring"), _process(request, limit) as (process, found):
        meter = host.LoadMeter([process.pid])
        samples = _ask(process, "go")["samples_ms"]
        load = meter.cores()
    session = uuid.uuid4().hex

    def measurement(label: str, xla: Xla) -> Measurement:
        return Measurement(
            target="cuda",
            digest=digests[label],
            samples_ms=tuple(samples[label][xla]),
            per_round=PER_ROUND,
            warmup=warmup,
            threads=1,
            tool=f"TensorFlow {found['tensorflow']}, XLA {xla}",
            where=_where(found),
            session=session,
            other_load=load,
            xla=xla,
        )

    digests = {label: _digest(folder) for label, folder in folders.items()}
    failed: Mapping[str, Mapping[Xla, str]] = found["failures"]
    both = [(label, xla) for label in folders for xla in CHOICES]
    return CudaRun(
        {key: measurement(*key) for key in both if key[1] not in failed[key[0]]},
        {
            (label, xla): BackendError(reason, where=str(folders[label]))
            for label, reasons in failed.items()
            for xla, reason in reasons.items()
        },
        found["apart"],
    )


def require_card(device: str) -> str:
    """Returns what the CUDA device is that `--device` means, in words.

    Raises:
        BackendError: There is none here, or TensorFlow crashes.
    """
    with _process({"folders": {}, "device": _tensorflow_name(device), "seed": 0}, START_S) as made:
        return _where(made[1])


def _tensorflow_name(device: str) -> str:
    found = _NAME.fullmatch(device)
    assert found is not None
    return f"{KIND}:{int(found[1] or 0)}"


def _where(found: Mapping[str, Any]) -> str:
    return f"{found['name']} of {host.describe().system}"


@contextmanager
def _process(
    request: Mapping[str, Any], timeout_s: float
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Yields the process with all models loaded and compiled, and what it says of them."""
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
            found = _ask(process, json.dumps(request))
            if "missing" in found:
                raise BackendError(
                    "no CUDA device here: TensorFlow sees none",
                    where=request["device"],
                    hint="run this on a machine with an NVIDIA GPU, its driver, and "
                    "pip install 'tensorflow[and-cuda]'; lmopt optimize without --device "
                    "estimates latencies",
                )
            yield process, found
        except (EOFError, BrokenPipeError) as error:
            process.wait()
            errors.seek(0)
            tail = errors.read().decode(errors="replace").strip()[-_TAIL:]
            raise BackendError(
                f"TensorFlow failed on the device, or took longer than {timeout_s:g} s: {tail}",
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
