"""The use cases around `evaluate`: how well the very bytes that ship find landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmopt.data.dataset import Dataset, Split
from lmopt.detector.contract import BoxSource, Contract
from lmopt.detector.detector import Detector, no_contract
from lmopt.detector.document import load_contract
from lmopt.errors import InputError
from lmopt.flow.compilation import compile
from lmopt.flow.events import Activity, Listener, Noted, ignore
from lmopt.flow.sources import (
    Faces,
    as_detector,
    as_faces,
    is_model_file,
    load_model_file,
)
from lmopt.latency.host import usable_cores
from lmopt.runtime.runner import read_model
from lmopt.scoring.evaluation import Evaluation
from lmopt.scoring.metrics import Normaliser, default_normaliser
from lmopt.scoring.protocols import Score, ScoringProtocol
from lmopt.scoring.rows import NotTestable, Row
from lmopt.scoring.settings import Settings
from lmopt.scoring.suite import Subject, judge, protocols_named

FLOAT_FILE = "fold-batchnorm"
"""What turns a detector into the float file that is scored."""


def evaluate(
    source: str | Path | Detector,
    data: Faces = None,
    *,
    split: Split = "test",
    contract: Contract | Path | None = None,
    normaliser: Normaliser | None = None,
    box: BoxSource | None = None,
    detector_model: Path | None = None,
    listen: Listener = ignore,
) -> Score:
    """Returns the score of a model file, or of the folded float file of a detector.

    This is the protocol `nme`; `evaluate_protocols` knows the others.

    Args:
        source: A .tflite is scored as it is; a detector is folded and emitted first.
        data: Annotated folders, or a dataset; None means the embedded rendered faces.
        split: Which faces.
        contract: Of a file that carries none.
        normaliser: What errors are divided by; None takes the inter-ocular distance, or the
            face's box where the scheme does not name the eyes.
        box: Box source instead of the contract's.
        detector_model: Take the boxes that this face detector of OpenCV finds for the given
            ones, and crop by them; see `with_detected_boxes`.
        listen: Receives progress events.

    Raises:
        UsageError: Unknown detector.
        InputError: Model, contract or data cannot be used, or do not fit each other.
        BackendError: The runtime fails on the file.
    """
    model, rules = _file(source, contract)
    faces = as_faces(data, rules, listen).split(split)
    if detector_model is not None:
        faces, box = detected(faces, detector_model, listen), "given"
    chosen = normaliser or default_normaliser(rules.scheme)
    listen(Activity(f"scoring {len(faces)} faces of split '{split}'"))
    protocol = ScoringProtocol(rules, faces, chosen, box)
    return protocol.score(model, threads=min(2, usable_cores()))


def evaluate_protocols(
    source: str | Path | Detector,
    data: Faces = None,
    *,
    protocols: Sequence[str] = ("nme",),
    against: str | Path | Detector | None = None,
    split: Split = "test",
    contract: Contract | Path | None = None,
    normaliser: Normaliser | None = None,
    box: BoxSource | None = None,
    detector_model: Path | None = None,
    labels: Path | None = None,
    settings: Settings | None = None,
    listen: Listener = ignore,
) -> Evaluation:
    """Returns the rows of protocols for a model file or the folded float file of a detector.

    `evaluate` gives the NME alone; this gives it too, as the row of the protocol `nme`.

    Args:
        source: A .tflite is scored as it is; a detector is folded and emitted first.
        data: Annotated folders, or a dataset; None means the embedded rendered faces.
        protocols: `nme`, `categories`, `boxes`, `resolution`, `blur`, `occlusion`, `stability`,
            `regions`, or `all`.
        against: Another model, judged on the same faces and compared face by face.
        split: Which faces.
        contract: Of a file that carries none; also of `against` where that carries none.
        normaliser: What errors are divided by; None takes the inter-ocular distance, or the
            face's box where the scheme does not name the eyes.
        box: Box source instead of the contract's.
        detector_model: As of `evaluate`.
        labels: Table of the faces' categories, see `lmopt.data.labels`.
        settings: The numbers in the protocols; None takes the studies'.
        listen: Receives progress events.

    Raises:
        UsageError: Unknown detector or protocol.
        InputError: Model, contract or data cannot be used, or do not fit each other.
        BackendError: The runtime fails on a file.
    """
    wanted = tuple(dict.fromkeys(p for name in protocols for p in protocols_named(name)))
    subjects = [_subject(source, contract)]
    if against is not None:
        subjects.append(_subject(against, contract if _is_bare(against) else None))
    scheme = subjects[0].contract.scheme
    faces = as_faces(data, subjects[0].contract, listen, labels=labels).split(split)
    if detector_model is not None:
        faces, box = detected(faces, detector_model, listen), "given"
    listen(Activity(f"scoring {len(faces)} faces of split '{split}' by {', '.join(wanted)}"))
    rows = judge(
        subjects,
        faces,
        wanted,
        settings or Settings(),
        normaliser=normaliser or default_normaliser(scheme),
        box=box,
        threads=min(2, usable_cores()),
        report=lambda what, done, total: listen(Activity(what, done, total)),
    )
    _require_scored([row for found in rows[0].values() for row in found], faces)
    first, *rest = zip((subject.name for subject in subjects), rows, strict=True)
    return Evaluation.of_two(*first, *rest[0]) if rest else Evaluation(*first)


def _require_scored(rows: Sequence[Row], faces: Dataset) -> None:
    missing = [row.reason for row in rows if isinstance(row, NotTestable)]
    if len(missing) == len(rows):
        raise InputError(
            f"nothing can be scored: {'; '.join(dict.fromkeys(missing))}",
            where=faces.name,
            hint="take another box or protocol, or data that has what is missing",
        )


def _subject(source: str | Path | Detector, contract: Contract | Path | None) -> Subject:
    model, rules = _file(source, contract)
    data = read_model(model) if isinstance(model, Path) else model
    return Subject(data, rules, source.name if isinstance(source, Detector) else str(source))


def _is_bare(source: str | Path | Detector) -> bool:
    if isinstance(source, Detector):
        return source.contract is None
    if is_model_file(source):
        return load_model_file(Path(source))[1] is None
    return as_detector(source, None).contract is None


def detected(faces: Dataset, model: Path, listen: Listener = ignore) -> Dataset:
    """Returns the faces with the boxes that a face detector of OpenCV finds; tells how many."""
    from lmopt.data.detect import with_detected_boxes

    found = with_detected_boxes(
        faces,
        model,
        on_progress=lambda done: listen(Activity("detecting faces", done, len(faces))),
    )
    count = sum(face.box is not None for face in found.faces)
    listen(Noted(f"{model.name} finds {count} of {len(found)} faces"))
    return found


def _file(
    source: str | Path | Detector, contract: Contract | Path | None
) -> tuple[bytes | Path, Contract]:
    if not isinstance(source, Detector) and is_model_file(source):
        path = Path(source)
        _, own = load_model_file(path)
        given = load_contract(contract) if isinstance(contract, Path) else contract
        rules = given or own
        if rules is None:
            raise no_contract(str(path))
        return path, rules
    detector = as_detector(source, contract)
    rules = detector.require_contract()
    return compile(detector, FLOAT_FILE).data, rules
