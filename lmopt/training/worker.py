"""The training process: takes a setup and then jobs on stdin, answers on stdout (pickles).

It ends when its stdin does, so it never outlives the program that started it.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.errors import LmoptError
from lmopt.ir.graph import Value
from lmopt.ir.types import ValueRange
from lmopt.pipeline.services import TrainingProgress
from lmopt.training.job import Job, Rounding, Setup, Snapshot, Trained

if TYPE_CHECKING:
    from lmopt.training.lower import Lowered

FACES_AT_ONCE = 32


def main() -> None:
    """Performs jobs until stdin ends."""
    # Whatever TensorFlow prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    orders: queue.SimpleQueue[object] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, orders), daemon=True).start()

    def send(answer: object) -> None:
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()

    setup = orders.get()
    assert isinstance(setup, Setup)
    perform = _performer(setup, send, orders.get)
    while True:
        job = orders.get()
        assert isinstance(job, Job)
        try:
            send(perform(job))
        except LmoptError as error:
            send(error)


def _receive(source: BinaryIO, orders: queue.SimpleQueue[object]) -> None:
    try:
        while True:
            orders.put(pickle.load(source))
    except EOFError:
        os._exit(0)
    finally:
        os._exit(1)


def _performer(
    setup: Setup, send: Callable[[object], None], receive: Callable[[], object]
) -> Callable[[Job], Trained]:
    from lmopt.data.augment import NO_AUGMENTATION, TrainingFaces
    from lmopt.training.loop import Course, Judge, fit
    from lmopt.training.teaching import VIEWS, Lessons

    faces: dict[tuple[bool, bool], TrainingFaces] = {}
    taught: dict[str, Lessons] = {}  # of the last teacher

    def perform(job: Job) -> Trained:
        wanted = augment, with_traits = job.plan.augment, job.plan.loss == "pfld"
        if wanted not in faces:
            faces[wanted] = TrainingFaces(
                setup.dataset,
                setup.contract,
                setup.augment if augment else NO_AUGMENTATION,
                shares=setup.shares,
                with_traits=with_traits,
            )

        def error(lowered: Lowered, ranges: Mapping[Value, ValueRange]) -> float:
            assert job.exam is not None
            crops = job.exam.crops
            answers = None if crops is None else _answers(lowered, crops, setup.contract)
            send(Snapshot(lowered.arrays(), ranges, answers))
            verdict = receive()
            assert isinstance(verdict, float)
            return verdict

        def report(progress: TrainingProgress) -> None:
            send(progress)
            receive()  # whoever trains may keep it waiting, for a measurement

        teacher, seen, lessons = job.plan.teacher, faces[wanted], None
        if teacher is not None:
            name = f"{teacher!r} {augment}"
            if name not in taught:
                taught.clear()
                taught[name] = Lessons(teacher, setup.contract)
            seen, lessons = seen.repeating(VIEWS), taught[name]
        judge = None if job.exam is None else Judge(error)
        course = Course(
            seen,
            setup.contract,
            job.plan,
            job.seed,
            checkpoint=job.checkpoint,
            on_progress=report,
            identity=f"{setup.digest} {job.method}{f' {job.exam.digest}' if job.exam else ''}",
            judge=judge,
            lessons=lessons,
        )
        ranges: Mapping[Value, ValueRange] = {}
        match job.method:
            case None:
                graph = fit(job.graph, course)
            case Rounding():
                from lmopt.training.qat import fit_quantized

                graph, ranges = fit_quantized(
                    job.graph, job.method.ranges, job.method.scheme, course, rule=job.method.rule
                )
            case _:
                from lmopt.training.pruning import fit_sparse

                graph = fit_sparse(job.graph, job.method, course)
        arrays = {key: w.array for key, w in graph.weights().items() if w.array is not None}
        return Trained(arrays, ranges, () if judge is None else tuple(judge.errors))

    return perform


def _answers(lowered: Lowered, crops: NDArray[np.uint8], contract: Contract) -> NDArray[np.float32]:
    """Returns what a model answers for crops, [faces, 2 * landmarks] as the contract encodes."""
    source = lowered.graph.inputs[0].name
    found = []
    for start in range(0, len(crops), FACES_AT_ONCE):
        feed = {source: contract.normalize(crops[start : start + FACES_AT_ONCE])}
        found.append(lowered.run(feed)[contract.output].numpy())
    return np.concatenate(found).reshape(len(crops), -1)


if __name__ == "__main__":
    main()
