"""A folder of lmopt's own on a phone, in which the tool runs, and which does not stay there."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lmopt.device.adb import Adb, DeviceLostError, Ran, quoted
from lmopt.device.tool import Tool
from lmopt.errors import BackendError

ROOT = "/data/local/tmp"
RETURN_S = 20.0
"""How long a phone that went away may take to come back."""
_PROGRAM = "benchmark_model"


class Rig:
    """Files and runs of the tool on one phone. Use it as a context manager.

    Leaving it ends what still runs there and removes the folder; folders that runs of this host
    had to leave behind, since their phone was gone, are removed when it is next entered.

    Attributes:
        folder: On the phone.
        pins: Whether the phone can bind the tool to CPUs.
    """

    def __init__(self, adb: Adb, tool: Tool, *, return_s: float = RETURN_S) -> None:
        """Touches nothing yet.

        Args:
            adb: The phone.
            tool: What is to run there.
            return_s: How long to wait for a phone that goes away.
        """
        self.adb = adb
        self.return_s = return_s
        self._tool = tool
        host = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
        self._prefix = f"lmopt-{host}-"
        self.folder = f"{ROOT}/{self._prefix}{os.getpid()}"
        self.pins = True

    def __enter__(self) -> Self:
        there = self.adb.shell(
            f"{quoted('mkdir', '-p', self.folder)} && cd {ROOT} && ls -d {self._prefix}*"
        )
        if there.status != 0:
            raise BackendError(
                f"no folder can be made on the phone: {there.output.strip()}", where=self.folder
            )
        try:
            self._sweep(there.output.split())
            self.adb.push(self._tool.path, self._at(_PROGRAM))
            ready = f"{quoted('chmod', '755', self._at(_PROGRAM))}; command -v taskset"
            self.pins = self.adb.shell(ready).status == 0
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()

    def send(self, data: bytes, name: str) -> str:
        """Returns the place of a file on the phone that holds `data`.

        Raises:
            BackendError: The phone went away, or has no room.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_bytes(data)
            self.adb.push(file, self._at(name))
        return self._at(name)

    def remove(self, place: str) -> None:
        """Removes a file that `send` put there.

        Raises:
            DeviceLostError: The phone went away.
        """
        self.adb.shell(quoted("rm", "-f", place))

    def fetch(self, name: str) -> bytes | None:
        """Returns the bytes of a file in the folder, or None if there is none; it is removed.

        Raises:
            DeviceLostError: The phone went away.
        """
        place = self._at(name)
        if self.adb.shell(quoted("test", "-f", place)).status != 0:
            return None
        data = self.adb.pull(place)
        self.adb.shell(quoted("rm", "-f", place))
        return data

    def run(self, flags: Sequence[str], *, mask: str | None, limit_s: float) -> Ran:
        """Returns what the tool did.

        Args:
            flags: Of the tool.
            mask: CPUs it is bound to, in hexadecimal; None binds it to none.
            limit_s: After this it counts as hanging and is ended.

        Raises:
            DeviceLostError: The phone went away meanwhile.
            BackendError: The tool hung.
        """
        pinned = ("taskset", mask) if mask is not None and self.pins else ()
        inner = f"echo $$ > pid; exec {quoted(*pinned, f'./{_PROGRAM}', *flags)}"
        command = f"cd {quoted(self.folder)} && {quoted('sh', '-c', inner)}"
        try:
            return self.adb.shell(command, timeout_s=limit_s)
        except DeviceLostError:
            raise
        except BackendError as error:
            self._stop()
            raise BackendError(
                f"the tool hung: it did not end within {limit_s:g} s",
                where=self.adb.serial,
                hint="the model hangs the phone's runtime, or is far too slow for it",
            ) from error

    def wait_until_back(self) -> bool:
        """Returns whether the phone came back; what still ran there is ended."""
        if not self.adb.wait_until_back(self.return_s):
            return False
        with suppress(DeviceLostError):
            self._stop()
            return True
        return False

    def _at(self, name: str) -> str:
        return f"{self.folder}/{name}"

    @property
    def _ending(self) -> str:
        """Returns the command that ends the tool, and no other process that has its number now."""
        return (
            f"p=$(cat {quoted(self._at('pid'))}) && grep -q {_PROGRAM} /proc/$p/cmdline "
            "&& kill -9 $p"
        )

    def _stop(self) -> None:
        self.adb.shell(self._ending)

    def _clear(self) -> None:
        clearing = f"{self._ending}; {quoted('rm', '-rf', self.folder)}"
        # The phone may be gone for good; the next run's sweep then does this.
        with suppress(BackendError):
            try:
                self.adb.shell(clearing)
            except DeviceLostError:
                if self.adb.wait_until_back(self.return_s):
                    self.adb.shell(clearing)

    def _sweep(self, left: Sequence[str]) -> None:
        """Removes folders of runs of this host that have ended."""
        for name in left:
            owner = name.removeprefix(self._prefix)
            if owner.isdecimal() and not _runs(int(owner)):
                self.adb.shell(quoted("rm", "-rf", f"{ROOT}/{name}"))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
