"""Searches beyond one machine: a Ray cluster whose nodes make candidates and own phones."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.errors import BackendError, LmoptError, UsageError
from lmopt.flow import events
from lmopt.flow.candidates import OnPhone
from lmopt.flow.crew import Outcome, Scored, Task
from lmopt.flow.events import Listener
from lmopt.flow.journal import Journal
from lmopt.flow.phone import Cabled
from lmopt.flow.remote import Archive, GuardedMaker, Order, PhoneKeeper, code_here
from lmopt.flow.request import SearchRequest
from lmopt.flow.workbench import Workbench

PHONE = "lmopt-phone"
"""Custom resource of the node that owns the phone: `ray start --resources='{"lmopt-phone": 1}'`."""
CORES = 2
"""CPU cores of a maker, where its node has so many."""
POLL_S = 2.0
LOSSES = 3
"""Makers that a candidate may cost before it is given up."""
PATIENCE_S = 120.0
"""How long to wait for a node that can make candidates."""


class Cluster:
    """A connection to a Ray cluster; a context manager that ends what was started there."""

    def __init__(self, address: str, listen: Listener) -> None:
        """Keeps where the cluster is.

        Args:
            address: `auto`, or `HOST:PORT` of a cluster that this machine belongs to.
            listen: Is told of nodes that come and go.

        Raises:
            UsageError: Ray is not installed, or the address is of a kind that does not do.
        """
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "Ray is not installed", where="--cluster", hint="pip install 'lmopt[cluster]'"
            ) from error
        if address.startswith("ray://"):
            raise UsageError(
                "the search must run on a node of the cluster",
                where="--cluster",
                hint="run `ray start --address=HOST:PORT --num-cpus=0` here, then --cluster auto",
            )
        self._ray: ModuleType = ray
        self._address, self._listen = address, listen
        self._crew: ClusterCrew | None = None
        self._is_ours = False

    def __enter__(self) -> Self:
        """Connects; raises BackendError where there is no cluster."""
        if not self._ray.is_initialized():
            try:
                self._knock()
                self._ray.init(self._address, log_to_driver=False, logging_level="ERROR")
            except (OSError, RuntimeError, ValueError) as error:
                raise BackendError(
                    f"no Ray cluster answers: {str(error).splitlines()[0]}",
                    where=f"--cluster {self._address}",
                    hint="start one: `ray start --head`, and `ray start --address=HOST:6379` on "
                    "every other machine",
                ) from error
            self._is_ours = True
        return self

    def _knock(self) -> None:
        """Raises OSError or ValueError where nobody listens: Ray itself would try for long."""
        if self._address != "auto":
            host, _, port = self._address.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=10):
                pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._crew is not None:
            self._crew.close()
        if self._is_ours:
            self._ray.shutdown()

    def crew(self, bench: Workbench, journal: Journal, data: tuple[Path, ...]) -> ClusterCrew:
        """Returns makers on every node with cores or GPUs, at least one of which is ready.

        Args:
            bench: What they work on, too.
            journal: Keeps the files; its cache has the results of passes for all.
            data: Where the faces are, here and on every node.

        Raises:
            BackendError: No node can make candidates.
        """
        assert bench.faces is not None and bench.target is not None
        order = Order(
            bench.detector,
            bench.target,
            bench.teacher,
            bench.seed,
            tuple(path.resolve() for path in data),
            bench.faces.digest,
            code_here(),
            bench.noise is not None,
        )
        self._crew = ClusterCrew(self._ray, order, journal, self._listen)
        self._crew.wait()
        return self._crew

    def phone(self, request: SearchRequest) -> PhoneOnNode | None:
        """Returns the phone of the node that has the resource `PHONE`; None where none has.

        Raises:
            LmoptError: That node has no such phone, or cannot use it.
        """
        if not self._ray.cluster_resources().get(PHONE):
            return None
        keeper = self._ray.remote(PhoneKeeper).options(num_cpus=0, resources={PHONE: 1}).remote()
        found = self._ray.get(keeper.cable.remote(request))
        if isinstance(found, LmoptError):
            raise found
        return PhoneOnNode(self._ray, keeper, found)


@dataclass(frozen=True)
class PhoneOnNode:
    """A phone on a cable of another node; implements `PhoneThere`.

    Attributes:
        cable: The phone, its tool and its profile, as they are there.
    """

    _ray: ModuleType
    _keeper: Any
    cable: Cabled

    def measure(
        self,
        files: Mapping[str, Path],
        threads: int | None,
        contract: Contract,
        crops: NDArray[np.uint8],
    ) -> OnPhone:
        """Returns measurements of files by digest, and their answers compared with a host's."""
        models = {digest: path.read_bytes() for digest, path in files.items()}
        call = self._keeper.measure.remote(self.cable, models, threads, contract, crops)
        try:
            found: OnPhone | LmoptError = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            raise BackendError(
                "the node that owns the phone went away", hint="start it again, then --resume"
            ) from error
        if isinstance(found, LmoptError):
            raise found
        return found


@dataclass(frozen=True)
class _Hand:
    """A maker that was started on a node.

    Attributes:
        actor: The way to it.
        place: The node, and which of its makers this is.
        name: For people.
    """

    actor: Any
    place: tuple[str, int]
    name: str


class ClusterCrew:
    """Makers on the nodes of a cluster; implements `Crew`.

    What a lost node was making is made by another one. New nodes are taken in as they come.
    """

    def __init__(self, ray: ModuleType, order: Order, journal: Journal, listen: Listener) -> None:
        """Starts nothing yet."""
        self._ray, self._journal, self._listen = ray, journal, listen
        self._order = ray.put(order)
        own = ray.get_runtime_context().get_node_id()
        self._archive = self._actor(Archive, own, num_cpus=0).remote(journal.cache.resolve())
        self._starting: dict[Any, _Hand] = {}
        self._idle: list[_Hand] = []
        self._busy: dict[Any, tuple[_Hand, Task]] = {}
        self._waiting: list[Task] = []
        self._places: set[tuple[str, int]] = set()
        self._losses: Counter[int] = Counter()
        self._refusals: list[str] = []

    @property
    def is_full(self) -> bool:
        """Returns whether every maker has a task."""
        return len(self._waiting) >= max(1 - len(self._busy), len(self._idle))

    def begin(self, task: Task) -> None:
        """Takes a task."""
        self._waiting.append(task)
        self._assign()

    def finish(self) -> Outcome:
        """Returns what became of one of the tasks, once it is known.

        Raises:
            BackendError: No node is left that can make candidates.
        """
        while True:
            if not self._busy:
                self.wait()
            self._look_for_nodes(0.0)
            self._assign()
            for call in self._done(self._busy, POLL_S):
                hand, task = self._busy.pop(call)
                try:
                    outcome, model = self._ray.get(call)
                except self._ray.exceptions.RayActorError:
                    failed = self._lost(hand, task)
                    if failed is not None:
                        return failed
                    continue
                self._idle.append(hand)
                return self._kept(outcome, model)

    def _lost(self, hand: _Hand, task: Task) -> Outcome | None:
        """Has a task made by another maker; returns its failure where it ended too many."""
        self._places.discard(hand.place)
        self._losses[task.number] += 1
        if self._losses[task.number] == LOSSES:
            return Outcome(task, BackendError(f"{LOSSES} makers were lost with it: out of memory?"))
        self._listen(
            events.Noted(f"{hand.name} is lost; candidate {task.number} is made elsewhere")
        )
        self._waiting.insert(0, task)
        return None

    def wait(self, count: int = 1) -> None:
        """Returns when so many makers are ready; raises BackendError when they do not get so."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self._idle) + len(self._busy) < count:
            self._look_for_nodes(POLL_S)
            if not self._starting and self._refusals:
                raise BackendError(
                    f"no node can make candidates: {'; '.join(dict.fromkeys(self._refusals))}"
                )
            if time.monotonic() > deadline:
                raise BackendError(
                    f"the cluster's nodes took fewer than {count} makers within {PATIENCE_S:g} s",
                    where="--cluster",
                    hint="`ray status` shows what is free; what was found so far is kept: start "
                    "nodes, then --resume",
                )
        self._assign()

    def close(self) -> None:
        """Ends all makers."""
        calls = [hand.actor.close.remote() for hand in self._idle]
        self._ray.wait(calls, num_returns=len(calls), timeout=5) if calls else None
        busy = [hand for hand, _ in self._busy.values()]
        for hand in (*self._idle, *busy, *self._starting.values()):
            self._ray.kill(hand.actor)
        self._ray.kill(self._archive)

    def _actor(self, kind: type, node: str, **options: Any) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return self._ray.remote(kind).options(scheduling_strategy=there, **options)

    def _look_for_nodes(self, timeout_s: float) -> None:
        """Starts makers where there are none yet, and takes in those that are ready."""
        for node in self._ray.nodes():
            if node["Alive"]:
                self._start(node["NodeID"], node["NodeManagerHostname"], node["Resources"])
        for call in self._done(self._starting, timeout_s):
            hand = self._starting.pop(call)
            try:
                refusal = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                refusal = BackendError(str(error).splitlines()[0])
            if refusal is None:
                self._idle.append(hand)
                self._listen(events.Noted(f"{hand.name} makes candidates"))
            else:
                self._refusals.append(f"{hand.name}: {refusal.what}")
                self._listen(events.Noted(self._refusals[-1]))

    def _start(self, node: str, name: str, resources: Mapping[str, float]) -> None:
        cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        threads = min(CORES, cores)
        for k in range(min(gpus, cores) or (cores // threads if threads else 0)):
            if (node, k) not in self._places:
                self._places.add((node, k))
                options = {"num_cpus": threads, "num_gpus": min(gpus, 1)}
                actor = self._actor(GuardedMaker, node, **options).remote()
                hand = _Hand(actor, (node, k), f"maker {k + 1} on {name} ({node[:6]})")
                self._starting[actor.start.remote(self._order, self._archive, threads)] = hand

    def _assign(self) -> None:
        while self._waiting and self._idle:
            hand, task = self._idle.pop(0), self._waiting.pop(0)
            self._busy[hand.actor.perform.remote(task)] = (hand, task)

    def _done(self, calls: Mapping[Any, object], timeout_s: float) -> list[Any]:
        """Returns a call that has an answer, waiting a little."""
        if not calls:
            time.sleep(timeout_s)
            return []
        done: list[Any] = self._ray.wait(list(calls), num_returns=1, timeout=timeout_s)[0]
        return done

    def _kept(self, outcome: Outcome, model: bytes) -> Outcome:
        if not isinstance(outcome.found, Scored):
            return outcome
        path = self._journal.write_model(model)
        made = replace(outcome.found.made, model=str(path), saved_models=None)
        return replace(outcome, found=replace(outcome.found, made=made))
