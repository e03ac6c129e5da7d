"""Distillation: what a teacher says about the crops its student is trained on."""

from __future__ import annotations

from typing import Any

from lmopt.detector.contract import Contract
from lmopt.errors import PassError
from lmopt.pipeline.services import Teacher
from lmopt.training.backend import tf
from lmopt.training.geometry import decode, encode
from lmopt.training.lower import lower

Tensor = Any


class Lessons:
    """Answers of a teacher in its student's encoding.

    The teacher sees the student's crop, resized and with its colours changed to what it eats: a
    gray crop shows it three equal channels.

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
        self.weight = teacher.weight
        self._contract = contract
        self._theirs = teacher.contract
        self._lowered = lower(teacher.graph)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Returns the answers wanted from the student for its crops, bytes as floats.

        Shapes:
            pixels: [faces, height, width, channels]; returns [faces, 2 * landmarks].
        """
        theirs = self._theirs
        images = _recolored(pixels, self._contract.color, theirs.color)
        if (theirs.height, theirs.width) != (self._contract.height, self._contract.width):
            images = tf.image.resize(images, (theirs.height, theirs.width), antialias=True)
        mean, std = (tf.constant(values, tf.float32) for values in (theirs.mean, theirs.std))
        feed = {self._lowered.graph.inputs[0].name: (images - mean) / std}
        answers = self._lowered.run(feed)[theirs.output]
        points = decode(answers, theirs)
        return tf.stop_gradient(encode(points, self._contract))


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
