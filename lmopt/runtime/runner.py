"""Runs a model file: the only way in lmopt, always in a process of its own with a time limit."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import BackendError, InputError
from lmopt.runtime import wire
from lmopt.runtime.tensor import TensorInfo, from_model_output, to_model_input

__all__ = [
    "Kernels",
    "Runner",
    "Start",
    "TensorInfo",
    "file_digest",
    "from_model_output",
    "model_name",
    "read_model",
    "to_model_input",
]

PIPE_BYTES = 1 << 20
"""What fits into a pipe at once, the most Linux grants by default.

Calibration reads every activation: of pfld-1.0 that takes 0.35 times as long as with the usual
64 KiB (medians of three interleaved runs, 60 faces, two at a time, 2-core AMD EPYC).
"""

Kernels = Literal["default", "builtin", "reference"]
ITEMS_PER_REQUEST = 64


@dataclass(frozen=True, eq=False)
class Sample:
    """What `Runner.sample` keeps of an output, in its stored type.

    Attributes:
        low, high: Exact extremes over everything; not a number where anything is none.
        values: Evenly spaced values of every item, 1-D.
    """

    low: Any
    high: Any
    values: NDArray[Any]


@dataclass(frozen=True)
class Start:
    """What a model takes before it answers the first time.

    Attributes:
        load_ms: Reading the file and preparing its kernels.
        first_ms: The first inference.
        memory_mb: Memory that the process grew by meanwhile (2**20 bytes), with about 10 of the
            runtime's own; None where the system does not tell.
    """

    load_ms: float
    first_ms: float
    memory_mb: float | None


class Runner:
    """A model file loaded by LiteRT in a worker process. Use it as a context manager.

    A file that crashes the runtime, hangs it or is refused by it is a BackendError with the
    reason. A worker that died stays dead: every later request says so.

    Attributes:
        digest: 32 hex digits over the file's bytes.
        pid: The worker's process.
        timeout_s: Limit in seconds for each request.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        threads: int = 1,
        kernels: Kernels = "default",
        timeout_s: float = 60.0,
        preserve_all: bool = False,
        name: str | None = None,
    ) -> None:
        """Starts the worker and loads the model.

        Args:
            model: The file or its bytes.
            threads: CPU threads of the interpreter.
            kernels: `default` is what an application gets (XNNPACK where it takes the node),
                `builtin` the optimized kernels without XNNPACK, `reference` the plain ones.
            timeout_s: Limit in seconds for each request; `run` sends at most
                `ITEMS_PER_REQUEST` items in one.
            preserve_all: Keep every intermediate tensor for `tensors()`; wants `builtin` or
                `reference` kernels, since XNNPACK keeps its tensors to itself.
            name: What messages call the model; by default its path or digest.

        Raises:
            InputError: The file cannot be read.
            BackendError: LiteRT refuses the model, crashes on it, or is not done in time.
        """
        if preserve_all and kernels == "default":
            raise BackendError(
                "XNNPACK does not show its intermediate tensors",
                hint="give kernels='builtin' or kernels='reference' together with preserve_all",
            )
        self.threads = threads
        self.timeout_s = timeout_s
        self._options = {"threads": threads, "kernels": kernels, "preserve_all": preserve_all}
        self._gone = ""
        self._stderr: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = _start(self._stderr)
        self.pid = self._process.pid
        try:
            self.load(model, name=name)
        except BaseException:
            self.close()
            raise

    def load(self, model: bytes | Path, *, name: str | None = None) -> None:
        """Loads another model into the same worker, in place of the one before.

        Raises:
            InputError: The file cannot be read.
            BackendError: LiteRT refuses the model, crashes on it, or is not done in time.
        """
        data = model if isinstance(model, bytes) else read_model(model)
        self.digest = file_digest(data)
        self._where = name or model_name(model)
        reply, _ = self._ask("load", self._options, {"model": np.frombuffer(data, np.uint8)})
        self.inputs = tuple(_info(entry) for entry in reply["inputs"])
        self.outputs = tuple(_info(entry) for entry in reply["outputs"])

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Returns the outputs for a batch, whose items run one by one at batch 1.

        Shapes:
            Each feed is [items, *input shape without its batch of 1], in the input's stored type.
            Outputs likewise; an output without a batch of 1 gains a leading axis.

        Raises:
            BackendError: A feed does not fit the model, or running fails.
        """
        items = self._check(feeds)
        parts = []
        for start in range(0, items, ITEMS_PER_REQUEST):
            part = {name: array[start : start + ITEMS_PER_REQUEST] for name, array in feeds.items()}
            count = min(ITEMS_PER_REQUEST, items - start)
            parts.append(self._ask("run", {"items": count}, part)[1])
        return {info.name: np.concatenate([p[info.name] for p in parts]) for info in self.outputs}

    def sample(
        self, feeds: Mapping[str, NDArray[Any]], per_item: int, rng: np.random.Generator
    ) -> dict[str, Sample]:
        """Returns of each output its extremes and an even sample, without the rest of it.

        Args:
            feeds: As of `run`.
            per_item: About how many values of each item, evenly spaced, are wanted.
            rng: Draws where in an item they begin.

        Raises:
            BackendError: A feed does not fit the model, or running fails.
        """
        items = self._check(feeds)
        steps = {o.name: max(1, -(-math.prod(o.shape) // per_item)) for o in self.outputs}
        starts = {name: rng.integers(step, size=items) for name, step in steps.items()}
        parts = []
        for start in range(0, items, ITEMS_PER_REQUEST):
            chosen = slice(start, start + ITEMS_PER_REQUEST)
            header = {
                "items": min(ITEMS_PER_REQUEST, items - start),
                "starts": {name: each[chosen].tolist() for name, each in starts.items()},
                "steps": steps,
            }
            part = {name: array[chosen] for name, array in feeds.items()}
            parts.append(self._ask("sample", header, part)[1])
        found = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        return {
            name: Sample(
                found[f"{name}/extremes"].min(),
                found[f"{name}/extremes"].max(),
                found[f"{name}/values"],
            )
            for name in steps
        }

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Returns every tensor's value after the last item of the last run, by tensor name.

        Constants are included; a second tensor of the same name appears as `name#index`.
        """
        return self._ask("tensors", {}, {})[1]

    def begin(self) -> Start:
        """Runs a freshly loaded model for the first time, on noise, and returns what it took."""
        reply, _ = self._ask("begin", {}, {})
        grown = reply["memory_kb"]
        return Start(reply["load_ms"], reply["first_ms"], None if grown is None else grown / 1024)

    def time(self, *, warmup: int, runs: int) -> list[float]:
        """Returns the milliseconds of `runs` inferences on noise, measured inside the worker."""
        _, arrays = self._ask("time", {"warmup": warmup, "runs": runs}, {})
        return [float(sample) / 1e6 for sample in arrays["samples_ns"]]

    def close(self) -> None:
        """Ends the worker; may be called twice."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it may have left with a request unread
            self._process.stdin.close()  # the worker leaves when its input closes
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()
        self._gone = self._gone or "it was closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self, feeds: Mapping[str, NDArray[Any]]) -> int:
        wanted = {info.name: info for info in self.inputs}
        if feeds.keys() != wanted.keys():
            raise BackendError(
                f"inputs {sorted(feeds)} given, wanted {sorted(wanted)}", where=self._where
            )
        for name, info in wanted.items():
            array = feeds[name]
            fits = info.shape[:1] == (1,) and array.shape[1:] == info.shape[1:] and len(array) > 0
            if not fits or array.dtype != np.dtype(info.dtype):
                raise BackendError(
                    f"input '{name}' got {array.dtype}{list(array.shape)}, "
                    f"wanted {info.dtype} items of {list(info.shape)}",
                    where=self._where,
                    hint="convert with to_model_input, and give at least one item",
                )
        counts = {len(array) for array in feeds.values()}
        if len(counts) != 1:
            raise BackendError(f"inputs of {sorted(counts)} items; wanted equally many")
        return counts.pop()

    def _ask(
        self, request: str, header: Mapping[str, Any], arrays: wire.Arrays
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        if self._gone:
            raise BackendError(f"the model's worker has ended: {self._gone}", where=self._where)
        assert self._process.stdin is not None and self._process.stdout is not None
        expired = threading.Event()

        def give_up() -> None:
            expired.set()
            self._process.kill()

        watchdog = threading.Timer(self.timeout_s, give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            wire.send(self._process.stdin, {"request": request, **header}, arrays)
            reply, found = wire.receive(self._process.stdout)
        except (wire.WireError, OSError) as error:
            self._gone = self._reason(request, expired=expired.is_set())
            hint = _HANG_HINT if expired.is_set() else _CRASH_HINT
            raise BackendError(self._gone, where=self._where, hint=hint) from error
        except BaseException:
            # An interrupted exchange leaves half a frame in the pipes: nothing may follow it.
            self._process.kill()
            self._gone = "a request was interrupted"
            raise
        finally:
            watchdog.cancel()
        if "error" in reply:
            raise BackendError(
                f"LiteRT refuses to {_VERBS[request]} the model: {reply['error']}",
                where=self._where,
                hint="the file is corrupt, no .tflite at all (lmopt compile makes one), or uses "
                "what this runtime does not support",
            )
        return reply, found

    def _reason(self, request: str, *, expired: bool) -> str:
        code = self._process.wait()
        doing = f"while it was to {_VERBS[request]} the model"
        if expired and code == -signal.SIGKILL:
            return f"the runtime did not answer within {self.timeout_s:g} s {doing}"
        said = self._last_words()
        if code < 0:
            return f"the runtime crashed with {_signal_name(-code)} {doing}{said}"
        return f"the runtime's process ended with exit code {code} {doing}{said}"

    def _last_words(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 4096))
        lines = self._stderr.read().decode(errors="replace").splitlines()
        telling = [line.strip() for line in lines if line.strip() and "INFO:" not in line]
        return f": {' | '.join(telling[-2:])}" if telling else ""


_CRASH_HINT = "this file cannot be used with this runtime; choose another pipeline or target"
_HANG_HINT = "the file hangs the runtime or is very slow: allow more time, or another pipeline"
_VERBS: Mapping[str, str] = {
    "load": "load",
    "run": "run",
    "sample": "run",
    "tensors": "show the tensors of",
    "begin": "run",
    "time": "time",
}


def file_digest(data: bytes) -> str:
    """Returns the 32 hex digits by which lmopt knows a model file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def model_name(model: bytes | Path) -> str:
    """Returns what messages call a model: its path, or the start of its digest."""
    return f"model {file_digest(model)[:12]}" if isinstance(model, bytes) else str(model)


def read_model(path: Path) -> bytes:
    """Returns the bytes of a model file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the model file cannot be read: {error.strerror or error}",
            where=str(path),
            hint="give an existing .tflite file; lmopt compile makes one of a detector",
        ) from error


def _start(stderr: BinaryIO) -> subprocess.Popen[bytes]:
    # -P: a file named like a module in the current folder must not be imported. The worker takes
    # lmopt from where this process has it.
    root = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([root, inherited]) if inherited else root
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "lmopt.runtime.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": path},
        pipesize=PIPE_BYTES,
    )


def _info(entry: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(
        entry["name"], entry["dtype"], tuple(entry["shape"]), entry["scale"], entry["zero_point"]
    )


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"
