"""The process that times SavedModels on a device: JSON lines on stdin and on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lmopt.training.backend import tf
from lmopt.training.saved_model import SIGNATURE

Invoke = Callable[[], object]


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
    with tf.device(request["device"]):
        models = {label: _loaded(folder, rng) for label, folder in request["folders"].items()}
        for invoke in models.values():
            invoke()
        name = details.get("device_name", request["device"])
        say({"name": name, "tensorflow": tf.__version__})
        sys.stdin.readline()
        say({"samples_ms": _timed(models, request, rng)})
    sys.stdin.readline()


def _timed(
    models: Mapping[str, Invoke], request: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, list[float]]:
    labels = list(models)
    samples: dict[str, list[float]] = {label: [] for label in labels}
    start = time.monotonic()
    for done in range(request["max_rounds"]):
        late = time.monotonic() - start >= request["max_seconds"]
        if late and done >= request["min_rounds"]:
            break
        for position in rng.permutation(len(labels)):
            invoke = models[labels[position]]
            for _ in range(request["warmup"]):
                invoke()
            for _ in range(request["per_round"]):
                before = time.perf_counter_ns()
                invoke()
                samples[labels[position]].append((time.perf_counter_ns() - before) / 1e6)
    return samples


def _loaded(folder: str, rng: np.random.Generator) -> Invoke:
    """Returns one inference at batch 1, the way of picture and answer over the bus included."""
    loaded = tf.saved_model.load(folder)
    signature = loaded.signatures[SIGNATURE]
    ((name, spec),) = signature.structured_input_signature[1].items()
    picture = rng.uniform(size=(1, *spec.shape[1:])).astype(np.float32)

    def invoke() -> object:
        answers = signature(**{name: tf.constant(picture)})
        return loaded, [answer.numpy() for answer in answers.values()]

    return invoke


if __name__ == "__main__":
    main()
