"""A Linux stand-in for TFLite's `benchmark_model`: its flags and output, the model run by LiteRT.

Times are real. It has no accelerators: GPU and NNAPI are announced and take nothing, as on a phone
whose driver refuses a model. `--enable_op_profiling` shares the time out evenly among the nodes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

KNOWN = {
    "graph": "",
    "num_threads": "-1",
    "num_runs": "50",
    "min_secs": "1.0",
    "max_secs": "150.0",
    "warmup_runs": "1",
    "warmup_min_secs": "0.5",
    "use_xnnpack": "",
    "use_gpu": "false",
    "gpu_precision_loss_allowed": "true",
    "use_nnapi": "false",
    "nnapi_accelerator_name": "",
    "nnapi_allow_fp16": "false",
    "nnapi_execution_preference": "",
    "disable_nnapi_cpu": "true",
    "enable_op_profiling": "false",
}
NEW = {
    "input_layer": "",
    "input_layer_shape": "",
    "input_layer_value_files": "",
    "output_filepath": "",
}
"""Flags that a tool of 2019 does not have."""


def script(*, old: bool = False) -> str:
    """Returns the stand-in as an executable file's text."""
    root = Path(__file__).parents[2]
    return (
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
        f"from tests.support.benchmark_model import main\nmain(sys.argv[1:], old={old})\n"
    )


def main(arguments: Sequence[str], *, old: bool = False) -> None:
    known = KNOWN if old else KNOWN | NEW
    given = dict(word.removeprefix("--").partition("=")[::2] for word in arguments)
    flags = known | {name: value for name, value in given.items() if name in known}

    def say(line: str) -> None:
        print(line if old else f"INFO: {line}", flush=True)

    say("STARTING!")
    unknown = [f"--{name}={value}" for name, value in given.items() if name not in known]
    if unknown:
        say(f"Unconsumed cmdline flags: {' '.join(unknown)}")
    say("Log parameter values verbosely: [0]")
    say(f"Graph: [{flags['graph']}]")
    if flags["use_nnapi"] == "true":
        say("NNAPI accelerators available: [nnapi-reference]")

    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    kernels = OpResolverType.AUTO if flags["use_xnnpack"] != "false" else plain
    begun = time.perf_counter()
    try:
        interpreter = Interpreter(
            model_path=flags["graph"],
            num_threads=max(1, int(flags["num_threads"])),
            experimental_op_resolver_type=kernels,
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        print(f"ERROR: {' '.join(str(error).split())}")
        say("Benchmarking failed.")
        sys.exit(1)
    init = round((time.perf_counter() - begun) * 1e6)
    say(f"Loaded model {flags['graph']}")
    nodes = len(interpreter._get_ops_details())
    for name, flag in (("GPU", "use_gpu"), ("NNAPI", "use_nnapi")):
        if flags[flag] == "true":
            say(
                f"Though {name} delegate is explicitly applied, the model graph will not be "
                "executed by the delegate."
            )
    if flags["use_xnnpack"] == "true":
        say(
            "Explicitly applied XNNPACK delegate, and the model graph will be completely executed "
            "by the delegate."
        )
    say(f"The input model file size (MB): {Path(flags['graph']).stat().st_size / 1e6:.6g}")
    say(f"Initialized session in {init / 1e3:.6g}ms.")
    _feed(interpreter, flags.get("input_layer_value_files", ""))
    warmup = _inferences(interpreter, flags["warmup_runs"], flags["warmup_min_secs"], flags, say)
    runs = _inferences(interpreter, flags["num_runs"], flags["min_secs"], flags, say)
    mean = np.mean(runs)
    if old:
        say(
            f"Average inference timings in us: Warmup: {np.mean(warmup):.6g}, Init: {init}, "
            f"Inference: {mean:.6g}"
        )
    else:
        say(
            f"Inference timings in us: Init: {init}, First inference: {warmup[0]}, "
            f"Warmup (avg): {np.mean(warmup):.6g}, Inference (avg): {mean:.6g}"
        )
        say("Memory footprint delta from the start of the tool (MB): init=4.5 overall=9.25")
    if flags["enable_op_profiling"] == "true":
        _profile([op["op_name"] for op in interpreter._get_ops_details()], mean / nodes / 1e3)
    if path := flags.get("output_filepath"):
        outputs = [interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()]
        Path(path).write_bytes(b"".join(array.tobytes() for array in outputs))


def _feed(interpreter: object, files: str) -> None:
    paths = [item.partition(":")[2] for item in files.split(",") if item]
    rng = np.random.default_rng()
    for position, details in enumerate(interpreter.get_input_details()):  # type: ignore[attr-defined]
        shape, dtype = details["shape"], details["dtype"]
        if paths:
            value = np.fromfile(paths[position], dtype).reshape(shape)
        else:
            value = (rng.random(shape) * (1 if np.dtype(dtype).kind == "f" else 127)).astype(dtype)
        interpreter.set_tensor(details["index"], value)  # type: ignore[attr-defined]


def _inferences(
    interpreter: object, count: str, seconds: str, flags: dict[str, str], say: object
) -> list[int]:
    say(  # type: ignore[operator]
        f"Running benchmark for at least {count} iterations and at least {seconds} seconds but "
        f"terminate if exceeding {flags['max_secs']} seconds."
    )
    found: list[int] = []
    start = time.perf_counter()
    while len(found) < int(count) or time.perf_counter() - start < float(seconds):
        begun = time.perf_counter()
        interpreter.invoke()  # type: ignore[attr-defined]
        found.append(round((time.perf_counter() - begun) * 1e6))
        if time.perf_counter() - start > float(flags["max_secs"]):
            break
    if len(set(found)) == 1:
        text = f"count={len(found)} curr={found[-1]}"
    else:
        text = (
            f"count={len(found)} first={found[0]} curr={found[-1]} min={min(found)} "
            f"max={max(found)} avg={np.mean(found):.6g} std={np.std(found):.0f}"
        )
    if "output_filepath" in flags:  # a tool of today
        low, middle, high = np.percentile(found, [5, 50, 95])
        text += f" p5={low:.0f} median={middle:.0f} p95={high:.0f}"
    say(f"{text}\n")  # type: ignore[operator]
    return found


def _profile(kinds: Sequence[str], each_ms: float) -> None:
    share = 100 / len(kinds)
    print("Operator-wise Profiling Info for Regular Benchmark Runs:")
    print(f"{'=' * 30} Run Order {'=' * 30}")
    print(
        "\t[node type]\t[start]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]"
    )
    for place, kind in enumerate(kinds):
        print(
            f"\t{kind}\t{place * each_ms:.3f}\t{each_ms:.3f}\t{each_ms:.3f}\t{share:.3f}%\t"
            f"{share * (place + 1):.3f}%\t0.000\t1\t[node{place}]:{place}"
        )
    print(f"\nNumber of nodes executed: {len(kinds)}")
