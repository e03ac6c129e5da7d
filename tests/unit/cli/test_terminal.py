"""Progress goes to stderr as short lines, and a narrow window still shows whole pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from lmopt.cli import terminal
from lmopt.cli.commands import optimize as command
from lmopt.cli.terminal import ProgressView, lines
from lmopt.exploration.candidate import Failure, Trained
from lmopt.exploration.racer import Interval
from lmopt.exploration.space import Sketch
from lmopt.flow import events
from lmopt.pipeline.manager import PassEvent, PassStep
from lmopt.pipeline.services import TrainingProgress
from lmopt.report.folder import Reports
from tests.unit.report.results import result

LONG = "fold-batchnorm,scale-width{factor=0.5},insert-pool{after=auto},quantize-uint8"
STEP = PassStep("qat{epochs=1}", 2.5, True, True, ("ranges from 200 faces",), "d")


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        (events.Started("net", "host", "afw", 3), "optimizing net for host on afw: 3 pipelines"),
        (events.Activity("measuring"), "measuring ..."),
        (events.CandidateStarted(2, 9, "qat"), "[2/9] qat"),
        (
            events.PassProgress("p", PassEvent("finished", 0, 1, STEP.text, STEP)),
            "    qat{epochs=1}: 2.5 s (cached); ranges from 200 faces",
        ),
        (
            events.CandidateTrained(Trained("p", "d", "m", 2048, 5.125, 1, 1, 61.0), True),
            "    validation NME 5.12 %, 2.0 KiB, 61 s, from an earlier run",
        ),
        (
            events.CandidateFailed(Failure("qat", "skipped", "no time")),
            "    skipped: qat: no time",
        ),
        (
            events.Raced(3, 0, 4, Sketch("qat", ""), None, 0.2, 60.0),
            "[0/60 min] #3, untrained: qat",
        ),
        (
            events.Raced(4, 2, 4, Sketch("prune", "debias"), (3, 1), 11.7, 60.0),
            "[12/60 min] #4, training 2 of 4, from #3 after training 1: prune,debias",
        ),
        (
            events.Raced(5, 1, 4, Sketch("", "debias"), (4, 0), 12.0, 60.0),
            "[12/60 min] #5, training 1 of 4, from #4: debias",
        ),
        (
            events.Found(5, 4.5, Interval(0.5, 0.4, 0.8)),
            "#5: validation NME 4.50 %, 2.00 [1.25, 2.50] times as fast",
        ),
        (
            events.Found(5, 4.5, Interval(0.5, 0.5, 0.5)),
            "#5: validation NME 4.50 %, estimated 2.00 times as fast",
        ),
        (events.Noted("listen"), "listen"),
    ],
)
def test_an_event_is_one_line(event: events.Event, wanted: str) -> None:
    assert lines(event) == [wanted]


def test_a_pass_that_begins_is_no_line() -> None:
    assert lines(events.PassProgress("p", PassEvent("started", 0, 1, "qat"))) == []


def test_training_is_reported_seldom_and_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView() as view:
        for step in range(1, 101):
            view(events.Training(TrainingProgress(step, 100, 1.25, 90.0)))
    captured = capsys.readouterr()
    assert captured.out == ""
    told = captured.err.splitlines()
    assert len(told) == 2
    assert told[-1] == "    training, loss 1.25, 90 images/s: 100 of 100"


@pytest.mark.parametrize("width", [80, 240])
def test_pipelines_are_whole_whatever_the_window(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "console", lambda: Console(width=width, markup=False))
    reports = Reports(Path("front.json"), Path("front.png"), Path("report.html"))
    command.show((), "auto", result(pipeline=LONG), reports)
    shown = capsys.readouterr().out
    assert LONG in shown
    assert max(map(len, shown.splitlines()[: shown.count("\n") // 3])) <= width
    assert "qat: failed: the runtime crashed <badly>" in shown
    assert "to-float16: dominated by quantize-uint8" in shown


def test_results_in_a_file_are_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal.console().width == terminal.WIDE


def test_numbers_stay_in_view_beside_the_pipelines_of_a_search(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A descendant repeats all trainings of its ancestors."""
    long = ",".join(["prune,finetune{epochs=36}"] * 12)
    page = Path("/out/report.html")
    command.show((), "auto", result(pipeline=long), Reports(page, page, page))
    shown = capsys.readouterr().out.splitlines()
    row = next(line for line in shown if "front 2" in line)
    assert "5.20" in row[:120]
    assert f"front 2: {long}" in shown
    assert "may lose 0.2 points: front 2" in shown
