from __future__ import annotations

import numpy as np
import pytest

from lmopt.errors import PassError
from lmopt.ir.edit import Edit
from lmopt.ir.interp import run
from lmopt.ir.ops import OPS, Conv2D, Dequantize, Quantize
from lmopt.ir.types import DType, Quant, TensorType
from tests.support.training_graphs import BINARY, LANDMARK, UNARY, detector, fill, single

pytestmark = pytest.mark.slow

CASES = {**UNARY, **BINARY, **LANDMARK}
NOT_TRAINED = {"input", "constant", "quantize", "dequantize"}


def test_every_op_is_lowered_and_every_lowering_is_compared() -> None:
    from lmopt.training.lower import LOWERINGS

    assert set(LOWERINGS) == set(OPS)
    compared = {node.op.kind for case in CASES.values() for node in single(case).nodes}
    assert compared - NOT_TRAINED == set(OPS) - NOT_TRAINED


@pytest.mark.parametrize("case", CASES)
def test_lowered_op_gives_what_the_interpreter_gives(case: str) -> None:
    from lmopt.training.lower import lower

    graph = single(CASES[case])
    x = np.random.default_rng(1).normal(0.0, 3.0, (3, 9, 7, 6)).astype(np.float32)
    wanted = run(graph, {"x": x})["out"]
    got = lower(graph).run({"x": x})["out"].numpy()
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("case", CASES)
def test_lowered_op_has_gradients(case: str) -> None:
    from lmopt.training.backend import tf
    from lmopt.training.lower import lower

    lowered = lower(single(CASES[case]))
    x = tf.random.stateless_normal((2, 9, 7, 6), (1, 2))
    trainable = lowered.model.trainable_variables
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(tf.square(lowered.run({"x": x}, training=True)["out"]))
    gradients = tape.gradient(loss, [x, *trainable])
    assert all(float(tf.reduce_max(tf.abs(g))) > 0 for g in gradients)


def test_weights_go_both_ways_by_node_name() -> None:
    from lmopt.training.lower import lower, read_back

    graph = detector(batch_norm=True)
    lowered = lower(graph)
    assert read_back(graph, lowered).weights() == graph.weights()
    assert lowered.layers["stem"].name == "stem"
    lowered.layers["stem"].parameters["bias"].assign(np.arange(8.0))
    changed = read_back(graph, lowered)
    assert changed.node("stem").weight("bias").real().tolist() == list(range(8))
    assert changed.node("project") == graph.node("project")


def test_batch_norm_statistics_follow_batches() -> None:
    from lmopt.training.lower import BATCH_NORM_MOMENTUM, lower

    graph = single(UNARY["batch_norm"])
    lowered = lower(graph)
    x = np.random.default_rng(2).normal(4.0, 2.0, (8, 9, 7, 6)).astype(np.float32)
    y = lowered.run({"x": x}, training=True)["out"].numpy()
    node, kept = graph.node("y"), BATCH_NORM_MOMENTUM
    mean = kept * node.weight("mean").real() + (1 - kept) * x.mean((0, 1, 2))
    np.testing.assert_allclose(lowered.layers["y"].parameters["mean"], mean, rtol=1e-5)
    centred = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-2)
    wanted = centred * node.weight("gamma").real() + node.weight("beta").real()
    np.testing.assert_allclose(y, wanted, atol=1e-4)


def test_constants_and_statistics_are_not_trained() -> None:
    from lmopt.training.lower import lower

    assert lower(single(BINARY["add"])).model.trainable_variables == []
    names = [v.name for v in lower(single(UNARY["batch_norm"])).model.trainable_variables]
    assert len(names) == 2


def test_node_names_that_tensorflow_refuses() -> None:
    from lmopt.training.lower import lower

    edit = Edit("odd")
    x = edit.input("in:0", (None, 8, 8, 3))
    y = edit.add("a b", Conv2D(2), x)
    edit.output("out", edit.add("a_b", Conv2D(2), y))
    graph = fill(edit.done())
    image = np.ones((1, 8, 8, 3), np.float32)
    got = lower(graph).run({"in:0": image})["out"].numpy()
    np.testing.assert_allclose(got, run(graph, {"in:0": image})["out"], rtol=1e-5)


def test_integers_are_refused() -> None:
    from lmopt.training.lower import lower

    edit = Edit("q")
    x = edit.input("x", (None, 4, 4, 1))
    grid = TensorType(DType.I8, (None, 4, 4, 1), Quant.per_tensor(0.1, 0))
    edit.output("out", edit.add("d", Dequantize(), edit.add("q", Quantize(), x, type=grid)))
    with pytest.raises(PassError, match=r"%q: .*cannot be trained\nhint: train the float graph"):
        lower(edit.done())
