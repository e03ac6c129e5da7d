"""The trainer of a run: drives one training process, without importing TensorFlow itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from lmopt.data.augment import AugmentPlan
from lmopt.data.dataset import Dataset
from lmopt.detector.contract import Contract
from lmopt.errors import BackendError, LmoptError
from lmopt.ir.graph import Graph, Value
from lmopt.ir.types import ValueRange
from lmopt.pipeline.cache import code_digest
from lmopt.pipeline.services import (
    Progress,
    QuantScheme,
    RangeRule,
    SparsityPlan,
    TrainingPlan,
    TrainingProgress,
)
from lmopt.pipeline.validation import Epoch, Validation
from lmopt.training.job import Exam, Job, Rounding, Setup, Snapshot, Trained
from lmopt.training.weights import require_trainable, with_arrays

STDERR_TAIL = 2000

TUNABLES = "GLIBC_TUNABLES"
ENVIRONMENT: Mapping[str, str] = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # TensorFlow frees and maps its large buffers anew in every step, and the kernel then clears
    # the pages again: one arena of huge pages that is never given back brought system time from
    # 40 % to 3 %.
    TUNABLES: "glibc.malloc.hugetlb=1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


class TrainingService:
    """Trains on the training faces of a dataset; implements `lmopt.pipeline.services.Trainer`.

    The process starts with the first training and serves all that follow. It ends with `close`,
    with the program, or when a training is interrupted (the next one starts another).

    Attributes:
        digest: Covers faces, contract and augmentation.
    """

    def __init__(
        self,
        dataset: Dataset,
        contract: Contract,
        *,
        augment: AugmentPlan | None = None,
        shares: Mapping[str, float] | None = None,
        on_progress: Progress | None = None,
        environment: Mapping[str, str] = ENVIRONMENT,
        checkpoints: Path | None = None,
    ) -> None:
        """Prepares nothing but a digest; pictures are read by the process.

        Args:
            dataset: Its faces of split `train` are trained on.
            contract: How faces are cropped and encoded.
            augment: How they are varied; default the plan that trained well.
            shares: Part of the batches that sources with weaker labels fill, by source name.
            on_progress: Called about once a second while a training runs, which waits for it.
            environment: Variables of the process besides those of this one.
            checkpoints: Folder in which trainings are kept while they run, so that the same one
                goes on where an interruption left it; None begins it anew.

        Raises:
            InputError: There are no training faces.
        """
        faces = dataset.split("train")
        plan = augment or AugmentPlan()
        text = f"{faces.digest} {contract!r} {plan!r} {sorted((shares or {}).items())}"
        self.digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        self.on_progress = on_progress
        self._environment = environment
        self._checkpoints = checkpoints and checkpoints.absolute()
        self._finished: Path | None = None
        self._setup = Setup(faces, contract, plan, dict(shares or {}), self.digest)
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def train(
        self,
        graph: Graph,
        plan: TrainingPlan,
        *,
        seed: int,
        checkpoint: Path | None = None,
        validation: Validation | None = None,
    ) -> Graph:
        """Returns `graph` with trained weights.

        Args:
            graph: Float and initialised; batch norms train along where it still has them.
            plan: How to train.
            seed: Fixes order and augmentation of the faces.
            checkpoint: Saved to every half minute and resumed from; a finished training's
                checkpoint gives its result again at once.
            validation: Judges every epoch; the best one's weights come back. None takes the last.

        Raises:
            PassError: The graph cannot be trained, or does not fit the contract.
            InputError: The checkpoint belongs to another training.
            BackendError: The training diverged, or its process ended.
        """
        job = Job(graph, plan, seed, checkpoint=checkpoint and checkpoint.absolute())
        return with_arrays(graph, self._perform(job, validation).arrays)

    def finetune(
        self,
        graph: Graph,
        plan: TrainingPlan,
        *,
        seed: int,
        validation: Validation | None = None,
    ) -> Graph:
        """Returns `graph` with trained float weights; raises as `train` does."""
        return self.train(graph, plan, seed=seed, validation=validation)

    def sparsify(
        self, graph: Graph, plan: TrainingPlan, sparsity: SparsityPlan, *, seed: int
    ) -> Graph:
        """Returns `graph` trained while small kernel entries are set to 0."""
        return with_arrays(graph, self._perform(Job(graph, plan, seed, sparsity)).arrays)

    def quantization_aware(
        self,
        graph: Graph,
        ranges: Mapping[Value, ValueRange],
        scheme: QuantScheme,
        plan: TrainingPlan,
        *,
        seed: int,
        rule: RangeRule = "average",
        validation: Validation | None = None,
    ) -> tuple[Graph, Mapping[Value, ValueRange]]:
        """Returns float weights and activation ranges trained under `scheme`'s rounding.

        Args:
            graph: Float, batch norms folded.
            ranges: Calibrated range of every value that owns a grid.
            scheme: Storage type and kernel granularity.
            plan: How to train.
            seed: Fixes order and augmentation of the faces.
            rule: What becomes of the ranges.
            validation: Judges every epoch; the best one comes back. None takes the last.
        """
        job = Job(graph, plan, seed, Rounding(dict(ranges), scheme, rule))
        result = self._perform(job, validation)
        return with_arrays(graph, result.arrays), result.ranges

    def _perform(self, job: Job, validation: Validation | None = None) -> Trained:
        require_trainable(job.graph)
        if validation is not None:
            job = replace(job, exam=Exam(validation.digest, validation.crops))
        self._forget_finished()
        if job.checkpoint is not None or self._checkpoints is None:
            return self._drive(job, validation)
        checkpoint = self._checkpoints / f"{self._key(job)}.npz"
        trained = self._drive(replace(job, checkpoint=checkpoint), validation)
        self._finished = checkpoint
        return trained

    def _key(self, job: Job) -> str:
        """Returns a digest over all that a training depends on."""
        exam = "" if job.exam is None else job.exam.digest
        what = f"{job.graph.digest()} {job.plan} {job.seed} {job.method} {exam}"
        text = f"{what} {self.digest} {code_digest(())}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def _forget_finished(self) -> None:
        """Removes the checkpoint of a finished training, whose result was put by since."""
        if self._finished is not None:
            self._finished.unlink(missing_ok=True)
        self._finished = None

    def _drive(self, job: Job, validation: Validation | None) -> Trained:
        process = self._start()
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None
        idle = False
        try:
            _send(stdin, job)
            while True:
                answer = pickle.load(stdout)
                if isinstance(answer, TrainingProgress):
                    if self.on_progress is not None:
                        self.on_progress(answer)
                    _send(stdin, "go on")
                    continue
                if isinstance(answer, Snapshot):
                    assert validation is not None
                    graph = with_arrays(job.graph, answer.arrays)
                    error = validation.error(Epoch(graph, answer.ranges, answer.answers))
                    validation.errors.append(error)
                    _send(stdin, float(error))
                    continue
                idle = True
                if isinstance(answer, LmoptError):
                    raise answer
                assert isinstance(answer, Trained)
                if validation is not None:
                    validation.errors[:] = answer.errors
                return answer
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise self._ended() from error
        finally:
            # An interrupted job leaves the process busy with something nobody wants.
            if not idle:
                self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        # TensorFlow writes sources of what it traces into the temporary folder and leaves them.
        scratch = tempfile.TemporaryDirectory(prefix="lmopt-training-")
        environment = {**os.environ, **self._environment, "TMPDIR": scratch.name}
        theirs, ours = (each.get(TUNABLES) for each in (os.environ, self._environment))
        if theirs and ours:
            environment[TUNABLES] = f"{theirs}:{ours}"
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lmopt.training.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            # Ctrl-C is for the program; it decides what becomes of the training.
            start_new_session=True,
        )
        self._finalizer = weakref.finalize(self, _end, self._process, scratch)
        assert self._process.stdin is not None
        try:
            _send(self._process.stdin, self._setup)
        except BrokenPipeError as error:
            failure = self._ended()
            self.close()
            raise failure from error
        return self._process

    def _ended(self) -> BackendError:
        assert self._process is not None and self._stderr is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - STDERR_TAIL))
        tail = self._stderr.read().decode(errors="replace").strip()
        return BackendError(
            f"the training process ended ({_exit_text(self._process.returncode)}): "
            f"{tail or 'it wrote nothing'}",
            where="training",
            hint="exit by signal 9 mostly means that memory ran out: try a smaller batch",
        )

    def close(self) -> None:
        """Ends the training process, if there is one."""
        self._forget_finished()
        if self._process is not None:
            self._finalizer()
        if self._stderr is not None:
            self._stderr.close()
        self._process = self._stderr = None

    def __enter__(self) -> TrainingService:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _send(stdin: IO[bytes], message: Any) -> None:
    pickle.dump(message, stdin, pickle.HIGHEST_PROTOCOL)
    stdin.flush()


def _end(process: subprocess.Popen[bytes], scratch: tempfile.TemporaryDirectory[str]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    process.wait()
    scratch.cleanup()


def _exit_text(code: int | None) -> str:
    if code is None:
        return "it closed its output"
    return f"exit by signal {-code}" if code < 0 else f"exit code {code}"
