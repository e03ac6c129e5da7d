"""The worker process: loads one model file into LiteRT, runs it and times it.

Started as `python -m lmopt.runtime.worker`, it answers one frame with one frame until its standard
input closes. It imports nothing heavy besides LiteRT, so that it starts in half a second.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lmopt.runtime import wire

Arrays = dict[str, NDArray[Any]]
Reply = tuple[dict[str, Any], Arrays]


class Session:
    """One model in one interpreter."""

    def __init__(self) -> None:
        self._interpreter: Any = None
        self._before_kb: float | None = None
        self._load_ms = 0.0
        self._inputs: dict[str, dict[str, Any]] = {}
        self._outputs: dict[str, dict[str, Any]] = {}

    def load(self, header: Mapping[str, Any], arrays: Arrays) -> Reply:
        """Creates the interpreter and answers with the tensors at its border."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolvers = {
            "default": OpResolverType.AUTO,
            "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            "reference": OpResolverType.BUILTIN_REF,
        }
        self._interpreter = None  # a model that was here must not count for this one's memory
        self._before_kb = _resident_kb()
        start = time.perf_counter_ns()
        self._interpreter = Interpreter(
            model_content=arrays["model"].tobytes(),
            num_threads=header["threads"],
            experimental_op_resolver_type=resolvers[header["kernels"]],
            experimental_preserve_all_tensors=header["preserve_all"],
        )
        self._interpreter.allocate_tensors()
        self._load_ms = (time.perf_counter_ns() - start) / 1e6
        signatures = list(self._interpreter._get_full_signature_list().values())
        names = signatures[0] if len(signatures) == 1 else {"inputs": {}, "outputs": {}}
        self._inputs = _named(self._interpreter.get_input_details(), names["inputs"])
        self._outputs = _named(self._interpreter.get_output_details(), names["outputs"])
        return {
            "inputs": [_describe(name, details) for name, details in self._inputs.items()],
            "outputs": [_describe(name, details) for name, details in self._outputs.items()],
        }, {}

    def run(self, header: Mapping[str, Any], arrays: Arrays) -> Reply:
        """Runs the items of a batch one by one; answers with the outputs of all."""
        collected: dict[str, list[NDArray[Any]]] = {name: [] for name in self._outputs}
        for item in range(header["items"]):
            self._invoke(arrays, item)
            for name, details in self._outputs.items():
                collected[name].append(self._interpreter.get_tensor(details["index"]))
        return {}, {name: _joined(values) for name, values in collected.items()}

    def sample(self, header: Mapping[str, Any], arrays: Arrays) -> Reply:
        """Runs as `run` does; answers with extremes and every so-manieth value of each output."""
        collected: dict[str, list[NDArray[Any]]] = {}
        for item in range(header["items"]):
            self._invoke(arrays, item)
            for name, details in self._outputs.items():
                flat = self._interpreter.get_tensor(details["index"]).reshape(-1)
                ends = np.array([flat.min(), flat.max()])
                start, step = header["starts"][name][item], header["steps"][name]
                collected.setdefault(f"{name}/extremes", []).append(ends)
                collected.setdefault(f"{name}/values", []).append(flat[start::step].copy())
        return {}, {name: np.concatenate(values) for name, values in collected.items()}

    def _invoke(self, arrays: Arrays, item: int) -> None:
        for name, details in self._inputs.items():
            self._interpreter.set_tensor(details["index"], arrays[name][item : item + 1])
        self._interpreter.invoke()

    def tensors(self, header: Mapping[str, Any], arrays: Arrays) -> Reply:
        """Answers with every tensor that has a value after the last run, by tensor name."""
        found: Arrays = {}
        for details in self._interpreter.get_tensor_details():
            name = str(details["name"])
            if not name:
                continue
            try:
                array = self._interpreter.get_tensor(details["index"])
            except ValueError:
                # Scratch tensors, and those inside a delegate, hold no values of their own.
                continue
            found[name if name not in found else f"{name}#{details['index']}"] = array
        return {}, found

    def begin(self, header: Mapping[str, Any], arrays: Arrays) -> Reply:
        """Invokes once; answers how long loading and this took, and the memory grown since."""
        self._feed_noise()
        start = time.perf_counter_ns()
        self._interpreter.invoke()
        first_ms = (time.perf_counter_ns() - start) / 1e6
        now_kb = _resident_kb()
        grown = None if now_kb is None or self._before_kb is None else now_kb - self._before_kb
        return {"load_ms": self._load_ms, "first_ms": first_ms, "memory_kb": grown}, {}

    def time(self, header: Mapping[str, Any], arrays: Arrays) -> Reply:
        """Invokes `warmup` times unseen and `runs` times with a clock around each."""
        self._feed_noise()
        invoke = self._interpreter.invoke
        clock = time.perf_counter_ns
        for _ in range(header["warmup"]):
            invoke()
        samples = np.empty(header["runs"], np.int64)
        for run in range(header["runs"]):
            start = clock()
            invoke()
            samples[run] = clock() - start
        return {}, {"samples_ns": samples}

    def _feed_noise(self) -> None:
        rng = np.random.default_rng(0)
        for details in self._inputs.values():
            self._interpreter.set_tensor(details["index"], _noise(details, rng))

    def answer(self, header: Mapping[str, Any], arrays: Arrays) -> Reply:
        """Answers one request; what LiteRT refuses becomes an `error` in the reply."""
        requests: Mapping[str, Callable[[Mapping[str, Any], Arrays], Reply]] = {
            "load": self.load,
            "run": self.run,
            "sample": self.sample,
            "tensors": self.tensors,
            "begin": self.begin,
            "time": self.time,
        }
        try:
            return requests[header["request"]](header, arrays)
        except (ValueError, RuntimeError, MemoryError) as error:
            return {"error": " ".join(str(error).split()) or type(error).__name__}, {}


def _named(details: list[dict[str, Any]], names: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Returns details by the signature's names, of which a tensor may have several."""
    by_index: dict[int, list[str]] = {}
    for name, index in names.items():
        by_index.setdefault(index, []).append(name)
    return {name: d for d in details for name in by_index.get(d["index"], [str(d["name"])])}


def _describe(name: str, details: Mapping[str, Any]) -> dict[str, Any]:
    grid = details["quantization_parameters"]
    one = len(grid["scales"]) == 1
    return {
        "name": name,
        "dtype": np.dtype(details["dtype"]).name,
        "shape": [int(d) for d in details["shape"]],
        "scale": float(grid["scales"][0]) if one else None,
        "zero_point": int(grid["zero_points"][0]) if one else 0,
    }


def _resident_kb() -> float | None:
    """Returns the memory this process holds, where the system tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 1024
    except OSError:
        return None


def _joined(values: list[NDArray[Any]]) -> NDArray[Any]:
    if values[0].shape[:1] == (1,):
        return np.concatenate(values)
    return np.stack(values)


def _noise(details: Mapping[str, Any], rng: np.random.Generator) -> NDArray[Any]:
    dtype = np.dtype(details["dtype"])
    shape = tuple(int(d) for d in details["shape"])
    if dtype.kind == "f":
        return rng.random(shape).astype(dtype)
    if dtype.kind == "b":
        return np.zeros(shape, dtype)
    bounds = np.iinfo(dtype)
    return rng.integers(bounds.min, bounds.max, shape, dtype, endpoint=True)


def _leave_with_parent(stdin: int) -> None:
    """Ends the process as soon as the other end of `stdin` closes, even during an inference."""
    poll = select.poll()
    poll.register(stdin, 0)  # hang-ups are reported unasked
    poll.poll()
    os._exit(0)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Returns the request and reply streams; what else is printed goes to standard error."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def main() -> None:
    """Serves requests until standard input closes."""
    requests, replies = _take_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C ends
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes are expected here
    threading.Thread(target=_leave_with_parent, args=(requests.fileno(),), daemon=True).start()
    session = Session()
    while True:
        try:
            header, arrays = wire.receive(requests)
        except wire.WireError:
            return
        wire.send(replies, *session.answer(header, arrays))


if __name__ == "__main__":
    main()
