"""The numbers of this host: rates by hand from made-up timings, kept, reused and remade."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

import lmopt
from lmopt.cli.app import app
from lmopt.cost.estimate import Estimate, estimate
from lmopt.errors import BackendError
from lmopt.flow import events, host_profile
from lmopt.flow.folding import folded
from lmopt.flow.host_profile import CHAINS, HOW, LEAST_US, LONG, host_target, known_host
from lmopt.frontend.tflite import read
from lmopt.latency import host
from lmopt.latency.measurement import Measurement
from lmopt.latency.micronets import stored
from lmopt.target.catalog import load_target
from lmopt.target.vocabulary import REQUIRED, UNITS

INVOKE_US, LAUNCH_US = 30.0, 2.0
WORK_US = {
    "tiny": 0.0,
    "memory": 50.0,
    "pointwise": 100.0,
    "window": 150.0,
    "depthwise": 90.0,
    "pointwise_i8": 50.0,
    "depthwise_i8": 60.0,
    "pointwise_u8": 200.0,
    "memory_i16": 100.0,
    "pointwise_i16": 250.0,
    "depthwise_i16": 400.0,
}
SPEEDUP = {1: 1.0, 2: 1.5, 4: 2.5}
WHOLE = {
    *REQUIRED,
    *("peak_f32", "peak_f16", "peak_i8", "peak_u8", "speedup_2", "speedup_4"),
    *("peak_i16", "depthwise_i16", "bandwidth_i16"),
}


@dataclass
class Clock:
    """Stands for the harness: made-up milliseconds for every file."""

    whole_ms: Mapping[str, float] = field(default_factory=lambda: {"f32": 1e6, "i8": 1e6})
    work_us: Mapping[str, float] = field(default_factory=lambda: WORK_US)
    load: float = 0.0
    calls: list[Mapping[str, bytes]] = field(default_factory=list)

    def __call__(
        self, models: Mapping[str, bytes], *, threads: Sequence[int] = (1,), max_seconds: float
    ) -> dict[tuple[str, int], Measurement]:
        self.calls.append(models)
        return {(label, n): self._measured(label, n) for label in models for n in threads}

    def _measured(self, label: str, threads: int) -> Measurement:
        name, _, length = label.partition("/")
        ms = self.whole_ms.get(name)
        if ms is None:
            ops = int(length or LONG)
            work = self.work_us[name] / SPEEDUP[threads]
            ms = (INVOKE_US + ops * (LAUNCH_US + work)) / 1e3
        return Measurement("host", "", (ms,), 1, 0, threads, "", "", "one", self.load)


Install = Callable[[Clock], Clock]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    monkeypatch.setenv("LMOPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(host, "usable_cores", lambda: 4)

    def put(clock: Clock) -> Clock:
        monkeypatch.setattr(host_profile, "compare", clock)
        return clock

    return put


def test_rates_by_hand(install: Install) -> None:
    install(Clock())
    target = host_target()
    values = {key: quantity.value for key, quantity in target.quantities.items()}
    bandwidth = 3 * 4 * 56 * 56 * 32 / 50e3

    def rate(macs: int, us: float, elements: int, width: int = 4) -> float:
        return macs / (us - width * elements / bandwidth / 1e3) / 1e3

    map32, map16, map64 = 28 * 28 * 32, 28 * 28 * 16, 28 * 28 * 64
    pointwise = rate(map32 * 32, 100, 2 * map32 + 33 * 32)
    window = rate(map16 * 16 * 9, 150, 2 * map16 + 9 * 256 + 16)
    gain_i8 = rate(map32 * 32, 50, 2 * map32 + 32 * 32 + 4 * 32, 1) / pointwise
    gain_u8 = rate(map32 * 32, 200, 2 * map32 + 32 * 32 + 4 * 32, 1) / pointwise
    depthwise = rate(map64 * 9, 90, 2 * map64 + 10 * 64)
    depthwise_i8 = rate(map64 * 9, 60, 2 * map64 + 9 * 64 + 4 * 64, 1)
    assert window > pointwise
    moved = 3 * 2 * map32 / 100e3

    def slow(macs: int, us: float, nbytes: int) -> float:
        return macs / (us - nbytes / moved / 1e3) / 1e3

    sums = slow(map32 * 32, 250, 2 * 2 * map32 + 32 * 32 + 4 * 32)
    assert values.pop("error") == pytest.approx(1.0, abs=1e-3)
    assert values == pytest.approx(
        {
            "peak_f32": window,
            "peak_f16": window,
            "peak_i8": window * gain_i8,
            "peak_u8": window * gain_u8,
            "peak_i16": sums,
            "depthwise_i16": slow(map16 * 9, 400, 2 * 2 * map16 + 9 * 16 + 8 * 16),
            "bandwidth_i16": moved,
            "conv_share": (pointwise / window) ** 0.5,
            "depthwise_share": (depthwise * depthwise_i8 / gain_i8) ** 0.5 / window,
            "bandwidth": bandwidth,
            "kernel_overhead": LAUNCH_US,
            "invoke_overhead": INVOKE_US,
            "speedup_2": 1.5,
            "speedup_4": 2.5,
        }
    )


def test_the_numbers_are_whole_and_say_where_they_are_from(install: Install) -> None:
    install(Clock())
    target = host_target()
    assert target.quantities.keys() == WHOLE
    assert target.threads == (1, 2, 4)
    assert target.pipelines == load_target("host").pipelines
    for key, quantity in target.quantities.items():
        assert quantity.unit == UNITS[key]
        assert quantity.kind == "fitted"
        assert f"measured on {host.describe().cpu}" in quantity.source
        assert f"with LiteRT {host.describe().litert}" in quantity.source


def test_the_files_hold_the_chains_and_detectors_outside_the_fit(install: Install) -> None:
    clock = install(Clock())
    host_target()
    chains, whole = clock.calls
    for name, chain in CHAINS.items():
        kinds = Counter(node.op.kind for node in read(chains[f"{name}/10"], name)[0].nodes)
        assert kinds[chain.op.kind] == 10
        assert kinds["quantize"] == (chain.storage != "f32")
    assert whole.keys() == {"pointwise", "f32", "i8"}
    assert not set(chains.values()) & {whole["f32"], whole["i8"]}
    assert len(whole["i8"]) < len(whole["f32"]) / 2


def test_a_fit_that_is_right_still_states_the_least_error(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "usable_cores", lambda: 1)
    install(Clock())
    graph = folded(lmopt.load("pfld-0.25@none").graph)
    ms = estimate(graph, host_target()).latency_ms
    int8_ms = estimate(stored(graph, "i8"), host_target()).latency_ms
    host_profile.profile_path().unlink()
    install(Clock({"f32": ms, "i8": int8_ms}))
    assert host_target().quantities["error"].value == 0.3
    host_profile.profile_path().unlink()
    install(Clock({"f32": ms, "i8": int8_ms / 1.75}))
    assert host_target().quantities["error"].value == pytest.approx(0.75)


def test_kept_numbers_are_not_measured_again(install: Install) -> None:
    clock = install(Clock())
    assert known_host().quantities == {}
    first = host_target()
    measured = len(clock.calls)
    heard: list[events.Event] = []
    assert host_target(heard.append) == known_host() == first
    assert len(clock.calls) == measured
    assert heard == []


def _document(text: str) -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = json.loads(text)
    return found


def _with_value(value: object) -> Callable[[str], str]:
    def change(text: str) -> str:
        document = _document(text)
        document["quantities"]["bandwidth"]["value"] = value
        return json.dumps(document)

    return change


def _without_a_number(text: str) -> str:
    document = _document(text)
    del document["quantities"]["speedup_4"]
    return json.dumps(document)


DAMAGE: Mapping[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "a list": lambda text: "[]",
    "another fit": lambda text: text.replace(host_profile.FIT, "roofline, version 0"),
    "another unit": lambda text: text.replace("GB/s", "MB/s"),
    "an unknown key": lambda text: text.replace("kernel_overhead", "kernel_overhaed"),
    "a missing number": _without_a_number,
    "zero": _with_value(0.0),
    "infinity": _with_value(float("inf")),
    "no number": _with_value(float("nan")),
    "a word": _with_value("fast"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_numbers_are_measured_again(install: Install, damage: str) -> None:
    clock = install(Clock())
    first = host_target()
    measured = len(clock.calls)
    path = host_profile.profile_path()
    text = path.read_text()
    assert DAMAGE[damage](text) != text
    path.write_text(DAMAGE[damage](text))
    assert host_target() == first
    assert len(clock.calls) == 2 * measured
    assert path.read_text() == text


def test_a_cache_that_cannot_be_written_is_told(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(Clock())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LMOPT_CACHE", str(tmp_path / "file"))
    heard: list[events.Event] = []
    assert host_target(heard.append).quantities.keys() == WHOLE
    notes = [event.text for event in heard if isinstance(event, events.Noted)]
    assert len(notes) == 1 and "not kept" in notes[0]


def test_a_disturbed_measurement_is_told_and_kept_with_the_numbers(install: Install) -> None:
    install(Clock(load=1.25))
    heard: list[events.Event] = []
    host_target(heard.append)
    notes = [event.text for event in heard if isinstance(event, events.Noted)]
    assert len(notes) == 1 and str(host_profile.profile_path()) in notes[0]
    assert all("other work took 1.2 cores" in q.source for q in known_host().quantities.values())


def test_timings_that_make_no_sense_are_refused(install: Install) -> None:
    install(Clock(work_us={**WORK_US, "memory": -1.0}))
    with pytest.raises(BackendError, match=r"'memory' seems to take -1\.00 us"):
        host_target()
    assert not host_profile.profile_path().exists()


def test_an_overhead_below_the_clock_is_still_above_zero(install: Install) -> None:
    install(Clock(work_us={**WORK_US, "tiny": -3.0}))
    quantities = host_target().quantities
    assert quantities["kernel_overhead"].value == LEAST_US


def test_inspect_estimates_for_this_host(install: Install) -> None:
    install(Clock())
    heard: list[events.Event] = []
    found = lmopt.inspect("pfld-0.25@none", targets=("host",), listen=heard.append)
    guess = found.estimates["host"]
    assert isinstance(guess, Estimate)
    assert guess.threads == 4
    assert guess == estimate(folded(found.graph), known_host())
    assert [type(event) for event in heard] == [events.Activity]


def test_the_command_shows_the_numbers_or_how_to_get_them(install: Install) -> None:
    install(Clock())
    before = CliRunner().invoke(app, ["targets", "host"])
    assert before.exit_code == 0 and HOW in before.stderr
    host_target()
    after = CliRunner().invoke(app, ["targets", "host"])
    assert HOW not in after.stderr
    assert "measured on" in after.stdout and "speedup_4" in after.stdout
