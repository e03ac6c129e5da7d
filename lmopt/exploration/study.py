"""What a search asked and found, kept in an Optuna study: any database, any number of processes."""

from __future__ import annotations

import hashlib
import os
import socket
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import numpy as np
import psutil

from lmopt.errors import InputError
from lmopt.exploration.finding import Asked, Finding, Tried, finding_from_json
from lmopt.exploration.racer import Racer
from lmopt.exploration.space import SearchSpace, Sketch, parse_space

Sampler = Literal["tpe", "nsga2", "random"]
SAMPLERS: tuple[Sampler, ...] = ("tpe", "nsga2", "random")
STALE = 5
"""Proposals in a row that were made before: then candidates are drawn at random."""
EMPTY = 60
"""Such proposals after which the space holds no more."""
SHORT = 24
"""Characters of what a message shows of a value; digests have more."""
_WORKER, _BEFORE, _AFTER, _PARENT = "worker", "before", "after", "parent"


class Study:
    """The candidates of a search; every answer is in the database before the next is asked.

    A candidate that a killed process left is taken up by the next one that asks on the same
    machine. Findings are attributes of the study, one per candidate and fidelity.

    Attributes:
        space: What may be asked.
    """

    space: SearchSpace

    def __init__(
        self,
        url: str,
        name: str,
        space: SearchSpace,
        identity: Mapping[str, str],
        *,
        seed: int,
        sampler: Sampler,
        more: int = 0,
        fit: Callable[[SearchSpace], SearchSpace] = lambda space: space,
    ) -> None:
        """Opens the study or begins it.

        Args:
            url: Of the database, as SQLAlchemy takes it: `sqlite:///study.db`.
            name: Of the study in it.
            space: What may be asked.
            identity: All that findings depend on, by name; a study holds one kind of findings.
            seed: Of the sampler; candidate k is drawn from a seed of both.
            sampler: Who proposes.
            more: How many objectives there are besides NME and latency.
            fit: Makes of the space what the study is begun with; not asked again.

        Raises:
            InputError: The database cannot be opened, or the study was begun on something else.
        """
        import optuna

        self._optuna, self._seed, self._sampler = optuna, seed, sampler
        with _database(url):
            self._study = optuna.create_study(
                storage=url,
                study_name=name,
                directions=["minimize"] * (2 + more),
                load_if_exists=True,
            )
            begun = self._study.user_attrs.get("identity")
        if begun is not None:
            _require_equal(begun, identity, name, url)
            self.space = parse_space(self._study.user_attrs["space"], url)
            return
        self.space = fit(space)
        with _database(url):
            for parameters in self.space.design():
                self._study.enqueue_trial(parameters, skip_if_exists=True)
            self._study.set_user_attr("space", self.space.to_toml())
            self._study.set_user_attr("identity", dict(identity))

    def ask(self, under_way: Container[int] = ()) -> Asked | None:
        """Returns a candidate that a dead process left, or else a new one; None when all were had.

        What the sampler proposes again is answered as it was before.

        Args:
            under_way: Numbers of candidates that this process has not finished asking about.
        """
        while (trial := self._left_by_the_dead(under_way) or self._new()) is not None:
            asked = self._take(trial)
            earlier = next(a.number for a in self._drawn() if a.sketch == asked.sketch)
            if earlier == asked.number:
                return asked
            self._repeat(asked.number, earlier)
        return None

    def _left_by_the_dead(self, under_way: Container[int]) -> Any:
        for trial in self._abandoned(under_way):
            self._seed_sampler(trial.number)
            return self._optuna.trial.Trial(self._study, trial._trial_id)
        return None

    def _abandoned(self, under_way: Container[int]) -> Iterator[Any]:
        for trial in self._trials("RUNNING"):
            if trial.number not in under_way and not _is_alive(trial.user_attrs.get(_WORKER)):
                yield trial

    def _new(self) -> Any:
        number = len(self._study.get_trials(deepcopy=False))
        if self._repeats_before(number) >= EMPTY:
            return None
        self._seed_sampler(number)
        return self._study.ask()

    def _seed_sampler(self, number: int) -> None:
        stale = self._repeats_before(number) >= STALE
        kind: Sampler = "random" if stale else self._sampler
        # Not their sum: studies of neighbouring seeds would draw the same, moved by one.
        digest = hashlib.blake2b(f"{self._seed}/{number}".encode(), digest_size=4).digest()
        self._study.sampler = self._make_sampler(kind, int.from_bytes(digest, "big"))

    def _repeats_before(self, number: int) -> int:
        """Returns how many candidates in a row before this one had been asked before."""
        attributes, first = self._study.user_attrs, number
        while f"repeat {first - 1}" in attributes:
            first -= 1
        return number - first

    def _repeat(self, number: int, earlier: int) -> None:
        trial = self._study.get_trials(deepcopy=False)[earlier]
        complete = trial.state == self._optuna.trial.TrialState.COMPLETE
        self._study.set_user_attr(f"repeat {number}", earlier)
        if complete:
            self._study.tell(number, trial.values, skip_if_finished=True)
        else:
            state = self._optuna.trial.TrialState.FAIL
            self._study.tell(number, state=state, skip_if_finished=True)

    def _take(self, trial: Any) -> Asked:
        trial.set_user_attr(_WORKER, _this_process())
        if _AFTER in trial.user_attrs:  # was put in line, or drawn by a process that died
            return Asked(trial.number, _sketch_of(trial))
        sketch = self.space.draw(trial)
        trial.set_user_attr(_BEFORE, sketch.before)
        trial.set_user_attr(_AFTER, sketch.after)
        return Asked(trial.number, sketch)

    def grow(self, parent: int, fidelity: int) -> None:
        """Puts a descendant next in line: what `parent` is after a fidelity, made smaller."""
        sketch = self.space.descendant(self.sketch(parent), fidelity)
        self._put_in_line(sketch, {_PARENT: [parent, fidelity]})

    def vary(self, number: int) -> bool:
        """Puts a twin next in line that nobody asked for yet; returns whether there is one."""
        trials = self._study.get_trials(deepcopy=False)
        known = {_sketch_of(trial) for trial in trials if _AFTER in trial.user_attrs}
        for sketch in self.space.twins(self.sketch(number)):
            if sketch not in known:
                self._put_in_line(sketch, {})
                return True
        return False

    def _put_in_line(self, sketch: Sketch, more: Mapping[str, Any]) -> None:
        attributes = {_BEFORE: sketch.before, _AFTER: sketch.after, **more}
        self._study.enqueue_trial({}, user_attrs=attributes)

    def parents(self) -> Mapping[int, tuple[int, int]]:
        """Returns number and fidelity of the parent of every descendant, by its number."""
        trials = self._study.get_trials(deepcopy=False)
        return {t.number: tuple(t.user_attrs[_PARENT]) for t in trials if _PARENT in t.user_attrs}

    def has_waiting(self, under_way: Container[int] = ()) -> bool:
        """Returns whether somebody is in line, so that the next one is not drawn.

        Args:
            under_way: Numbers of candidates that this process has not finished asking about.
        """
        return bool(self._trials("WAITING")) or self.has_unfinished(under_way)

    def has_unfinished(self, under_way: Container[int] = ()) -> bool:
        """Returns whether somebody was asked for who is neither told of nor being made.

        Args:
            under_way: Numbers of candidates that this process has not finished asking about.
        """
        return any(True for _ in self._abandoned(under_way))

    def tell(
        self, number: int, nme_percent: float, relative_ms: float, more: Sequence[float] = ()
    ) -> None:
        """Tells the sampler what a candidate is worth, or will be as far as can be guessed."""
        values = [nme_percent, *np.log2([relative_ms, *more]).tolist()]
        self._study.tell(number, values, skip_if_finished=True)

    def fail(self, number: int, reason: str) -> None:
        """Records why a candidate gave nothing; its sketch is not asked for again in vain."""
        self._study.set_user_attr(f"failed {number}", reason)
        state = self._optuna.trial.TrialState.FAIL
        self._study.tell(number, state=state, skip_if_finished=True)

    def drop(self, number: int, reason: str) -> None:
        """Records why a candidate is not trained on."""
        self._study.set_user_attr(f"dropped {number}", reason)

    def claim(self, number: int) -> None:
        """Tells other processes that this one trains a candidate on."""
        self._study.set_user_attr(f"claimed {number}", _this_process())

    def keep(self, number: int, fidelity: int, finding: Finding) -> None:
        """Records what a candidate is after a fidelity."""
        row = {**finding.to_json(), "place": sum(map(len, self.findings().values()))}
        self._study.set_user_attr(f"found {number} {fidelity}", row)

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Returns every candidate, each once."""
        attributes = self._study.user_attrs
        return tuple(a for a in self._drawn() if f"repeat {a.number}" not in attributes)

    def _drawn(self) -> tuple[Asked, ...]:
        waiting = self._optuna.trial.TrialState.WAITING
        return tuple(
            Asked(trial.number, _sketch_of(trial))
            for trial in self._study.get_trials(deepcopy=False)
            if _AFTER in trial.user_attrs and trial.state != waiting
        )

    def sketch(self, number: int) -> Sketch:
        """Returns what a candidate of the study is."""
        return next(asked.sketch for asked in self.asked if asked.number == number)

    @property
    def told(self) -> int:
        """Returns how many candidates are through their first training, or failed before."""
        finished = {trial.number for trial in self._trials("COMPLETE", "FAIL")}
        return sum(asked.number in finished for asked in self.asked)

    def findings(self) -> dict[int, tuple[Finding, ...]]:
        """Returns what is known of each candidate, by fidelity from 0 on."""
        return _findings_in(self._study.user_attrs)

    def racers(self, until: int | None = None) -> tuple[Racer, ...]:
        """Returns the candidates for `lmopt.exploration.racing`, in the order of asking.

        One that another process trains on counts as dropped: it is not for this one to train.

        Args:
            until: How many findings to look at, the first ones; None takes all.
        """
        attributes = self._study.user_attrs
        sketches = {asked.number: asked.sketch for asked in self._drawn()}
        parents, made = self.parents(), []
        for number, rows in _findings_in(attributes).items():
            known = [row for row in rows if until is None or row.place < until]
            if known:
                dropped = f"dropped {number}" in attributes
                racer = Racer(
                    number,
                    known[0].ms,
                    tuple(np.asarray(row.errors, np.float64) for row in known),
                    known[-1].macs,
                    known[-1].parameters,
                    dropped=dropped or _is_alive(attributes.get(f"claimed {number}")),
                    training=sketches[number].before,
                    parent=parents.get(number),
                    more=known[-1].more,
                )
                made.append(racer)
        return tuple(made)

    def tried(self) -> tuple[Tried, ...]:
        """Returns everything that was asked, in order."""
        findings, reasons = self.findings(), {**self.reasons("dropped"), **self.reasons("failed")}
        return tuple(
            Tried(asked, findings.get(asked.number, ()), reasons.get(asked.number, ""))
            for asked in self.asked
        )

    def reasons(self, kind: Literal["failed", "dropped"]) -> dict[int, str]:
        """Returns why candidates failed or were dropped, by number."""
        return {
            int(key.split()[1]): cast(str, reason)
            for key, reason in self._study.user_attrs.items()
            if key.startswith(f"{kind} ")
        }

    def _trials(self, *states: str) -> Sequence[Any]:
        wanted = tuple(self._optuna.trial.TrialState[state] for state in states)
        return self._study.get_trials(deepcopy=False, states=wanted)

    def _make_sampler(self, kind: Sampler, seed: int) -> Any:
        samplers = self._optuna.samplers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Optuna calls experimental is the joint sampling
            if kind == "nsga2":
                return samplers.NSGAIISampler(population_size=12, seed=seed)
            if kind == "random":
                return samplers.RandomSampler(seed=seed)
            start = len(self.space.design())
            return samplers.TPESampler(
                seed=seed, multivariate=True, group=True, n_startup_trials=max(start, 8)
            )


def studies_in(url: str) -> tuple[str, ...]:
    """Returns the names of the studies in a database.

    Raises:
        InputError: It cannot be opened.
    """
    import optuna

    with _database(url):
        return tuple(optuna.get_all_study_names(storage=url))


@contextmanager
def _database(url: str) -> Iterator[None]:
    """Turns what a database raises into an InputError that names it."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    hint = "name a database that can be written: --study sqlite:///study.db"
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.OptunaError, ImportError) as error:
        if isinstance(error.__cause__ or error, ImportError):
            hint = "install the database's driver, or take --study sqlite:///study.db"
        raise InputError(
            f"the study cannot be opened: {str(error).splitlines()[0]}", where=url, hint=hint
        ) from error


def _require_equal(
    begun: Mapping[str, str], identity: Mapping[str, str], name: str, url: str
) -> None:
    others = []
    for key in dict.fromkeys((*begun, *identity)):
        old, new = (part.get(key, "") for part in (begun, identity))
        if old != new:
            told = max(len(old), len(new)) <= SHORT
            others.append(f"{key} ({old or 'none'}, not {new or 'none'})" if told else key)
    if others:
        raise InputError(
            f"study '{name}' was begun with another {' and another '.join(others)}",
            where=url,
            hint="repeat the command it was begun with, or choose another --out or --study",
        )


def _findings_in(attributes: Mapping[str, Any]) -> dict[int, tuple[Finding, ...]]:
    keys = sorted(
        tuple(map(int, key.split()[1:])) for key in attributes if key.startswith("found ")
    )
    found: dict[int, list[Finding]] = {}
    for number, fidelity in keys:
        row = finding_from_json(attributes[f"found {number} {fidelity}"])
        found.setdefault(number, []).append(row)
    return {number: tuple(rows) for number, rows in found.items()}


def _sketch_of(trial: Any) -> Sketch:
    return Sketch(trial.user_attrs[_BEFORE], trial.user_attrs[_AFTER])


def _this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time()}"


def _is_alive(worker: str | None) -> bool:
    """Returns whether a candidate is still worked on; what other machines do is theirs."""
    if worker is None:
        return False
    machine, process, created = worker.split()
    if machine != socket.gethostname():
        return True
    if int(process) == os.getpid():
        return False  # this process asks, so it does not work on it any more
    try:
        return bool(psutil.Process(int(process)).create_time() == float(created))
    except psutil.NoSuchProcess:
        return False
