"""What quantization costs, tensor by tensor, part by part, face by face."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract


@dataclass(frozen=True)
class Cost:
    """What landmarks lose when something is quantized.

    Attributes:
        shift_percent: Mean move of the landmarks, in percent of the normalising distance.
        expected_drop: Points of NME such a move costs, averaged over its directions.
        nme_change: Points by which the NME of the validation faces changed, luck included.
    """

    shift_percent: float
    expected_drop: float
    nme_change: float


@dataclass(frozen=True)
class SegmentSensitivity:
    """A part of the graph and what it costs when it alone is quantized."""

    name: str
    nodes: tuple[str, ...]
    alone: Cost


@dataclass(frozen=True)
class TensorSensitivity:
    """A tensor on its grid.

    Attributes:
        name: Of the node that gives it.
        op: Kind of that node.
        type: In the file, with scale and zero point.
        low, high: Extremes in the float graph.
        clipped_percent: Share of float values beyond the grid.
        own_snr_db: Signal to noise of this grid alone.
        snr_db: Signal to noise in the integer graph, with all that comes before.
        segment: Number of the part it belongs to.
    """

    name: str
    op: str
    type: str
    low: float
    high: float
    clipped_percent: float
    own_snr_db: float
    snr_db: float
    segment: int


@dataclass(frozen=True, eq=False)
class ShiftedFace:
    """A face whose landmarks quantization moves far.

    Attributes:
        face: Its id.
        landmark: The one that moves furthest.
        shift_percent: How far, in percent of the normalising distance.
        float_nme_percent, nme_percent: The face's NME before and after.
        pixels: Its crop.
        float_points, points: Landmarks before and after, in unit coordinates of the crop.
    """

    face: str
    landmark: int
    shift_percent: float
    float_nme_percent: float
    nme_percent: float
    pixels: NDArray[np.uint8] = field(repr=False)
    float_points: NDArray[np.float64] = field(repr=False)
    points: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What a quantizing pipeline costs and where.

    Attributes:
        detector, pipeline: What was looked at.
        data: Name of the faces.
        faces: Number of validation faces behind the costs.
        float_nme_percent: NME before the quantizing pass.
        whole: Cost of everything.
        segments: Costs of the parts, each alone, in graph order.
        tensors: Every tensor on a grid, in graph order.
        worst: Faces with the largest shift, worst first.
        contract: How their crops are to be read.
    """

    detector: str
    pipeline: str
    data: str
    faces: int
    float_nme_percent: float
    whole: Cost
    segments: tuple[SegmentSensitivity, ...]
    tensors: tuple[TensorSensitivity, ...]
    worst: tuple[ShiftedFace, ...]
    contract: Contract

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report, without pictures."""
        return {
            "detector": self.detector,
            "pipeline": self.pipeline,
            "data": self.data,
            "faces": self.faces,
            "split": "validation",
            "float_nme_percent": self.float_nme_percent,
            "whole": asdict(self.whole),
            "segments": [asdict(part) for part in self.segments],
            "tensors": [asdict(tensor) for tensor in self.tensors],
            "worst": [
                {
                    "face": one.face,
                    "landmark": one.landmark,
                    "shift_percent": one.shift_percent,
                    "float_nme_percent": one.float_nme_percent,
                    "nme_percent": one.nme_percent,
                }
                for one in self.worst
            ],
        }
