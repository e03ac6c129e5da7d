"""Errors of predicted landmarks: NME, AUC, failure rate, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.scheme import LandmarkScheme
from lmopt.errors import InputError

Normaliser = Literal["inter-ocular", "inter-pupil", "box", "box-diagonal"]
Floats = NDArray[np.float64]

FAILURE_PERCENT = 8.0
RESAMPLES = 2000
_DIRECTIONS = 32


def point_errors(predicted: Floats, truth: Floats) -> Floats:
    """Returns the distance of every predicted landmark from its true place.

    Shapes:
        predicted, truth: [faces, landmarks, 2]; returns [faces, landmarks].

    Units: those of the landmarks.
    """
    if predicted.shape != truth.shape:
        raise InputError(
            f"predicted landmarks {list(predicted.shape)}, true ones {list(truth.shape)}; "
            "wanted equal shapes"
        )
    return np.asarray(np.linalg.norm(predicted - truth, axis=-1), np.float64)


def normalising_distance(
    truth: Floats, scheme: LandmarkScheme, normaliser: Normaliser = "inter-ocular"
) -> Floats:
    """Returns each face's size by the true landmarks.

    `inter-ocular`: distance of the outer eye corners. `inter-pupil`: distance of the means of the
    landmarks of each eye. `box`: sqrt(width * height) of the landmarks' bounding box.
    `box-diagonal`: its diagonal.

    Shapes:
        truth: [faces, landmarks, 2]; returns [faces].

    Raises:
        InputError: An unknown normaliser, a scheme without eyes, or a face of no size.

    Source: Sagonas et al., 300 Faces in-the-Wild Challenge, 2016 (inter-ocular, inter-pupil).
    """
    if normaliser not in _DISTANCES:
        raise InputError(
            f"unknown normaliser '{normaliser}'", hint=f"choose {', '.join(get_args(Normaliser))}"
        )
    distance = np.asarray(_DISTANCES[normaliser](truth, scheme), np.float64)
    degenerate = np.flatnonzero(~(distance > 0))
    if degenerate.size:
        raise InputError(
            f"face {degenerate[0]} has the {normaliser} distance {distance[degenerate[0]]:g}, "
            "wanted more than 0",
            hint="correct or remove this annotation",
        )
    return distance


def default_normaliser(scheme: LandmarkScheme) -> Normaliser:
    """Returns the inter-ocular distance, or the box where the scheme does not name the eyes."""
    return "box" if scheme.eye_corners is None else "inter-ocular"


def _inter_ocular(truth: Floats, scheme: LandmarkScheme) -> Floats:
    if scheme.eye_corners is None:
        raise _no_eyes(scheme, "outer eye corners")
    right, left = scheme.eye_corners
    return np.asarray(np.linalg.norm(truth[:, right] - truth[:, left], axis=-1), np.float64)


def _inter_pupil(truth: Floats, scheme: LandmarkScheme) -> Floats:
    if scheme.pupils is None:
        raise _no_eyes(scheme, "pupils")
    right, left = (truth[:, list(eye)].mean(axis=1) for eye in scheme.pupils)
    return np.asarray(np.linalg.norm(right - left, axis=-1), np.float64)


def _box(truth: Floats, scheme: LandmarkScheme) -> Floats:
    return np.asarray(np.sqrt(np.ptp(truth, axis=1).prod(axis=-1)), np.float64)


def _box_diagonal(truth: Floats, scheme: LandmarkScheme) -> Floats:
    return np.asarray(np.linalg.norm(np.ptp(truth, axis=1), axis=-1), np.float64)


_DISTANCES: Mapping[Normaliser, Callable[[Floats, LandmarkScheme], Floats]] = {
    "inter-ocular": _inter_ocular,
    "inter-pupil": _inter_pupil,
    "box": _box,
    "box-diagonal": _box_diagonal,
}


def _no_eyes(scheme: LandmarkScheme, missing: str) -> InputError:
    return InputError(
        f"scheme '{scheme.name}' does not say which landmarks are the {missing}",
        hint="choose the normaliser 'box', or give a contract whose scheme names the eyes",
    )


def nme_percent(
    predicted: Floats,
    truth: Floats,
    scheme: LandmarkScheme,
    normaliser: Normaliser = "inter-ocular",
) -> Floats:
    """Returns each face's normalised mean error: mean landmark distance over the face's size.

    Shapes:
        predicted, truth: [faces, landmarks, 2]; returns [faces].

    Units: percent of the normalising distance.
    """
    mean = point_errors(predicted, truth).mean(axis=1)
    return np.asarray(100.0 * mean / normalising_distance(truth, scheme, normaliser), np.float64)


def expected_drop(
    predicted: Floats,
    reference: Floats,
    truth: Floats,
    scheme: LandmarkScheme,
    normaliser: Normaliser = "inter-ocular",
) -> Floats:
    """Returns the NME each face loses when landmarks move from `reference`, whatever the direction.

    With e the distance of the reference's landmark from the true one and d that of the predicted
    from the reference's, this is the mean over all directions of the move of |e + d| - |e|. It
    holds no luck: in a difference of two NMEs the part of the move along the error, which has no
    sign of its own, outweighs what a small move costs (d^2 / 4e where d is small against e).

    Shapes:
        predicted, reference, truth: [faces, landmarks, 2]; returns [faces].

    Units: points of NME, never below 0.

    Source: mean of the law of cosines over `_DIRECTIONS` even angles. Measured: 48 ways to quantize
        all or parts of pfld-0.25@300w (int8 and uint8, 193 validation faces) lose 0.10 to 0.13
        times the square of their shift in percent by this rule; their NME changes lie around it by
        1.2 times the standard errors of those changes (root mean square).
    """
    e, d = point_errors(reference, truth)[..., None], point_errors(predicted, reference)[..., None]
    angles = np.linspace(0.0, np.pi, _DIRECTIONS, endpoint=False) + np.pi / (2 * _DIRECTIONS)
    moved = np.sqrt(np.maximum(e**2 + d**2 + 2.0 * e * d * np.cos(angles), 0.0)).mean(-1)
    lost = np.maximum(moved - e[..., 0], 0.0).mean(axis=1)
    return np.asarray(100.0 * lost / normalising_distance(truth, scheme, normaliser), np.float64)


def auc(per_face_percent: Floats, limit: float = FAILURE_PERCENT) -> float:
    """Returns the area under the cumulative error curve up to `limit`, over `limit`: 0..1.

    The curve gives the share of faces with an NME of at most x; its exact area is
    sum(max(0, limit - NME)) / faces.

    >>> auc(np.array([0.0, 4.0, 20.0]))
    0.5
    """
    return float(np.mean(np.clip(1.0 - np.asarray(per_face_percent) / limit, 0.0, 1.0)))


def failure_rate_percent(per_face_percent: Floats, limit: float = FAILURE_PERCENT) -> float:
    """Returns the percentage of faces whose NME is above `limit`.

    >>> failure_rate_percent(np.array([0.0, 8.0, 8.1, 20.0]))
    50.0
    """
    return float(100.0 * np.mean(np.asarray(per_face_percent) > limit))


@dataclass(frozen=True)
class Difference:
    """A mean difference of per-face errors with its 95 % interval, in percentage points."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_difference(a: Floats, b: Floats, seed: int = 0) -> Difference:
    """Returns mean(a - b) with a percentile bootstrap interval over the faces.

    Shapes:
        a, b: [faces], errors of the same faces in the same order.

    Raises:
        InputError: Not equally many faces, or none.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise InputError(
            f"errors of {list(a.shape)} and {list(b.shape)} faces; wanted the same faces"
        )
    difference = a - b
    rng = np.random.default_rng(seed)
    means = [
        difference[rng.integers(difference.size, size=difference.size)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(float(difference.mean()), float(low), float(high))


def ced_curve(per_face_percent: Floats, limits: Floats) -> Floats:
    """Returns the cumulative error distribution: the share of faces with an error of at most each.

    >>> ced_curve(np.array([1.0, 4.0, 20.0, 3.0]), np.array([0.0, 3.0, 8.0])).tolist()
    [0.0, 0.5, 0.75]
    """
    ordered = np.sort(np.asarray(per_face_percent, np.float64))
    return np.asarray(np.searchsorted(ordered, limits, side="right") / ordered.size, np.float64)


def pixel_accuracy(predicted: Floats, truth: Floats) -> float:
    """Returns the share of coordinates that fall on the true pixel of the network's input: 0..1.

    Both are rounded to whole pixels first.

    Shapes:
        predicted, truth: any, in input pixels.

    Source: equation 2 of the study of pooled networks, whose annotations are whole pixels.
    """
    return float(np.mean(np.rint(predicted) == np.rint(truth)))


def spread_percent(landmarks: Floats, distance: float) -> Floats:
    """Returns how much each landmark moves over many looks at one face.

    STD = (1 / d) sqrt(sum |y - mean|^2 / (n - 1)), in percent.

    Shapes:
        landmarks: [looks, landmarks, 2]; returns [landmarks].

    Raises:
        InputError: Fewer than two looks.

    Source: Haapamäki, Facial landmark detection on mobile devices, 2020, equation 6.
    """
    if len(landmarks) < 2:
        raise InputError(f"{len(landmarks)} looks at a face; their spread needs at least 2")
    squared = ((landmarks - landmarks.mean(axis=0)) ** 2).sum(axis=-1)
    deviation = np.sqrt(squared.sum(axis=0) / (len(landmarks) - 1))
    return np.asarray(100.0 * deviation / distance, np.float64)
