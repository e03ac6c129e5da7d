"""Studies: what was found outlives the process, a second process joins, others are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lmopt.errors import InputError
from lmopt.exploration.finding import Finding
from lmopt.exploration.racer import Interval
from lmopt.exploration.space import SearchSpace
from lmopt.exploration.study import Study, studies_in

SPACE = SearchSpace(
    before=(("", "drop-block{count=1..4}"), ("", "prune{amount=0.1..0.9:0.05}")),
    after=(("", "quantize-int8"),),
)
FOUND = Finding("a,b", "00", 5, (4.0, 6.0), 10, 20, Interval(0.5, 0.4, 0.6), 1.5)


def opened(folder: Path, made_for: str = "faces", sampler: str = "tpe", seed: int = 0) -> Study:
    url = f"sqlite:///{folder / 'study.db'}"
    return Study(url, "s", SPACE, {"data": made_for}, seed=seed, sampler=sampler)  # type: ignore[arg-type]


def worth(sketch: object) -> tuple[float, float]:
    """Returns an NME and a latency that depend on the sketch alone."""
    text = str(sketch)
    return 4 + len(text) % 7, 1 / (1 + len(text) % 5)


def run(folder: Path, count: int, reopen: bool = False, **more: object) -> list[str]:
    study, sketches = opened(folder, **more), []  # type: ignore[arg-type]
    for _ in range(count):
        asked = study.ask()
        assert asked is not None
        sketches.append(str(asked.sketch))
        study.tell(asked.number, *worth(asked.sketch))
        if reopen:
            study = opened(folder, **more)  # type: ignore[arg-type]
    return sketches


def test_what_was_found_is_there_again(tmp_path: Path) -> None:
    study = opened(tmp_path)
    asked = study.ask()
    study.keep(asked.number, 0, FOUND)
    study.keep(asked.number, 1, FOUND)
    study.tell(asked.number, 5.0, 0.5)
    failed = study.ask()
    study.fail(failed.number, "no such thing")
    again = opened(tmp_path)
    assert again.findings() == {asked.number: (FOUND, replace(FOUND, place=1))}
    assert again.racers(until=0) == ()
    assert [racer.fidelity for racer in again.racers(until=1)] == [0]
    assert again.reasons("failed") == {failed.number: "no such thing"}
    assert again.told == 2
    assert [tried.asked for tried in again.tried()] == [asked, failed]
    (racer,) = again.racers()
    assert (racer.fidelity, racer.nme(1), racer.ms) == (1, 5.0, FOUND.ms)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_asks_the_same_however_often_it_is_opened(
    tmp_path: Path, sampler: str
) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir(), (tmp_path / "c").mkdir()
    whole = run(tmp_path / "a", 10, sampler=sampler)
    assert whole == run(tmp_path / "b", 10, reopen=True, sampler=sampler)
    assert whole != run(tmp_path / "c", 10, sampler=sampler, seed=7)
    assert len(set(whole)) == 10


def test_a_neighbouring_seed_draws_other_candidates_and_not_the_same_moved_by_one(
    tmp_path: Path,
) -> None:
    drawn = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        drawn.append(run(tmp_path / str(seed), 14, sampler="random", seed=seed)[-8:])
    assert drawn[0][1:] != drawn[1][:-1]
    assert len({*drawn[0], *drawn[1]}) > 12


def test_it_begins_with_the_design(tmp_path: Path) -> None:
    middle = "drop-block{count=2}", "prune{amount=0.5}"
    assert run(tmp_path, 3) == [*middle, "quantize-int8"]


ASK_AND_DIE = """
import os, sys
sys.path[:0] = {path!r}
from tests.unit.exploration.test_study import opened
from pathlib import Path
asked = opened(Path({folder!r})).ask()
print(asked.number, asked.sketch, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_candidate_that_a_killed_process_left_is_taken_up(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    script = ASK_AND_DIE.format(path=[root], folder=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, timeout=60
    )
    assert done.returncode == -9, done.stderr
    taken = opened(tmp_path).ask()
    assert done.stdout.strip() == f"{taken.number} {taken.sketch}"
    assert taken.number == 0


class Crash(BaseException):
    """The end of a process, as far as its study can tell."""


def dies_after(study: Study, writes: int) -> None:
    """Has a study's database refuse everything after so many writes.

    Those of one drawing count for none: what is left of it is drawn on with other luck.
    """
    storage, left = study._study._storage, iter(range(writes))
    for name in (
        "create_new_trial",
        "set_trial_user_attr",
        "set_trial_state_values",
        "set_study_user_attr",
    ):
        _stop(storage, name, left)


def _stop(storage: object, name: str, left: Iterator[int]) -> None:
    write = getattr(storage, name)

    def guarded(*args: object, **more: object) -> object:
        if next(left, None) is None:
            raise Crash
        return write(*args, **more)

    setattr(storage, name, guarded)


def ask_all(study: Study) -> None:
    """Asks for every sketch there is."""
    while study.told < 6:
        asked = study.ask()
        assert asked is not None
        study.tell(asked.number, *worth(asked.sketch))


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_killed_at_any_write_goes_on_as_if_it_had_not_been(
    tmp_path: Path, sampler: str
) -> None:
    small = SearchSpace(before=(("", "drop-block{count=1..2}"), ("", "prune{amount=0.5}")))

    def opened_at(name: str) -> Study:
        return Study(f"sqlite:///{tmp_path / name}", "s", small, {}, seed=0, sampler=sampler)  # type: ignore[arg-type]

    ask_all(whole := opened_at("whole.db"))
    for writes in range(1, 30, 4):
        study = opened_at(f"{writes}.db")
        dies_after(study, writes)
        with pytest.raises(Crash):
            ask_all(study)
        ask_all(study := opened_at(f"{writes}.db"))
        assert study.asked == whole.asked, f"killed after {writes} writes"


def test_a_candidate_that_another_process_works_on_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(tmp_path).ask()
    # seen from another process, this one is alive
    monkeypatch.setattr("lmopt.exploration.study.os.getpid", lambda: 1)
    assert opened(tmp_path).ask().number == first.number + 1


def test_a_candidate_that_another_process_trains_on_is_not_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(tmp_path)
    number = study.ask().number  # type: ignore[union-attr]
    study.keep(number, 0, FOUND)
    study.claim(number)
    assert [racer.dropped for racer in study.racers()] == [False]  # its own
    monkeypatch.setattr("lmopt.exploration.study.os.getpid", lambda: 1)
    assert [racer.dropped for racer in opened(tmp_path).racers()] == [True]


def test_what_was_had_is_not_asked_again_and_in_the_end_nothing_is(tmp_path: Path) -> None:
    small = SearchSpace(before=(("", "drop-block{count=1..2}"),))
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = Study(url, "s", small, {}, seed=0, sampler="random")
    sketches = []
    while (asked := study.ask()) is not None:
        sketches.append(str(asked.sketch))
        study.tell(asked.number, *worth(asked.sketch))
    assert sorted(sketches) == ["as it is", "drop-block{count=1}", "drop-block{count=2}"]
    assert study.told == 3
    assert [str(tried.asked.sketch) for tried in study.tried()] == sketches


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(InputError, match=r"begun with another data \(faces, not other\)"):
        opened(tmp_path, made_for="other")


def test_a_study_keeps_the_space_that_it_was_begun_with(tmp_path: Path) -> None:
    smaller = replace(SPACE, before=SPACE.before[:1])

    def begun(fitted: SearchSpace) -> Study:
        url = f"sqlite:///{tmp_path / 'study.db'}"
        return Study(url, "s", SPACE, {}, seed=0, sampler="tpe", fit=lambda _: fitted)

    assert begun(smaller).space == smaller
    study = begun(SPACE)
    assert study.space == smaller
    assert "prune" not in " ".join(str(study.ask().sketch) for _ in range(6))  # type: ignore[union-attr]


def test_the_studies_of_a_database_are_told_apart(tmp_path: Path) -> None:
    opened(tmp_path)
    assert studies_in(f"sqlite:///{tmp_path / 'study.db'}") == ("s",)


def test_a_driver_that_is_missing_is_said() -> None:
    with pytest.raises(InputError) as caught:
        studies_in("mysql+pymysql://localhost/studies")
    assert "driver" in str(caught.value.hint)


def test_a_database_that_cannot_be_opened_is_named() -> None:
    with pytest.raises(InputError, match="cannot be opened") as caught:
        Study("sqlite:////no/such/folder/s.db", "s", SPACE, {}, seed=0, sampler="tpe")
    assert caught.value.where == "sqlite:////no/such/folder/s.db"
