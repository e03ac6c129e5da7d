"""The training loop: Adam on a cosine, averaged weights, progress, checkpoints, exact resume."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.errors import BackendError, InputError, PassError
from lmopt.ir.graph import Graph, Value
from lmopt.ir.types import ValueRange
from lmopt.pipeline.services import Progress, TrainingPlan, TrainingProgress
from lmopt.training.backend import keras, tf
from lmopt.training.checkpoint import load_checkpoint, save_checkpoint
from lmopt.training.lower import Lowered, freeze, lower, read_back
from lmopt.training.objective import Objective, objective_of
from lmopt.training.teaching import Lessons

GRADIENT_NORM = 20.0
PROGRESS_S = 1.0
CHECKPOINT_S = 30.0

Batch = tuple[NDArray[Any], ...]


@dataclass(eq=False)
class Judge:
    """Judges the model as it stands after an epoch.

    Attributes:
        error: Returns what is to be small, given the ranges the model rounds to.
        errors: Of every epoch so far, those before a resume included.
    """

    error: Callable[[Lowered, Mapping[Value, ValueRange]], float]
    errors: list[float] = field(default_factory=list)


class Faces(Protocol):
    """Training faces as batches; batch k depends on the seed and k alone."""

    def __len__(self) -> int:
        """Returns the number of faces."""
        ...

    def batches(self, batch: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Returns batches from number `start` on.

        A batch is crops as bytes and targets as encoded, and for a loss that weights faces also
        their pose angles in radians, [faces, 3], and their rarities, [faces].
        """
        ...


@dataclass(frozen=True)
class Course:
    """What a training is run on and reports to.

    Attributes:
        faces: Training faces.
        contract: What the crops and the targets mean.
        plan: How to train.
        seed: Fixes the order and the augmentation of the faces.
        checkpoint: File to save to and resume from, or None.
        on_progress: Called about once a second and after the last step.
        identity: What else the result depends on, so that a checkpoint of another training is
            refused.
        judge: Tells after which epoch the weights were best: those the training ends with. None
            takes the last.
        lessons: Of the plan's teacher; None asks it anew.
    """

    faces: Faces
    contract: Contract
    plan: TrainingPlan
    seed: int
    checkpoint: Path | None = None
    on_progress: Progress | None = None
    identity: str = ""
    judge: Judge | None = None
    lessons: Lessons | None = None

    @property
    def steps(self) -> int:
        """Returns the number of steps: at least one."""
        return self._steps_in(self.plan.epochs)

    @property
    def epoch_ends(self) -> frozenset[int]:
        """Returns after how many steps an epoch is over; the last may be a part of one."""
        whole = range(1, math.floor(self.plan.epochs) + 1)
        return frozenset({*map(self._steps_in, whole), self.steps})

    def _steps_in(self, epochs: float) -> int:
        return max(1, round(epochs * len(self.faces) / self.plan.batch))

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step: linear warm-up times cosine decay to 0."""
        warm = min(1.0, (step + 1) / max(1, self.plan.warmup_steps))
        cosine = 0.5 * (1.0 + math.cos(math.pi * step / self.steps))
        return self.plan.learning_rate * warm * cosine


def fit(graph: Graph, course: Course) -> Graph:
    """Returns `graph` with trained weights.

    Raises:
        PassError: The graph cannot be trained, or does not fit the contract.
        BackendError: The loss became infinite or not a number.
    """
    lowered = lower(graph)
    train(lowered, course)
    return read_back(graph, lowered)


def train(
    lowered: Lowered,
    course: Course,
    *,
    after_step: Callable[[int], None] | None = None,
    extra: Sequence[Any] = (),
    ranges: Callable[[], Mapping[Value, ValueRange]] = dict,
) -> None:
    """Trains a lowered graph in place and leaves the averaged weights in it.

    They are those of the best epoch, or of the last where nobody judges.

    Args:
        lowered: The model.
        course: Faces, plan and the rest.
        after_step: Called with the number of steps done.
        extra: Further variables that belong into a checkpoint.
        ranges: Returns what the model rounds to as it stands.
    """
    _check(lowered, course)
    keras.utils.set_random_seed(course.seed % 2**31)
    freeze(lowered, course.plan.frozen)
    objective = objective_of(lowered.graph, course.plan, course.contract)
    state = _State(lowered, course, objective, extra)
    lessons = _lessons(course)
    start = state.resume()
    step_function = _step_function(course, objective, state, taught=lessons is not None)
    batches = course.faces.batches(course.plan.batch, course.seed, start)
    meter, ends = _Meter(course, start), course.epoch_ends
    saved_at = time.monotonic()
    for step in range(start, course.steps):
        decay = min(course.plan.weight_average, (step + 1) / (step + 10))
        rate = np.float32(course.rate(step))
        batch = next(batches)
        taught = () if lessons is None else (lessons(batch[0]),)
        loss = float(step_function(rate, np.float32(decay), *batch, *taught))
        if not math.isfinite(loss):
            raise BackendError(
                f"the loss became {loss} in step {step + 1} of {course.steps}",
                where="training",
                hint=f"lower the learning rate (it was {course.plan.learning_rate:g})",
            )
        if after_step is not None:
            after_step(step + 1)
        meter.add(step + 1, loss)
        if course.judge is not None and step + 1 in ends:
            with state.averaged():
                state.note(course.judge.error(lowered, ranges()))
        if time.monotonic() - saved_at > CHECKPOINT_S:
            state.save(step + 1)
            saved_at = time.monotonic()
    state.save(course.steps)
    state.take_result()


class _State:
    """Everything a step changes: weights, moments, averages, what belongs to the objective."""

    def __init__(
        self, lowered: Lowered, course: Course, objective: Objective, extra: Sequence[Any]
    ) -> None:
        self.model = lowered.leading_to(objective.reads)
        self.weights = self.model.weights
        if not self.model.trainable_variables:
            raise PassError("the graph has no weights to train", where=lowered.graph.name)
        self.trainable = [*self.model.trainable_variables, *objective.variables]
        self.averages = (
            [tf.Variable(w, trainable=False) for w in self.weights]
            if course.plan.weight_average
            else []
        )
        self.optimizer = keras.optimizers.Adam(course.plan.learning_rate)
        self.optimizer.build(self.trainable)
        self._course = course
        self._all = [
            *self.weights,
            *self.averages,
            *self.optimizer.variables,
            *extra,
            *objective.variables,
        ]
        self._fingerprint = _fingerprint(lowered, course)
        self._errors = [] if course.judge is None else course.judge.errors
        self._best: list[NDArray[Any]] = []

    def resume(self) -> int:
        """Returns the steps already done, after loading the checkpoint where there is one."""
        path = self._course.checkpoint
        if path is None or not path.exists():
            return 0
        step, arrays = load_checkpoint(path, self._fingerprint)
        present = len(self._all)
        for variable, array in zip(self._all, arrays[:present], strict=True):
            variable.assign(array)
        if arrays[present:]:
            errors, *self._best = arrays[present:]
            self._errors[:] = errors.tolist()
        return step

    def save(self, step: int) -> None:
        if self._course.checkpoint is not None:
            arrays = [variable.numpy() for variable in self._all]
            if self._errors:
                arrays += [np.array(self._errors), *self._best]
            save_checkpoint(self._course.checkpoint, self._fingerprint, step, arrays)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Has the averaged weights in the model for a while."""
        before = [weight.numpy() for weight in self.weights]
        self._put(self.averages)
        yield
        self._put(before)

    def note(self, error: float) -> None:
        """Remembers the error of the weights in the model, and them where they are the best."""
        if error < min(self._errors, default=math.inf):
            self._best = [weight.numpy() for weight in self.weights]
        self._errors.append(error)

    def take_result(self) -> None:
        """Leaves in the model what the training ends with."""
        self._put(self._best or self.averages)

    def _put(self, values: Sequence[Any]) -> None:
        for weight, value in zip(self.weights, values, strict=False):
            weight.assign(value)


def _lessons(course: Course) -> Lessons | None:
    teacher = course.plan.teacher
    if course.lessons is not None or teacher is None:
        return course.lessons
    return Lessons(teacher, course.contract)


def _step_function(
    course: Course, objective: Objective, state: _State, *, taught: bool
) -> Callable[..., Any]:
    contract, teacher = course.contract, course.plan.teacher
    part = teacher.weight if taught and teacher is not None else 0.0
    mean, std = (tf.constant(values, tf.float32) for values in (contract.mean, contract.std))
    image = [None, contract.height, contract.width, contract.channels]
    answer = tf.TensorSpec([None, 2 * contract.scheme.count], tf.float32)
    traits = [tf.TensorSpec([None, 3], tf.float32), tf.TensorSpec([None], tf.float32)]

    @tf.function(
        input_signature=[
            tf.TensorSpec([], tf.float32),
            tf.TensorSpec([], tf.float32),
            tf.TensorSpec(image, tf.uint8),
            answer,
            *(traits if objective.with_traits else ()),
            *([answer] if taught else ()),
        ],
        autograph=False,
    )  # type: ignore[untyped-decorator, unused-ignore]
    def step(rate: Any, decay: Any, pixels: Any, targets: Any, *more: Any) -> Any:
        pixels = tf.cast(pixels, tf.float32)
        *traits, lesson = more if taught else (*more, None)
        with tf.GradientTape() as tape:
            values = state.model([(pixels - mean) / std], training=True)
            loss = objective(values, targets, *traits)
            if taught:
                loss = (1.0 - part) * loss + part * objective(values, lesson, *traits)
        gradients = tape.gradient(loss, state.trainable)
        if all(gradient is None for gradient in gradients):
            raise PassError(
                f"the {course.plan.loss} loss says nothing about any weight: no gradient passes "
                "between the answer and the first of them",
                where=", ".join(f"%{name}" for name in objective.reads),
                hint="train a detector that reads landmarks from heatmaps on heatmap-mse or "
                "adaptive-wing",
            )
        gradients, _ = tf.clip_by_global_norm(gradients, GRADIENT_NORM)
        state.optimizer.learning_rate.assign(rate)
        state.optimizer.apply_gradients(zip(gradients, state.trainable, strict=True))
        for average, weight in zip(state.averages, state.weights, strict=False):
            average.assign_add((1.0 - decay) * (weight - average))
        return loss

    return step  # type: ignore[no-any-return, unused-ignore]


class _Meter:
    """Loss and speed since the last report."""

    def __init__(self, course: Course, start: int) -> None:
        self._course = course
        self._losses: list[float] = []
        self._since = time.monotonic()
        self._step = start
        self._warm = False

    def add(self, step: int, loss: float) -> None:
        self._losses.append(loss)
        now = time.monotonic()
        if self._course.on_progress is None:
            return
        done = step == self._course.steps
        if not self._warm and not done:
            # The first step also traces the graph, which says nothing about speed.
            self._warm, self._since, self._step = True, now, step
            return
        if now - self._since < PROGRESS_S and not done:
            return
        images = (step - self._step) * self._course.plan.batch
        mean = sum(self._losses) / len(self._losses)
        speed = images / max(now - self._since, 1e-9)
        self._course.on_progress(TrainingProgress(step, self._course.steps, mean, speed))
        self._losses, self._since, self._step = [], now, step


def _check(lowered: Lowered, course: Course) -> None:
    graph, contract = lowered.graph, course.contract
    if len(course.faces) == 0:
        raise InputError("there are no training faces", hint="give a dataset with role train")
    if len(graph.inputs) != 1:
        raise PassError(f"{len(graph.inputs)} inputs; training wants one image", where=graph.name)
    wanted = (contract.height, contract.width, contract.channels)
    got = graph.inputs[0].results[0].shape[1:]
    if got != wanted:
        raise PassError(
            f"input of {list(got)}, but the contract gives crops of {list(wanted)}",
            where=f"%{graph.inputs[0].name}",
            hint="give the contract that belongs to this model",
        )


def _fingerprint(lowered: Lowered, course: Course) -> str:
    text = f"{lowered.graph.digest()} {course.plan} {course.seed} {course.identity}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
