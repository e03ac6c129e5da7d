"""Figures of benchmark_model's output; the numbers are those to be read in each log."""

from __future__ import annotations

import re

import pytest

from lmopt.device.output import Delegation, Replacement, Report, Timings, parse
from lmopt.errors import BackendError
from tests.support.phones import SAMPLES, requires_samples


def reports(name: str) -> list[Report]:
    """Reports of the runs in a sample, whose collector put lines of dashes between them."""
    (file,) = SAMPLES.glob(f"{name}_*.txt")
    return [parse(text) for text in re.split(r"^-----.*$", file.read_text(), flags=re.MULTILINE)]


def report(name: str) -> Report:
    (found,) = reports(name)
    return found


def figures(found: Report) -> tuple[float | None, ...]:
    return found.init_us, found.first_us, found.warmup_us, found.inference_us


@requires_samples
def test_01_legacy_profile() -> None:
    found = report("01")
    assert figures(found) == (38467, None, 83235, 79760.9)
    profile = found.inference
    assert profile is not None and found.initialization is None
    assert (len(profile.operators), profile.nodes) == (31, 31)
    first, slowest = profile.operators[0], max(profile.operators, key=lambda op: op.mean_ms)
    assert (first.kind, first.name) == ("CONV_2D", "MobilenetV1/MobilenetV1/Conv2d_0/Relu6")
    assert (first.start_ms, first.first_ms, first.mean_ms, first.percent) == (
        0,
        4.269,
        4.269,
        0.107,
    )
    assert (slowest.name, slowest.mean_ms, slowest.calls, slowest.index) == (
        *("MobilenetV1/MobilenetV1/Conv2d_3_pointwise/Relu6", 6.652, 0),
        None,
    )
    assert profile.by_kind_ms[:2] == (("CONV_2D", 1.406), ("DEPTHWISE_CONV_2D", 0.169))
    assert profile.timings == Timings(50, 79449, 81350, 77385, 88213, 79732, 1929)


@requires_samples
def test_02_complete_log_with_both_profiles() -> None:
    found = report("02")
    assert figures(found) == (17187, 3512391, 3512390, 2950340)
    assert found.warmup == Timings(1, 3512391, 3512391, 3512391, 3512391, 3512391, 0)
    assert found.runs == Timings(50, 2990275, 2913402, 2727568, 3189954, 2950340, 109798)
    assert (found.init_mb, found.overall_mb, found.model_mb) == (4.21094, 46.0859, 16.9008)
    assert found.initialization is not None and found.inference is not None
    assert found.initialization.by_kind_ms == (("AllocateTensors", 1.356),)
    assert found.inference.nodes == len(found.inference.operators) == 31
    last = found.inference.operators[-1]
    assert (last.kind, last.index, last.mean_ms) == ("SOFTMAX", 30, 0.233)
    assert dict(found.inference.by_kind_ms)["DEPTHWISE_CONV_2D"] == 296.919
    assert found.inference.timings is not None and found.inference.timings.mean == 2949900


@requires_samples
def test_03_built_in_kernels_and_xnnpack_with_percentiles() -> None:
    plain, delegated = report("03a"), report("03b")
    assert figures(plain) == (5579, 1357602, 1357600, 1240270)
    assert plain.runs == Timings(
        50, 1249964, 1240143, 1238588, 1252566, 1240270, 2565, median=1239807
    )
    assert plain.runs.typical == 1239807 and plain.delegations == ()
    assert figures(delegated) == (614333, 905463, 905463, 899641)
    assert delegated.delegation("XNNPACK") == Delegation("XNNPACK", "partially", 1)
    assert (delegated.init_mb, delegated.overall_mb) == (146.363, 150.141)


@requires_samples
def test_04_nnapi_in_three_partitions() -> None:
    found = report("04")
    assert figures(found) == (None,) * 4 and found.runs is None
    assert found.initialization is not None and found.inference is not None
    start, allocate = found.initialization.operators
    assert (start.kind, start.mean_ms, start.memory_kb) == (
        "ModifyGraphWithDelegate",
        413.346,
        1748,
    )
    assert (allocate.mean_ms, allocate.calls) == (158.023, 2)
    delegated = [op for op in found.inference.operators if op.kind == "TfLiteNnapiDelegate"]
    assert [(op.mean_ms, op.index) for op in delegated] == [
        (79.010, 231),
        (14.418, 232),
        (56.058, 233),
    ]
    assert delegated[2].name == "Identity, Identity_1, Identity_2"
    assert found.inference.by_kind_ms == (
        ("TfLiteNnapiDelegate", 149.483),
        ("STRIDED_SLICE", 8.347),
        ("RESIZE_NEAREST_NEIGHBOR", 0.879),
    )


@requires_samples
@pytest.mark.parametrize(
    ("name", "reason"),
    [("05_nnapi_failure", "ANEURALNETWORKS_OP_FAILED"), ("05b", "ANEURALNETWORKS_BAD_DATA")],
)
def test_05_a_delegate_that_fails(name: str, reason: str) -> None:
    (file,) = SAMPLES.glob(f"{name}*.txt")
    found = parse(file.read_text())
    assert found.failed and found.runs is None
    assert reason in found.errors[0] and found.errors[-1] == "Failed to apply NNAPI delegate."
    assert found.accelerators == ("qti-default", "qti-dsp", "qti-gpu", "nnapi-reference")


@requires_samples
def test_06_tails_alone() -> None:
    found = reports("06")
    assert [figures(one) for one in found] == [
        (16242, 360262, 304586, 249684),
        (404292, 188086, 175313, 156669),
        (365972, 120877, 108605, 92571.2),
        (1779, 152949, 110690, 95788.3),
    ]
    assert [(one.init_mb, one.overall_mb) for one in found] == [
        (4.92969, 138.809),
        (6.80469, 61.0078),
        (6.90625, 61.0547),
        (5.15625, 36.9883),
    ]
    assert found[3].runs == Timings(50, 94518, 95117, 93066, 99490, 95788.3, 1284)


@requires_samples
def test_07_nnapi_in_pieces() -> None:
    profile = report("07").inference
    assert profile is not None and profile.nodes is None
    assert [(op.kind, op.mean_ms, op.index) for op in profile.operators] == [
        ("TfLiteNnapiDelegate", 11.422, 71),
        ("AVERAGE_POOL_2D", 0.080, 61),
        ("TfLiteNnapiDelegate", 0.654, 72),
        ("RESIZE_BILINEAR", 0.731, 63),
        ("TfLiteNnapiDelegate", 1.386, 73),
        ("RESIZE_BILINEAR", 0.095, 68),
        ("RESIZE_BILINEAR", 22.369, 69),
        ("ARG_MAX", 15.326, 70),
    ]


@requires_samples
def test_08_gpu_takes_all() -> None:
    found = report("08")
    assert figures(found) == (1361236, 125113, 115344, 115246)
    assert found.warmup == Timings(5, 125113, 112537, 111758, 125113, 115344, 4959, median=112912)
    assert found.runs is not None and found.runs.median == 115350
    assert found.delegations == (Delegation("GPU", "completely"),)
    assert (found.overall_mb, found.model_mb) == (132.816, 4.2761)


@requires_samples
def test_09_gpu_of_2020() -> None:
    found = report("09")
    assert figures(found) == (870557, 130565, 122373, 119375)
    assert found.runs == Timings(50, 119212, 118055, 113737, 124776, 119375, 1948)
    assert found.delegations == (Delegation("GPU", "completely"),)


@requires_samples
def test_10_xnnpack_on_android_then_two_delegates() -> None:
    cpu, both = reports("10")
    assert figures(cpu) == (102320, 670083, 670083, 699438)
    assert cpu.replacements == (Replacement("TfLiteXNNPackDelegate", 49, 49, 1),)
    assert cpu.runs is not None and cpu.runs.typical == 576856
    assert figures(both) == (5664363, 328140, 319036, 309350)
    assert both.delegations == (Delegation("GPU", "completely"), Delegation("NNAPI", "not"))
    assert both.replacements == (Replacement("TfLiteGpuDelegateV2", 49, 49, 1),)
    assert both.accelerators == ("nnapi-reference",)


@requires_samples
def test_11_format_of_2019() -> None:
    found = report("11")
    assert figures(found) == (16460, None, 195389, 108787)
    assert found.warmup == Timings(4, 271332, 108011, 108011, 281015, 195389, 80991)
    assert found.runs == Timings(10, 109217, 108165, 108165, 109337, 108787, 452)


@requires_samples
def test_12_head_of_a_log() -> None:
    found = report("12")
    assert figures(found) == (None,) * 4 and found.runs is None and not found.failed
    assert found.delegations == (Delegation("NNAPI", "partially", 1),)
    assert found.accelerators == ("qti-default", "qti-dsp", "qti-gpu", "qti-hta", "nnapi-reference")
    assert found.model_mb == 1.80262


@requires_samples
def test_13_logcat() -> None:
    found = report("13")
    assert figures(found) == (126059, 32942, 12581.9, 12167.6)
    assert found.warmup == Timings(40, 32942, 12594, 11340, 32942, 12581.9, 3331)
    assert found.runs == Timings(75, 12840, 11853, 11787, 13649, 12167.6, 325)
    assert found.delegations == (Delegation("NNAPI", "partially", 44),)


@requires_samples
def test_14_operators_that_the_gpu_refuses() -> None:
    found = report("14")
    assert found.refused == ("UNPACK: Operation is not supported.",)
    assert found.errors[0] == "Following operations are not supported by GPU delegate:"
    assert found.runs is None


@requires_samples
def test_every_sample_has_its_test() -> None:
    numbers = {file.name[:2] for file in SAMPLES.glob("*.txt")}
    assert numbers == {name[5:7] for name in globals() if re.match(r"test_\d\d", name)}


TAILS = {
    2019: "Average inference timings in us: Warmup: 12.5, Init: 4, no stats: 1.5e+06",
    2020: "Average inference timings in us: Warmup: 12.5, Init: 4, Inference: 1.5e+06",
    2024: "INFO: Inference timings in us: Init: 4, First inference: 9, Warmup (avg): 12.5, "
    "Inference (avg): 1.5e+06",
}


@pytest.mark.parametrize("year", TAILS)
def test_closing_lines_of_all_years(year: int) -> None:
    found = parse(f"count=3 curr=7\n{TAILS[year]}")
    assert figures(found) == (4, 9 if year == 2024 else None, 12.5, 1.5e6)
    assert found.runs == Timings(3, 7, 7, 7, 7, 7, 0)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "Applied GPU delegate, and the model graph will be completely executed w/ the "
            "delegate.",
            Delegation("GPU", "completely"),
        ),
        ("Applied NNAPI delegate.", Delegation("NNAPI", "unknown")),
    ],
)
def test_delegates_as_tools_of_2019_and_2020_report_them(line: str, found: Delegation) -> None:
    assert parse(line).delegations == (found,)


def test_a_lone_row_without_its_closing_line_is_the_warm_up() -> None:
    assert parse("count=3 first=1 curr=2 min=1 max=2 avg=1.5 std=0").runs is None


@pytest.mark.parametrize("line", ["count=3 first=x curr=y", "count=3 curr=1.2.3"])
def test_numbers_that_are_none_are_an_error(line: str) -> None:
    with pytest.raises(BackendError, match="the tool's output is garbled"):
        parse(line)


def test_nothing_is_found_in_anything_else() -> None:
    assert parse("\x00\ufffd count of sheep: many\n\n= = =") == Report()
