"""Candidates of a search with stated latency and NME."""

from __future__ import annotations

import numpy as np

from lmopt.exploration.racer import Interval, Racer

FACES = 40


def faces(mean: float, spread: float = 0.0, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(FACES)
    return mean + spread * (noise - noise.mean())


def racer(number: int, ms: float, *nmes: float, width: float = 0.01, **more: object) -> Racer:
    found = (*nmes,) if nmes else (9.0,)
    return Racer(
        number,
        Interval(ms, ms * (1 - width), ms * (1 + width)),
        tuple(faces(nme) for nme in found),
        macs=int(1e6 * ms),
        parameters=int(1e5 * ms),
        **more,  # type: ignore[arg-type]
    )
