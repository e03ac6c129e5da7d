"""How much a detector's answer moves on one face: under noise, and from frame to frame."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.data.crop import Crop, cut, transform
from lmopt.data.dataset import Box, Face
from lmopt.data.degrade import Picture, noisy
from lmopt.data.frames import read_frames
from lmopt.data.picture import read_picture
from lmopt.detector.contract import Contract
from lmopt.errors import InputError
from lmopt.runtime.runner import model_name
from lmopt.scoring.loaded import LoadedModel
from lmopt.scoring.metrics import Normaliser, normalising_distance, spread_percent
from lmopt.scoring.panel import Panel, stated
from lmopt.scoring.protocols import ScoringProtocol, split_of
from lmopt.scoring.rows import NotTestable, Row, Spread
from lmopt.scoring.stamp import Stamp
from lmopt.scoring.views import View, moved, show


def noise_spread(
    model: LoadedModel, face: Face, view: View, distance: float, sigma: float, copies: int
) -> float:
    """Returns the STD in percent over noisy copies of a picture, the mean of its landmarks.

    The box is the same throughout. The noise is the camera's: it is added to the picture, so that a
    face of many pixels averages much of it away when it is shrunk to the network's input.

    Args:
        model: The detector.
        face: The face.
        view: How it is shown; the noise depends on its seed and the face's id.
        distance: The face's size in picture pixels.
        sigma: Of the Gaussian noise, in parts of the range 0..1.
        copies: How many.

    Raises:
        InputError: The picture cannot be read, or the face has no box the view can start from.
        BackendError: The runtime fails on the file.
    """
    crops = _noisy_crops(model.contract, face, view, sigma, copies)
    return _spread(model, crops, distance)


def _noisy_crops(
    contract: Contract, face: Face, view: View, sigma: float, copies: int
) -> list[Crop]:
    picture, near = _around(face, view, contract)
    rng = np.random.default_rng([view.seed, zlib.crc32(face.id.encode())])
    copied = (noisy(picture, sigma, rng) for _ in range(copies))
    return [show(copy, near, view, contract)[0] for copy in copied]


def _spread(model: LoadedModel, crops: list[Crop], distance: float) -> float:
    found = model.find(np.stack([crop.pixels for crop in crops]))
    return float(spread_percent(transform(crops[0].to_picture, found), distance).mean())


@dataclass(frozen=True, eq=False)
class NoiseProtocol:
    """A fixed way to tell how far many files' answers move under noise: copies are made once.

    Attributes:
        scoring: Has the detector's contract, the faces and what the spread is divided by.
        faces: How many of the faces are looked at, as far apart in the dataset as can be.
        sigma: Of the Gaussian noise, in parts of the range 0..1: the middle one of the thesis'.
        copies: Of each face; the same for all files.
    """

    scoring: ScoringProtocol
    faces: int = 10
    sigma: float = 0.1
    copies: int = 20

    @property
    def condition(self) -> str:
        """Returns how it is done, in words."""
        return stated(f"sigma {self.sigma:g}, {self.copies} copies of {self.faces} faces", 0)

    @cached_property
    def _looks(self) -> tuple[tuple[list[Crop], float], ...]:
        contract, able = self.scoring.contract, self.scoring.scored.faces
        view = View(contract.crop.box)
        chosen = [able[k] for k in _spaced(len(able), self.faces)]
        truth = np.stack([face.landmarks for face in chosen])
        sizes = normalising_distance(truth, contract.scheme, self.scoring.normaliser)
        return tuple(
            (_noisy_crops(contract, face, view, self.sigma, self.copies), float(size))
            for face, size in zip(chosen, sizes, strict=True)
        )

    def std_percent(self, model: bytes, *, threads: int = 1) -> float:
        """Returns the STD of a file's landmarks over noisy copies in percent, the faces' mean.

        Raises:
            InputError: The file does not fit the contract, or a picture cannot be read.
            BackendError: The runtime fails on the file, or the file answers with NaN.
        """
        contract = self.scoring.contract
        with LoadedModel(model, contract, model_name(model), threads=threads) as loaded:
            return float(np.mean([_spread(loaded, *look) for look in self._looks]))


def _spaced(total: int, wanted: int) -> NDArray[np.intp]:
    """Returns places of `wanted` of `total` things, as far apart as can be."""
    return np.linspace(0, total - 1, min(wanted, total)).round().astype(np.intp)


def _around(face: Face, view: View, contract: Contract) -> tuple[Picture, Face]:
    """Cuts off what lies well outside the view: noise on it would cost time and change nothing."""
    picture = read_picture(face)
    crop, _ = show(picture, face, view, contract)
    corners = transform(crop.to_picture, np.array([[-0.1, -0.1], [1.1, 1.1]]))
    left, top = np.maximum(np.floor(corners[0]).astype(int), 0)
    right, bottom = np.ceil(corners[1]).astype(int) + 1
    part = picture[top : max(bottom, 0), left : max(right, 0)]
    if not part.size:
        raise InputError(
            "the face lies outside its picture",
            where=face.where,
            hint="correct or remove this annotation",
        )
    return part, moved(face, np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]]))


def frame_spread(
    model: LoadedModel, frames: Iterable[Picture], box: Box, normaliser: Normaliser
) -> tuple[float, int, str]:
    """Returns the STD in percent over frames seen in one box, their number and a digest of them.

    Nothing is annotated, so the mean of the answers says how large the face is.

    Raises:
        InputError: Fewer than two frames, a frame that cannot be read, or a box of no area.
        BackendError: The runtime fails on the file.
    """
    contract = model.contract
    given = replace(contract, crop=replace(contract.crop, box="given"))
    nothing = np.zeros((contract.scheme.count, 2))
    still = Face("frame", "frames", Path("frame"), nothing, box, "frame", "test", "--frame-box")
    digest, answers = hashlib.blake2b(repr(box).encode(), digest_size=16), []
    for frame in frames:
        digest.update(np.ascontiguousarray(frame).tobytes())
        crop = cut(frame, still, given)
        answers.append(transform(crop.to_picture, model.find(crop.pixels[None])[0]))
    if len(answers) < 2:
        raise InputError(
            f"{len(answers)} frame; jitter needs at least 2",
            where="--frames",
            hint="give a folder with the frames of one scene, or a video",
        )
    found: NDArray[np.float64] = np.stack(answers)
    size = normalising_distance(found.mean(axis=0)[None], contract.scheme, normaliser)
    return float(spread_percent(found, float(size[0])).mean()), len(found), digest.hexdigest()


def stability_rows(panel: Panel) -> tuple[Row, ...]:
    """Returns the STD under noise of each strength, and over frames."""
    settings, view = panel.settings, View(panel.plain.box, seed=panel.settings.seed)
    able = np.flatnonzero([view.fits(face) for face in panel.dataset.faces])
    if not able.size:
        reason = f"none of the {len(panel.dataset)} faces has a given box"
        return (NotTestable("noise", reason), _frames(panel))
    chosen = able[_spaced(able.size, settings.stability_faces)]
    count = len(chosen)
    mask = np.zeros(len(panel.dataset), bool)
    mask[chosen] = True
    part = panel.part(mask)
    rows: list[Row] = []
    total = count * len(settings.sigmas)
    for sigma in settings.sigmas:
        found = []
        for k in chosen:
            face, size = panel.dataset.faces[k], float(panel.distance[k])
            found.append(noise_spread(panel.model, face, view, size, sigma, settings.copies))
            panel.report("looking at noisy copies", len(rows) * count + len(found), total)
        stamp = Stamp(
            "stability",
            stated(f"sigma {sigma:g}, {settings.copies} copies", view.seed),
            panel.normaliser,
            view.crop_rule(panel.model.contract.crop),
            view.box,
            part.digest,
            split_of(part),
            count,
        )
        ids = tuple(face.id for face in part.faces)
        rows.append(Spread(stamp, tuple(found), ids, settings.copies, panel.model.digest))
    return (*rows, _frames(panel))


def _frames(panel: Panel) -> Row:
    settings = panel.settings
    if settings.frames is None or settings.frame_box is None:
        return NotTestable("frames", "no frames given; --frames PLACE --frame-box X0,Y0,X1,Y1")
    panel.report("looking at frames", 0, 0)
    std, looks, digest = frame_spread(
        panel.model, read_frames(settings.frames), settings.frame_box, panel.normaliser
    )
    crop = View("given").crop_rule(panel.model.contract.crop)
    stamp = Stamp("stability", "frames", panel.normaliser, crop, "given", digest, "", 1)
    return Spread(stamp, (std,), (str(settings.frames),), looks, panel.model.digest)
