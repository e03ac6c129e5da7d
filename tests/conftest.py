"""Fixtures that tests of several rooms share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from tests.support import phones

    with phones.adb_server(tmp_path_factory.mktemp("adb")):
        yield


@pytest.fixture
def phone(adb_server: None, tmp_path: Path) -> Iterator[object]:
    """A P30 on the cable; see `tests.support.phones`."""
    from tests.support import phones

    device = phones.p30(tmp_path / "phone")
    phones.plug_in(device)
    try:
        yield device
    finally:
        phones.unplug(device)
        device.close()
