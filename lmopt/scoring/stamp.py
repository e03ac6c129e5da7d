"""By which protocol a figure was found: figures of different protocols are never compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lmopt.errors import InputError


@dataclass(frozen=True)
class Stamp:
    """What two figures must have in common to be compared.

    Attributes:
        protocol: `nme`, `blur`, `stability` and so on.
        condition: One row of the protocol: `x4`, `given`, `sigma 0.1`.
        normaliser: What the errors are divided by.
        crop: The crop rule, in words.
        box: Source of the boxes the crops start from.
        dataset_digest: Of the faces.
        split: Splits they are from.
        faces: Their number.
    """

    protocol: str
    condition: str
    normaliser: str
    crop: str
    box: str
    dataset_digest: str
    split: str
    faces: int

    def disagreements(self, other: Stamp) -> list[str]:
        """Returns in words what the two protocols differ in."""
        said = {
            "protocol": (self.protocol, other.protocol),
            "condition": (self.condition, other.condition),
            "normaliser": (self.normaliser, other.normaliser),
            "crop": (self.crop, other.crop),
            "box": (self.box, other.box),
            "faces": (self.dataset_digest[:12], other.dataset_digest[:12]),
            "split": (self.split, other.split),
            "number of faces": (str(self.faces), str(other.faces)),
        }
        return [f"{what} {a} against {b}" for what, (a, b) in said.items() if a != b]


class Stamped(Protocol):
    """Errors of faces, with the protocol they were found by."""

    @property
    def per_face(self) -> tuple[float, ...]:
        """Returns each face's error in percent of the normalising distance."""

    @property
    def stamp(self) -> Stamp:
        """Returns the protocol."""


def require_comparable(a: Stamp, b: Stamp) -> None:
    """Raises InputError, saying the differences, unless both stamps are the same."""
    if disagreements := a.disagreements(b):
        raise InputError(
            f"scores of different protocols cannot be compared: {', '.join(disagreements)}",
            hint="evaluate both files with the same data, crop, normaliser and protocol",
        )
