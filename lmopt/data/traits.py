"""What PFLD's loss wants to know of a face: where the head points, and how rare its kind is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lmopt.data.crop import Affine
from lmopt.data.dataset import Dataset, Face
from lmopt.detector.scheme import IBUG_68, LandmarkScheme
from lmopt.errors import InputError

Array = NDArray[np.float64]

ANGLES = ("yaw", "pitch", "roll")
"""Labels, in degrees, that state the pose."""

PROFILE_DEGREES, NOD_DEGREES = 30.0, 15.0
"""From where a head is turned, and raised or lowered. Kind: guess; the paper names no limits."""

HAS = 0.5
"""A label from here on puts the face into its category."""

_AVERAGED = 64
_INNER = slice(17, 68)  # the jaw line of a turned head is no fixed line on it
_FOCAL = 5.0  # face heights; portraits are taken from some metres away
_TO_CAMERA = np.diag([1.0, 1.0, -1.0])  # heads have z to the camera, OpenCV away from it


@dataclass(frozen=True, eq=False)
class Traits:
    """Pose and rarity of faces.

    Attributes:
        angles: Yaw, pitch and roll. Positive yaw turns the face to the picture's right, positive
            pitch downwards, positive roll clockwise.
        rarity: Sum over a face's categories of the reciprocal of the category's share.

    Units:
        angles: radians.

    Shapes:
        angles: [faces, 3]; rarity: [faces].
    """

    angles: Array
    rarity: Array


def traits_of(dataset: Dataset) -> Traits:
    """Returns pose and rarity of every face.

    Every face is of a pose (frontal or profile; raised, lowered or level) and of the categories
    that its labels name. Angles are taken from the labels, or else fitted to the landmarks.

    Raises:
        InputError: A face has no angles and no landmarks that they could be fitted to.

    Source: Guo et al., "PFLD", 2019 (arXiv:1902.10859), section 2.2.
    """
    angles = np.array([_angles(face, dataset.scheme) for face in dataset.faces])
    yaw, pitch = np.rad2deg(angles[:, 0]), np.rad2deg(angles[:, 1])
    names = {name for face in dataset.faces for name in face.labels} - set(ANGLES)
    members = [
        np.abs(yaw) >= PROFILE_DEGREES,
        np.abs(yaw) < PROFILE_DEGREES,
        pitch >= NOD_DEGREES,
        pitch <= -NOD_DEGREES,
        *(
            np.array([face.labels.get(name, 0.0) >= HAS for face in dataset.faces])
            for name in sorted(names)
        ),
    ]
    return Traits(angles, rarity_of(np.stack(members, axis=1)))


def rarity_of(members: NDArray[np.bool_]) -> Array:
    """Returns the sum of the reciprocal shares of every face's categories.

    >>> rarity_of(np.array([[True, True], [True, False]])).tolist()
    [3.0, 1.0]

    Shapes:
        members: [faces, categories]; returns [faces].
    """
    shares = members.mean(axis=0)
    weights = np.divide(1.0, shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(members @ weights, np.float64)


def head_angles(landmarks: Array) -> Array:
    """Returns yaw, pitch and roll of the generic head that fits 68 landmarks best.

    Units:
        radians; signs as in `Traits`.

    Shapes:
        landmarks: [68, 2] in picture pixels; returns [3].

    Raises:
        InputError: The points lie on a line or in one place.

    Source: Terzakis and Lourakis, "A Consistently Fast and Globally Optimal Solution to the
        Perspective-n-Point Problem", ECCV 2020 (OpenCV's SQPNP).
    """
    import cv2

    points = landmarks[_INNER]
    center, height = points.mean(axis=0), float(np.ptp(landmarks, axis=0).max())
    camera = np.array([[_FOCAL * height, 0, 0], [0, _FOCAL * height, 0], [0, 0, 1]])
    try:
        found, turn, _ = cv2.solvePnP(
            generic_head()[_INNER] @ _TO_CAMERA,
            points - center,
            camera,
            None,
            flags=cv2.SOLVEPNP_SQPNP,
        )
    except cv2.error:
        found = False
    if not found:
        raise InputError(
            "no head fits these landmarks",
            hint="correct or remove this annotation, or give labels yaw, pitch and roll",
        )
    rotation = _TO_CAMERA @ cv2.Rodrigues(turn)[0] @ _TO_CAMERA
    yaw = np.arctan2(-rotation[2, 0], rotation[2, 2])
    pitch = np.arcsin(np.clip(-rotation[2, 1], -1.0, 1.0))
    roll = np.arctan2(-rotation[0, 1], rotation[1, 1])
    return np.array([yaw, pitch, roll])


@cache
def generic_head() -> Array:
    """Returns the 68 landmarks of the mean rendered head, [68, 3], z to the camera."""
    from lmopt.data.synthetic.head import draw_head

    rng = np.random.default_rng(0)
    return np.asarray(np.mean([draw_head(rng).points for _ in range(_AVERAGED)], axis=0))


def seen_through(angles: Array, to_picture: Affine) -> Array:
    """Returns a face's angles as a crop shows them, turned and mirrored as the crop is."""
    linear = to_picture[:, :2]
    side = np.sign(np.linalg.det(linear))
    # A mirrored crop is an upright one whose first axis was turned round.
    turned = np.arctan2(side * linear[1, 0], side * linear[0, 0])
    yaw, pitch, roll = angles
    return np.array([side * yaw, pitch, side * (roll - turned)])


def _angles(face: Face, scheme: LandmarkScheme) -> Array:
    if all(name in face.labels for name in ANGLES):
        degrees = np.array([face.labels[name] for name in ANGLES])
        return np.asarray(np.deg2rad(degrees), np.float64)
    if scheme.name != IBUG_68.name:
        raise InputError(
            f"no labels {', '.join(ANGLES)}, and only landmarks of '{IBUG_68.name}' tell the pose",
            where=face.where,
            hint="give these labels in degrees, or choose another loss than pfld",
        )
    try:
        return head_angles(face.landmarks)
    except InputError as error:
        raise InputError(error.what, where=face.where, hint=error.hint) from error
