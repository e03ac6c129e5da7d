"""The process that times SavedModels on a device: JSON lines on stdin and on stdout."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.training.backend import tf
from lmopt.training.saved_model import SIGNATURE

Invoke = Callable[[], Mapping[str, NDArray[Any]]]
WAYS: Mapping[str, bool] = {"off": False, "on": True}
"""Whether XLA compiles the model, by the word for it."""
_NAMES = re.compile(r"\[_XlaMustCompile.*?\]|\{\{function_node .*?\}\}")
"""What TensorFlow's messages say of functions that only it knows."""


def main() -> None:
    """Loads what the first line asks for, times it at the second, ends with stdin."""
    # Whatever TensorFlow prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: Mapping[str, object]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    request = json.loads(sys.stdin.readline())
    kind, _, index = request["device"].partition(":")
    devices = tf.config.list_physical_devices(kind)
    if len(devices) <= int(index):
        say({"missing": True})
        return
    details = tf.config.experimental.get_device_details(devices[int(index)])
    rng = np.random.default_rng(request["seed"])
    models: dict[tuple[str, str], Invoke] = {}
    failures: dict[str, dict[str, str]] = {}
    apart: dict[str, float] = {}
    with tf.device(request["device"]):
        for label, folder in request["folders"].items():
            found = invocations(folder, rng)
            answered, failures[label] = _tried(found)
            models |= {(label, way): found[way] for way in answered}
            if len(answered) == len(WAYS):
                apart[label] = _apart(answered["on"], answered["off"])
        name = details.get("device_name", request["device"])
        say({"name": name, "tensorflow": tf.__version__, "failures": failures, "apart": apart})
        sys.stdin.readline()
        say({"samples_ms": _timed(models, request, rng)})
    sys.stdin.readline()


def invocations(folder: str, rng: np.random.Generator) -> dict[str, Invoke]:
    """Returns one inference at batch 1 with XLA off and on, both of the same drawn picture.

    The way of the picture and of the answers over the bus is part of it. Nothing is compiled yet.
    """
    loaded = tf.saved_model.load(folder)
    signature = loaded.signatures[SIGNATURE]
    ((name, spec),) = signature.structured_input_signature[1].items()
    picture = rng.uniform(size=(1, *spec.shape[1:])).astype(np.float32)

    def run(x: Any) -> Any:
        return signature(**{name: x})

    def invocation(xla: bool) -> Invoke:
        given = tf.TensorSpec(picture.shape, tf.float32)
        function = tf.function(run, jit_compile=xla).get_concrete_function(given)

        # The function refers to the variables of `loaded`, without keeping them alive.
        def invoke(_owner: object = loaded) -> Mapping[str, NDArray[Any]]:
            answers = function(tf.constant(picture))
            return {key: answer.numpy() for key, answer in answers.items()}

        return invoke

    return {way: invocation(xla) for way, xla in WAYS.items()}


def _tried(
    found: Mapping[str, Invoke],
) -> tuple[dict[str, Mapping[str, NDArray[Any]]], dict[str, str]]:
    """Returns the answers of what runs, compiled by that, and why the others do not run."""
    answered: dict[str, Mapping[str, NDArray[Any]]] = {}
    failures: dict[str, str] = {}
    for way, invoke in found.items():
        try:
            answered[way] = invoke()
        except tf.errors.OpError as error:
            line = error.message.strip().partition("\n")[0]
            failures[way] = _NAMES.sub("", line)
    return answered, failures


def _apart(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]) -> float:
    """Returns the largest difference of two models' answers, over the largest of `b`'s."""
    apart = max(float(np.abs(a[key] - b[key]).max()) for key in b)
    return apart / max(*(float(np.abs(answer).max()) for answer in b.values()), 1e-30)


def _timed(
    models: Mapping[tuple[str, str], Invoke],
    request: Mapping[str, Any],
    rng: np.random.Generator,
) -> dict[str, dict[str, list[float]]]:
    keys = list(models)
    samples: dict[str, dict[str, list[float]]] = {}
    for label, way in keys:
        samples.setdefault(label, {})[way] = []
    start = time.monotonic()
    for done in range(request["max_rounds"]):
        late = time.monotonic() - start >= request["max_seconds"]
        if late and done >= request["min_rounds"]:
            break
        for position in rng.permutation(len(keys)):
            label, way = keys[position]
            invoke, own = models[label, way], samples[label][way]
            for _ in range(request["warmup"]):
                invoke()
            for _ in range(request["per_round"]):
                before = time.perf_counter_ns()
                invoke()
                own.append((time.perf_counter_ns() - before) / 1e6)
    return samples


if __name__ == "__main__":
    main()
