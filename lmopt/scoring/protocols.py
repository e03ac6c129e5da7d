"""Scores a model file on annotated faces: the very bytes that ship, with their real types."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.data.crop import Crops, cut_all
from lmopt.data.dataset import SPLITS, Dataset
from lmopt.detector.contract import BoxSource, Contract
from lmopt.detector.document import CONTRACT_KEY, contract_from_json
from lmopt.errors import BackendError, InputError
from lmopt.frontend import tflite
from lmopt.runtime.runner import (
    Runner,
    TensorInfo,
    file_digest,
    from_model_output,
    model_name,
    read_model,
    to_model_input,
)
from lmopt.scoring import metrics
from lmopt.scoring.metrics import Difference, Normaliser

FACES_AT_ONCE = 256


@dataclass(frozen=True)
class Score:
    """How well a model file finds landmarks, and by which protocol that was found out.

    Attributes:
        per_face: NME in percent of each face, in the dataset's order.
        normaliser: What the errors are divided by.
        crop: The crop rule, in words.
        box: Source of the boxes the crops start from.
        digest: 32 hex digits over the model file's bytes.
        dataset: Name of the dataset.
        dataset_digest: Digest of the scored faces.
        split: Splits the faces are from.
        skipped: Faces left out since they have no given box.
    """

    per_face: tuple[float, ...]
    normaliser: Normaliser
    crop: str
    box: BoxSource
    digest: str
    dataset: str
    dataset_digest: str
    split: str
    skipped: int = 0

    @property
    def faces(self) -> int:
        """Returns the number of scored faces."""
        return len(self.per_face)

    @cached_property
    def nme_percent(self) -> float:
        """Returns the mean NME in percent."""
        return float(np.mean(self.per_face))

    @cached_property
    def auc(self) -> float:
        """Returns the area under the error curve up to 8 %, 0..1."""
        return metrics.auc(np.array(self.per_face))

    @cached_property
    def failure_rate_percent(self) -> float:
        """Returns the percentage of faces with an NME above 8 %."""
        return metrics.failure_rate_percent(np.array(self.per_face))

    def comparable(self, other: Score) -> bool:
        """Returns whether both were found by one protocol on the same faces."""
        return not self._disagreements(other)

    def _disagreements(self, other: Score) -> list[str]:
        said = {
            "normaliser": (self.normaliser, other.normaliser),
            "crop": (self.crop, other.crop),
            "box": (self.box, other.box),
            "faces": (self.dataset_digest[:12], other.dataset_digest[:12]),
            "number of faces": (str(self.faces), str(other.faces)),
        }
        return [f"{what} {a} against {b}" for what, (a, b) in said.items() if a != b]

    def to_json(self) -> dict[str, Any]:
        """Returns the result and its protocol, without the single faces."""
        return {
            "nme_percent": self.nme_percent,
            "auc": self.auc,
            "failure_rate_percent": self.failure_rate_percent,
            "faces": self.faces,
            "skipped": self.skipped,
            "normaliser": self.normaliser,
            "crop": self.crop,
            "box": self.box,
            "digest": self.digest,
            "dataset": self.dataset,
            "dataset_digest": self.dataset_digest,
            "split": self.split,
        }


def difference(a: Score, b: Score, seed: int = 0) -> Difference:
    """Returns `a`'s NME minus `b`'s in percentage points, paired by face, with its 95 % interval.

    Raises:
        InputError: They were not found by one protocol on the same faces.
    """
    if disagreements := a._disagreements(b):
        raise InputError(
            f"scores of different protocols cannot be compared: {', '.join(disagreements)}",
            hint="evaluate both files with the same data, crop and normaliser",
        )
    return metrics.paired_difference(np.array(a.per_face), np.array(b.per_face), seed)


@dataclass(frozen=True, eq=False)
class ScoringProtocol:
    """A fixed way to score many files: the faces are cropped once, at the first score.

    Attributes:
        contract: What the detector eats and gives.
        dataset: The faces; splits are the caller's choice.
        normaliser: What errors are divided by.
        box: Box source instead of the contract's, or None.
    """

    contract: Contract
    dataset: Dataset
    normaliser: Normaliser = "inter-ocular"
    box: BoxSource | None = None

    def __post_init__(self) -> None:
        got, wanted = self.dataset.scheme.count, self.contract.scheme.count
        if got != wanted:
            raise InputError(
                f"the faces have {got} landmarks, the detector's contract says {wanted}",
                where=self.dataset.name,
                hint="give data annotated like the detector, or its right contract",
            )
        if not self.dataset.faces:
            raise InputError("no faces to score on", where=self.dataset.name)

    @cached_property
    def _cropping(self) -> Contract:
        rule = replace(self.contract.crop, box=self.box or self.contract.crop.box)
        return replace(self.contract, crop=rule)

    @cached_property
    def _scored(self) -> Dataset:
        if self._cropping.crop.box != "given":
            return self.dataset
        boxed = self.dataset.keep(lambda face: face.box is not None)
        if not boxed.faces:
            raise InputError(
                f"none of the {len(self.dataset)} faces has a given box",
                where=self.dataset.name,
                hint="crop by box 'landmarks', or give data with face boxes",
            )
        return boxed

    @cached_property
    def crops(self) -> Crops:
        """Returns the crops of the scored faces."""
        return cut_all(self._scored, self._cropping)

    @cached_property
    def truth(self) -> NDArray[np.float64]:
        """Returns the true landmarks in picture pixels, [faces, landmarks, 2]."""
        return np.stack([face.landmarks for face in self._scored.faces])

    @cached_property
    def mean_shape_nme_percent(self) -> float:
        """Returns the NME of the faces' own mean shape in every crop: what learned nothing has."""
        guess = np.repeat(self.crops.landmarks.mean(0, keepdims=True), len(self.crops), axis=0)
        placed = _to_picture(guess, self.crops.to_picture)
        scheme = self.contract.scheme
        return float(metrics.nme_percent(placed, self.truth, scheme, self.normaliser).mean())

    def predict(
        self, model: bytes | Path, *, threads: int = 1, timeout_s: float = 60.0
    ) -> NDArray[np.float64]:
        """Returns the landmarks a file finds, in picture pixels, [faces, landmarks, 2].

        Raises:
            InputError: The file's own contract or its tensors do not fit the contract.
            BackendError: The runtime fails on the file, or the file answers with NaN.
        """
        data = model if isinstance(model, bytes) else read_model(model)
        return self._predict(data, model_name(model), threads, timeout_s)

    def _predict(
        self, data: bytes, where: str, threads: int, timeout_s: float
    ) -> NDArray[np.float64]:
        _check_own_contract(data, self.contract, where)
        outputs = []
        with Runner(data, threads=threads, timeout_s=timeout_s, name=where) as runner:
            image, coordinates = _border(runner, self.contract, where)
            for start in range(0, len(self.crops), FACES_AT_ONCE):
                real = self.contract.normalize(self.crops.pixels[start : start + FACES_AT_ONCE])
                answer = runner.run({image.name: to_model_input(real, image)})
                outputs.append(from_model_output(answer[coordinates.name], coordinates))
        points = self.contract.decode(np.concatenate(outputs))
        if not np.isfinite(points).all():
            raise BackendError(
                f"output '{coordinates.name}' holds numbers that are not finite",
                where=where,
                hint="the training diverged, or a conversion overflowed",
            )
        return _to_picture(points, self.crops.to_picture)

    def score(self, model: bytes | Path, *, threads: int = 1, timeout_s: float = 60.0) -> Score:
        """Returns the score of a file.

        Raises:
            InputError: The file's own contract or its tensors do not fit the contract.
            BackendError: The runtime fails on the file, or the file answers with NaN.
        """
        data = model if isinstance(model, bytes) else read_model(model)
        predicted = self._predict(data, model_name(model), threads, timeout_s)
        per_face = metrics.nme_percent(predicted, self.truth, self.contract.scheme, self.normaliser)
        present = {face.split for face in self._scored.faces}
        return Score(
            per_face=tuple(per_face.tolist()),
            normaliser=self.normaliser,
            crop=str(self._cropping.crop),
            box=self._cropping.crop.box,
            digest=file_digest(data),
            dataset=self.dataset.name,
            dataset_digest=self._scored.digest,
            split="+".join(split for split in SPLITS if split in present),
            skipped=len(self.dataset) - len(self._scored),
        )


def evaluate_file(
    model: bytes | Path,
    contract: Contract,
    dataset: Dataset,
    *,
    normaliser: Normaliser = "inter-ocular",
    box: BoxSource | None = None,
    threads: int = 1,
    timeout_s: float = 60.0,
) -> Score:
    """Returns the score of one file on all faces of `dataset`; see `ScoringProtocol`."""
    protocol = ScoringProtocol(contract, dataset, normaliser, box)
    return protocol.score(model, threads=threads, timeout_s=timeout_s)


def _check_own_contract(data: bytes, contract: Contract, where: str) -> None:
    text = tflite.metadata(data, where).get(CONTRACT_KEY)
    if text is None:
        return
    own = contract_from_json(text, f"{where}, metadata {CONTRACT_KEY}")
    differing = [
        f"{name} {getattr(own, name)} in the file against {getattr(contract, name)}"
        for name in (field.name for field in fields(Contract))
        if getattr(own, name) != getattr(contract, name)
    ]
    if differing:
        raise InputError(
            f"the file was made for another contract: {'; '.join(differing)}",
            where=where,
            hint="score the file without --contract: it carries its own",
        )


def _border(runner: Runner, contract: Contract, where: str) -> tuple[TensorInfo, TensorInfo]:
    wanted = (1, contract.height, contract.width, contract.channels)
    if [info.shape for info in runner.inputs] != [wanted]:
        got = ", ".join(f"'{i.name}' {list(i.shape)}" for i in runner.inputs)
        raise InputError(
            f"the model's inputs are {got or 'none'}, the contract wants one of {list(wanted)}",
            where=where,
            hint="give the contract that belongs to this model",
        )
    outputs = {info.name: info for info in runner.outputs}
    if contract.output not in outputs:
        raise InputError(
            f"the model has no output '{contract.output}', it has {sorted(outputs)}",
            where=where,
            hint="name one of them as `output` in the contract",
        )
    return runner.inputs[0], outputs[contract.output]


def _to_picture(
    points: NDArray[np.float64], to_picture: NDArray[np.float64]
) -> NDArray[np.float64]:
    linear, shift = to_picture[:, :, :2], to_picture[:, None, :, 2]
    return np.asarray(points @ linear.transpose(0, 2, 1) + shift, np.float64)
