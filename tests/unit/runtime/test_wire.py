import io
import struct

import numpy as np
import pytest

from lmopt.runtime import wire


def test_a_frame_survives_the_way() -> None:
    stream = io.BytesIO()
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "empty": np.zeros((0, 3), np.uint8),
        "scalar": np.array(7, np.int64),
    }
    wire.send(stream, {"request": "run", "items": 2}, arrays)
    stream.seek(0)
    header, found = wire.receive(stream)
    assert header == {"request": "run", "items": 2}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "data", [b"", b"\x10\0", struct.pack("<I", 1 << 31), b"\x05\0\0\0{", b"\x02\0\0\0hi"]
)
def test_what_is_no_frame_is_said_to_be_none(data) -> None:
    with pytest.raises(wire.WireError):
        wire.receive(io.BytesIO(data))
