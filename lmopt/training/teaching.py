"""Distillation: what a teacher says about the crops its student is trained on."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.errors import PassError
from lmopt.pipeline.services import Teacher
from lmopt.training.backend import tf
from lmopt.training.geometry import decode, encode
from lmopt.training.lower import lower

Tensor = Any

VIEWS = 64
"""Ways in which a taught training sees each face, one an epoch: the same for every student."""
AT_ONCE = 32
"""Crops that a teacher is shown, always as many: so its answers hang on nothing but the crop."""
REMEMBERED = 500_000
"""Answers that are kept: 0.3 GB with 68 landmarks."""


class Lessons:
    """Answers of a teacher in its student's encoding.

    The teacher sees the student's crop, resized and with its colours changed to what it eats: a
    gray crop shows it three equal channels. It is asked about a crop once: a small student learns
    in a fraction of the time that its teacher takes to answer.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, for regression.
    """

    def __init__(self, teacher: Teacher, contract: Contract) -> None:
        """Lowers the teacher.

        Args:
            teacher: Who teaches.
            contract: Of the student.

        Raises:
            PassError: The teacher has no float weights, or sees other crops or landmarks.
        """
        _check(teacher, contract)
        self._contract = contract
        self._theirs = teacher.contract
        self._lowered = lower(teacher.graph)
        self._known: dict[bytes, NDArray[np.float32]] = {}
        crop = [AT_ONCE, contract.height, contract.width, contract.channels]
        self._ask = tf.function(
            self._answers, input_signature=[tf.TensorSpec(crop, tf.uint8)], autograph=False
        )

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the answers wanted from the student for its crops.

        Shapes:
            pixels: [faces, height, width, channels]; returns [faces, 2 * landmarks].
        """
        names = [hashlib.blake2b(crop.tobytes(), digest_size=16).digest() for crop in pixels]
        answers = {name: self._known[name] for name in names if name in self._known}
        unknown = [place for place, name in enumerate(names) if name not in answers]
        for start in range(0, len(unknown), AT_ONCE):
            places = unknown[start : start + AT_ONCE]
            shown = np.zeros((AT_ONCE, *pixels.shape[1:]), np.uint8)
            shown[: len(places)] = pixels[places]
            found = self._ask(shown).numpy()
            answers.update((names[place], found[k]) for k, place in enumerate(places))
        if len(self._known) + len(unknown) <= REMEMBERED:
            self._known.update(answers)
        return np.stack([answers[name] for name in names])

    def _answers(self, pixels: Tensor) -> Tensor:
        theirs = self._theirs
        images = tf.cast(pixels, tf.float32)
        images = _recolored(images, self._contract.color, theirs.color)
        if (theirs.height, theirs.width) != (self._contract.height, self._contract.width):
            images = tf.image.resize(images, (theirs.height, theirs.width), antialias=True)
        mean, std = (tf.constant(values, tf.float32) for values in (theirs.mean, theirs.std))
        feed = {self._lowered.graph.inputs[0].name: (images - mean) / std}
        answers = self._lowered.run(feed)[theirs.output]
        points = decode(answers, theirs)
        return encode(points, self._contract)


def _recolored(pixels: Tensor, ours: str, theirs: str) -> Tensor:
    if ours == theirs:
        return pixels
    if ours == "gray":
        return tf.repeat(pixels, 3, axis=-1)
    rgb = pixels if ours == "rgb" else tf.reverse(pixels, [-1])
    if theirs == "gray":
        return tf.image.rgb_to_grayscale(rgb)
    return tf.reverse(pixels, [-1])


def _check(teacher: Teacher, contract: Contract) -> None:
    theirs, graph = teacher.contract, teacher.graph
    for what, wanted, got in (
        ("crops", contract.crop, theirs.crop),
        ("landmarks", contract.scheme.name, theirs.scheme.name),
    ):
        if wanted != got:
            raise PassError(
                f"the teacher's {what} are {got}, the student's {wanted}",
                where=f"teacher {graph.name}",
                hint="take a teacher that was trained on the same crops and landmarks",
            )
    if len(graph.inputs) != 1 or theirs.output not in dict(graph.outputs):
        raise PassError(
            f"{len(graph.inputs)} input(s) and outputs {sorted(dict(graph.outputs))}, but the "
            f"teacher's contract wants one input and '{theirs.output}'",
            where=f"teacher {graph.name}",
            hint="give the contract that belongs to the teacher",
        )
