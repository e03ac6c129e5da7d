"""Versions a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("lmopt", "ai-edge-litert", "numpy", "tensorflow", "tensorflow-model-optimization")


def environment() -> dict[str, str]:
    """Returns the versions of Python and of the packages that shape results."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
