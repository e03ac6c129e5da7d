"""A target file to start from: everything a profile may say, with what it means."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from lmopt.errors import InputError, UsageError
from lmopt.files import write_atomically
from lmopt.target.schema import json_schema
from lmopt.target.vocabulary import UNITS

SCHEMA = "target.schema.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_START: dict[str, float] = {
    "peak_f32": 16.0,
    "peak_i8": 64.0,
    "conv_share": 0.8,
    "depthwise_share": 0.3,
    "bandwidth": 12.0,
    "kernel_overhead": 3.0,
    "invoke_overhead": 50.0,
    "error": 1.0,
}
"""Values of a middling phone core, for a start."""
_OPS = (
    *("conv2d", "depthwise_conv2d", "dense", "relu", "relu6", "add", "mul", "max_pool2d"),
    *("avg_pool2d", "mean", "concat", "pad", "quantize", "dequantize"),
)


def draft(name: str) -> str:
    """Returns the text of a target file that is complete, with guesses for every number.

    Raises:
        UsageError: The name is none for a file.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' is no name for a target", hint="use small letters, digits and dashes"
        )
    schema = files("lmopt.target").joinpath(SCHEMA)
    lines = [
        f"#:schema {schema}",
        f"# {name}: a target for `lmopt optimize --target ./{name}.toml`.",
        "# Every number has a kind: sourced, derived, inferred, fitted or guess.",
        f'title = "{name}"',
        'engine = "cpu"                  # cpu, gpu, npu or cuda',
        'storage = ["i8", "f32"]         # what it computes in, fastest first',
        "threads = [1, 2, 4]             # worth trying",
        '# fallback = "velvet-cpu"        # who runs what the engine refuses',
        "supported_ops = [",
        *(f'    "{op}",' for op in _OPS),
        "]",
        "pipelines = [                   # what `lmopt optimize` tries",
        '    "fold-batchnorm,finetune{epochs=2}",',
        '    "fold-batchnorm,quantize-int8",',
        "]",
        "notes = []",
        "",
    ]
    for key, unit in UNITS.items():
        given = key in _START
        table = [
            f"[quantities.{key}]",
            f"value = {_START.get(key, 1.0)}",
            f'unit = "{unit}"',
            'kind = "guess"',
            'source = "say where this is from"',
            "",
        ]
        lines += table if given else [f"# {line}".rstrip() for line in table]
    lines += [f"# {line}".rstrip() for line in _TABLES.splitlines()]
    return "\n".join(lines) + "\n"


def write_draft(name: str, folder: Path) -> Path:
    """Returns the new file `NAME.toml` in a folder, holding a draft.

    Raises:
        UsageError: The name is none for a file.
        InputError: There is such a file already, or it cannot be written.
    """
    path = folder / f"{name}.toml"
    text = draft(name)
    if path.exists():
        raise InputError("there is such a file already", where=str(path), hint="use another name")
    write_atomically(path, text.encode())
    return path


def schema_text() -> str:
    """Returns what `target.schema.json` holds."""
    return json.dumps(json_schema(), indent=1) + "\n"


_TABLES = """[[clusters]]                    # cores, fastest first: what more threads bring
core = "Cortex-A77"
cores = 4
ghz = 2.0
macs_per_cycle = { f32 = 8, f16 = 16, i8 = 32 }
kind = "guess"
source = "say where this is from"

[fusion]                        # what runs within the kernel of a neighbour
activations = ["relu", "relu6"]
into = ["conv2d", "depthwise_conv2d", "dense", "add"]
pads = true                     # padding within the convolution behind it
sums = false                    # an addition within the convolution before it
integers = false                # whether that goes for activations of integers too
kind = "guess"
source = "say where this is from"

[runtime]                       # what runs the file there
name = "LiteRT with XNNPACK"
version = "2.3"
format = "tflite"
kind = "guess"
source = "say where this is from"

[limits.per_channel]            # storage types whose kernels have a scale per channel
value = ["i8"]
kind = "guess"
source = "say where this is from"
"""


if __name__ == "__main__":
    print(schema_text(), end="")
