"""The use case `train`: weights for a detector, from faces alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lmopt import zoo
from lmopt.calibration.observe import FaceCalibrator
from lmopt.data.augment import AUGMENTATIONS
from lmopt.data.dataset import Dataset
from lmopt.detector.contract import Contract
from lmopt.detector.detector import Detector
from lmopt.files import require_writable, write_atomically
from lmopt.flow.environment import environment
from lmopt.flow.events import Activity, Listener, Noted, Training, ignore
from lmopt.flow.folding import folded
from lmopt.flow.recipe import TrainingRecipe, recipe_for
from lmopt.flow.sources import Faces, as_detector, as_faces, as_teacher
from lmopt.flow.workbench import GraphScorer, Workbench
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.resolution import at_resolution
from lmopt.latency import host
from lmopt.pipeline.services import Teacher, TrainingProgress
from lmopt.pipeline.validation import Validation
from lmopt.scoring.protocols import Score
from lmopt.training.service import TrainingService

SEEN_BY_LAYERS = 16
"""Training faces by which a layer is found to have learned nothing."""


@dataclass(frozen=True)
class TrainedDetector:
    """A trained detector and its files.

    Attributes:
        detector: Folded, with its weights; its name loads it again.
        weights: The weight archive.
        note: What the weights come from, beside them.
        model: The float .tflite.
        score: On the validation faces.
    """

    detector: Detector
    weights: Path
    note: Path
    model: Path
    score: Score

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return {
            "detector": self.detector.name,
            "weights": str(self.weights),
            "note": str(self.note),
            "model": str(self.model),
            "validation": self.score.to_json(),
        }


def train(
    detector: str | Path | Detector,
    data: Faces = None,
    *,
    recipe: TrainingRecipe | None = None,
    contract: Contract | Path | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    command: str = "",
    listen: Listener = ignore,
) -> TrainedDetector:
    """Returns a detector trained on the training faces of `data`.

    Weights that are missing are drawn; present ones are trained on. A call with the same arguments
    resumes an interrupted training from its checkpoints. The folded phase is scored on the
    validation faces after every epoch, and its best weights are kept, unless the recipe says
    otherwise.

    Args:
        detector: Zoo name (`pfld-0.25@none` starts from nothing), Keras file or loaded detector.
        data: Annotated folders, or a dataset; None means the embedded rendered faces.
        recipe: How to train; None means the detector's own recipe.
        contract: Of a user's model.
        out: Folder for weights, note, .tflite and checkpoints; None means out/train-<detector>.
        seed: Of weights, order and augmentation; None means the recipe's.
        command: The command line, for the note.
        listen: Receives progress events.

    Raises:
        UsageError: Unknown detector.
        InputError: Model or data cannot be used, or `out` cannot be written.
        PassError: The graph cannot be trained.
        BackendError: The training diverged, or its process ended.
    """
    source = as_detector(detector, contract)
    rules = source.require_contract()
    family = source.name.partition("@")[0]
    is_zoo = family in zoo.DETECTORS
    plan = recipe or recipe_for(source.name)
    plan = plan if seed is None else replace(plan, seed=seed)
    stem = family if is_zoo else Path(source.name).stem
    folder = (Path(out) if out is not None else Path("out") / f"train-{stem}").resolve()
    weights, model = (folder / f"{stem}.{suffix}" for suffix in ("npz", "tflite"))
    require_writable(weights)
    faces = as_faces(data, rules, listen)
    for split in ("train", "validation"):
        faces.split(split)

    graph, inherited = source.graph, frozenset[str]()
    if plan.start is not None:
        donor = as_detector(plan.start, None)
        donor.require_weights()
        start = zoo.inherit(graph, donor.graph)
        graph, inherited = start.graph, start.nodes
        listen(Noted(f"{len(inherited)} layers start from {plan.start}"))
    graph = zoo.initialize(graph, plan.seed)
    tutor = as_teacher(plan.teacher)
    phases = plan.phases(
        None
        if tutor is None
        else Teacher(tutor.graph, tutor.require_contract(), plan.teacher_weight)
    )
    for phase in phases:  # a size that does not fit is to be known now, not after hours
        at_resolution(graph, phase.size or rules.height, phase.size or rules.width)
    validation = _validation(source, faces) if plan.keep == "best" else None
    listen(Activity(f"training {source.name} on {len(faces.split('train'))} faces"))
    with host.Beside() as turn:

        def report(progress: TrainingProgress) -> None:
            listen(Training(progress))
            turn.give_way()

        for size, group in groupby(enumerate(phases, 1), lambda item: item[1].size):
            seen = rules if size is None else replace(rules, height=size, width=size)
            with TrainingService(
                faces,
                seen,
                augment=AUGMENTATIONS[plan.augmentation],
                on_progress=report,
            ) as service:
                for number, (training, _) in group:
                    last = number == len(phases)
                    graph = folded(graph) if last else graph
                    if not training.epochs or _is_inherited(graph, training.answer, inherited):
                        continue
                    norms = "batch norms folded" if last else "as built"
                    side = "" if size is None else f" on {size}x{size}"
                    told = f"{norms}{side}, {training.epochs:g} epochs"
                    listen(Noted(f"phase {number} of {len(phases)}: {told}"))
                    trained = service.train(
                        at_resolution(graph, seen.height, seen.width),
                        training,
                        seed=plan.seed + number - 1,
                        checkpoint=folder / f"phase{number}.npz",
                        validation=validation if last else None,
                    )
                    graph = at_resolution(trained, rules.height, rules.width)
    if validation is not None and validation.errors:
        listen(Noted(str(validation)))
    _write_weights(graph, weights)
    # What is scored and emitted are the weights as the archive holds them, in half precision.
    graph = zoo.with_weights(graph, zoo.read_archive(weights), str(weights))
    name = f"{family}@{weights}" if is_zoo else str(model)
    made = replace(source, name=name, graph=graph)
    listen(Activity("scoring on the validation faces"))
    with Workbench(made, faces, None) as bench:
        data_bytes = bench.file(graph)
        score = bench.score(data_bytes, "validation")
        guess = bench.untaught_nme_percent()
    silent = _silent(graph, faces, rules)
    if silent:
        listen(
            Noted(
                f"%{silent[0]} gives the same for every face, and so do {len(silent) - 1} layers "
                "behind it: they learned a constant; train at a lower rate, or with batch norms"
            )
        )
    if score.nme_percent >= guess:
        listen(
            Noted(
                f"validation NME {score.nme_percent:.2f} % is no better than the mean shape's "
                f"{guess:.2f} %: train longer, or on more faces"
            )
        )
    write_atomically(model, data_bytes)
    note = weights.with_suffix(".md")
    write_atomically(note, _note(source, faces, plan, command, score).encode())
    return TrainedDetector(made, weights, note, model, score)


def _silent(graph: Graph, faces: Dataset, contract: Contract) -> list[str]:
    """Returns the layers whose answer no face changes, in the order of the graph."""
    layers = [node.value for node in graph.nodes if node.weights and node.inputs]
    calibrator = FaceCalibrator(faces.split("train"), contract)
    found = calibrator.values(graph, layers, faces=SEEN_BY_LAYERS)
    return [value.node for value in layers if not np.ptp(found[value], axis=0).any()]


def _is_inherited(graph: Graph, answer: str | None, inherited: frozenset[str]) -> bool:
    """Returns whether all weights that lead to an inner answer are inherited."""
    if answer is None:
        return False
    edit = Edit(graph.name)
    for node in graph.nodes:
        edit.put(node)
    edit.output("answer", graph.node(answer).value)
    edit.prune_dead()
    return all(node.name in inherited for node in edit.done().nodes if node.weights)


def _validation(source: Detector, faces: Dataset) -> Validation:
    scorer = GraphScorer(Workbench(source, faces, None).protocol("validation"))
    return Validation(lambda epoch: scorer.nme_percent(epoch.graph), scorer.digest)


def _write_weights(graph: Graph, path: Path) -> None:
    partial = path.with_name(f".{path.name}")
    try:
        zoo.write_archive(graph, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _note(
    source: Detector,
    faces: Dataset,
    recipe: TrainingRecipe,
    command: str,
    score: Score,
) -> str:
    count = len(faces.split("train"))
    steps = [round(n * count / recipe.batch) for n in (recipe.epochs, recipe.folded_epochs)]
    start = recipe.start or (source.name if source.graph.is_initialized else "random weights")
    rows = {
        "Data": f"{faces.name}: {count} training faces, digest {faces.split('train').digest}",
        "Steps": f"{steps[0]} with batch norms, {steps[1]} folded, {recipe.batch} faces each",
        "Started from": start,
        "Recipe": repr(recipe),
        "Seed": str(recipe.seed),
        "Command": f"`{command}`" if command else "lmopt.train(...)",
        "Validation NME": f"{score.nme_percent:.3f} % ({score.normaliser}, {score.crop}, "
        f"{score.faces} faces)",
        "Versions": ", ".join(f"{name} {number}" for name, number in environment().items()),
    }
    lines = [f"# Weights of {source.graph.name}", "", *(f"* {k}: {v}" for k, v in rows.items())]
    return "\n".join([*lines, ""])
