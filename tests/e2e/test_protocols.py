"""The shipped detector by the studies' protocols on real faces."""

from __future__ import annotations

import pytest

import lmopt
from lmopt.scoring.rows import Scored
from tests.support.faces import FACES, requires_faces

OPEN = [FACES / name for name in ("afw", "helen", "lfpw")]


@pytest.mark.slow
@requires_faces
def test_the_shipped_detector_on_the_open_test_faces() -> None:
    found = lmopt.evaluate_protocols(
        "pfld-0.25@300w", OPEN, protocols=["nme", "boxes", "resolution"]
    )
    (nme,) = found.rows["nme"]
    assert isinstance(nme, Scored)
    assert (nme.score.faces, nme.score.split) == (303, "test")
    assert nme.mean_percent == pytest.approx(4.665, abs=5e-4)
    alone = lmopt.evaluate("pfld-0.25@300w", OPEN)
    assert nme.per_face == alone.per_face
    assert nme.score.to_json() == alone.to_json()
    landmarks, given, jittered = found.rows["boxes"]
    assert isinstance(landmarks, Scored) and isinstance(given, Scored)
    assert isinstance(jittered, Scored)
    assert given.mean_percent == pytest.approx(4.910, abs=5e-4)
    assert landmarks.mean_percent < jittered.mean_percent < given.mean_percent
    rows = [row for row in found.rows["resolution"] if isinstance(row, Scored)]
    size = {row.condition: row.mean_percent for row in rows}
    assert list(size) == ["x1", "x2", "x3", "x4", "x8", "x16", "x32", "x64"]
    tail = [size[name] for name in ("x4", "x8", "x16", "x32", "x64")]
    assert tail == sorted(tail)
    assert size["x8"] > size["x1"] + 0.5
