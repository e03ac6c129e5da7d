"""Scores a model file on annotated faces: the very bytes that ship, with their real types."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.data.crop import Crops, cut_all
from lmopt.data.dataset import SPLITS, Dataset
from lmopt.detector.contract import BoxSource, Contract
from lmopt.errors import InputError
from lmopt.runtime.runner import file_digest, model_name, read_model
from lmopt.scoring import metrics
from lmopt.scoring.loaded import LoadedModel
from lmopt.scoring.metrics import Difference, Normaliser
from lmopt.scoring.stamp import Stamp, Stamped, require_comparable


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
        protocol, condition: Under what the faces were shown, see `lmopt.scoring.suite`.
    """

    per_face: tuple[float, ...]
    normaliser: Normaliser
    crop: str
    box: str
    digest: str
    dataset: str
    dataset_digest: str
    split: str
    skipped: int = 0
    protocol: str = "nme"
    condition: str = ""

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

    @property
    def stamp(self) -> Stamp:
        """Returns the protocol by which this was found."""
        return Stamp(
            self.protocol,
            self.condition,
            self.normaliser,
            self.crop,
            self.box,
            self.dataset_digest,
            self.split,
            self.faces,
        )

    def comparable(self, other: Score) -> bool:
        """Returns whether both were found by one protocol on the same faces."""
        return not self.stamp.disagreements(other.stamp)

    def to_json(self) -> dict[str, Any]:
        """Returns the result and its protocol, without the single faces."""
        return {
            "protocol": self.protocol,
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


def difference(a: Stamped, b: Stamped, seed: int = 0) -> Difference:
    """Returns `a`'s error minus `b`'s in percentage points, paired by face, with 95 % interval.

    Raises:
        InputError: They were not found by one protocol on the same faces.
    """
    require_comparable(a.stamp, b.stamp)
    return metrics.paired_difference(np.array(a.per_face), np.array(b.per_face), seed)


def require_scorable(dataset: Dataset, contract: Contract) -> None:
    """Raises InputError unless there are faces, annotated as the contract's detector answers."""
    got, wanted = dataset.scheme.count, contract.scheme.count
    if got != wanted:
        raise InputError(
            f"the faces have {got} landmarks, the detector's contract says {wanted}",
            where=dataset.name,
            hint="give data annotated like the detector, or its right contract",
        )
    if not dataset.faces:
        raise InputError("no faces to score on", where=dataset.name)


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
        require_scorable(self.dataset, self.contract)

    @cached_property
    def _cropping(self) -> Contract:
        rule = replace(self.contract.crop, box=self.box or self.contract.crop.box)
        return replace(self.contract, crop=rule)

    @cached_property
    def scored(self) -> Dataset:
        """Returns the faces that can be cropped as wanted; raises InputError for none."""
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
        return cut_all(self.scored, self._cropping)

    @cached_property
    def truth(self) -> NDArray[np.float64]:
        """Returns the true landmarks in picture pixels, [faces, landmarks, 2]."""
        return np.stack([face.landmarks for face in self.scored.faces])

    def shape_nme_percent(self, shape: NDArray[np.float64]) -> float:
        """Returns the NME of one and the same shape in every crop.

        Args:
            shape: In unit coordinates of the crop, [landmarks, 2].
        """
        guess = np.repeat(shape[None], len(self.crops), axis=0)
        placed = to_picture(guess, self.crops.to_picture)
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
        with LoadedModel(
            data, self.contract, where, threads=threads, timeout_s=timeout_s
        ) as loaded:
            points = loaded.find(self.crops.pixels)
        return to_picture(points, self.crops.to_picture)

    def score(self, model: bytes | Path, *, threads: int = 1, timeout_s: float = 60.0) -> Score:
        """Returns the score of a file.

        Raises:
            InputError: The file's own contract or its tensors do not fit the contract.
            BackendError: The runtime fails on the file, or the file answers with NaN.
        """
        data = model if isinstance(model, bytes) else read_model(model)
        predicted = self._predict(data, model_name(model), threads, timeout_s)
        per_face = metrics.nme_percent(predicted, self.truth, self.contract.scheme, self.normaliser)
        return Score(
            per_face=tuple(per_face.tolist()),
            normaliser=self.normaliser,
            crop=str(self._cropping.crop),
            box=self._cropping.crop.box,
            digest=file_digest(data),
            dataset=self.dataset.name,
            dataset_digest=self.scored.digest,
            split=split_of(self.scored),
            skipped=len(self.dataset) - len(self.scored),
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


def split_of(dataset: Dataset) -> str:
    """Returns the splits the faces are from, like `train+test`."""
    present = {face.split for face in dataset.faces}
    return "+".join(split for split in SPLITS if split in present)


def to_picture(points: NDArray[np.float64], affines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns unit coordinates of crops in picture pixels.

    Shapes:
        points: [faces, landmarks, 2]; affines: [faces, 2, 3], `to_picture` of the crops.
    """
    linear, shift = affines[:, :, :2], affines[:, None, :, 2]
    return np.asarray(points @ linear.transpose(0, 2, 1) + shift, np.float64)
