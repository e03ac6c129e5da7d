import numpy as np

from lmopt import zoo
from lmopt.flow.folding import folded
from lmopt.ir.scaling import find_scales, map_scales, rescale


def test_the_scales_between_two_graphs_are_found_from_their_kernels() -> None:
    graph = folded(zoo.initialize(zoo.load("pfld-0.25").graph, 0))
    units = map_scales(graph)
    drawn = np.exp(np.random.default_rng(0).uniform(-2, 2, len(units.free)))
    scales = np.where(units.free, drawn, 1.0)
    found = find_scales(graph, units, rescale(graph, units, scales))
    np.testing.assert_allclose(found[units.free], scales[units.free], rtol=1e-5)
    assert units.free.sum() > 1000
