"""The use case `compile`: one pipeline on one detector, out comes a .tflite, or SavedModels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmopt.detector.contract import Contract
from lmopt.detector.detector import Detector
from lmopt.errors import UsageError
from lmopt.files import require_new, require_writable, write_atomically
from lmopt.flow.events import Listener, ignore
from lmopt.flow.host_profile import target_named
from lmopt.flow.pipelines import has_ends, require_legal_end, with_ends
from lmopt.flow.saved_model import SavedModel, takes_saved_models, write_saved_models
from lmopt.flow.sources import Faces, as_detector, as_faces, as_teacher
from lmopt.flow.workbench import Workbench
from lmopt.ir.graph import Graph
from lmopt.pipeline.manager import PassStep, Pipeline
from lmopt.runtime.runner import file_digest
from lmopt.target.legality import require_legal
from lmopt.target.profile import EndType


@dataclass(frozen=True)
class CompiledModel:
    """A model file and how it came to be.

    Attributes:
        data: The .tflite.
        path: Where it was written, or the folder of the SavedModels; absolute; None when nothing
            was.
        pipeline: What made it.
        graph: The graph in the file.
        steps: What every pass did.
        saved_models: What was written instead of the .tflite for a target that takes none.
        parity: What the parity gate found, where the graph is quantized.
    """

    data: bytes
    path: Path | None
    pipeline: Pipeline
    graph: Graph
    steps: tuple[PassStep, ...]
    saved_models: tuple[SavedModel, ...] = ()
    parity: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Returns 32 hex digits over the file's bytes."""
        return file_digest(self.data)

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns what the passes had to say, in order, and the parity gate."""
        return (*(note for step in self.steps for note in step.notes), *self.parity)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return {
            "pipeline": str(self.pipeline),
            "model": None if self.path is None else str(self.path),
            "digest": self.digest,
            "size_bytes": len(self.data),
            "parameters": self.graph.parameters,
            "macs": self.graph.macs,
            "saved_models": [asdict(made) for made in self.saved_models],
            "steps": [
                {
                    "pass": step.text,
                    "seconds": step.seconds,
                    "changed": step.changed,
                    "cached": step.cached,
                    "notes": list(step.notes),
                }
                for step in self.steps
            ],
        }


def compile(
    detector: str | Path | Detector,
    passes: str | Pipeline,
    *,
    data: Faces = None,
    contract: Contract | Path | None = None,
    out: str | Path | None = None,
    target: str | Path | None = None,
    input: EndType | None = None,
    output: EndType | None = None,
    seed: int = 0,
    teacher: str | Path | Detector | None = None,
    verify_each: bool = False,
    cache: Path | None = None,
    listen: Listener = ignore,
) -> CompiledModel:
    """Returns the .tflite that a pipeline makes of a detector.

    Args:
        detector: Zoo name, model file, or a loaded detector; it needs weights.
        passes: The pipeline, as text or parsed.
        data: Annotated folders, a dataset, or `rendered`; None runs passes that need no faces.
        contract: What a user's model eats and gives.
        out: Where to write the file; None keeps it in memory. For a target that takes SavedModels,
            the new folder that is to hold `float32` and `float16`.
        target: Name or TOML path: its rules are checked before anything is written, and passes may
            ask for estimates.
        input: Element type that the quantized file takes; None leaves it to the pipeline.
        output: Element type that it gives, likewise.
        seed: Of everything random.
        teacher: Whom passes that distill learn from; None is the detector as it is.
        verify_each: Check on drawn inputs what every pass promises to preserve.
        cache: Folder in which results of passes are kept between calls.
        listen: Receives progress events; those of finished passes carry the graph.

    Raises:
        UsageError: Unknown detector, target, pass or option, or a malformed pipeline.
        InputError: Model, data or contract cannot be used, or `out` cannot be written.
        PassError: A pass cannot work here, or broke its promise.
        BackendError: Training or calibration failed, the target's rules forbid the file, or a
            SavedModel answers otherwise than the .tflite.
    """
    pipeline = Pipeline.parse(passes) if isinstance(passes, str) else passes
    if (input or output) and not has_ends(pipeline):
        raise UsageError(
            f"no pass of '{pipeline}' makes integer ends",
            where="--input" if input else "--output",
            hint="end the pipeline in quantize-int8, -uint8, -int16, -mixed or in qat",
        )
    pipeline = with_ends(pipeline, input, output)
    device = None if target is None else target_named(target)
    if device is not None:
        require_legal_end(pipeline, device)
    source = as_detector(detector, contract)
    source.require_one_input()
    source.require_weights()
    path = None if out is None else Path(out).resolve()
    saves = device is not None and takes_saved_models(device)
    if path is not None:
        if not saves and path.suffix != ".tflite":
            raise UsageError(
                f"'{path.name}' does not end in .tflite, by which the other commands know it",
                where="--out",
                hint=f"--out {path.name}.tflite",
            )
        (require_new if saves else require_writable)(path)
    faces = None if data is None else as_faces(data, source.require_contract(), listen)
    with Workbench(
        source,
        faces,
        device,
        seed=seed,
        teacher=as_teacher(teacher),
        cache=cache,
        listen=listen,
    ) as bench:
        result = bench.run(pipeline, verify_each=verify_each)
        if device is not None:
            require_legal(result.graph, device)
        made = bench.file(result.graph)
        parity = bench.prove(result.graph, made)
        saved: tuple[SavedModel, ...] = ()
        if path is not None and saves:
            saved = write_saved_models(bench, result.graph, path)
        elif path is not None:
            write_atomically(path, made)
    return CompiledModel(made, path, pipeline, result.graph, result.steps, saved, parity)
