"""Phones through the real adb client and server: what they are, and every way to miss them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lmopt.device import adb as client
from lmopt.device.adb import DeviceLostError, connect, is_phone
from lmopt.device.phone import busy_cores, describe, read
from lmopt.errors import BackendError, UsageError
from tests.support import phones
from tests.support.android_device import Device
from tests.support.phones import requires_adb

pytestmark = requires_adb


def test_commands_and_files_go_both_ways(phone: Device, tmp_path: Path) -> None:
    adb = connect()
    ran = adb.shell("echo one; echo two >&2; exit 3")
    assert (ran.status, ran.output) == (3, "one\ntwo\n")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_000))
    adb.push(file, "/data/local/tmp/there")
    assert phone.left == ["there"]
    assert adb.pull("/data/local/tmp/there") == file.read_bytes()
    with pytest.raises(BackendError, match=r"cannot be read: .*does not exist"):
        adb.pull("/data/local/tmp/elsewhere")


def test_a_phone_too_old_for_exit_codes_still_tells_them(adb_server: None, tmp_path: Path) -> None:
    device = Device(tmp_path / "old", features="cmd")
    phones.plug_in(device)
    try:
        assert connect(device.serial).shell("echo hi; exit 7") == client.Ran(7, "hi\n")
    finally:
        phones.unplug(device)
        device.close()


def test_a_phone_describes_itself(phone: Device) -> None:
    phone.program("lshal", "echo 'android.hardware.neuralnetworks@1.2::IDevice/neuron-ann'")
    found = describe(connect())
    assert str(found) == "HUAWEI VOG-L29 (kirin980, Android 10, API 29)"
    assert found.names == {"kirin980"} and found.abis == ("arm64-v8a", "armeabi-v7a")
    assert found.gpu == "ARM, Mali-G76, OpenGL ES 3.2"
    assert found.accelerators == ("neuron-ann",) and found.dot_products
    assert [found.max_khz[cpu] for cpu in range(8)] == list(phones.P30_KHZ)
    assert [found.mask(threads) for threads in (1, 2, 3, 4, 5, 8)] == ["c0"] * 2 + ["f0"] * 2 + [
        "ff"
    ] * 2


def test_a_phone_that_tells_nothing_is_described_all_the_same(
    adb_server: None, tmp_path: Path
) -> None:
    device = Device(tmp_path / "mute")
    device.program("getprop", "exit 1")
    phones.plug_in(device)
    try:
        adb = connect(device.serial)
        found, state = describe(adb), read(adb)
        assert (found.soc, found.api, found.max_khz) == ("unknown chip", 0, {})
        assert found.mask(4) is None
        assert state.temperature_c is None and state.doubts == ()
        assert busy_cores(adb) is None
    finally:
        phones.unplug(device)
        device.close()


def test_the_state_of_a_phone_is_read_and_doubted(phone: Device) -> None:
    adb = connect()
    state = read(adb)
    assert state.temperature_c == 35.0 and set(state.governors.values()) == {"schedutil"}
    assert state.doubts == ()
    phones.clock(phone, 7, 2_600_000, 1_300_000)
    phone.file("/sys/devices/system/cpu/cpu4/cpufreq/scaling_governor", "powersave\n")
    phone.program("dumpsys", "echo 'Thermal Status: 2'")
    assert read(adb).doubts == (
        "wrongly clocked: cpu7 may take 1300 of 2600 MHz",
        "governor powersave",
        "throttled: Android's thermal status is 2",
    )


def test_other_work_on_the_phone_is_counted(phone: Device) -> None:
    assert busy_cores(connect()) == 0.0
    phones.work(phone)
    assert busy_cores(connect()) == pytest.approx(2.0)


def test_no_phone_and_a_wrong_serial(adb_server: None, phone: Device) -> None:
    with pytest.raises(BackendError, match="no phone 'XYZ' is connected"):
        connect("XYZ")
    phones.unplug(phone)
    with pytest.raises(BackendError, match="no phone is connected") as caught:
        connect()
    assert "USB debugging" in str(caught.value)


def test_several_phones_want_a_name(phone: Device, tmp_path: Path) -> None:
    second = Device(tmp_path / "second")
    phones.plug_in(second)
    try:
        with pytest.raises(UsageError, match="2 phones are connected") as caught:
            connect()
        assert "--device adb:127.0.0.1:" in str(caught.value)
        assert connect(second.serial).serial == second.serial
    finally:
        phones.unplug(second)
        second.close()


def test_a_phone_that_did_not_allow_it(adb_server: None, tmp_path: Path) -> None:
    device = Device(tmp_path / "locked")
    device.unauthorized = True
    phones.plug_in(device)
    try:
        with pytest.raises(BackendError, match="allowed this computer") as caught:
            connect(device.serial)
        assert "RSA" in str(caught.value)
    finally:
        phones.unplug(device)
        device.close()


def test_an_offline_phone(phone: Device) -> None:
    phone.pull_cable()
    with pytest.raises(BackendError, match="the phone is offline"):
        connect(phone.serial)


def test_no_space_on_the_phone(phone: Device, tmp_path: Path) -> None:
    phone.full = True
    (tmp_path / "file").write_bytes(bytes(1000))
    with pytest.raises(BackendError, match="no space left on the phone for 1000 bytes"):
        connect().push(tmp_path / "file", "/data/local/tmp/file")


def test_a_command_that_hangs_is_given_up(phone: Device) -> None:
    with pytest.raises(BackendError, match=r"adb shell did not end within 0\.3 s"):
        connect().shell("sleep 20", timeout_s=0.3)


def test_a_cable_pulled_in_the_middle_and_plugged_in_again(phone: Device, tmp_path: Path) -> None:
    adb = connect()
    threading.Timer(0.2, phone.pull_cable).start()
    with pytest.raises(DeviceLostError, match="the phone went away"):
        adb.shell("sleep 20")
    with pytest.raises(DeviceLostError):
        adb.push(Path(__file__), "/data/local/tmp/x")
    assert not adb.wait_until_back(0.1)
    phone.plug()
    assert adb.wait_until_back(20)
    assert adb.shell("echo here").output == "here\n"


def test_a_machine_without_adb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(client.PROGRAM_VARIABLE, "no-such-adb")
    with pytest.raises(BackendError, match="no program 'no-such-adb'") as caught:
        connect()
    assert "apt install adb" in str(caught.value)


def test_words_that_mean_a_phone() -> None:
    assert is_phone("adb") and is_phone("adb:emulator-5554") and not is_phone("adbx")
