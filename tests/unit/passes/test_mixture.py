"""The search for storages, on losses and times that are written down."""

from itertools import pairwise, product

import numpy as np
import pytest

from lmopt.ir.types import DType
from lmopt_passes.mixture import Mixture, MixtureSearch

I8, I16, F32 = DType.I8, DType.I16, DType.F32
LOST = {I8: 1.0, I16: 0.01, F32: 0.0}


def search(
    takes: dict[DType, float], sizes: tuple[float, ...], limit: float, moving: float = 0.0
) -> MixtureSearch:
    """Parts of given sizes, which lose and take in proportion; a conversion takes `moving`."""
    storages = (I8, I16, F32) if I16 in takes else (I8, F32)

    def alone(part: int, storage: DType) -> float:
        return LOST[storage] * sizes[part]

    def loss(mixture: Mixture) -> float:
        return 0.9 * sum(alone(k, storage) for k, storage in enumerate(mixture))

    def cost(mixture: Mixture) -> float:
        moves = sum(a is not b for a, b in pairwise(mixture))
        own = sum(takes[s] * size for s, size in zip(mixture, sizes, strict=True))
        return own + moving * moves

    return MixtureSearch(storages, len(sizes), alone, loss, cost, limit)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_found_is_within_the_limit_and_nearly_the_fastest_there_is(seed: int):
    rng = np.random.default_rng(seed)
    sizes = tuple(rng.uniform(0.1, 3.0, 6).tolist())
    sought = search({I8: 1.0, I16: 1.5, F32: 2.0}, sizes, float(rng.uniform(0.01, 4)), 0.05)
    found = sought.best()
    assert sought.loss(found) <= sought.limit
    every = [m for m in product((I8, I16, F32), repeat=6) if sought.loss(m) <= sought.limit]
    assert sought.cost(found) <= 1.12 * min(map(sought.cost, every))
    narrow = [m for m in every if I16 not in m]
    assert sought.cost(found) <= min(map(sought.cost, narrow))


def test_sixteen_bits_are_not_even_looked_at_where_float32_is_faster():
    looked: list[DType] = []
    sought = search({I8: 1.0, I16: 9.0, F32: 2.0}, (1.0, 2.0, 3.0), 2.5)
    alone = sought.alone

    def watched(part: int, storage: DType) -> float:
        looked.append(storage)
        return alone(part, storage)

    found = MixtureSearch(
        sought.storages, sought.parts, watched, sought.loss, sought.cost, sought.limit
    ).best()
    assert sought.loss(found) <= sought.limit
    assert set(looked) == {I8} and I16 not in found


def test_conversions_keep_a_part_in_the_storage_of_its_neighbours():
    dear = search({I8: 1.0, I16: 1.9, F32: 2.0}, (1.0, 0.1, 1.0), 0.15, moving=1.0).best()
    assert len(set(dear)) == 1
    cheap = search({I8: 1.0, I16: 1.9, F32: 2.0}, (1.0, 0.1, 1.0), 0.15).best()
    assert cheap == (I16, I8, I16)


@pytest.mark.parametrize("looks", [0, 1, 2, 3])
def test_what_there_was_no_time_to_look_at_stays_in_float32(looks: int):
    sought = search({I8: 1.0, F32: 2.0}, (1.0, 2.0, 3.0), 100.0)
    seen: dict[int, float] = {}

    def alone(part: int, storage: DType) -> float:
        if part not in seen and len(seen) >= looks:
            return np.inf
        return seen.setdefault(part, sought.alone(part, storage))

    found = MixtureSearch(
        sought.storages, 3, alone, sought.loss, sought.cost, 100.0, lambda: len(seen) < looks
    ).best()
    # the parts that save most are looked at first
    assert found == (*[F32] * (3 - looks), *[I8] * looks)
