"""What a run is worth, and which file is the tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmopt.device.output import parse
from lmopt.device.phone import Phone
from lmopt.device.tool import VARIABLE, Setting, check, find_tool
from lmopt.errors import BackendError, InputError, UsageError

DONE = (
    "count=5 curr=9\ncount=50 first=2 curr=2 min=2 max=2 avg=2 std=0\n"
    "Inference timings in us: Init: 1, First inference: 9, Warmup (avg): 9, Inference (avg): 2\n"
)
GPU, APU, CPU = Setting("gpu"), Setting("npu", "neuron-ann"), Setting("cpu")


def judged(text: str, setting: Setting, status: int = 0) -> tuple[str, ...]:
    return check(parse(text + DONE), status, setting, "m.tflite")


def phone(abis: tuple[str, ...] = ("arm64-v8a", "armeabi-v7a")) -> Phone:
    return Phone("s", "a phone", "soc", frozenset(), "10", 29, abis, "", (), {}, False)


def applied(name: str, extent: str) -> str:
    return (
        f"Explicitly applied {name} delegate, and the model graph will be {extent} executed by the "
        "delegate.\n"
    )


def unused(name: str) -> str:
    return (
        f"Though {name} delegate is explicitly applied, the model graph will not be executed by "
        "the delegate.\n"
    )


def replaced(taken: int, delegate: str, parts: int) -> str:
    return (
        f"Replacing {taken} out of 49 node(s) with delegate ({delegate}) node, yielding {parts} "
        "partitions for subgraph 0.\n"
    )


def test_a_delegate_that_takes_everything_needs_no_words() -> None:
    listed = "NNAPI accelerators available: [neuron-ann,nnapi-reference]\n"
    assert judged(applied("GPU", "completely"), GPU) == ()
    assert judged(listed + applied("NNAPI", "completely"), APU) == ()
    assert judged(replaced(49, "TfLiteXNNPackDelegate", 1), CPU) == ()


@pytest.mark.parametrize("text", [unused("GPU"), replaced(0, "TfLiteGpuDelegateV2", 0), ""])
def test_running_on_the_cpu_in_silence_is_an_error(text: str) -> None:
    with pytest.raises(BackendError, match="silently ran on the CPU: GPU took nothing"):
        judged(text, GPU)


def test_a_part_on_the_cpu_is_said() -> None:
    (said,) = judged(
        "Following operations are not supported by GPU delegate:\n"
        "UNPACK: Operation is not supported.\n" + replaced(40, "TfLiteGpuDelegateV2", 3),
        GPU,
    )
    assert said == (
        "GPU took 40 of 49 nodes in 3 parts, the CPU's built-in kernels the rest; refused: "
        "UNPACK: Operation is not supported."
    )
    partial = applied("NNAPI", "partially").replace(
        "delegate.\n", "delegate w/ 44 delegate kernels.\n"
    )
    (said,) = judged("NNAPI accelerators available: [neuron-ann]\n" + partial, APU)
    assert said == "NNAPI took a part of the model, in 44 parts; the CPU ran the rest"


def test_a_tool_that_does_not_say_how_much_was_taken_is_noted() -> None:
    (said,) = judged("Applied GPU delegate.\n", GPU)
    assert said == "this old tool does not say how much of the model GPU took"


def test_the_cpu_without_xnnpack_is_said() -> None:
    (said,) = judged(unused("XNNPACK"), CPU)
    assert said == "XNNPACK took nothing of the model: the built-in kernels ran it"


def test_an_accelerator_that_is_not_there_is_named() -> None:
    with pytest.raises(BackendError, match="no NNAPI accelerator 'neuron-ann'; the phone has qti"):
        judged("NNAPI accelerators available: [qti-dsp,nnapi-reference]\n", APU)
    with pytest.raises(BackendError, match="only NNAPI accelerator is nnapi-reference"):
        judged("NNAPI accelerators available: [nnapi-reference]\n", Setting("npu"))


def test_a_delegate_that_cannot_be_applied_is_an_error_even_when_the_run_goes_on() -> None:
    with pytest.raises(BackendError, match="Failed to apply GPU delegate"):
        judged("Failed to apply GPU delegate.\n", GPU)


def test_a_tool_that_does_not_know_the_delegate_is_too_old() -> None:
    with pytest.raises(BackendError, match="does not know --use_gpu: it is too old"):
        judged("Unconsumed cmdline flags: --use_gpu=true --gpu_x=1\n", GPU)


def test_failures_name_their_cause() -> None:
    with pytest.raises(BackendError, match="killed with SIGKILL"):
        judged("", CPU, status=137)
    with pytest.raises(BackendError, match="the tool failed: no such file"):
        judged("ERROR: no such file\nBenchmarking failed.\n", CPU, status=1)
    with pytest.raises(BackendError, match="the tool failed: exit status 3"):
        judged("", CPU, status=3)
    with pytest.raises(BackendError, match="no timings that lmopt knows"):
        check(parse("hello"), 0, CPU, "m.tflite")


def test_flags_of_the_engines() -> None:
    assert CPU.flags == ("--use_xnnpack=true",)
    assert GPU.flags[0] == "--use_gpu=true"
    assert "--nnapi_accelerator_name=neuron-ann" in APU.flags
    assert not any("accelerator" in flag for flag in Setting("npu").flags)
    with pytest.raises(UsageError, match="no cuda engine"):
        Setting("cuda")


def test_the_tool_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMOPT_CACHE", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(BackendError) as caught:
        find_tool(phone())
    said = str(caught.value)
    assert "no benchmark_model for arm64-v8a" in said
    assert "android_aarch64_benchmark_model" in said and str(tmp_path) in said
    kept = tmp_path / "benchmark_model" / "armeabi-v7a" / "benchmark_model"
    kept.parent.mkdir(parents=True)
    kept.write_text("#!cache")
    assert find_tool(phone()).path == kept
    (tmp_path / "mine").write_text("#!mine")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert find_tool(phone()).path == tmp_path / "mine"
    assert find_tool(phone(), kept).path == kept
    assert len({find_tool(phone(), kept).digest, find_tool(phone()).digest}) == 2
    with pytest.raises(InputError, match="cannot read the tool"):
        find_tool(phone(), tmp_path / "none")


@pytest.mark.parametrize(
    ("machine", "abis", "fits"),
    [(183, ("arm64-v8a",), True), (62, ("arm64-v8a",), False), (40, ("armeabi-v7a",), True)],
)
def test_a_tool_of_another_processor_is_refused(
    tmp_path: Path, machine: int, abis: tuple[str, ...], fits: bool
) -> None:
    path = tmp_path / "tool"
    path.write_bytes(b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little"))
    if fits:
        assert find_tool(phone(abis), path).path == path
        return
    with pytest.raises(InputError, match="no program for arm64-v8a"):
        find_tool(phone(abis), path)
