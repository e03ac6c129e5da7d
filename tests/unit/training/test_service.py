from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmopt.data.dataset import Dataset, Face
from lmopt.errors import BackendError, InputError, PassError
from lmopt.ir.graph import Value
from lmopt.ir.interp import run
from lmopt.ir.types import DType, ValueRange, Weight
from lmopt.pipeline.services import (
    QuantScheme,
    SparsityPlan,
    Trainer,
    TrainingPlan,
    TrainingProgress,
)
from lmopt.pipeline.validation import Epoch, Validation
from lmopt.quant.assign import plan_grids, quantize_graph
from lmopt.training.service import TrainingService
from tests.support.training_graphs import CONTRACT, detector

PLAN = TrainingPlan(epochs=4, learning_rate=1e-3, batch=8, warmup_steps=2)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    import cv2

    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    found = []
    for k in range(16):
        file = folder / f"{k}.png"
        cv2.imwrite(str(file), rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        points = np.array([[20.0, 20.0], [44.0, 44.0]]) + rng.normal(size=(2, 2))
        split = "train" if k < 12 else "test"
        found.append(Face(f"t/{k}", "t", file, points, None, str(k), split, f"t.csv:{k}"))
    return Dataset.of("t", found, CONTRACT.scheme)


@pytest.fixture(scope="module")
def service(faces: Dataset) -> Iterator[TrainingService]:
    with TrainingService(faces, CONTRACT) as running:
        yield running


@pytest.fixture
def progress(service: TrainingService) -> Iterator[list[TrainingProgress]]:
    seen: list[TrainingProgress] = []
    service.on_progress = seen.append
    yield seen
    service.on_progress = None


def test_importing_the_service_imports_no_tensorflow() -> None:
    code = (
        "import sys, lmopt.training.service; sys.exit("
        "any(m.split('.')[0] in ('tensorflow', 'tf_keras', 'cv2') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_digest_covers_faces_contract_and_augmentation(faces: Dataset) -> None:
    from lmopt.data.augment import NO_AUGMENTATION

    services = [
        TrainingService(faces, CONTRACT),
        TrainingService(faces.keep(lambda face: face.id != "t/3"), CONTRACT),
        TrainingService(faces, replace(CONTRACT, unit="pixel")),
        TrainingService(faces, CONTRACT, augment=NO_AUGMENTATION),
    ]
    assert len({service.digest for service in services}) == 4
    # A test face is never trained on, so it does not count.
    fewer = faces.keep(lambda face: face.id != "t/15")
    assert TrainingService(fewer, CONTRACT).digest == services[0].digest


def test_a_dataset_without_training_faces(faces: Dataset) -> None:
    with pytest.raises(InputError, match="no face of split 'train'"):
        TrainingService(faces.split("test"), CONTRACT)


def test_an_untrained_graph_is_refused_before_a_process_starts(faces: Dataset) -> None:
    edit = detector().edit()
    edit.set_weights("stem", bias=Weight(detector().node("stem").weight("bias").type))
    service = TrainingService(faces, CONTRACT)
    with pytest.raises(PassError, match="no values yet"):
        service.finetune(edit.done(), PLAN, seed=1)
    assert service._process is None


def test_the_process_ends_with_the_program_that_started_it() -> None:
    command = [sys.executable, "-m", "lmopt.training.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.slow
def test_finetune_repeats_and_reports(
    service: TrainingService, progress: list[TrainingProgress]
) -> None:
    trainer: Trainer = service
    graph = detector(batch_norm=True)
    first = trainer.finetune(graph, PLAN, seed=1)
    assert progress[-1].step == progress[-1].steps == 6
    assert first.weights() != graph.weights()
    process = service._process
    assert trainer.finetune(graph, PLAN, seed=1).weights() == first.weights()
    assert service._process is process
    plain = trainer.finetune(graph, replace(PLAN, augment=False), seed=1)
    assert plain.weights() != first.weights()


@pytest.mark.slow
def test_sparsify_and_quantization_aware(service: TrainingService) -> None:
    sparse = service.sparsify(detector(), PLAN, SparsityPlan(0.5), seed=1)
    kernel = sparse.node("project").weight("kernel").real()
    assert np.mean(kernel == 0) == 0.5
    ranges = {Value("stem"): ValueRange(0.0, 2.0)}
    scheme = QuantScheme(DType.I8, per_channel=True)
    graph, found = service.quantization_aware(detector(), ranges, scheme, PLAN, seed=1)
    assert graph.weights() != detector().weights()
    assert set(found) == {Value("stem")}
    assert found[Value("stem")].low == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("rounding", [False, True])
def test_the_epoch_that_the_program_likes_best_comes_back(
    service: TrainingService, rounding: bool
) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    epochs: list[Epoch] = []

    def error(epoch: Epoch) -> float:
        epochs.append(epoch)
        return abs(len(epochs) - 2.0)

    scheme = QuantScheme(DType.I8, per_channel=True)
    validation = Validation(error, "crops", crops)
    if rounding:
        ranges = dict.fromkeys(plan_grids(detector(), scheme).owners, ValueRange(-3.0, 3.0))
        kept, found = service.quantization_aware(
            detector(), ranges, scheme, PLAN, seed=1, rule="learned", validation=validation
        )
        assert found == epochs[1].ranges != epochs[3].ranges
    else:
        kept = service.finetune(detector(), PLAN, seed=1, validation=validation)
    assert validation.errors == [1.0, 0.0, 1.0, 2.0]
    assert str(validation).endswith("1.000, 0.000, 1.000, 2.000 %; kept epoch 2 of 4")
    assert kept.weights() == epochs[1].graph.weights() != epochs[3].graph.weights()
    inputs = {"image": CONTRACT.normalize(crops)}
    for epoch in epochs:
        graph = epoch.graph
        near = 1e-4
        if rounding:
            graph = quantize_graph(graph, epoch.ranges, scheme)
            near = graph.type(Value("landmarks")).quant.scale[0]
        assert np.abs(epoch.answers - run(graph, inputs)["landmarks"]).mean() < near


@pytest.mark.slow
def test_a_training_leaves_nothing_in_the_temporary_folder(
    faces: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with TrainingService(faces, CONTRACT) as service:
        service.train(detector(), PLAN, seed=1)
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_process_arrives_and_leaves_it_usable(service: TrainingService) -> None:
    with pytest.raises(BackendError, match="loss became"):
        service.finetune(detector(), replace(PLAN, learning_rate=1e30, loss="l2"), seed=1)
    process = service._process
    assert service.finetune(detector(), PLAN, seed=1).is_initialized
    assert service._process is process


@pytest.mark.slow
def test_a_killed_process_is_an_error_and_the_next_training_starts_another(
    service: TrainingService, tmp_path: Path
) -> None:
    long = replace(PLAN, epochs=10_000)

    def kill(progress: TrainingProgress) -> None:
        assert service._process is not None
        os.kill(service._process.pid, signal.SIGKILL)

    service.on_progress = kill
    with pytest.raises(BackendError, match=r"training process ended \(exit by signal 9\)"):
        service.train(detector(), long, seed=1)
    assert service._process is None

    def interrupt(progress: TrainingProgress) -> None:
        raise KeyboardInterrupt

    service.on_progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        service.train(detector(), long, seed=1)
    assert service._process is None
    service.on_progress = None
    file = tmp_path / "c.npz"
    trained = service.train(detector(), PLAN, seed=1, checkpoint=file)
    assert file.exists()
    assert service.train(detector(), PLAN, seed=1, checkpoint=file).weights() == trained.weights()


@pytest.mark.slow
def test_what_was_interrupted_goes_on_and_what_is_finished_is_forgotten(
    faces: Dataset, tmp_path: Path
) -> None:
    plan, reached = replace(PLAN, epochs=40), []

    def service(**more: object) -> TrainingService:
        return TrainingService(faces, CONTRACT, checkpoints=tmp_path, **more)  # type: ignore[arg-type]

    with service() as undisturbed:
        whole = undisturbed.finetune(detector(), plan, seed=1)
        (file,) = tmp_path.iterdir()  # until whoever asked has put the result by
        kept = file.read_bytes()
        undisturbed.finetune(detector(), PLAN, seed=1)
        assert file not in tmp_path.iterdir()
    assert not list(tmp_path.iterdir())

    file.write_bytes(kept)  # killed before the result was put by
    with service(on_progress=reached.append) as resumed:
        assert resumed.finetune(detector(), plan, seed=1).weights() == whole.weights()
        assert not reached  # no step was made again
        other = resumed.finetune(detector(), plan, seed=2)
        assert other.weights() != whole.weights() and reached[-1].step == 60
