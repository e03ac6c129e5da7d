"""TFLite's `benchmark_model`: the file on this host, its flags, and what its answer is worth."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lmopt.device.output import Report
from lmopt.device.phone import Phone
from lmopt.errors import BackendError, InputError, UsageError
from lmopt.files import default_cache
from lmopt.target.profile import Engine

VARIABLE = "LMOPT_BENCHMARK_MODEL"
PAGE = "https://ai.google.dev/edge/litert/models/measurement"
_NIGHTLY = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/"
    "nightly/latest"
)
_MACHINES = {"arm64-v8a": 183, "armeabi-v7a": 40, "x86_64": 62, "x86": 3}
_DOWNLOADS = {"arm64-v8a": "android_aarch64", "armeabi-v7a": "android_arm"}
_REFERENCE = "nnapi-reference"
_DELEGATES: Mapping[Engine, tuple[str, str]] = {
    "cpu": ("XNNPACK", "TfLiteXNNPackDelegate"),
    "gpu": ("GPU", "TfLiteGpuDelegateV2"),
    "npu": ("NNAPI", "TfLiteNnapiDelegate"),
}
"""What the tool calls the delegate of an engine, and the runtime its class."""


@dataclass(frozen=True)
class Tool:
    """The program that measures.

    Attributes:
        path: On this host.
        digest: 8 hex digits over its bytes: it does not tell its version itself.
    """

    path: Path
    digest: str

    def __str__(self) -> str:
        return f"{self.path.name} {self.digest}"


@dataclass(frozen=True)
class Setting:
    """How models are run on a phone.

    Attributes:
        engine: What is to run them: cpu, gpu or npu.
        accelerator: NNAPI driver for the npu.
    """

    engine: Engine = "cpu"
    accelerator: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in _DELEGATES:
            raise UsageError(
                f"no {self.engine} engine is measured on a phone", where="--device adb"
            )

    @property
    def flags(self) -> tuple[str, ...]:
        """Returns the tool's flags that choose the engine."""
        if self.engine == "cpu":
            return ("--use_xnnpack=true",)
        if self.engine == "gpu":
            return ("--use_gpu=true", "--gpu_precision_loss_allowed=true")
        named = (f"--nnapi_accelerator_name={self.accelerator}",) if self.accelerator else ()
        return (
            "--use_nnapi=true",
            *named,
            "--disable_nnapi_cpu=true",
            "--nnapi_allow_fp16=true",
            "--nnapi_execution_preference=sustained_speed",
        )

    def __str__(self) -> str:
        return f"{self.engine} ({self.accelerator})" if self.accelerator else self.engine


def find_tool(phone: Phone, given: Path | None = None) -> Tool:
    """Returns the tool for a phone: the given one, the environment's, or the cache's.

    Raises:
        InputError: A named file is none, or of another processor.
        BackendError: None is named and none is in the cache.
    """
    named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    folder = default_cache() / "benchmark_model"
    kept = [folder / abi / "benchmark_model" for abi in phone.abis]
    path = named or next((path for path in kept if path.is_file()), None)
    if path is None:
        abi = phone.abis[0]
        source = f"{_NIGHTLY}/{_DOWNLOADS[abi]}_benchmark_model ({PAGE})"
        raise BackendError(
            f"no benchmark_model for {abi} here",
            where="--device adb",
            hint=f"download {source if abi in _DOWNLOADS else PAGE} to {kept[0]}, "
            f"or name it with --benchmark-model or ${VARIABLE}",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the tool: {error.strerror or error}", where=str(path)
        ) from error
    _check_machine(data, phone, path)
    return Tool(path, hashlib.blake2b(data, digest_size=4).hexdigest())


def _check_machine(data: bytes, phone: Phone, path: Path) -> None:
    if data[:2] == b"#!":
        return
    machine = int.from_bytes(data[18:20], "little")
    wanted = {_MACHINES[abi] for abi in phone.abis if abi in _MACHINES}
    if data[:4] == b"\x7fELF" and (not wanted or machine in wanted):
        return
    raise InputError(
        f"no program for {', '.join(phone.abis)}",
        where=str(path),
        hint=f"download the one for the phone: {PAGE}",
    )


def check(report: Report, status: int, setting: Setting, where: str) -> tuple[str, ...]:
    """Returns what is to be said of a run beside its figures.

    Args:
        report: What the tool said.
        status: Its exit status.
        setting: What it was to do.
        where: Model and phone, for messages.

    Raises:
        BackendError: It failed, was killed or printed something else; or the engine took nothing
            of the model, so that the figures are the CPU's.
    """
    if status > 128:
        number = status - 128
        raise BackendError(
            f"the tool was killed with {_signal_name(number)}",
            where=where,
            hint="the phone may be out of memory, or the model crashes its runtime",
        )
    _check_delegate_errors(report, setting, where)
    if report.failed or status != 0:
        reason = "; ".join(report.errors[-3:]) or f"exit status {status}"
        raise BackendError(f"the tool failed: {reason}", where=where)
    if report.runs is None or report.inference_us is None:
        raise BackendError(
            "the tool printed no timings that lmopt knows",
            where=where,
            hint=f"use the benchmark_model of {PAGE}",
        )
    return _delegation_notes(report, setting, where)


def _check_delegate_errors(report: Report, setting: Setting, where: str) -> None:
    there = report.accelerators
    if setting.engine == "npu" and there is not None:
        real = [name for name in there if name != _REFERENCE]
        if (setting.accelerator or _REFERENCE) not in there and setting.accelerator:
            raise BackendError(
                f"no NNAPI accelerator '{setting.accelerator}'; the phone has {', '.join(there)}",
                where=where,
                hint="correct [device] accelerator in the target's TOML",
            )
        if not real:
            raise BackendError(
                f"the phone's only NNAPI accelerator is {_REFERENCE}, which is its CPU",
                where=where,
                hint="measure a CPU target",
            )
    if setting.engine != "cpu" and any(e.startswith("Failed to apply") for e in report.errors):
        raise BackendError("; ".join(report.errors[:3]), where=where)
    needed = {flag.partition("=")[0] for flag in setting.flags if "use_" in flag or "name" in flag}
    ignored = {flag.partition("=")[0] for flag in report.ignored_flags} & needed
    if ignored and setting.engine != "cpu":
        raise BackendError(
            f"the tool does not know {', '.join(sorted(ignored))}: it is too old, or built "
            f"without this delegate",
            where=where,
            hint=f"use the benchmark_model of {PAGE}",
        )


def _delegation_notes(report: Report, setting: Setting, where: str) -> tuple[str, ...]:
    name, kind = _DELEGATES[setting.engine]
    said = report.delegation(name)
    taken = next((r for r in report.replacements if r.delegate == kind), None)
    nothing = (said is not None and said.extent == "not") or (taken is not None and not taken.taken)
    if setting.engine != "cpu" and (nothing or (said is None and taken is None)):
        refused = f" ({'; '.join(report.refused)})" if report.refused else ""
        raise BackendError(
            f"it silently ran on the CPU: {name} took nothing of the model{refused}",
            where=where,
            hint="rewrite what it refuses, or measure a CPU target",
        )
    if nothing:
        return (f"{name} took nothing of the model: the built-in kernels ran it",)
    refused = f"; refused: {'; '.join(report.refused)}" if report.refused else ""
    if taken is not None and taken.taken < taken.total:
        return (
            f"{name} took {taken.taken} of {taken.total} nodes in {taken.partitions} parts, "
            f"the CPU's built-in kernels the rest{refused}",
        )
    if said is not None and said.extent == "unknown" and taken is None:
        return (f"this old tool does not say how much of the model {name} took",)
    if said is not None and said.extent == "partially":
        parts = "" if said.kernels is None else f", in {said.kernels} parts"
        return (f"{name} took a part of the model{parts}; the CPU ran the rest{refused}",)
    return ()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
