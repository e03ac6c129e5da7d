"""The use case `sensitivity`: what quantization costs, tensor by tensor, part by part, by face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmopt.calibration.observe import FaceCalibrator
from lmopt.data.crop import invert, transform
from lmopt.data.dataset import Dataset
from lmopt.detector.contract import Contract
from lmopt.detector.detector import Detector
from lmopt.errors import UsageError
from lmopt.flow.events import Activity, Listener, ignore
from lmopt.flow.sources import Faces, as_detector, as_faces
from lmopt.flow.workbench import GraphScorer, Workbench
from lmopt.ir.graph import Graph
from lmopt.pipeline.manager import Pipeline
from lmopt.pipeline.partial import Calibrating, PartlyQuantized
from lmopt.quant.distortion import Distortion
from lmopt.quant.segment import Segment, segments_of, span
from lmopt.scoring.metrics import nme_percent, normalising_distance, point_errors
from lmopt.scoring.sensitivity import (
    Cost,
    SegmentSensitivity,
    Sensitivity,
    ShiftedFace,
    TensorSensitivity,
)

OBSERVED_FACES = 32
"""Validation faces over which tensors are compared."""
WORST = 8
"""Faces that are shown."""


def sensitivity(
    source: str | Path | Detector,
    data: Faces = None,
    *,
    passes: str | Pipeline = "fold-batchnorm,quantize-int8",
    segments: int = 16,
    contract: Contract | Path | None = None,
    seed: int = 0,
    cache: Path | None = None,
    listen: Listener = ignore,
) -> Sensitivity:
    """Returns where the last, quantizing pass of a pipeline costs accuracy.

    Everything is found on validation faces; the ranges come from training faces.

    Args:
        source: Zoo name, float model file, or a loaded detector; it needs weights.
        data: Annotated folders, or a dataset; None means the embedded rendered faces.
        passes: Ends with a pass that quantizes without training.
        segments: Parts the graph is cut into, at kernels, of similar work.
        contract: Of a user's model.
        seed: Of everything random.
        cache: Folder that keeps what was found, so that the same call resumes.
        listen: Receives progress events.

    Raises:
        UsageError: Unknown detector or pass, or the last pass is no such pass.
        InputError: Model, data or contract cannot be used, or do not fit each other.
        PassError: A pass cannot work here.
        BackendError: The runtime fails on a file.
    """
    pipeline = Pipeline.parse(passes) if isinstance(passes, str) else passes
    last = pipeline.passes[-1]
    if not isinstance(last, Calibrating):
        raise UsageError(
            f"{last.name} does not quantize part by part",
            where=str(pipeline),
            hint="end the pipeline with quantize-int8, -uint8, -int16 or -mixed",
        )
    if segments < 1:
        raise UsageError(f"segments is {segments}, wanted at least 1")
    detector = as_detector(source, contract)
    detector.require_weights()
    rules = detector.require_contract()
    faces = as_faces(data, rules, listen)
    with Workbench(detector, faces, None, seed=seed, cache=cache, listen=listen) as bench:
        pipeline.check(bench.context())
        before = Pipeline(pipeline.passes[:-1])
        graph = bench.run(before).graph if before.passes else detector.graph
        listen(Activity(f"calibrating {last.name}"))
        prepared = last.calibrated(graph, bench.context())
        whole = prepared.corrected()
        scorer = bench.scorer
        parts = segments_of(prepared.graph, segments)
        found = _parts(prepared, graph, parts, scorer, listen)
        return Sensitivity(
            detector=detector.name,
            pipeline=str(pipeline),
            data=faces.name,
            faces=len(scorer.protocol.crops),
            float_nme_percent=scorer.nme_percent(graph),
            whole=_cost(scorer, whole, graph),
            segments=found,
            tensors=_tensors(prepared.graph, whole, parts, faces, rules, listen),
            worst=_worst(scorer, whole, graph),
            contract=rules,
        )


def _cost(scorer: GraphScorer, graph: Graph, reference: Graph) -> Cost:
    return Cost(
        scorer.shift_percent(graph, reference),
        scorer.expected_drop(graph, reference),
        scorer.nme_percent(graph) - scorer.nme_percent(reference),
    )


def _parts(
    prepared: PartlyQuantized,
    reference: Graph,
    parts: Sequence[Segment],
    scorer: GraphScorer,
    listen: Listener,
) -> tuple[SegmentSensitivity, ...]:
    found = []
    for part in parts:
        order = tuple(node.name for node in prepared.graph.nodes if node.name in part)
        cost = _cost(scorer, prepared.only(part), reference)
        found.append(SegmentSensitivity(span(prepared.graph, part), order, cost))
        listen(Activity("quantizing parts, each alone", len(found), len(parts)))
    return tuple(found)


def _tensors(
    graph: Graph,
    whole: Graph,
    parts: Sequence[Segment],
    faces: Dataset,
    contract: Contract,
    listen: Listener,
) -> tuple[TensorSensitivity, ...]:
    nodes = [
        node for node in graph.nodes if node.inputs and whole.type(node.value).quant is not None
    ]
    values = [node.value for node in nodes]
    sums = [Distortion(whole.type(value)) for value in values]
    shown = faces.split("validation")
    observer = FaceCalibrator(shown, contract)
    pairs = zip(
        observer.observed(graph, values, OBSERVED_FACES),
        observer.observed(whole, values, OBSERVED_FACES),
        strict=True,
    )
    done = 0
    for real, stored in pairs:
        for one, exact, rounded in zip(sums, real, stored, strict=True):
            one.add(exact, rounded)
        done += len(real[0]) if real else 0
        listen(Activity("comparing tensors", done, min(OBSERVED_FACES, len(shown))))
    place = {name: number for number, part in enumerate(parts) for name in part}
    return tuple(
        TensorSensitivity(
            node.name,
            node.op.kind,
            str(one.type),
            one.low,
            one.high,
            one.clipped_percent,
            one.own_snr_db,
            one.snr_db,
            place[node.name],
        )
        for node, one in zip(nodes, sums, strict=True)
    )


def _worst(scorer: GraphScorer, whole: Graph, graph: Graph) -> tuple[ShiftedFace, ...]:
    protocol = scorer.protocol
    before, after = scorer.landmarks(graph), scorer.landmarks(whole)
    scheme, truth, crops = protocol.contract.scheme, protocol.truth, protocol.crops
    distance = normalising_distance(before, scheme, protocol.normaliser)
    moved = 100 * point_errors(after, before) / distance[:, None]
    nme = [nme_percent(found, truth, scheme, protocol.normaliser) for found in (before, after)]
    order = np.argsort(-moved.max(axis=1), kind="stable")[:WORST]
    return tuple(
        ShiftedFace(
            crops.faces[k].id,
            int(moved[k].argmax()),
            float(moved[k].max()),
            float(nme[0][k]),
            float(nme[1][k]),
            crops.pixels[k],
            *(transform(invert(crops.to_picture[k]), found[k]) for found in (before, after)),
        )
        for k in order.tolist()
    )
