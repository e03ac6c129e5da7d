"""The numbers in the protocols, the studies' by default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmopt.data.dataset import Box
from lmopt.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """The numbers in the protocols; the defaults are the studies'.

    Attributes:
        factors: Down-scaling of `resolution` and `blur`.
        fractions: Of the face hidden in `occlusion`.
        sigmas: Of the noise in `stability`, in parts of the range 0..1.
        copies: Noisy copies of a face.
        stability_faces: How many faces `stability` looks at: each takes a second or so.
        frames: Folder of frames or video for `stability`, or None.
        frame_box: The face's box in all frames.
        seed: Of everything random; the same face is always treated the same.
    """

    factors: tuple[float, ...] = (2, 3, 4, 8, 16, 32, 64)
    fractions: tuple[float, ...] = (0.1, 0.2, 0.3)
    sigmas: tuple[float, ...] = (0.01, 0.1, 0.2)
    copies: int = 200
    stability_faces: int = 10
    frames: Path | None = None
    frame_box: Box | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, wrong, wanted in (
            ("factors", any(f < 1 for f in self.factors), "at least 1"),
            ("fractions", any(not 0 <= f <= 0.9 for f in self.fractions), "0 to 0.9"),
            ("sigmas", any(s < 0 for s in self.sigmas), "at least 0"),
            ("copies", self.copies < 2, "at least 2"),
            ("stability_faces", self.stability_faces < 1, "at least 1"),
        ):
            if wrong:
                raise UsageError(
                    f"{name} {getattr(self, name)}; wanted {wanted}",
                    hint="the defaults are the studies' numbers",
                )
        if (self.frames is None) != (self.frame_box is None):
            raise UsageError(
                "frames and the face's box in them belong together",
                hint="give both: --frames PLACE --frame-box X0,Y0,X1,Y1",
            )
