"""A calibration of this machine: timed for real on few networks, kept, resumed, read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import lmopt
from lmopt.cli.app import app
from lmopt.device.adb import DeviceLostError
from lmopt.device.rig import Rig
from lmopt.errors import UsageError
from lmopt.flow import calibrating
from lmopt.flow.calibrating import calibrate_host, calibrate_phone
from lmopt.flow.events import Noted
from lmopt.flow.host_profile import (
    FIT,
    SIXTEEN_BITS,
    known_host,
    prices_path,
    profile_path,
    target_named,
)
from lmopt.flow.prices import FIT as PRICES_FIT
from lmopt.flow.prices import path_of
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Conv2D
from lmopt.latency import host
from lmopt.latency.micronets import Micronet
from lmopt.latency.visits import VisitTime, visits
from lmopt.target.catalog import load_target
from lmopt.target.profile import Quantity
from lmopt.target.vocabulary import REQUIRED, UNITS
from tests.support.android_device import Device
from tests.support.phones import PLAIN, requires_adb


def convolutions(side: int, filters: int, count: int) -> Graph:
    edit = Edit("net")
    value = edit.input("image", (None, side, side, 8))
    for k in range(count):
        value = edit.add(f"conv{k}", Conv2D(filters, (3, 3)), value)
    edit.output("y", value)
    return edit.done()


NETS = tuple(
    Micronet(
        f"{side} {filters} {count}", "f32", count > 1, partial(convolutions, side, filters, count)
    )
    for side, filters, count in ((8, 8, 1), (16, 16, 1), *((8 + 4 * k, 16, 2) for k in range(6)))
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Micronet, ...]:
    monkeypatch.setenv("LMOPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(host, "usable_cores", lambda: 1)
    monkeypatch.setattr(calibrating, "LEFT_OUT", ("pfld-0.25",))
    monkeypatch.setattr(calibrating, "IDLE_S", 0.01)
    monkeypatch.setattr(calibrating, "design", lambda: NETS)
    rates = {*REQUIRED, *SIXTEEN_BITS, "peak_f32", "peak_f16", "peak_i8", "peak_u8"}
    numbers = {key: asdict(Quantity(1.0, UNITS[key], "guess", "test")) for key in rates}
    profile_path().parent.mkdir(parents=True)
    profile_path().write_text(json.dumps({"fit": FIT, "quantities": numbers}))
    return NETS


def test_a_machine_is_timed_and_estimates_follow(small: tuple[Micronet, ...]) -> None:
    assert known_host().quantities and not known_host().kernel_prices
    made = calibrate_host(minutes=1e-3)
    assert made.networks == len(small) and made.rounds == 1
    assert [row.name for row in made.left_out] == ["pfld-0.25 f32", "pfld-0.25 i8"]
    assert all(row.measured_ms > 0.05 for row in made.left_out)
    target = known_host()
    assert target.kernel_prices.keys() == {1}
    assert target.experience is not None and target.experience.networks == len(small)
    (found,) = lmopt.inspect("pfld-0.25@none", targets=["host"]).estimates.values()
    assert found.latency_ms == pytest.approx(made.left_out[0].estimated_ms)
    assert found.high_ms / found.latency_ms == pytest.approx(1 + made.stated[1])
    basis, doubt = found.notes
    assert basis.startswith("by prices fitted on 8 small networks timed on")
    assert doubt.startswith("outside of what host was fitted on (8 networks, LiteRT")
    assert "dense, depthwise, memory, pointwise, window kernels" in doubt


def test_an_interrupted_calibration_goes_on(
    small: tuple[Micronet, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def halting(
        models: Mapping[str, Path], order: Iterable[tuple[str, int]]
    ) -> Iterator[VisitTime]:
        for visit in visits(models, order):
            if len(seen) == 4:
                raise KeyboardInterrupt
            seen.append(visit.name)
            yield visit

    monkeypatch.setattr(calibrating, "visits", halting)
    with pytest.raises(KeyboardInterrupt):
        calibrate_host(minutes=1e-3)
    log = prices_path().with_suffix(".timings.jsonl")
    _, *lines = log.read_text().splitlines()
    assert [json.loads(line)[0] for line in lines] == seen
    with log.open("a") as file:
        file.write('["torn')
    again: list[str] = []

    def watched(
        models: Mapping[str, Path], order: Iterable[tuple[str, int]]
    ) -> Iterator[VisitTime]:
        for visit in visits(models, order):
            again.append(visit.name)
            yield visit

    monkeypatch.setattr(calibrating, "visits", watched)
    calibrate_host(minutes=1e-3)
    assert set(again).isdisjoint(seen) and len(again) + len(seen) == len(small) + 2
    assert not log.exists() and known_host().kernel_prices


def test_a_network_that_the_runtime_refuses_is_told_and_left_out(
    small: tuple[Micronet, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = small[0].name

    def refusing(
        models: Mapping[str, Path], order: Iterable[tuple[str, int]]
    ) -> Iterator[VisitTime]:
        for visit in visits(models, order):
            yield visit if visit.name != bad else VisitTime(bad, visit.threads, None, "refused")

    monkeypatch.setattr(calibrating, "visits", refusing)
    told: list[str] = []
    calibrate_host(
        minutes=1e-3, listen=lambda e: told.append(e.text) if isinstance(e, Noted) else None
    )
    assert f"{bad} is left out: refused" in told
    assert known_host().kernel_prices


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document | {"fit": "another"},
        lambda document: document | {"prices": {"2": document["prices"]["1"]}},
        lambda document: {"fit": document["fit"]},
        lambda document: [],
    ],
)
def test_prices_that_are_not_whole_are_not_read(
    small: tuple[Micronet, ...], change: Callable[[dict[str, Any]], Any]
) -> None:
    document = {
        "fit": PRICES_FIT,
        "machine": "",
        "prices": {"1": {"us": {"call": 1.0}, "error": 0.2}},
        "experience": {
            "networks": 3,
            "framework": "LiteRT",
            "macs": [1.0, 2.0],
            "storages": ["f32"],
            "works": ["dense"],
            "threads": [1],
            "kind": "fitted",
            "source": "here",
        },
    }
    prices_path().write_text(json.dumps(document))
    assert known_host().kernel_prices[1].us == {"call": 1.0}
    prices_path().write_text(json.dumps(change(document)))
    assert not known_host().kernel_prices


def test_no_time_and_no_machine_are_refused() -> None:
    with pytest.raises(UsageError, match="0 minutes; wanted more than 0"):
        calibrate_host(minutes=0)
    missing = CliRunner().invoke(app, ["targets", "calibrate"])
    assert missing.exit_code == 2 and "what to calibrate is missing" in missing.stderr
    other = CliRunner().invoke(app, ["targets", "calibrate", "velvet-cpu"])
    assert other.exit_code == 2 and "cannot calibrate 'velvet-cpu'" in other.stderr
    assert "lmopt targets calibrate host, or adb" in other.stderr
    phone = CliRunner().invoke(app, ["targets", "calibrate", "host", "--threads", "2"])
    assert phone.exit_code == 2 and "are for calibrating a phone" in phone.stderr


def test_the_command_prints_what_was_left_out(small: tuple[Micronet, ...]) -> None:
    ran = CliRunner().invoke(app, ["targets", "calibrate", "host", "--minutes", "0.001"])
    assert ran.exit_code == 0, ran.output
    assert "pfld-0.25 f32" in ran.stdout and "left out of the fit" in ran.stdout
    assert f"{len(small)} networks, 1 rounds" in ran.stderr
    again = CliRunner().invoke(
        app, ["targets", "calibrate", "host", "--minutes", "0.001", "--json"]
    )
    assert json.loads(again.stdout)["networks"] == len(small)
    shown = CliRunner().invoke(app, ["targets", "host"])
    stated = known_host().kernel_prices[1].error
    assert f"1 thread(s): estimates state +-{stated:.0%}" in shown.stdout


@requires_adb
def test_a_phone_is_calibrated(small: tuple[Micronet, ...], phone: Device, tmp_path: Path) -> None:
    (tmp_path / "benchmark_model").write_text(PLAIN)
    wide = Micronet("unknown", "i16", False, partial(convolutions, 8, 8, 1))
    nets = (*small, wide)
    command = ["targets", "calibrate", "adb", "--minutes", "0.001", "--json"]
    command += ["--benchmark-model", str(tmp_path / "benchmark_model")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrating, "design", lambda: nets)
        patch.setattr(calibrating, "PHONE_SHARE", 1)
        ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert found["target"] == "p30-cpu" and found["networks"] == len(small)
    assert "VOG-L29" in found["machine"]
    assert [row["threads"] for row in found["left_out"]] == [4, 4]
    assert all(row["measured_ms"] > 100 for row in found["left_out"])  # its size in kilobytes
    assert phone.left == []
    target = target_named("p30-cpu")
    assert target.kernel_prices.keys() == {4} and not load_target("p30-cpu").kernel_prices
    (estimate,) = lmopt.inspect("pfld-0.25@none", targets=["p30-cpu"]).estimates.values()
    assert estimate.threads == 4
    assert estimate.latency_ms == pytest.approx(found["left_out"][0]["estimated_ms"])


@requires_adb
def test_a_cable_pulled_in_the_middle_loses_no_timing(
    small: tuple[Micronet, ...], phone: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmark_model").write_text(PLAIN)
    monkeypatch.setattr(calibrating, "PHONE_SHARE", 1)
    monkeypatch.setattr(Rig.__init__, "__kwdefaults__", {"return_s": 0.1})
    runs = 0

    def pull(command: str) -> None:
        nonlocal runs
        runs += "--num_threads" in command
        if runs == 4:
            runs += 1
            phone.pull_cable()

    phone.on_shell = pull
    tool = tmp_path / "benchmark_model"
    with pytest.raises(DeviceLostError):
        calibrate_phone("adb", benchmark_model=tool, minutes=1e-3)
    log = path_of("p30-cpu").with_suffix(".timings.jsonl")
    assert len(log.read_text().splitlines()) == 1 + 3
    assert not target_named("p30-cpu").kernel_prices


def test_a_network_takes_what_its_undisturbed_visits_take(tmp_path: Path) -> None:
    log = calibrating._Log(tmp_path / "timings.jsonl", "here")
    for us in (130.0, 173.0, None, 131.0, 172.0, 132.0):
        log.add(VisitTime("a", 1, us))
    assert log.us("a", 1) == 131.0
    assert log.us("a", 2) is None
