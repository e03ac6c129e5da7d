"""The use case `inspect --quantization`: grids, and the error of every tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmopt.calibration.difference import Measured, measured_differences
from lmopt.data.crop import cut_all
from lmopt.detector.contract import Contract
from lmopt.detector.detector import Detector
from lmopt.errors import InputError, UsageError
from lmopt.flow.events import Activity, Listener, ignore
from lmopt.flow.folding import folded
from lmopt.flow.sources import Faces, as_detector, as_faces
from lmopt.ir.graph import Graph, Value
from lmopt.ir.scaling import find_scales, map_scales, rescale
from lmopt.quant.bounds import InputRange, ValueBound, error_bounds, landmark_pixels
from lmopt.quant.real import real_form
from lmopt.quant.transfer import Moments
from lmopt.scoring.metrics import default_normaliser, normalising_distance
from lmopt.zoo.mean_shape import MEAN_SHAPE

FACES = 50
"""Training faces that errors are measured on."""


@dataclass(frozen=True)
class TensorReport:
    """One tensor of a quantized graph; errors are quantized minus float, in its own unit.

    Attributes:
        name, op: Of the node.
        type: As in IR text.
        scale, zero_point, low, high: Of its grid; None in float32.
        twin: The float value it stands for, or None.
        bound: Largest error for any picture; None where there is none.
        bound_within_grids: For pictures whose float values stay within the grids.
        expected_rms: By noise propagation, with the float values' spread where faces are given.
        measured_largest, measured_rms: On faces, with the kernels that run by default.
        reason: Why there is no bound.
    """

    name: str
    op: str
    type: str
    scale: float | None = None
    zero_point: int | None = None
    low: float | None = None
    high: float | None = None
    twin: str | None = None
    bound: float | None = None
    bound_within_grids: float | None = None
    expected_rms: float | None = None
    measured_largest: float | None = None
    measured_rms: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class LandmarkReport:
    """The error of the landmarks, the mean over them.

    Attributes:
        bound_px, bound_within_grids_px, expected_px, measured_px: In input pixels; the last two
            as root of the mean square.
        bound_nme, bound_within_grids_nme, expected_nme, measured_nme: In points of NME (percent of
            the faces' size; that of the mean shape where there are no faces).
    """

    bound_px: float | None = None
    bound_within_grids_px: float | None = None
    expected_px: float | None = None
    measured_px: float | None = None
    bound_nme: float | None = None
    bound_within_grids_nme: float | None = None
    expected_nme: float | None = None
    measured_nme: float | None = None


@dataclass(frozen=True)
class QuantizationReport:
    """Grids and errors of a quantized graph.

    Attributes:
        name: Of the model.
        against: Of the float model, or None.
        faces: How many faces errors were measured on.
        tensors: In graph order.
        landmarks: None without a float model or a contract.
    """

    name: str
    against: str | None
    faces: int
    tensors: tuple[TensorReport, ...]
    landmarks: LandmarkReport | None

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return asdict(self)


def inspect_quantization(
    source: str | Path | Detector,
    *,
    against: str | Path | Detector | None = None,
    data: Faces = None,
    contract: Contract | Path | None = None,
    faces: int = FACES,
    listen: Listener = ignore,
) -> QuantizationReport:
    """Returns the grids of a quantized model, and how far it can be from a float model.

    Args:
        source: Quantized .tflite, or a loaded detector.
        against: Float model it was made of; batch norms are folded.
        data: Faces on whose training part errors are measured; None measures none.
        contract: Of a model that carries none.
        faces: Training faces to measure on.
        listen: Hears of progress.

    Raises:
        UsageError: Faces without a float model.
        InputError: The float model is none or has no weights, or there is no contract for faces.
        GraphError: The two models have different outputs.
    """
    detector = as_detector(source, contract)
    graph = detector.graph
    tensors = [_grid_of(graph, value) for value in (node.value for node in graph.nodes)]
    if against is None:
        if data is not None:
            raise UsageError("faces without a float model", hint="give --against FLOAT_MODEL")
        return QuantizationReport(detector.name, None, 0, tuple(tensors), None)
    other = as_detector(against, None)
    other.require_weights()
    if any(tensor.quant for node in other.graph.nodes for tensor in node.results):
        raise InputError(
            f"'{other.name}' is quantized itself: errors are differences from a float model",
            where="--against",
            hint="give the float model that this one was made of",
        )
    reference, contract = folded(other.graph), detector.contract or other.contract
    # Equalized channels would differ from the float model's by their scale, not by an error.
    units = map_scales(reference)
    reference = rescale(reference, units, find_scales(reference, units, real_form(graph)))
    ranges = {} if contract is None else _input_ranges(graph, contract)
    listen(Activity("bounding errors"))
    hard = error_bounds(reference, graph, ranges, kernels="default")
    measured: Mapping[Value, Measured] = {}
    spread: Mapping[str, Moments] = {}
    size, count = _mean_size(contract), 0
    if data is not None:
        if contract is None:
            contract = detector.require_contract()
        some = as_faces(data, contract, listen).split("train")
        chosen = {face.id for face in some.faces[:faces]}
        if not chosen:
            raise InputError("there are no training faces to measure on")
        crops = cut_all(some.keep(lambda face: face.id in chosen), contract)
        listen(Activity("measuring errors"))
        twins = {v: b.twin for v, b in hard.values.items() if b.twin is not None}
        measured = measured_differences(reference, graph, twins, crops.pixels, contract)
        spread = {twins[v].node: held.float_moments for v, held in measured.items()}
        scheme = contract.scheme
        sizes = normalising_distance(crops.landmarks, scheme, default_normaliser(scheme))
        size, count = float(sizes.mean()) * contract.width, len(crops)
    usual = error_bounds(
        reference, graph, ranges, kernels="default", within_grids=True, statistics=spread
    )
    rows = [
        _with_errors(row, hard.values.get(value), usual.values.get(value), measured.get(value))
        for row, value in zip(tensors, (node.value for node in graph.nodes), strict=True)
    ]
    landmarks = None
    if contract is not None and contract.output in hard.outputs:
        value = dict(graph.outputs)[contract.output]
        pair = (hard.outputs[contract.output], usual.outputs[contract.output])
        landmarks = _landmarks(pair, measured.get(value), contract, size)
    return QuantizationReport(detector.name, other.name, count, tuple(rows), landmarks)


def _grid_of(graph: Graph, value: Value) -> TensorReport:
    node, type = graph.producer(value), graph.type(value)
    row = TensorReport(node.name, node.op.kind, f"{type.dtype}{list(type.shape[1:])}")
    if type.quant is None:
        return row
    scale, zero = type.quant.scale[0], type.quant.zero_point[0]
    low, high = (scale * (end - zero) for end in type.dtype.bounds)
    return replace(row, scale=scale, zero_point=zero, low=low, high=high)


def _input_ranges(graph: Graph, contract: Contract) -> dict[str, InputRange]:
    """Returns what the normalised bytes of a picture are, and how far the input's grid is off."""
    node = graph.inputs[0]
    grid, dtype = node.results[0].quant, node.results[0].dtype
    shades = np.repeat(np.arange(256, dtype=np.uint8)[:, None], contract.channels, axis=1)
    real = contract.normalize(shades)
    stored = real if grid is None else grid.dequantize(grid.quantize(real, dtype))
    # halves may be rounded either way
    off = float(np.abs(stored - real.astype(np.float64)).max()) * (1 + 2.0**-20)
    return {node.name: InputRange(float(real.min()), float(real.max()), off)}


def _with_errors(
    row: TensorReport, hard: ValueBound | None, usual: ValueBound | None, held: Measured | None
) -> TensorReport:
    if hard is None or usual is None:
        return row
    return replace(
        row,
        twin=str(hard.twin),
        bound=_finite(hard.largest),
        bound_within_grids=_finite(usual.largest),
        expected_rms=usual.rms,
        measured_largest=None if held is None else held.largest,
        measured_rms=None if held is None else held.rms,
        reason=hard.reason,
    )


def _landmarks(
    pair: Sequence[ValueBound], held: Measured | None, contract: Contract, size: float | None
) -> LandmarkReport:
    errors = [bound.error.magnitude for bound in pair]
    errors.append(np.full_like(errors[0], np.nan) if pair[1].expected is None else pair[1].expected)
    errors.append(np.full_like(errors[0], np.nan) if held is None else np.sqrt(held.squares))
    pixels = [
        _finite(float(landmark_pixels(error, contract).mean()))
        if np.isfinite(error).all()
        else None
        for error in errors
    ]
    points = [None if p is None or size is None else 100 * p / size for p in pixels]
    return LandmarkReport(*pixels, *points)


def _mean_size(contract: Contract | None) -> float | None:
    """Returns the inter-ocular distance of the mean shape, in input pixels."""
    if contract is None or contract.scheme.count != len(MEAN_SHAPE):
        return None
    shape = np.array([MEAN_SHAPE])
    distance = normalising_distance(shape, contract.scheme, default_normaliser(contract.scheme))
    return float(distance[0]) * contract.width


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
