"""Landmark schemes: how many points, which are the eyes, and what a mirror does to them."""

from __future__ import annotations

from collections.abc import Mapping
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
        named = (*(self.eye_corners or ()), *(k for eye in self.pupils or () for k in eye))
        if any(not 0 <= k < self.count for k in named):
            raise InputError(f"scheme '{self.name}' names a landmark beyond {self.count - 1}")


def _mirror_68() -> tuple[int, ...]:
    pairs = [(k, 16 - k) for k in range(8)] + [(17 + k, 26 - k) for k in range(5)]
    pairs += [(31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    pairs += [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)]
    mirror = list(range(68))
    for a, b in pairs:
        mirror[a], mirror[b] = b, a
    return tuple(mirror)


IBUG_68 = LandmarkScheme(
    "ibug-68",
    68,
    mirror=_mirror_68(),
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
SCHEMES: Mapping[str, LandmarkScheme] = {IBUG_68.name: IBUG_68}


def scheme_for(count: int) -> LandmarkScheme:
    """Returns the scheme that `count` landmarks have when nothing else is known.

    >>> scheme_for(68).name, scheme_for(5).name
    ('ibug-68', 'points-5')
    """
    if count == IBUG_68.count:
        return IBUG_68
    return LandmarkScheme(f"points-{count}", count)
