"""Tables cannot confuse estimates with measurements, and recommend by validation NME."""

from __future__ import annotations

from dataclasses import replace

from lmopt.exploration.candidate import Candidate, Latency
from lmopt.report import summary
from tests.unit.report.results import HOST, candidate, result


def test_an_estimated_target_has_a_column_of_its_own() -> None:
    found = result("estimated")
    names = summary.columns(found)
    assert "host ms (measured)" in names
    assert "velvet-apu ms (estimated ±)" in names
    assert "verdict (estimated)" in names
    for row in summary.rows(found):
        cells = dict(zip(names, summary.cells(row, found), strict=True))
        assert "±" in cells["velvet-apu ms (estimated ±)"]
        assert "±" not in cells["host ms (measured)"]
    assert "not measured there" in summary.where(found)


def test_a_measured_target_has_one_column() -> None:
    found = result("measured")
    names = summary.columns(found)
    assert [name for name in names if " ms " in name] == ["host ms (measured)"]
    assert "verdict (measured)" in names
    assert summary.where(found) == f"measured on this host ({HOST})"
    for row in summary.rows(found):
        assert len(summary.cells(row, found)) == len(names)


def test_a_phone_has_a_column_for_its_latency_and_one_for_its_speed_up() -> None:
    found = result("estimated")

    def on_phone(c: Candidate) -> Candidate:
        there = Latency(c.latency.ms, "measured", "a phone (soc), cpu", 1.0, 99.0, threads=4)
        return replace(c, latency=there, device_speedup=(2.5, 2.4, 2.6))

    front = tuple(on_phone(c) for c in found.front)
    found = replace(found, baseline=on_phone(found.baseline), front=front)
    names = summary.columns(found)
    assert "velvet-apu ms (measured on the device)" in names and "verdict (measured)" in names
    fast = dict(zip(names, summary.cells(summary.rows(found)[1], found), strict=True))
    assert fast["velvet-apu ms (measured on the device)"] == "5.000 [1.000, 99.000], 4 threads"
    assert fast["device speed-up"] == "2.50x [2.40, 2.60]"
    assert fast["host speed-up"] == "4.00x [3.60, 4.40]"
    assert summary.where(found).startswith("measured on a phone (soc), cpu; host column measured")
    said = summary.recommendation(found)
    assert "2.50x [2.40, 2.60] as fast as the float baseline (measured on the device)" in said
    document = found.to_json()
    assert document["front"][0]["device_speedup"] == {"value": 2.5, "low": 2.4, "high": 2.6}


def test_stability_has_a_column_where_it_was_asked_for() -> None:
    found = result("measured")
    assert not any("STD" in name for name in summary.columns(found))

    def moving(c: Candidate) -> Candidate:
        return replace(c, trained=replace(c.trained, std_percent=c.latency.ms / 8))

    front = tuple(map(moving, found.front))
    found = replace(found, baseline=moving(found.baseline), front=front)
    names = summary.columns(found)
    shown = [dict(zip(names, summary.cells(r, found), strict=True)) for r in summary.rows(found)]
    assert [row["STD under noise %"] for row in shown] == ["2.50", "0.62", "1.25", "2.50"]
    assert all(row["size"].endswith("iB") for row in shown)


def test_rows_hold_the_numbers_and_the_verdict() -> None:
    found = result("estimated")
    base, fast, good, _ = summary.rows(found)
    assert (base.role, base.test, base.validation) == ("baseline", "5.10", "5.00")
    assert base.verdict == "real time (30 ms)"
    assert (fast.role, fast.target, fast.verdict) == ("front 1", "5 ± 0.5", "real time (15 ms)")
    assert good.host == "10.000 [9.000, 11.000], 2 threads"
    assert good.speedup == "2.00x [1.80, 2.20]"
    assert good.size == "2.0 KiB"


def test_the_recommendation_is_the_fastest_that_loses_little() -> None:
    found = result("estimated")
    assert summary.recommended(found).pipeline == "quantize-uint8"
    said = summary.recommendation(found)
    assert "2.00x as fast as the float baseline (estimated)" in said
    assert "+0.20 points validation NME" in said


def test_a_measured_recommendation_carries_its_interval() -> None:
    said = summary.recommendation(result("measured"))
    assert "2.00x [1.80, 2.20] as fast as the float baseline (measured)" in said


def test_the_recommendation_looks_at_validation_and_never_at_test_faces() -> None:
    lucky = candidate("lucky", 1, 9.0, test=0.1)
    found = replace(result(), front=(lucky, *result().front))
    assert summary.recommended(found).pipeline == "quantize-uint8"
    said = summary.recommendation(found)
    assert said.endswith("the fastest that loses no more than 0.3 points")


def test_without_a_faster_good_file_the_baseline_is_recommended() -> None:
    found = replace(result(), front=(result().front[0], result().baseline))
    assert summary.recommended(found) == found.baseline
    assert summary.recommendation(found).startswith("ship the float baseline")


def test_the_faces_are_named_with_their_kind() -> None:
    said = summary.faces(result())
    assert said.startswith("rendered faces (made: 9 train, 3 validation, 4 test)")
    assert "inter-ocular" in said


def test_what_to_ship_follows_what_may_be_lost() -> None:
    found = result("measured")  # 20 ms; 10 ms at +0.2 points; 5 ms at +2
    none, some = summary.choices(found)
    assert (none.points, none.candidate) == (0.0, found.baseline)
    assert (some.points, some.candidate.pipeline) == (0.2, "quantize-uint8")
    assert some.text == (
        "2.00x [1.80, 2.20] as fast as the float baseline (measured); "
        "2.0 KiB instead of 2.0 KiB, +0.20 points validation NME"
    )
    lost = replace(found, front=found.front[:1])
    assert summary.choices(lost) == () and summary.recommended(lost) == found.front[0]
