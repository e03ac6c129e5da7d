"""The `adb` client as a child process: every command with a time limit, every failure named."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmopt.errors import BackendError, UsageError

DEVICE = "adb"
"""The word of `--device` for a phone; `adb:SERIAL` names one."""
PROGRAM_VARIABLE = "LMOPT_ADB"
COMMAND_S = 30.0
_POLL_S = 0.2
_MARK = "lmopt-exit"
_GONE = re.compile(
    r"device '.*' not found|no devices/emulators found|device offline|error: closed"
    r"|connection reset|protocol fault|broken pipe|failed to read|device still connecting",
    re.IGNORECASE,
)
_STATES = {
    "unauthorized": (
        "the phone has not allowed this computer to debug it",
        "unlock the phone and accept the RSA fingerprint it asks about",
    ),
    "authorizing": (
        "the phone has not yet allowed this computer to debug it",
        "unlock the phone, accept the RSA fingerprint it asks about, and try again",
    ),
    "offline": (
        "the phone is offline: it does not answer adb",
        "pull the cable and plug it in again, or: adb reconnect offline",
    ),
    "no permissions": (
        "this user may not open the phone's USB device",
        "add a udev rule for the phone (Debian: apt install android-sdk-platform-tools-common)",
    ),
}


class DeviceLostError(BackendError):
    """The phone went away while it was in use."""


@dataclass(frozen=True)
class Listed:
    """A phone as `adb devices` lists it.

    Attributes:
        serial: Names it in every later command.
        state: `device` when it can be used.
    """

    serial: str
    state: str


@dataclass(frozen=True)
class Ran:
    """What a command on the phone left: its exit status, and stdout and stderr together."""

    status: int
    output: str


def is_phone(device: str) -> bool:
    """Returns whether a `--device` means a phone."""
    return device == DEVICE or device.startswith(f"{DEVICE}:")


def serial_of(device: str) -> str | None:
    """Returns the serial in `adb:SERIAL`, or None where any phone is meant.

    >>> serial_of("adb:192.168.0.7:5555"), serial_of("adb")
    ('192.168.0.7:5555', None)
    """
    return device.partition(":")[2] or None


class Adb:
    """Commands to one phone through the `adb` client and its server.

    Attributes:
        serial: Of the phone.
    """

    def __init__(self, program: Path, serial: str) -> None:
        """Keeps which phone is meant; `connect` checks that it is there."""
        self._program = program
        self.serial = serial

    def shell(self, command: str, *, timeout_s: float = COMMAND_S) -> Ran:
        """Returns what a command line of the phone's shell did.

        Raises:
            DeviceLostError: The phone went away meanwhile.
            BackendError: It did not end in time; it may still run on the phone.
        """
        # Old phones do not tell the exit status through adb, and close silently when cut.
        wrapped = f"( {command}\n) 2>&1 </dev/null; s=$?; echo; echo {_MARK} $s"
        done = self._run("shell", wrapped, timeout_s=timeout_s)
        text, mark, status = done.output.replace("\r\n", "\n").rpartition(f"\n{_MARK} ")
        if not mark or not status.strip().isdecimal():
            raise self._lost(done.output)
        return Ran(int(status), text)

    def push(self, file: Path, place: str) -> None:
        """Copies a file onto the phone.

        Raises:
            DeviceLostError: The phone went away meanwhile.
            BackendError: It has no room, or refuses the file.
        """
        size = file.stat().st_size
        done = self._run("push", str(file), place, timeout_s=COMMAND_S + size / 1e6)
        if done.status == 0:
            return
        if "no space left" in done.output.lower():
            raise BackendError(
                f"no space left on the phone for {size} bytes",
                where=f"{self.serial}:{place}",
                hint="free some of its internal storage: adb shell df /data",
            )
        if not self._is_there():
            raise self._lost(done.output)
        raise BackendError(
            f"the phone refuses the file: {_last_line(done.output)}",
            where=f"{self.serial}:{place}",
        )

    def pull(self, place: str) -> bytes:
        """Returns the bytes of a file on the phone.

        Raises:
            DeviceLostError: The phone went away meanwhile.
            BackendError: There is no such file.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pulled"
            done = self._run("pull", place, str(file), timeout_s=COMMAND_S)
            if done.status == 0 and file.is_file():
                return file.read_bytes()
        if not self._is_there():
            raise self._lost(done.output)
        raise BackendError(
            f"the file cannot be read: {_last_line(done.output)}", where=f"{self.serial}:{place}"
        )

    def wait_until_back(self, seconds: float) -> bool:
        """Returns whether the phone can be used again within `seconds`."""
        deadline = time.monotonic() + seconds
        while not self._is_there():
            if time.monotonic() >= deadline:
                return False
            if re.fullmatch(r".+:\d+", self.serial):  # over the network nobody plugs it in again
                _execute(self._program, ["disconnect", self.serial], COMMAND_S)
                _execute(self._program, ["connect", self.serial], COMMAND_S)
            time.sleep(_POLL_S)
        return True

    def _run(self, *arguments: str, timeout_s: float) -> Ran:
        return _execute(self._program, ["-s", self.serial, *arguments], timeout_s)

    def _is_there(self) -> bool:
        return any(
            phone.serial == self.serial and phone.state == "device"
            for phone in _listed(self._program)
        )

    def _lost(self, output: str) -> BackendError:
        said = _last_line(output)
        if self._is_there() and not _GONE.search(output):
            return BackendError(
                f"the phone's shell ended without an answer{f': {said}' if said else ''}",
                where=self.serial,
                hint="try again; when it stays so, restart the phone's adbd: adb reconnect",
            )
        return DeviceLostError(
            f"the phone went away{f': {said}' if said else ''}",
            where=self.serial,
            hint="plug it in again and run the same command; what was made is kept",
        )


def connect(serial: str | None = None) -> Adb:
    """Returns the way to a phone that can be used.

    Args:
        serial: As `adb devices` lists it; None wants exactly one phone.

    Raises:
        BackendError: adb is not installed, or no phone can be used.
        UsageError: There are several phones and none is named.
    """
    program = _program()
    phones = _listed(program)
    if serial is not None:
        phones = [phone for phone in phones if phone.serial == serial]
    if not phones:
        raise BackendError(
            f"no phone '{serial}' is connected" if serial else "no phone is connected",
            where="--device adb",
            hint="turn on USB debugging in the phone's developer options, plug it in, "
            "and look for it with: adb devices",
        )
    usable = [phone for phone in phones if phone.state == "device"]
    if len(usable) > 1:
        serials = ", ".join(phone.serial for phone in usable)
        raise UsageError(
            f"{len(usable)} phones are connected: {serials}",
            where="--device adb",
            hint=f"name one: --device adb:{usable[0].serial}",
        )
    if not usable:
        phone = phones[0]
        what, hint = _STATES.get(phone.state, (f"the phone is in state '{phone.state}'", None))
        raise BackendError(what, where=phone.serial, hint=hint)
    return Adb(program, usable[0].serial)


def quoted(*words: str) -> str:
    """Returns words as one command line of the phone's shell."""
    return shlex.join(words)


def _program() -> Path:
    given = os.environ.get(PROGRAM_VARIABLE)
    found = shutil.which(given or "adb")
    if found is None and not given and "ANDROID_HOME" in os.environ:
        found = shutil.which(Path(os.environ["ANDROID_HOME"]) / "platform-tools" / "adb")
    if found is None:
        raise BackendError(
            f"no program '{given or 'adb'}'",
            where="--device adb",
            hint="install Android's platform tools (Debian: apt install adb), or name the "
            f"program in ${PROGRAM_VARIABLE}",
        )
    return Path(found)


def _listed(program: Path) -> list[Listed]:
    done = _execute(program, ["devices"], COMMAND_S)
    if done.status != 0:
        raise BackendError(
            f"adb's server does not start: {_last_line(done.output)}",
            where=str(program),
            hint="another one may hold its port: adb kill-server",
        )
    lines = done.output.splitlines()
    rows = [line.split("\t", 1) for line in lines if "\t" in line]
    return [Listed(serial, _state(text)) for serial, text in rows]


def _state(text: str) -> str:
    return next((state for state in _STATES if text.startswith(state)), text.strip())


def _execute(program: Path, arguments: Sequence[str], timeout_s: float) -> Ran:
    """Returns what the adb client did.

    Its output goes to a file: the server that a client starts would keep a pipe open for good.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [program, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise BackendError(
                f"adb {arguments[2 if arguments[0] == '-s' else 0]} did not end within "
                f"{timeout_s:g} s",
                where=arguments[1] if arguments[0] == "-s" else str(program),
                hint="look at the phone; pull the cable and plug it in again",
            ) from error
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        return Ran(status, output.read().decode(errors="replace"))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
