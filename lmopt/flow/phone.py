"""Phones in use cases: which one, with which tool and profile, and whether it answers rightly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.device.adb import Adb, DeviceLostError, connect, serial_of
from lmopt.device.matching import accelerator_of, is_of, matching
from lmopt.device.phone import Phone, describe
from lmopt.device.rig import Rig
from lmopt.device.tool import Setting, Tool, find_tool
from lmopt.errors import BackendError, UsageError
from lmopt.flow.host_profile import HOST, target_named
from lmopt.latency.phone import PhoneBench, Visit
from lmopt.scoring.loaded import LoadedModel
from lmopt.target.profile import Target

ANY_TARGET = "auto"
"""Stands for the profile of the phone that is there."""
OUTPUT_FACES = 2
"""Faces on which answers are compared, one run of the tool each."""
WRONG = 0.05
"""Mean distance from the host's landmarks, over the crop's side, that is no rounding any more."""


@dataclass(frozen=True)
class OutputsCompared:
    """How far the landmarks a phone finds are from those that this host finds in the same file.

    Units: input pixels.

    Attributes:
        faces: How many were compared; 0 for none.
        mean_px, largest_px: Over all landmarks.
        reason: Why none were compared.
    """

    faces: int = 0
    mean_px: float = 0.0
    largest_px: float = 0.0
    reason: str = ""

    def __str__(self) -> str:
        if not self.faces:
            return f"outputs not compared: {self.reason}"
        return (
            f"outputs on {self.faces} faces are {self.mean_px:.3f} px (at most "
            f"{self.largest_px:.3f}) from this host's"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return asdict(self)


@dataclass(frozen=True)
class Cabled:
    """A phone that is there, with everything needed to measure on it.

    Attributes:
        adb: The way to it.
        phone: What it is.
        tool: What is to run there.
        target: The profile that is measured.
    """

    adb: Adb
    phone: Phone
    tool: Tool
    target: Target

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns what a user should know of the choice."""
        if is_of(self.target, self.phone):
            return ()
        return (
            f"the profile {self.target.name} is not about this phone's chip ({self.phone.soc}): "
            "latencies are the phone's, rules are the profile's",
        )

    @contextmanager
    def bench(self, visit: Visit | None = None) -> Iterator[PhoneBench]:
        """Yields what measures; the phone is as it was when the block ends.

        Args:
            visit: How long one run of the tool lasts.

        Raises:
            BackendError: The phone went away, or has no room.
        """
        setting = Setting(self.target.engine, accelerator_of(self.target, self.phone))
        with Rig(self.adb, self.tool) as rig:
            yield PhoneBench(
                rig, self.phone, self.tool, setting, target=self.target.name, visit=visit
            )


class PhoneRequest(Protocol):
    """The part of a request that says which phone, and how it is to be used."""

    @property
    def target(self) -> str:
        """Returns the name of a profile, or `ANY_TARGET`."""

    @property
    def device(self) -> str:
        """Returns `adb` or `adb:SERIAL`."""

    @property
    def benchmark_model(self) -> Path | None:
        """Returns the tool's file, or None to look for it."""


def phone_of(request: PhoneRequest) -> Cabled:
    """Returns the phone that a request means; raises as `cabled` does."""
    named = None if request.target == ANY_TARGET else target_named(request.target)
    return cabled(request.device, named, request.benchmark_model)


def cabled(device: str, target: Target | None, tool: Path | None) -> Cabled:
    """Returns the phone that `--device` means; nothing is put on it yet.

    Args:
        device: `adb` or `adb:SERIAL`.
        target: The profile to measure; None takes the phone's own CPU profile.
        tool: The tool's file, or None to look for it.

    Raises:
        BackendError: No phone can be used, or there is no tool for it.
        UsageError: Several phones, no profile for this one, or one that no phone can measure.
        InputError: The tool is none, or the phone lacks the profile's accelerator.
    """
    if target is not None and target.name == HOST:
        raise UsageError(
            "this host is no phone",
            where="--target",
            hint="name a phone's profile, or none for the profile of the phone that is there",
        )
    adb = connect(serial_of(device))
    phone = describe(adb)
    profile = matching(phone) if target is None else target
    Setting(profile.engine, accelerator_of(profile, phone))
    return Cabled(adb, phone, find_tool(phone, tool), profile)


def compare_outputs(
    bench: PhoneBench, model: bytes, contract: Contract, crops: NDArray[np.uint8], where: str
) -> OutputsCompared:
    """Returns how far the phone's landmarks are from this host's.

    A tool too old to be fed is no error: then nothing was compared, and the result says why.

    Args:
        bench: Runs the model on the phone.
        model: The file's bytes.
        contract: What it eats and gives.
        crops: Faces; the first `OUTPUT_FACES` are compared.
        where: The model, for messages.

    Raises:
        DeviceLostError: The phone went away.
        BackendError: The phone's landmarks are elsewhere altogether.
        InputError: The model does not fit the contract.
    """
    crops = crops[:OUTPUT_FACES]
    with LoadedModel(model, contract, where) as loaded:
        wanted = loaded.find(crops)
        try:
            answers = bench.answers(model, loaded.stored(crops))
        except DeviceLostError:
            raise
        except BackendError as error:
            return OutputsCompared(reason=error.what)
        if answers is None:
            return OutputsCompared(
                reason=f"{bench.tool} is too old: it does not know --input_layer_value_files and "
                "--output_filepath"
            )
        found = np.concatenate([loaded.landmarks_in(answer) for answer in answers])
    return _compared(found, wanted, contract, where)


def _compared(
    found: NDArray[np.float64], wanted: NDArray[np.float64], contract: Contract, where: str
) -> OutputsCompared:
    apart = np.linalg.norm(found - wanted, axis=-1)
    if not apart.mean() <= WRONG:  # NaN is wrong too
        raise BackendError(
            f"the phone finds landmarks {apart.mean():.0%} of the crop's side away from where "
            "this host finds them in the same file",
            where=where,
            hint="its engine computes an operator wrongly: choose another storage or a CPU target",
        )
    side = max(contract.width, contract.height)
    return OutputsCompared(len(found), float(apart.mean()) * side, float(apart.max()) * side)
