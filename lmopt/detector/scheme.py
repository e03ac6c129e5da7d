"""Landmark schemes: how many points, which are the eyes, and what a mirror does to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lmopt.errors import InputError


@dataclass(frozen=True)
class LandmarkScheme:
    """The meaning of a detector's landmark numbers, counted from 0.

    Attributes:
        name: For people and metadata.
        count: Number of landmarks.
        mirror: For each landmark, the one that takes its place in a mirrored face.
        eye_corners: Outer corners (right, left of the face) for inter-ocular distance, or None.
        pupils: The landmarks whose means are the pupils (right, left), or None.
        regions: Landmarks of named parts of the face (jaw, brows, nose, eyes, mouth).
    """

    name: str
    count: int
    mirror: tuple[int, ...] | None = None
    eye_corners: tuple[int, int] | None = None
    pupils: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"scheme '{self.name}' has {self.count} landmarks; wanted at least 1")
        if self.mirror is not None and (
            sorted(self.mirror) != list(range(self.count))
            or any(self.mirror[self.mirror[k]] != k for k in range(self.count))
        ):
            raise InputError(
                f"scheme '{self.name}': the mirror map must pair the {self.count} landmarks",
                hint="mirror[k] is the landmark at the place of k in a flipped picture; twice is k",
            )
        groups = (self.eye_corners or (), *(self.pupils or ()), *self.regions.values())
        named = [k for group in groups for k in group]
        if any(not 0 <= k < self.count for k in named):
            raise InputError(f"scheme '{self.name}' names a landmark beyond {self.count - 1}")


def _mirror(count: int, pairs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    mirror = list(range(count))
    for a, b in pairs:
        mirror[a], mirror[b] = b, a
    return tuple(mirror)


_PAIRS_68 = (
    *((k, 16 - k) for k in range(8)),
    *((17 + k, 26 - k) for k in range(5)),
    *((31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)),
)
IBUG_68 = LandmarkScheme(
    "ibug-68",
    68,
    mirror=_mirror(68, _PAIRS_68),
    eye_corners=(36, 45),
    pupils=((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47)),
    regions={
        "jaw": tuple(range(17)),
        "brows": tuple(range(17, 27)),
        "nose": tuple(range(27, 36)),
        "eyes": tuple(range(36, 48)),
        "mouth": tuple(range(48, 68)),
    },
)

_PAIRS_98 = (
    *((k, 32 - k) for k in range(16)),
    *((33, 46), (34, 45), (35, 44), (36, 43), (37, 42), (38, 50), (39, 49), (40, 48), (41, 47)),
    *((55, 59), (56, 58)),
    *((60, 72), (61, 71), (62, 70), (63, 69), (64, 68), (65, 75), (66, 74), (67, 73)),
    *((76, 82), (77, 81), (78, 80), (83, 87), (84, 86), (88, 92), (89, 91), (93, 95), (96, 97)),
)
WFLW_98 = LandmarkScheme(
    "wflw-98",
    98,
    mirror=_mirror(98, _PAIRS_98),
    eye_corners=(60, 72),
    pupils=((96,), (97,)),
    regions={
        "jaw": tuple(range(33)),
        "brows": tuple(range(33, 51)),
        "nose": tuple(range(51, 60)),
        "eyes": (*range(60, 76), 96, 97),
        "mouth": tuple(range(76, 96)),
    },
)
_PAIRS_29 = (
    *((0, 1), (2, 3), (4, 6), (5, 7), (8, 9), (10, 11), (12, 14), (13, 15), (16, 17)),
    *((18, 19), (22, 23)),
)
COFW_29 = LandmarkScheme(
    "cofw-29",
    29,
    mirror=_mirror(29, _PAIRS_29),
    eye_corners=(8, 9),
    pupils=((16,), (17,)),
    regions={
        "jaw": (28,),
        "brows": tuple(range(8)),
        "nose": tuple(range(18, 22)),
        "eyes": tuple(range(8, 18)),
        "mouth": tuple(range(22, 28)),
    },
)
SCHEMES: Mapping[str, LandmarkScheme] = {
    scheme.name: scheme for scheme in (IBUG_68, WFLW_98, COFW_29)
}
_BY_COUNT = {scheme.count: scheme for scheme in SCHEMES.values()}


def scheme_for(count: int) -> LandmarkScheme:
    """Returns the scheme that `count` landmarks have when nothing else is known.

    >>> scheme_for(68).name, scheme_for(98).name, scheme_for(5).name
    ('ibug-68', 'wflw-98', 'points-5')
    """
    return _BY_COUNT.get(count) or LandmarkScheme(f"points-{count}", count)
