"""Whether an estimate lies within what its numbers were fitted on."""

from __future__ import annotations

from collections.abc import Sequence

from lmopt.cost.kernels import COMPOSITE, Kernel
from lmopt.target.profile import Target

SLACK = 1.25
"""How far beyond the sizes that were fitted an estimate is still trusted."""


def doubts(found: Sequence[Kernel], target: Target, threads: int) -> tuple[str, ...]:
    """Returns why an estimate deserves less trust than its interval says; none if it does not."""
    known = target.experience
    if known is None:
        return (f"not fitted: no network was measured for the numbers of {target.name}",)
    reasons = []
    macs = sum(kernel.macs for kernel in found)
    low, high = known.macs
    if not low / SLACK <= macs <= high * SLACK:
        reasons.append(
            f"{macs / 1e6:.4g} M multiply-accumulates ({low / 1e6:.4g} to {high / 1e6:.4g} M)"
        )
    storages = sorted({k.storage for k in found} - set(known.storages))
    if storages:
        reasons.append(f"{', '.join(storages)} ({', '.join(known.storages)})")
    works = sorted({k.work for k in found} - set(known.works))
    if works:
        reasons.append(f"{', '.join(works)} kernels")
    composite = sorted({k.kind for k in found if k.kind in COMPOSITE})
    if composite:
        reasons.append(f"{', '.join(composite)}, written as several operators")
    if target.engine == "cpu" and threads not in known.threads:
        counts = ", ".join(map(str, known.threads))
        reasons.append(f"{threads} threads ({counts})")
    if not reasons:
        return ()
    return (
        f"outside of what {target.name} was fitted on ({known.networks} networks, "
        f"{known.framework}): {'; '.join(reasons)}",
    )
