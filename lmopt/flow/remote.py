"""What runs on the nodes of a cluster: a maker of candidates, the keeper of results, a phone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.detector.detector import Detector
from lmopt.errors import BackendError, LmoptError
from lmopt.files import write_atomically
from lmopt.flow.candidates import OnPhone, PhoneHere
from lmopt.flow.crew import Outcome, Scored, Task, perform
from lmopt.flow.journal import Journal
from lmopt.flow.phone import Cabled, phone_of
from lmopt.flow.request import SearchRequest
from lmopt.flow.sources import load_faces
from lmopt.flow.workbench import Workbench
from lmopt.latency import host
from lmopt.pipeline.cache import Depot, code_of
from lmopt.pipeline.catalog import installed
from lmopt.target.profile import Target

_FOLDER = "lmopt-maker-"
T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What a maker works on all the time; files of faces must be on its machine, too.

    Attributes:
        detector, target, teacher, seed: As in a `Workbench`.
        data: Absolute paths of annotated faces; none means rendered ones.
        faces: Digest that the faces must have.
        code: Digest that lmopt, its passes and libraries must have.
        stability: As in a `Workbench`.
    """

    detector: Detector
    target: Target
    teacher: Detector | None
    seed: int
    data: tuple[Path, ...]
    faces: str
    code: str
    stability: bool


def code_here() -> str:
    """Returns a digest of everything installed that decides what candidates become."""
    return code_of(installed().targets.values())


class Archive:
    """Keeps results of passes beside the study, for caches on all nodes; a `Depot` on the disk."""

    def __init__(self, folder: Path) -> None:
        """Keeps a folder for each slot in `folder`."""
        self._folder = folder

    def fetch(self, slot: str) -> Mapping[str, bytes]:
        """Returns the files of a slot by name; none where it is not known."""
        files = self._folder.joinpath(slot).glob("[!.]*")
        return {file.name: file.read_bytes() for file in files}

    def store(self, slot: str, files: Mapping[str, bytes]) -> None:
        """Keeps files of a slot; graphs before the records that name them."""
        for name, data in sorted(files.items(), reverse=True):
            write_atomically(self._folder / slot / name, data)


class _ArchiveFar:
    """The archive, asked from a node; implements `lmopt.pipeline.cache.Depot`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def fetch(self, slot: str) -> Mapping[str, bytes]:
        """Returns the files of a slot by name."""
        import ray

        files: Mapping[str, bytes] = ray.get(self._actor.fetch.remote(slot))
        return files

    def store(self, slot: str, files: Mapping[str, bytes]) -> None:
        """Keeps files of a slot."""
        import ray

        ray.get(self._actor.store.remote(slot, files))


class Maker:
    """Makes candidates on one node, one at a time, beside others but never beside a measurement."""

    def __init__(self, order: Order, depot: Depot, threads: int) -> None:
        """Makes its bench in a folder of its own.

        Args:
            order: What to work on.
            depot: Where results of passes are shared.
            threads: Of everything that it does.

        Raises:
            LmoptError: This node would make something else, or the faces are not here.
        """
        _sweep()
        for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ[name] = str(threads)
        if code_here() != order.code:
            raise BackendError(
                "this node has another lmopt, or other versions of its libraries",
                hint="install on every node what is installed where the search is started",
            )
        faces = load_faces(order.data, order.detector.require_contract())
        if faces.digest != order.faces:
            raise BackendError(
                f"the faces in {', '.join(map(str, order.data)) or 'the rendered set'} are others "
                "than where the search was started",
                hint="give every node the same folders under the same paths",
            )
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
        self._journal = Journal(self._folder)
        self._turn = host.Beside()
        self._bench = Workbench(
            order.detector,
            faces,
            order.target,
            seed=order.seed,
            teacher=order.teacher,
            cache=self._journal.cache,
            threads=threads,
            depot=depot,
            turn=self._turn,
            stability=order.stability,
        )

    def perform(self, task: Task) -> tuple[Outcome, bytes]:
        """Returns what becomes of a task, and the model's file."""
        with self._turn:
            outcome = perform(self._bench, self._journal, task)
        found = outcome.found
        return outcome, Path(found.made.model).read_bytes() if isinstance(found, Scored) else b""

    def close(self) -> None:
        """Ends its processes and removes its files."""
        self._bench.rest()
        shutil.rmtree(self._folder, ignore_errors=True)


class GuardedMaker:
    """A `Maker` whose refusal to start comes back as an answer."""

    def start(self, order: Order, archive: Any, threads: int) -> LmoptError | None:
        """Makes the maker; returns why it cannot be, or None."""
        try:
            self._maker = Maker(order, _ArchiveFar(archive), threads)
        except LmoptError as error:
            return error
        return None

    def perform(self, task: Task) -> tuple[Outcome, bytes]:
        """Returns what becomes of a task, and the model's file."""
        return self._maker.perform(task)

    def close(self) -> None:
        """Ends its processes and removes its files."""
        self._maker.close()


def _sweep() -> None:
    """Removes what makers have left that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        process = left.name.removeprefix(_FOLDER).partition("-")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(left, ignore_errors=True)


class PhoneKeeper:
    """Measures on the phone of its node; errors come back as answers."""

    def cable(self, request: SearchRequest) -> Cabled | LmoptError:
        """Returns the phone that a request means."""
        return _answer(lambda: phone_of(request))

    def measure(
        self,
        cable: Cabled,
        models: Mapping[str, bytes],
        threads: int | None,
        contract: Contract,
        crops: NDArray[np.uint8],
    ) -> OnPhone | LmoptError:
        """Returns measurements of models by digest."""
        with tempfile.TemporaryDirectory(prefix="lmopt-phone-") as folder:
            files = {digest: Path(folder, f"{digest}.tflite") for digest in models}
            for digest, path in files.items():
                path.write_bytes(models[digest])
            return _answer(lambda: PhoneHere(cable).measure(files, threads, contract, crops))


def _answer(ask: Callable[[], T]) -> T | LmoptError:
    try:
        return ask()
    except LmoptError as error:
        return error
