"""What the user names, found: a detector, faces, a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lmopt.data.dataset import Dataset
from lmopt.data.labels import with_labels
from lmopt.data.load import load_dataset
from lmopt.detector.contract import Contract
from lmopt.detector.detector import Detector, check_one_input
from lmopt.detector.document import CONTRACT_KEY, contract_from_json, load_contract
from lmopt.errors import InputError
from lmopt.flow.events import Activity, Listener, Noted, ignore
from lmopt.flow.folding import folded
from lmopt.frontend.savedmodel import CONTRACT_FILE, convert, is_saved_model

MODEL_SUFFIXES = (".keras", ".h5", ".hdf5", ".tflite")
RENDERED = {"train": 3000, "validation": 300, "test": 300}
"""Faces per split of the embedded dataset."""
RENDERED_WORD = "rendered"
"""Names the embedded dataset where a path is expected."""
_NAMED = 5  # annotations that cannot be used, in a message

Faces = Dataset | Sequence[str | Path] | str | Path | None
"""What stands for faces in calls: a dataset, one or several folders, `rendered`, or None."""


def load(source: str | Path, *, contract: Contract | Path | None = None) -> Detector:
    """Returns a detector: one of the zoo, or the user's Keras, SavedModel or .tflite model.

    Args:
        source: `pfld-0.25`, `pfld-0.25@300w`, or the path of a .keras, .h5 or .tflite file or of a
            SavedModel folder.
        contract: What the model eats and gives, or the TOML that says so; replaces the zoo's own.

    Raises:
        UsageError: No such detector in the zoo.
        InputError: The file is missing, broken or holds what lmopt cannot read.
    """
    detector = _from_file(Path(source)) if _is_path(source) else _from_zoo(str(source))
    return detector if contract is None else with_contract(detector, contract)


def with_contract(detector: Detector, contract: Contract | Path) -> Detector:
    """Returns the detector with another contract, or raises InputError when it does not fit."""
    given = contract if isinstance(contract, Contract) else load_contract(contract)
    _check_contract(detector, given)
    return replace(detector, contract=given)


def load_model_file(path: Path) -> tuple[bytes, Contract | None]:
    """Returns a .tflite's bytes and the contract in its metadata.

    Raises:
        InputError: It cannot be read, is no TFLite model or has several inputs.
    """
    from lmopt.frontend.tflite import inputs, metadata

    data = read_bytes(path)
    check_one_input(str(path), inputs(data, str(path)))
    text = metadata(data, str(path)).get(CONTRACT_KEY)
    return data, None if text is None else contract_from_json(text, str(path))


def is_model_file(source: str | Path) -> bool:
    """Returns whether a source is a ready .tflite."""
    return Path(source).suffix == ".tflite"


def as_detector(source: str | Path | Detector, contract: Contract | Path | None) -> Detector:
    """Returns a loaded detector; see `load`."""
    if not isinstance(source, Detector):
        return load(source, contract=contract)
    return source if contract is None else with_contract(source, contract)


def as_teacher(source: str | Path | Detector | None) -> Detector | None:
    """Returns a loaded detector to learn from, its batch norms folded; None for None.

    Raises:
        InputError: It has no weights or no contract.
    """
    if source is None:
        return None
    found = as_detector(source, None)
    found.require_weights()
    found.require_contract()
    return found.with_graph(folded(found.graph))


def as_faces(
    data: Faces,
    contract: Contract | None,
    listen: Listener = ignore,
    *,
    labels: Path | None = None,
    strict: bool = False,
) -> Dataset:
    """Returns the faces a call means; None means the embedded rendered ones. See `load_faces`."""
    if isinstance(data, Dataset):
        return data
    given = () if data is None else [data] if isinstance(data, str | Path) else data
    paths = [Path(path) for path in given]
    return load_faces(paths, contract, listen, labels=labels, strict=strict)


def is_rendered(paths: Sequence[Path]) -> bool:
    """Returns whether `paths` mean the embedded rendered faces."""
    return not paths or [str(path) for path in paths] == [RENDERED_WORD]


def kind_of_faces(paths: Sequence[Path]) -> str:
    """Returns what every report calls the faces of `paths`."""
    return "rendered faces" if is_rendered(paths) else "annotated faces"


def load_faces(
    paths: Sequence[Path],
    contract: Contract | None,
    listen: Listener = ignore,
    *,
    labels: Path | None = None,
    strict: bool = False,
) -> Dataset:
    """Returns the annotated faces of `paths`, or the embedded rendered faces for none.

    Args:
        paths: Folders or tables.
        contract: Whose landmark scheme the faces have, or None for that of their number.
        listen: Is told what is rendered and which annotations are left out.
        labels: A CSV with labels to add.
        strict: Refuse the first annotation that cannot be used instead of leaving it out.

    Raises:
        InputError: What cannot be read as faces.
    """
    if not is_rendered(paths):
        scheme = None if contract is None else contract.scheme
        faces = load_dataset(paths, scheme=scheme, labels=labels, strict=strict)
    else:
        faces = _rendered(listen)
        faces = faces if labels is None else with_labels(faces, labels, strict=strict)
    if faces.skipped:
        listen(Noted(left_out(faces)))
    return faces


def left_out(faces: Dataset) -> str:
    """Returns how many annotations were left out, and what is wrong with the first of them."""
    skipped = faces.skipped
    named = "".join(f"\n  {error.where}: {error.what}" for error in skipped[:_NAMED])
    beyond = len(skipped) - _NAMED
    more = f"\n  and {beyond} more: lmopt data stats --json lists them all" if beyond > 0 else ""
    return f"left out {len(skipped)}, kept {len(faces)} annotations:{named}{more}"


def _rendered(listen: Listener) -> Dataset:
    from lmopt.data.synthetic.dataset import rendered_dataset

    total = sum(RENDERED.values())
    return rendered_dataset(
        train=RENDERED["train"],
        validation=RENDERED["validation"],
        test=RENDERED["test"],
        on_progress=lambda done: listen(Activity("rendering faces", done, total)),
    )


def read_bytes(path: Path) -> bytes:
    """Returns a file's bytes, or raises InputError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read: {error.strerror or error}", where=str(path), hint="check the path"
        ) from error


def _is_path(source: str | Path) -> bool:
    from lmopt import zoo

    path, name = Path(source), str(source).partition("@")[0]
    if isinstance(source, Path) or path.suffix in MODEL_SUFFIXES or path.is_file():
        return True
    if is_saved_model(path):
        return True
    # A folder called like a detector does not hide it.
    return name not in zoo.DETECTORS and (path.is_dir() or Path(name).name != name)


def _from_zoo(name: str) -> Detector:
    from lmopt import zoo

    return zoo.load(name)


def _from_file(path: Path) -> Detector:
    saved = path.is_dir()
    if not saved and not path.is_file():
        raise InputError(
            "no such model file",
            where=str(path),
            hint="give a zoo detector, a SavedModel folder or a file that ends in "
            + ", ".join(MODEL_SUFFIXES),
        )
    if saved or path.suffix == ".tflite":
        from lmopt.frontend import tflite

        graph, found = tflite.read(convert(path) if saved else read_bytes(path), str(path))
        text = found.get(CONTRACT_KEY)
        if saved and (path / CONTRACT_FILE).is_file():
            text = (path / CONTRACT_FILE).read_text(encoding="utf-8")
        return Detector(
            str(path), graph, None if text is None else contract_from_json(text, str(path))
        )
    if path.suffix in MODEL_SUFFIXES:
        from lmopt.frontend import keras

        return Detector(str(path), keras.read(path))
    raise InputError(
        f"a file ending in '{path.suffix}' is no model lmopt reads",
        where=str(path),
        hint=f"give one that ends in {', '.join(MODEL_SUFFIXES)}",
    )


def _check_contract(detector: Detector, contract: Contract) -> None:
    detector.require_one_input()
    (entry,) = detector.graph.inputs
    want = (contract.height, contract.width, contract.channels)
    if entry.results[0].shape[1:] != want:
        raise InputError(
            f"the contract feeds {want[0]}x{want[1]}x{want[2]}, the model takes {entry.results[0]}",
            where=detector.name,
            hint="correct height, width or color in the contract",
        )
    outputs = dict(detector.graph.outputs)
    if contract.output not in outputs:
        raise InputError(
            f"the contract reads output '{contract.output}', the model has {sorted(outputs)}",
            where=detector.name,
            hint="correct `output` in the contract",
        )
    numbers = detector.graph.type(outputs[contract.output]).elements
    if numbers != 2 * contract.scheme.count:
        raise InputError(
            f"output '{contract.output}' gives {numbers} numbers, the contract's "
            f"{contract.scheme.count} landmarks need {2 * contract.scheme.count}",
            where=detector.name,
            hint="correct the landmark scheme in the contract",
        )
