"""The device end of adb on loopback: the real client and server talk to it as to a phone.

It speaks the transport (CNXN, AUTH, OPEN, OKAY, WRTE, CLSE) with the services `shell:`,
`shell,v2:` and `sync:`. Commands run in this machine's shell, the phone's folders mapped to one
of the sandbox. Faults are set on the object and take effect at once.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (
    int.from_bytes(word.encode(), "little")
    for word in ("CNXN", "AUTH", "OPEN", "OKAY", "WRTE", "CLSE")
)
VERSION, MAX_DATA = 0x01000000, 256 * 1024
TOKEN, PUBLIC_KEY = 1, 3
_STDIN, _STDOUT, _STDERR, _EXIT = range(4)
_MAPPED = re.compile(r"/(data/local/tmp|sys|proc/stat|proc/cpuinfo)\b")


class Stream:
    """One opened service: ordered bytes in both directions, each packet acknowledged."""

    def __init__(self, device: Connection, local: int, remote: int) -> None:
        self._device = device
        self.local, self.remote = local, remote
        self._in: queue.Queue[bytes | None] = queue.Queue()
        self.acknowledged = threading.Semaphore(0)
        self._left = b""
        self.closed = threading.Event()

    def feed(self, data: bytes | None) -> None:
        self._in.put(data)

    def read(self, count: int) -> bytes:
        while len(self._left) < count:
            data = self._in.get()
            if data is None:
                raise EOFError
            self._left += data
        found, self._left = self._left[:count], self._left[count:]
        return found

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA // 4):
            if self.closed.is_set():
                raise BrokenPipeError
            self._device.send(WRTE, self.local, self.remote, data[start : start + MAX_DATA // 4])
            self.acknowledged.acquire()

    def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self._device.send(CLSE, self.local, self.remote)

    def cut(self) -> None:
        self.closed.set()
        self._in.put(None)
        self.acknowledged.release()


class Connection:
    """What one accepted socket carries."""

    def __init__(self, phone: Device, link: socket.socket) -> None:
        self._phone = phone
        self._link = link
        self._writing = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._next = 0

    def send(self, command: int, arg0: int, arg1: int, data: bytes = b"") -> None:
        header = struct.pack(
            "<6I", command, arg0, arg1, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF
        )
        with self._writing:
            self._link.sendall(header + data)

    def serve(self) -> None:
        try:
            while True:
                command, arg0, arg1, length, *_ = struct.unpack("<6I", self._exactly(24))
                self._take(command, arg0, arg1, self._exactly(length))
        except (EOFError, OSError):
            pass
        finally:
            for stream in list(self._streams.values()):
                stream.cut()
            self._link.close()

    def cut(self) -> None:
        self._link.shutdown(socket.SHUT_RDWR)

    def _take(self, command: int, arg0: int, arg1: int, data: bytes) -> None:
        phone = self._phone
        if command in (CNXN, AUTH):
            if phone.silent:
                return
            if phone.unauthorized:
                if arg0 != PUBLIC_KEY:  # at a key, a phone asks its user and keeps still
                    self.send(AUTH, TOKEN, 0, bytes(20))
                return
            features = f"device::ro.product.name=test;features={phone.features};"
            self.send(CNXN, VERSION, MAX_DATA, features.encode())
        elif command == OPEN:
            self._next += 1
            stream = Stream(self, self._next, arg0)
            service = data.rstrip(b"\0").decode()
            handler = _service(service)
            if handler is None:
                self.send(CLSE, 0, arg0)
                return
            self._streams[stream.local] = stream
            self.send(OKAY, stream.local, stream.remote)
            threading.Thread(
                target=self._handle, args=(handler, stream, service), daemon=True
            ).start()
        elif command == WRTE and arg1 in self._streams:
            self._streams[arg1].feed(data)
            self.send(OKAY, arg1, arg0)
        elif command == OKAY and arg1 in self._streams:
            self._streams[arg1].acknowledged.release()
        elif command == CLSE and arg1 in self._streams:
            self._streams.pop(arg1).cut()

    def _handle(
        self, handler: Callable[[Device, Stream, str], None], stream: Stream, service: str
    ) -> None:
        try:
            handler(self._phone, stream, service.partition(":")[2])
            stream.close()
        except (EOFError, OSError):
            pass

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._link.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data


class Device:
    """A phone of one folder: `root` stands for its file system, `bin` goes first on its PATH.

    Attributes:
        port: On 127.0.0.1.
        unauthorized, silent: Answer a connection with a demand for a key, or not at all.
        full: Refuse files as a full disk does.
        features: As adbd announces them; without shell_v2 it is an old phone.
        on_shell: Called with every command line before it runs.
        commands: Every command line so far.
    """

    def __init__(self, folder: Path, *, features: str = "shell_v2,cmd") -> None:
        self.root, self.bin = folder / "root", folder / "bin"
        (self.root / "data/local/tmp").mkdir(parents=True)
        self.bin.mkdir()
        self.unauthorized = self.silent = self.full = False
        self.features = features
        self.on_shell: Callable[[str], None] = lambda command: None
        self.commands: list[str] = []
        self._connections: list[Connection] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.plug()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def left(self) -> list[str]:
        """What lies in the phone's folder for programs."""
        return sorted(entry.name for entry in (self.root / "data/local/tmp").iterdir())

    def place(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def file(self, path: str, text: str) -> None:
        self.place(path).parent.mkdir(parents=True, exist_ok=True)
        self.place(path).write_text(text)

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def properties(self, props: Mapping[str, str]) -> None:
        lines = "\n".join(f"[{key}]: [{value}]" for key, value in props.items())
        self.program("getprop", f"cat <<'.'\n{lines}\n.")

    def plug(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def pull_cable(self) -> None:
        if self._listener is not None:
            # A blocked accept keeps a closed listener alive.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            try:
                connection.cut()
            except OSError:
                continue
        self._connections.clear()

    def close(self) -> None:
        self.pull_cable()
        shutil.rmtree(self.root, ignore_errors=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, link)
            self._connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def run(self, command: str) -> subprocess.Popen[bytes]:
        self.commands.append(command)
        self.on_shell(command)
        mapped = _MAPPED.sub(lambda found: f"{self.root}/{found[1]}", command)
        return subprocess.Popen(
            ["/bin/sh", "-c", mapped],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"},
            start_new_session=True,
        )


def _service(name: str) -> Callable[[Device, Stream, str], None] | None:
    if name.startswith("shell,v2"):
        return _shell_v2
    if name.startswith("shell"):
        return _shell
    return _sync if name.startswith("sync:") else None


def _pump(device: Device, stream: Stream, command: str, frame: Callable[[bytes], bytes]) -> int:
    process = device.run(command)
    assert process.stdout is not None
    try:
        while data := process.stdout.read1(1 << 15):
            stream.write(frame(data))
        return process.wait()
    finally:
        # Like adbd: who hangs up on a command ends it.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGHUP)
        process.stdout.close()
        process.wait()


def _shell(device: Device, stream: Stream, command: str) -> None:
    _pump(device, stream, command, lambda data: data)


def _shell_v2(device: Device, stream: Stream, command: str) -> None:
    status = _pump(device, stream, command, lambda data: _packet(_STDOUT, data))
    stream.write(_packet(_EXIT, bytes([status & 0xFF])))


def _packet(kind: int, data: bytes) -> bytes:
    return struct.pack("<BI", kind, len(data)) + data


def _sync(device: Device, stream: Stream, _: str) -> None:
    while True:
        word, length = struct.unpack("<4sI", stream.read(8))
        text = stream.read(length).decode() if word != b"QUIT" else ""
        if word == b"QUIT":
            return
        place = device.place(text.partition(",")[0])
        if word == b"STAT":
            state = place.stat() if place.exists() else None
            values = (state.st_mode, state.st_size, int(state.st_mtime)) if state else (0, 0, 0)
            stream.write(struct.pack("<4s3I", b"STAT", *values))
        elif word == b"SEND":
            _receive(device, stream, place)
        elif word == b"RECV":
            _transmit(stream, place)
        else:
            _fail(stream, f"unknown request {word!r}")


def _receive(device: Device, stream: Stream, place: Path) -> None:
    parts = []
    while True:
        word, length = struct.unpack("<4sI", stream.read(8))
        if word == b"DONE":
            break
        parts.append(stream.read(length))
    if device.full:
        _fail(stream, "couldn't create file: No space left on device")
        return
    place.write_bytes(b"".join(parts))
    stream.write(struct.pack("<4sI", b"OKAY", 0))


def _transmit(stream: Stream, place: Path) -> None:
    if not place.is_file():
        _fail(stream, "No such file or directory")
        return
    data = place.read_bytes()
    for start in range(0, len(data), 1 << 16):
        part = data[start : start + (1 << 16)]
        stream.write(struct.pack("<4sI", b"DATA", len(part)) + part)
    stream.write(struct.pack("<4sI", b"DONE", 0))


def _fail(stream: Stream, reason: str) -> None:
    stream.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason.encode())
