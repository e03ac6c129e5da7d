"""Prices of machines that were calibrated, kept in the cache as portable JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter

from lmopt.cost.micro import MODEL
from lmopt.files import default_cache, write_atomically
from lmopt.target.profile import Experience, KernelPrices, Target

FIT = f"{MODEL}; small networks, version 5"
"""What prices were fitted on and how; others are not read."""


def path_of(target: str) -> Path:
    """Returns where the prices of a phone's engine are kept, by its target."""
    return default_cache() / "phones" / f"{target}.prices.json"


def keep_prices(
    path: Path, machine: str, prices: Mapping[int, KernelPrices], experience: Experience
) -> None:
    """Writes what a calibration found.

    Raises:
        InputError: It cannot be written.
    """
    document = {
        "fit": FIT,
        "machine": machine,
        "prices": {str(threads): asdict(found) for threads, found in prices.items()},
        "experience": asdict(experience),
    }
    write_atomically(path, json.dumps(document, indent=1).encode())


def with_prices(target: Target, path: Path) -> Target:
    """Returns the target with the prices kept for its thread counts, if whole ones are kept."""
    try:
        document = json.loads(path.read_bytes())
        if document["fit"] != FIT:
            return target
        found = TypeAdapter(dict[int, KernelPrices]).validate_python(document["prices"])
        experience = TypeAdapter(Experience).validate_python(document["experience"])
    except (OSError, ValueError, KeyError, TypeError):
        return target
    prices = {threads: found[threads] for threads in target.threads if threads in found}
    if not prices:
        return target
    return replace(target, kernel_prices=prices, experience=experience)
