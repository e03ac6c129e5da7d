"""The use case `compile`: one pipeline on one detector, out comes a .tflite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmopt.detector.contract import Contract
from lmopt.detector.detector import Detector
from lmopt.files import require_writable, write_atomically
from lmopt.flow.events import Listener, ignore
from lmopt.flow.sources import Faces, as_detector, as_faces, as_teacher
from lmopt.flow.workbench import Workbench
from lmopt.ir.graph import Graph
from lmopt.pipeline.manager import PassStep, Pipeline
from lmopt.runtime.runner import file_digest
from lmopt.target.catalog import load_target


@dataclass(frozen=True)
class CompiledModel:
    """A model file and how it came to be.

    Attributes:
        data: The .tflite.
        path: Where it was written, absolute; None when it was not.
        pipeline: What made it.
        graph: The graph in the file.
        steps: What every pass did.
        parity: What the parity gate found, where the graph is quantized.
    """

    data: bytes
    path: Path | None
    pipeline: Pipeline
    graph: Graph
    steps: tuple[PassStep, ...]
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
        out: Where to write the file; None keeps it in memory.
        target: Name or TOML path, for passes that ask for estimates.
        seed: Of everything random.
        teacher: Whom passes that distill learn from; None is the detector as it is.
        verify_each: Check on drawn inputs what every pass promises to preserve.
        cache: Folder in which results of passes are kept between calls.
        listen: Receives progress events; those of finished passes carry the graph.

    Raises:
        UsageError: Unknown detector, target, pass or option, or a malformed pipeline.
        InputError: Model, data or contract cannot be used, or `out` cannot be written.
        PassError: A pass cannot work here, or broke its promise.
        BackendError: Training or calibration failed.
    """
    pipeline = Pipeline.parse(passes) if isinstance(passes, str) else passes
    device = None if target is None else load_target(target)
    source = as_detector(detector, contract)
    source.require_weights()
    path = None if out is None else Path(out).resolve()
    if path is not None:
        require_writable(path)
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
        made = bench.file(result.graph)
        parity = bench.prove(result.graph, made)
    if path is not None:
        write_atomically(path, made)
    return CompiledModel(made, path, pipeline, result.graph, result.steps, parity)
