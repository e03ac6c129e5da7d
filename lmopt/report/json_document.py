"""JSON as lmopt prints and stores it: strict, so no NaN, whoever reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def json_text(document: Any) -> str:
    """Returns a document as strict JSON: what is not finite becomes null, a path its text.

    >>> json_text({"a": float("nan"), "b": (1, 2)}).split()
    ['{', '"a":', 'null,', '"b":', '[', '1,', '2', ']', '}']
    """
    return json.dumps(_finite(document), indent=2, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return value
