from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lmopt.detector.contract import Color, CropRule
from lmopt.detector.scheme import LandmarkScheme
from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.ops import Conv2D, Dense, Mean
from lmopt.ir.types import Weight
from lmopt.pipeline.services import Teacher, TrainingPlan
from tests.support.training_graphs import CONTRACT, SIZE, Blobs, detector, fill

pytestmark = pytest.mark.slow

PLAN = TrainingPlan(epochs=20, learning_rate=1e-2, batch=16, warmup_steps=5)


def watcher(size: int, channels: int) -> Graph:
    """Returns a graph of any input that gives four numbers."""
    edit = Edit("watcher")
    image = edit.input("image", (None, size, size, channels))
    pooled = edit.add("pooled", Mean(), edit.add("conv", Conv2D(6, activation="relu"), image))
    edit.output("landmarks", edit.add("landmarks", Dense(4), pooled))
    return fill(edit.done())


def pictures() -> np.ndarray:
    return np.asarray(next(Blobs().batches(4, 0))[0])


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_a_teacher_with_another_encoding_and_colour_is_understood(color: Color) -> None:
    from lmopt.training.teaching import Lessons

    channels = 1 if color == "gray" else 3
    theirs = replace(
        CONTRACT,
        color=color,
        mean=(9.0,) * channels,
        std=(50.0,) * channels,
        order="xxyy",
        unit="centered",
    )
    graph = watcher(SIZE, channels)
    seen = {
        "rgb": pictures(),
        "bgr": pictures()[..., ::-1],
        "gray": pictures() @ np.array([[0.2989], [0.587], [0.114]]),
    }[color]
    said = run(graph, {"image": theirs.normalize(seen)})["landmarks"]
    wanted = CONTRACT.encode(theirs.decode(said))
    got = Lessons(Teacher(graph, theirs), CONTRACT)(pictures())
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_larger_teacher_sees_the_crop_enlarged() -> None:
    import cv2

    from lmopt.training.teaching import Lessons

    theirs = replace(CONTRACT, height=2 * SIZE, width=2 * SIZE, unit="pixel")
    graph = watcher(2 * SIZE, 3)
    seen = np.stack([cv2.resize(p.astype(np.float32), None, fx=2, fy=2) for p in pictures()])
    said = run(graph, {"image": theirs.normalize(seen)})["landmarks"]
    got = Lessons(Teacher(graph, theirs), CONTRACT)(pictures())
    np.testing.assert_allclose(got, CONTRACT.encode(theirs.decode(said)), rtol=1e-3, atol=1e-5)


def test_a_gray_student_shows_its_teacher_equal_channels() -> None:
    from lmopt.training.teaching import Lessons

    gray = replace(CONTRACT, color="gray", mean=(0.0,), std=(1.0,))
    graph, crop = watcher(SIZE, 3), pictures()[..., :1]
    said = run(graph, {"image": CONTRACT.normalize(np.repeat(crop, 3, axis=-1))})["landmarks"]
    got = Lessons(Teacher(graph, CONTRACT), gray)(crop)
    np.testing.assert_allclose(got, said, rtol=1e-4, atol=1e-6)


def test_a_teacher_is_asked_once_and_says_the_same_in_any_company() -> None:
    from lmopt.training.teaching import AT_ONCE, Lessons

    teacher = Teacher(watcher(SIZE, 3), CONTRACT)
    crops = np.asarray(next(Blobs().batches(AT_ONCE + 5, 0))[0])
    asked: list[int] = []

    lessons = Lessons(teacher, CONTRACT)
    ask = lessons._ask

    def counted(shown: np.ndarray) -> object:
        asked.append(len(shown))
        return ask(shown)

    lessons._ask = counted
    whole = lessons(crops)
    assert asked == [AT_ONCE, AT_ONCE]
    np.testing.assert_array_equal(lessons(crops[::-1]), whole[::-1])
    assert len(asked) == 2
    np.testing.assert_array_equal(lessons(np.stack([crops[3], crops[3]])), whole[[3, 3]])
    alone = Lessons(teacher, CONTRACT)
    found = np.concatenate([alone(crops[k : k + 3]) for k in range(0, len(crops), 3)])
    np.testing.assert_array_equal(found, whole)


def test_training_pulls_the_student_towards_its_teacher() -> None:
    from lmopt.training.loop import Course, fit

    start = fit(detector(), Course(Blobs(), CONTRACT, replace(PLAN, epochs=60), 3))
    # A teacher that sees every landmark a tenth of the picture too far right and down.
    edit = start.edit()
    bias = start.node("landmarks").weight("bias").real() + np.float32(0.1)
    edit.set_weights("landmarks", bias=Weight.of(bias))
    teacher = edit.done()

    def distance(weight: float) -> float:
        taught = Teacher(teacher, CONTRACT, weight) if weight else None
        plan = replace(PLAN, learning_rate=2e-3, teacher=taught)
        student = fit(start, Course(Blobs(), CONTRACT, plan, 3))
        image = {"image": CONTRACT.normalize(next(Blobs().batches(64, 9))[0])}
        gap = run(student, image)["landmarks"] - run(teacher, image)["landmarks"]
        return float(np.abs(gap).mean())

    alone, half, whole = (distance(weight) for weight in (0.0, 0.5, 1.0))
    assert whole < half < alone
    assert whole < 0.3 * alone


def test_what_a_teacher_must_share() -> None:
    from lmopt.training.teaching import Lessons

    graph = detector()
    with pytest.raises(PassError, match="teacher's crops are"):
        Lessons(Teacher(graph, replace(CONTRACT, crop=CropRule(margin=2.0))), CONTRACT)
    with pytest.raises(PassError, match="teacher's landmarks are other"):
        Lessons(Teacher(graph, replace(CONTRACT, scheme=LandmarkScheme("other", 2))), CONTRACT)
    with pytest.raises(PassError, match="wants one input and 'points'"):
        Lessons(Teacher(graph, replace(CONTRACT, output="points")), CONTRACT)
    with pytest.raises(UsageError, match=r"weight is 1\.5"):
        Teacher(graph, CONTRACT, 1.5)
