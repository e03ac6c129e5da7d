"""Where tests find real annotated faces, and the marker for tests that need them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FACES = Path(os.environ.get("LMOPT_FACES") or Path(__file__).parents[3] / "shared" / "faces")

requires_faces = pytest.mark.skipif(
    not FACES.is_dir(),
    reason="no real faces: clone next to a folder shared/faces, or set LMOPT_FACES",
)
