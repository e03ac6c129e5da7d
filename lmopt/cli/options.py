"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmopt.errors import UsageError

if TYPE_CHECKING:
    from lmopt.target.profile import EndType

SOURCE = "DETECTOR|FILE|FOLDER"
"""How help calls whatever `lmopt.load` takes."""

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar=SOURCE,
        help="Zoo detector (pfld-0.25, pfld-0.25@300w, dan2@weights.npz), .keras, .h5 or .tflite "
        "file, or SavedModel folder.",
        show_default=False,
    ),
]
DataOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Folder or table of annotated faces; repeatable. 'rendered' means the embedded faces.",
        show_default=False,
    ),
]
ContractOption = Annotated[
    Path | None,
    typer.Option(
        "--contract",
        metavar="FILE.toml",
        help="What a model of your own eats and gives.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of everything random.")]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar=SOURCE,
        help="Who teaches passes that distill; default the detector itself, as it is in float.",
        show_default=False,
    ),
]
TargetOption = Annotated[
    str, typer.Option("--target", metavar="T", help="Target or TOML file: lmopt targets.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", metavar="N", help="CPU threads; default the best.")
]
BenchmarkModelOption = Annotated[
    Path | None,
    typer.Option(
        "--benchmark-model",
        metavar="FILE",
        help="TFLite's benchmark tool for the phone; default $LMOPT_BENCHMARK_MODEL, the cache.",
        show_default=False,
    ),
]
PhoneOrTargetOption = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="T",
        help="Target or TOML file: lmopt targets. With --device adb default the phone's CPU.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|host|adb[:SERIAL]|cuda[:N]",
        help="Whose latency makes the front: host this machine's, adb a phone's, cuda a card's.",
    ),
]
MaxNmeDropOption = Annotated[
    float | None,
    typer.Option(
        "--max-nme-drop",
        metavar="POINTS",
        help="Validation NME that may be lost against the float baseline.",
    ),
]
ObjectiveOption = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        metavar="bytes|stability",
        help="What the front minimises besides NME and latency; repeatable. Stability is how far "
        "landmarks move under noise.",
        show_default=False,
    ),
]
MaxLatencyOption = Annotated[
    float | None,
    typer.Option(
        "--max-latency",
        metavar="MS",
        help="Latency a candidate may have, on the target or where it is measured.",
    ),
]
DetectorArgument = Annotated[
    str,
    typer.Argument(
        metavar=SOURCE,
        help="Zoo detector (also NAME@weights.npz), .keras, .h5 or .tflite, or SavedModel folder.",
    ),
]
RunFolderOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Default out/DETECTOR-TARGET.")
]
InputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="float32|uint8|int8|int16",
        help="What a quantized file takes; default as its pipeline says.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="float32|uint8|int8|int16",
        help="What a quantized file gives, likewise.",
        show_default=False,
    ),
]
DetectorModelOption = Annotated[
    Path | None,
    typer.Option(
        "--detector-model",
        metavar="FILE.onnx",
        help="Face detector of OpenCV (YuNet) whose boxes --box detector takes.",
        show_default=False,
    ),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE.csv",
        help="Labels to add: a column file or id, and one per label.",
        show_default=False,
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Refuse what cannot be used instead of leaving it out."),
]


def end_type(given: str | None, option: str) -> EndType | None:
    """Returns a checked element type; raises UsageError for any other word."""
    if given is None or given in ("float32", "uint8", "int8", "int16"):
        return given  # type: ignore[return-value]  # just checked
    raise UsageError(
        f"no element type '{given}'", where=option, hint="choose float32, uint8, int8 or int16"
    )


def check_detector(box: str | None, model: Path | None) -> bool:
    """Returns whether the boxes are a detector's; raises UsageError unless both options say so."""
    if (box == "detector") == (model is not None):
        return model is not None
    raise UsageError(
        "--box detector needs --detector-model FILE" if model is None else "no --box detector",
        where="--box" if model is None else "--detector-model",
        hint="give both: --box detector --detector-model face_detection_yunet_2023mar.onnx",
    )
