"""Moments of what kernels meet: those of the columns a convolution multiplies with."""

from __future__ import annotations

import numpy as np

from lmopt.calibration.kernel_inputs import moments_of
from lmopt.ir.edit import Edit
from lmopt.ir.interp import run
from lmopt.ir.ops import Conv2D, Dense, DepthwiseConv2D
from lmopt.zoo import initialize

FACES = np.random.default_rng(1).uniform(-1, 1, (3, 6, 8, 2)).astype(np.float32)


def test_the_variance_of_an_answer_is_that_of_its_operands_through_the_kernel() -> None:
    edit = Edit("kernels")
    image = edit.input("image", (None, 6, 8, 2))
    names = ["conv", "deep", "whole", "dense"]
    ops = [
        Conv2D(5, (3, 2), (2, 1), use_bias=False),
        DepthwiseConv2D((3, 3), use_bias=False),
        Conv2D(5, (6, 8), padding="valid", use_bias=False),  # more taps than rows
        Dense(4, use_bias=False),
    ]
    for name, op in zip(names, ops, strict=True):
        edit.output(name, edit.add(name, op, image))
    graph = initialize(edit.done(), 1)
    nodes = [graph.node(name) for name in names]
    found = moments_of(nodes, [[FACES[:2]] * 4, [FACES[2:]] * 4])
    answers = run(graph, {"image": FACES})
    for name in names:
        kernel = graph.node(name).weight("kernel").real().astype(np.float64)
        rows = answers[name].reshape(-1, answers[name].shape[-1])
        if name == "deep":
            kernel = np.moveaxis(kernel, 2, 0)
        slices = kernel.reshape(len(found[name].mean), -1, kernel.shape[-1])
        mean = np.einsum("st,sto->so", found[name].mean, slices).reshape(-1)
        second = np.einsum("sto,stu,suo->so", slices, found[name].covariance, slices).reshape(-1)
        np.testing.assert_allclose(mean, rows.mean(0), atol=1e-5)
        np.testing.assert_allclose(second, rows.var(0), rtol=1e-4, atol=1e-6)
