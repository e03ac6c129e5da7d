"""Training faces: cropped by the contract's rule, augmented, in batches that can be repeated."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.data.crop import (
    Affine,
    Crop,
    Shrunk,
    after,
    face_box,
    frame_of,
    invert,
    picture_threads,
    shrink,
    transform,
    warp,
)
from lmopt.data.dataset import Box, Dataset, Face
from lmopt.data.picture import read_picture
from lmopt.data.traits import seen_through, traits_of
from lmopt.detector.contract import Contract
from lmopt.errors import InputError

Batch = tuple[NDArray[Any], ...]

_MIRROR = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # unit coordinates, left to right
_PREFETCHED = 4
_PERMUTATION, _AUGMENTATION, _SHARE, _VIEW = range(4)  # independent streams of one seed


@dataclass(frozen=True)
class AugmentPlan:
    """How training faces are varied. Every `*_probability` is per face.

    Attributes:
        flip_probability: Of a mirrored face; without effect when the scheme has no mirror map.
        rotation_probability, rotation_sigma, rotation_limit: Normal, clipped; degrees.
        rotation_step: Above 0: instead any multiple of it up to the limit, all equally likely.
        scale: Range of the factor on the crop's sides.
        shift_sigma: Of the crop's centre, as a part of its sides.
        box_sigma: Jitter of each side of the face's box, as a part of the box.
        blur_probability, blur_sigma: Gaussian blur; range in input pixels.
        color_probability: Of the changes of gain, offset and gray.
        gain, channel_gain: Ranges of the contrast of all channels, and of each one.
        offset: Largest change of brightness, in 0..255.
        gray_probability: Of no colour, where colours are changed.
        cutout_probability, cutout_side: A rectangle of one colour; range of its sides, as a part
            of the input's (0.45 x 0.45 is 20 % of it).
    """

    flip_probability: float = 0.5
    rotation_probability: float = 0.8
    rotation_sigma: float = 14.0
    rotation_limit: float = 40.0
    rotation_step: float = 0.0
    scale: tuple[float, float] = (0.9, 1.15)
    shift_sigma: float = 0.035
    box_sigma: float = 0.02
    blur_probability: float = 0.2
    blur_sigma: tuple[float, float] = (0.4, 1.4)
    color_probability: float = 0.7
    gain: tuple[float, float] = (0.7, 1.3)
    channel_gain: tuple[float, float] = (0.88, 1.12)
    offset: float = 40.0
    gray_probability: float = 0.15
    cutout_probability: float = 0.35
    cutout_side: tuple[float, float] = (0.1, 0.45)

    @property
    def reach(self) -> float:
        """Returns how far from its centre a crop may look, as a part of its sides."""
        angle = math.radians(min(self.rotation_limit, 45.0))
        turned = self.scale[1] * (1 + 3 * self.box_sigma) * (math.cos(angle) + math.sin(angle)) / 2
        return turned + 3 * (self.shift_sigma + self.box_sigma)


NO_AUGMENTATION = AugmentPlan(
    flip_probability=0.0,
    rotation_probability=0.0,
    rotation_limit=0.0,
    scale=(1.0, 1.0),
    shift_sigma=0.0,
    box_sigma=0.0,
    blur_probability=0.0,
    color_probability=0.0,
    cutout_probability=0.0,
)


THESIS_AUGMENTATION = replace(
    NO_AUGMENTATION,
    flip_probability=0.5,
    rotation_probability=1.0,
    rotation_limit=30.0,
    rotation_step=5.0,
    blur_probability=0.5,
    blur_sigma=(0.1, 1.0),
    cutout_probability=0.5,
    cutout_side=(math.sqrt(0.2), math.sqrt(0.2)),
)
"""Mirror, rotations of -30 to 30 degrees in steps of 5, small blur, cutout of 20 % of the input.

The thesis says how strong, not how often: the probabilities are guesses.

Source: Haapamäki, master's thesis, Oulu 2020, training of PFLD.
"""

Augmentation = Literal["default", "thesis", "none"]

AUGMENTATIONS: Mapping[Augmentation, AugmentPlan] = {
    "default": AugmentPlan(),
    "thesis": THESIS_AUGMENTATION,
    "none": NO_AUGMENTATION,
}
"""Augmentations that a recipe can name."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A face with its picture shrunk and trimmed to what augmentation can reach."""

    shrunk: Shrunk
    landmarks: NDArray[np.float64]
    box: Box


class TrainingFaces:
    """Faces in memory, ready to be drawn in augmented batches.

    Every picture is read and shrunk once; about 0.2 MB a face at 112x112 input.
    """

    def __init__(
        self,
        dataset: Dataset,
        contract: Contract,
        plan: AugmentPlan | None = None,
        *,
        shares: Mapping[str, float] | None = None,
        with_traits: bool = False,
        threads: int | None = None,
    ) -> None:
        """Reads all pictures.

        Args:
            dataset: The faces to train on: no test face may be among them.
            contract: How they are cropped, coloured and encoded.
            plan: How they are varied; default the plan that trained well, NO_AUGMENTATION for
                plain crops.
            shares: Sources (say, with weaker labels) that fill this part of the batches instead
                of counting like all others.
            with_traits: Whether batches tell pose and rarity of their faces.
            threads: For reading; default one per core.

        Raises:
            InputError: No face or a test face is given, the scheme differs from the contract's,
                a share is none, a picture cannot be used, or a pose is not known.
        """
        self.contract = contract
        self.plan = plan if plan is not None else AugmentPlan()
        _check(dataset, contract)
        self._pools = _pools(dataset, shares or {})
        self._traits = traits_of(dataset) if with_traits else None
        self._views: int | None = None
        with picture_threads(threads) as pool:
            self._faces = list(pool.map(self._prepare, dataset.faces))

    def __len__(self) -> int:
        return len(self._faces)

    def repeating(self, views: int) -> TrainingFaces:
        """Returns the same faces, each varied in `views` ways whatever the seed, one an epoch.

        The seed still fixes the order. Trainings that see the same crops can share what somebody
        else has to say about them.
        """
        faces = copy.copy(self)
        faces._views = views
        return faces

    def batches(self, batch: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Returns batches start, start + 1, ... without end, prepared ahead in a thread.

        Batch k depends on the seed, k and `batch` alone, so a resumed training sees what an
        uninterrupted one would have seen. Each face comes once per epoch, in an order that
        differs from epoch to epoch.

        Shapes:
            uint8[batch, height, width, channels] and float32[batch, 2 * landmarks], encoded by
            the contract; with traits also float32[batch, 3], yaw, pitch and roll in radians as
            the crop shows them, and float32[batch], the rarity of the face.
        """
        pool = picture_threads(1)
        ahead: deque[Future[Batch]] = deque()
        try:
            for index in count(start):
                ahead.append(pool.submit(self.batch, batch, seed, index))
                if len(ahead) > _PREFETCHED:
                    yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def batch(self, batch: int, seed: int, index: int) -> Batch:
        """Returns one batch; see `batches`."""
        shape = (batch, self.contract.height, self.contract.width, self.contract.channels)
        pixels = np.empty(shape, np.uint8)
        points = np.empty((batch, self.contract.scheme.count, 2))
        rng = np.random.default_rng([_AUGMENTATION, seed, index])
        chosen, epochs = self._chosen(batch, seed, index)
        angles = np.empty((batch, 3), np.float32)
        for slot, (face, epoch) in enumerate(zip(chosen, epochs, strict=True)):
            if self._views is not None:
                rng = np.random.default_rng([_VIEW, int(epoch) % self._views, int(face)])
            crop = self.sample(face, rng)
            pixels[slot], points[slot] = crop.pixels, crop.landmarks
            if self._traits is not None:
                angles[slot] = seen_through(self._traits.angles[face], crop.to_picture)
        targets = self.contract.encode(points)
        if self._traits is None:
            return pixels, targets
        return pixels, targets, angles, self._traits.rarity[chosen].astype(np.float32)

    def sample(self, index: int, rng: np.random.Generator) -> Crop:
        """Returns face `index`, varied by the plan."""
        face = self._faces[index]
        mirror = self.contract.scheme.mirror
        flip = rng.random() < self.plan.flip_probability and mirror is not None
        to_picture = self._draw_view(face, rng)
        landmarks = face.landmarks
        if flip:
            to_picture, landmarks = after(to_picture, _MIRROR), landmarks[list(mirror or ())]
        pixels = self._draw_look(warp(face.shrunk, to_picture, self.contract), rng)
        return Crop(pixels, transform(invert(to_picture), landmarks), to_picture)

    def _chosen(
        self, batch: int, seed: int, index: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the faces of a batch, and the epochs they come in."""
        main, *others = self._pools
        places = np.arange(index * batch, (index + 1) * batch)
        epochs, offsets = np.divmod(places, len(main.faces))
        chosen = np.empty(batch, np.int64)
        for epoch in np.unique(epochs):
            order = np.random.default_rng([_PERMUTATION, seed, int(epoch)]).permutation(main.faces)
            chosen[epochs == epoch] = order[offsets[epochs == epoch]]
        if others:
            rng = np.random.default_rng([_SHARE, seed, index])
            drawn, low = rng.random(batch), 0.0
            for pool in others:
                here = (drawn >= low) & (drawn < low + pool.share)
                chosen[here] = rng.choice(pool.faces, int(here.sum()))
                low += pool.share
        return chosen, epochs

    def _prepare(self, face: Face) -> _Prepared:
        box = face_box(face, self.contract.crop)
        frame = frame_of(box, self.contract.crop)
        shrunk = shrink(read_picture(face), frame, self.contract)
        reach = self.plan.reach * np.array([frame.width, frame.height])
        center = np.array([frame.x, frame.y])
        low = np.floor(transform(shrunk.from_picture, center - reach)).astype(int) - 1
        high = np.ceil(transform(shrunk.from_picture, center + reach)).astype(int) + 2
        left, top = np.maximum(low, 0)
        kept = np.ascontiguousarray(shrunk.pixels[top : max(high[1], 0), left : max(high[0], 0)])
        if not kept.size:
            raise InputError(
                "the face lies outside its picture",
                where=face.where,
                hint="correct or remove this annotation",
            )
        trim = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
        return _Prepared(Shrunk(kept, after(trim, shrunk.from_picture)), face.landmarks, box)

    def _draw_view(self, face: _Prepared, rng: np.random.Generator) -> Affine:
        plan = self.plan
        x0, y0, x1, y1 = face.box
        wide, tall = plan.box_sigma * (x1 - x0), plan.box_sigma * (y1 - y0)
        left, top, right, bottom, across, down = rng.normal(size=6).tolist()
        box = (x0 + wide * left, y0 + tall * top, x1 + wide * right, y1 + tall * bottom)
        frame = frame_of(box, self.contract.crop)
        factor = rng.uniform(*plan.scale)
        width, height = frame.width * factor, frame.height * factor
        x = frame.x + plan.shift_sigma * width * across
        y = frame.y + plan.shift_sigma * height * down
        angle = 0.0
        if rng.random() < plan.rotation_probability:
            limit, step = plan.rotation_limit, plan.rotation_step
            if step > 0:
                steps = int(limit / step)
                degrees = step * int(rng.integers(-steps, steps, endpoint=True))
            else:
                degrees = min(max(rng.normal(0.0, plan.rotation_sigma), -limit), limit)
            angle = math.radians(degrees)
        cos, sin = math.cos(angle), math.sin(angle)
        a, b, c, d = cos * width, -sin * height, sin * width, cos * height
        return np.array([[a, b, x - (a + b) / 2], [c, d, y - (c + d) / 2]])

    def _draw_look(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        import cv2

        plan, shape = self.plan, pixels.shape
        height, width, channels = shape
        if rng.random() < plan.blur_probability:
            sigma = rng.uniform(*plan.blur_sigma)
            pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)
        if rng.random() < plan.color_probability:
            if rng.random() < plan.gray_probability and channels == 3:
                rgb = self.contract.color == "rgb"
                luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY if rgb else cv2.COLOR_BGR2GRAY)
                pixels = np.asarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB), np.uint8)
            gain = rng.uniform(*plan.gain) * rng.uniform(*plan.channel_gain, channels)
            level = 127.5 + rng.uniform(-plan.offset, plan.offset)
            table = (np.arange(256)[:, None] - 127.5) * gain + level
            lookup = np.clip(table, 0, 255).astype(np.uint8)[None]
            pixels = np.asarray(cv2.LUT(pixels, lookup), np.uint8)
        pixels = pixels.reshape(shape)
        if rng.random() < plan.cutout_probability:
            sides = rng.uniform(*plan.cutout_side, 2) * (height, width)
            tall, wide = np.maximum(sides.astype(int), 1)
            top, left = rng.integers(0, (height - tall + 1, width - wide + 1))
            pixels[top : top + tall, left : left + wide] = rng.integers(0, 256, channels)
        return pixels


@dataclass(frozen=True, eq=False)
class _Pool:
    """Faces by index, and the part of the batches they fill (the first pool fills the rest)."""

    faces: NDArray[np.int64]
    share: float


def _pools(dataset: Dataset, shares: Mapping[str, float]) -> list[_Pool]:
    sources = np.array([face.source for face in dataset.faces])
    if unknown := sorted(set(shares) - set(sources.tolist())):
        raise InputError(
            f"a share for '{unknown[0]}', but the data has {', '.join(sorted(set(sources)))}",
            where=dataset.name,
            hint="name a folder of the training data",
        )
    main = np.flatnonzero(~np.isin(sources, list(shares)))
    total = sum(shares.values())
    if min(shares.values(), default=0.0) < 0 or total >= 1 or not main.size:
        raise InputError(
            f"shares {dict(shares)} leave {1 - total:g} for {main.size} other faces",
            where=dataset.name,
            hint="let the shares sum to less than 1 and leave faces for the rest",
        )
    extra = [_Pool(np.flatnonzero(sources == source), share) for source, share in shares.items()]
    return [_Pool(main, 1 - total), *extra]


def _check(dataset: Dataset, contract: Contract) -> None:
    if not dataset.faces:
        raise InputError(
            "no faces to train on", where=dataset.name, hint="give data with faces of role train"
        )
    if dataset.scheme.count != contract.scheme.count:
        raise InputError(
            f"faces have {dataset.scheme.count} landmarks ('{dataset.scheme.name}'), the "
            f"contract wants {contract.scheme.count} ('{contract.scheme.name}')",
            where=dataset.name,
            hint="give faces annotated in the contract's scheme",
        )
    test = next((face for face in dataset.faces if face.split == "test"), None)
    if test is not None:
        raise InputError(
            f"face '{test.id}' is a test face and must not be trained on",
            where=test.where,
            hint="train on dataset.split('train')",
        )
