"""The use case `measure`: latency of files on a device, interleaved when compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.data.crop import cut_all
from lmopt.detector.contract import Contract
from lmopt.detector.document import CONTRACT_KEY, contract_from_json
from lmopt.device.adb import is_phone
from lmopt.device.output import Operator
from lmopt.device.phone import Phone
from lmopt.errors import BackendError, UsageError
from lmopt.flow.events import Activity, Listener, ignore
from lmopt.flow.phone import OUTPUT_FACES, OutputsCompared, cabled, compare_outputs
from lmopt.flow.request import check_device
from lmopt.flow.sources import Faces, as_faces, read_bytes
from lmopt.frontend.savedmodel import is_saved_model
from lmopt.frontend.tflite import metadata
from lmopt.latency.cuda import compare_saved_models, is_cuda
from lmopt.latency.harness import Sustained, compare, sustain
from lmopt.latency.measurement import Measurement, Ratio, Xla, ratio
from lmopt.target.catalog import load_target

MODEL, AGAINST = "model", "against"
Way = int | Xla
"""How a file ran: on so many CPU threads; of a SavedModel, whether XLA compiled it."""


@dataclass(frozen=True)
class Measured:
    """Latencies of a file, and of the one it was compared with in the same interleaved run.

    Attributes:
        model: The measured file.
        measurements: By thread count; of a SavedModel by XLA, `on` and `off`.
        against: The other file, or None.
        against_measurements: Of the other file, likewise.
        speedups: How many times the model is as fast as the other file, likewise; only of what
            both ran with.
        phone: What was measured, where it was a phone; else None.
        notes: What is to be said of the runs on a phone, outputs among it, or with XLA.
        outputs: How far the phone's answers are from this host's, by file.
        profile: Where the time of the model went on the phone, where asked for.
        sustained: The model running without a pause at its fastest thread count, where asked for.
    """

    model: str
    measurements: Mapping[Way, Measurement]
    against: str | None
    against_measurements: Mapping[Way, Measurement]
    speedups: Mapping[Way, Ratio]
    phone: Phone | None = None
    notes: tuple[str, ...] = ()
    outputs: Mapping[str, OutputsCompared] = field(default_factory=dict)
    profile: tuple[Operator, ...] = ()
    sustained: Sustained | None = None

    @property
    def all(self) -> tuple[Measurement, ...]:
        """Returns every measurement."""
        return (*self.measurements.values(), *self.against_measurements.values())

    @property
    def best(self) -> Measurement:
        """Returns the measurement at the fastest thread count, or the faster one of XLA."""
        return _fastest(self.measurements)

    @property
    def best_against(self) -> Measurement | None:
        """Returns the same of the other file, where there is one."""
        return _fastest(self.against_measurements) if self.against_measurements else None

    @property
    def best_speedup(self) -> Ratio | None:
        """Returns how many times the model is as fast as the other file, both at their best."""
        return None if self.best_against is None else ratio(self.best_against, self.best)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report; times are milliseconds."""
        document: dict[str, Any] = {
            "model": self.model,
            "measurements": [m.to_json() for m in self.measurements.values()],
            "best": self.best.to_json(),
        }
        if self.against is not None:
            document["against"] = {
                "model": self.against,
                "measurements": [m.to_json() for m in self.against_measurements.values()],
            }
            word = "threads" if self.best.xla is None else "xla"
            document["speedups"] = [
                {word: way, **found.to_json()} for way, found in self.speedups.items()
            ]
        if self.sustained is not None:
            document["sustained"] = {
                **asdict(self.sustained),
                "threads": self.best.threads,
                "slowdown": self.sustained.slowdown,
            }
        if self.best.xla is not None:
            document["notes"] = list(self.notes)
            if self.best_speedup is not None:
                document["best_speedup"] = self.best_speedup.to_json()
        if self.phone is not None:
            document["phone"] = self.phone.to_json()
            document["notes"] = list(self.notes)
            document["outputs"] = {name: found.to_json() for name, found in self.outputs.items()}
            document["profile"] = [asdict(op) for op in self.profile]
        return document


def measure(
    model: str | Path | bytes,
    *,
    against: str | Path | bytes | None = None,
    threads: Sequence[int] = (1,),
    max_seconds: float = 20.0,
    min_runs: int = 50,
    seed: int = 0,
    device: str = "auto",
    target: str | Path | None = None,
    benchmark_model: Path | None = None,
    data: Faces = None,
    per_op: bool = False,
    sustained_minutes: float = 0.0,
    listen: Listener = ignore,
) -> Measured:
    """Returns measured latencies of a .tflite on this host or a phone, of a SavedModel on CUDA.

    Args:
        model: The file or its bytes, or the folder of a SavedModel.
        against: Another one of the same kind, measured in the same interleaved run.
        threads: CPU thread counts; a SavedModel is measured once.
        max_seconds: When to stop although an interval is still wide.
        min_runs: Inferences of each .tflite, unless the time is up before; on this host.
        seed: Draws the order of visits.
        device: `adb` or `adb:SERIAL` for a phone, `cuda` or `cuda:N` for a card of this host,
            `host` for its CPU; `auto` goes by the kind of file.
        target: Profile whose engine the phone is to use; None takes its own CPU profile.
        benchmark_model: TFLite's tool for the phone; None looks for it.
        data: Faces on which the phone's answers are compared with this host's; None compares none.
        per_op: Also find out where the time of the model goes on the phone.
        sustained_minutes: Also run the model on this host without a pause, at its fastest thread
            count, and compare with the first second.
        listen: Hears how that goes.

    Raises:
        UsageError: A .tflite on CUDA, a SavedModel elsewhere or against a .tflite, CPU threads for
            SavedModels, options of phones without one, or no phone named where there are several.
        InputError: A file that cannot be read, or a thread count the machine does not have.
        BackendError: A file crashes, hangs or is refused by the runtime, or no such device is here.
    """
    check_device(device)
    if sustained_minutes < 0:
        raise UsageError(f"{sustained_minutes:g} minutes; wanted 0 or more", where="--sustained")
    folder = not isinstance(model, bytes) and is_saved_model(Path(model))
    if sustained_minutes and (is_phone(device) or folder):
        raise UsageError(
            "only a .tflite on this host is sustained",
            where="--sustained",
            hint="leave --sustained out, or --device",
        )
    if is_phone(device):
        return _on_phone(
            model, against, tuple(threads), max_seconds, seed, device, target, benchmark_model,
            data, per_op,
        )  # fmt: skip
    if target is not None or benchmark_model is not None or data is not None or per_op:
        raise UsageError(
            "a target, a tool, faces or single nodes are for measuring on a phone",
            where="--device",
            hint="add --device adb",
        )
    files = {MODEL: _file(model)}
    if against is not None:
        files[AGAINST] = _file(against)
    folders = {k: f for k, f in files.items() if isinstance(f, Path) and f.is_dir()}
    if folders or is_cuda(device):
        return _on_cuda(files, folders, threads, max_seconds, seed, device)
    found = compare(
        files, threads=tuple(threads), max_seconds=max_seconds, min_runs=min_runs, seed=seed
    )
    own: dict[Way, Measurement] = {count: found[MODEL, count] for count in threads}
    other: dict[Way, Measurement] = {}
    if against is not None:
        other = {count: found[AGAINST, count] for count in threads}
    made = Measured(
        _name(model),
        own,
        None if against is None else _name(against),
        other,
        {count: ratio(other[count], own[count]) for count in other},
    )
    if not sustained_minutes:
        return made
    seconds = 60 * sustained_minutes

    def tell(now: float, ms: float) -> None:
        done = min(round(now), round(seconds))
        listen(Activity(f"running without a pause, {ms:.3g} ms", done, round(seconds)))

    sustained = sustain(files[MODEL], seconds=seconds, threads=made.best.threads, on_stretch=tell)
    return replace(made, sustained=sustained)


def _on_phone(
    model: str | Path | bytes,
    against: str | Path | bytes | None,
    threads: tuple[int, ...],
    max_seconds: float,
    seed: int,
    device: str,
    target: str | Path | None,
    tool: Path | None,
    data: Faces,
    per_op: bool,
) -> Measured:
    files = {MODEL: _bytes(model)}
    if against is not None:
        files[AGAINST] = _bytes(against)
    names = {MODEL: _name(model), AGAINST: "" if against is None else _name(against)}
    cable = cabled(device, None if target is None else load_target(target), tool)
    crops = {label: _crops(content, names[label], data) for label, content in files.items()}
    outputs: dict[str, OutputsCompared] = {}
    with cable.bench() as bench:
        run = bench.compare(files, threads=threads, max_seconds=max_seconds, seed=seed)
        for (label, _), error in run.failures.items():
            raise BackendError(error.what, where=names[label], hint=error.hint)
        for label, content in files.items():
            found = crops[label]
            outputs[names[label]] = (
                found
                if isinstance(found, OutputsCompared)
                else compare_outputs(bench, content, *found, names[label])
            )
        profile = bench.profile(files[MODEL], threads=threads[0]) if per_op else None
    own: dict[Way, Measurement] = {count: run.measurements[MODEL, count] for count in threads}
    other: dict[Way, Measurement] = {}
    if against is not None:
        other = {count: run.measurements[AGAINST, count] for count in threads}
    notes = [f"{names[label]}: {text}" for label, found in run.notes.items() for text in found]
    notes += [f"{name}: {compared}" for name, compared in outputs.items()]
    return Measured(
        names[MODEL],
        own,
        None if against is None else names[AGAINST],
        other,
        {count: ratio(other[count], own[count]) for count in other},
        cable.phone,
        (*cable.notes, *notes),
        outputs,
        () if profile is None else profile.operators,
    )


def _crops(
    model: bytes, name: str, data: Faces
) -> tuple[Contract, NDArray[np.uint8]] | OutputsCompared:
    """Returns a file's contract and crops of a few validation faces, or why there are none."""
    text = metadata(model, name).get(CONTRACT_KEY)
    if text is None:
        return OutputsCompared(reason="the file carries no contract")
    if data is None:
        return OutputsCompared(reason="no faces are given (--data)")
    contract = contract_from_json(text, name)
    faces = as_faces(data, contract).split("validation")
    few = {face.id for face in faces.faces[:OUTPUT_FACES]}
    return contract, cut_all(faces.keep(lambda face: face.id in few), contract).pixels


def _bytes(model: str | Path | bytes) -> bytes:
    return model if isinstance(model, bytes) else read_bytes(Path(model))


def _on_cuda(
    files: Mapping[str, bytes | Path],
    folders: Mapping[str, Path],
    threads: Sequence[int],
    max_seconds: float,
    seed: int,
    device: str,
) -> Measured:
    if not folders:
        raise UsageError(
            "a .tflite does not run on CUDA, SavedModel folders do",
            where="--device",
            hint="lmopt compile --target desktop-cuda writes them; without --device a .tflite is "
            "measured on this CPU",
        )
    if len(folders) < len(files):
        raise UsageError(
            "a SavedModel runs on CUDA and a .tflite on this CPU: that is no comparison",
            where="--against",
            hint="give two of one kind",
        )
    if device == "host":
        raise UsageError(
            "SavedModels are measured on CUDA, not on this CPU",
            where="--device",
            hint="--device cuda; the .tflite of the same detector is measured here",
        )
    if tuple(threads) != (1,):
        raise UsageError("CPU threads do not apply to a SavedModel", where="--threads")
    run = compare_saved_models(
        folders,
        max_seconds=max_seconds,
        seed=seed,
        device=device if is_cuda(device) else "cuda",
    )
    found: dict[str, dict[Way, Measurement]] = {}
    for label in folders:
        run.best(label)  # or the error that left it without any
        found[label] = {xla: m for (name, xla), m in run.measurements.items() if name == label}
    own, other = found[MODEL], found.get(AGAINST, {})
    return Measured(
        str(folders[MODEL]),
        own,
        str(folders[AGAINST]) if other else None,
        other,
        {way: ratio(other[way], own[way]) for way in other if way in own},
        notes=tuple(f"{path}: {text}" for k, path in folders.items() for text in run.notes(k)),
    )


def _fastest(found: Mapping[Way, Measurement]) -> Measurement:
    return min(found.values(), key=lambda m: m.p50)


def _file(model: str | Path | bytes) -> bytes | Path:
    return model if isinstance(model, bytes) else Path(model)


def _name(model: str | Path | bytes) -> str:
    return "bytes" if isinstance(model, bytes) else str(model)
