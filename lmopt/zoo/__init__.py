"""Landmark detectors as IR builders, with the weights that come in the package."""

from lmopt.zoo.archive import read_archive, with_weights, write_archive
from lmopt.zoo.catalog import DETECTORS, NO_WEIGHTS, RECIPES, load, shipped_weights
from lmopt.zoo.inherit import inherit
from lmopt.zoo.initialize import initialize

__all__ = [
    "DETECTORS",
    "NO_WEIGHTS",
    "RECIPES",
    "inherit",
    "initialize",
    "load",
    "read_archive",
    "shipped_weights",
    "with_weights",
    "write_archive",
]
