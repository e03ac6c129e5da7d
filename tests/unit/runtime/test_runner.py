import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from lmopt.codegen.tflite import emit
from lmopt.errors import BackendError, InputError
from lmopt.ir.edit import Edit
from lmopt.ir.ops import Relu, Reshape
from lmopt.runtime.runner import ITEMS_PER_REQUEST, Runner, file_digest
from tests.support.tiny_tflite import (
    crashing_model,
    dense_model,
    quantize_model,
    slow_model,
)

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4) / 10
BIAS = np.array([1, 2, 3], np.float32)
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def dense() -> bytes:
    return dense_model(WEIGHTS, BIAS)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not is_running(pid):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("kernels", ["default", "builtin", "reference"])
def test_a_batch_runs_item_by_item(dense, kernels) -> None:
    faces = np.random.default_rng(0).random((2 * ITEMS_PER_REQUEST + 3, 4)).astype(np.float32)
    with Runner(dense, kernels=kernels) as runner:
        (image,), (landmarks,) = runner.inputs, runner.outputs
        found = runner.run({"image": faces})
    assert (image.name, image.dtype, image.shape, image.scale) == ("image", "float32", (1, 4), None)
    assert (landmarks.name, landmarks.shape) == ("landmarks", (1, 3))
    np.testing.assert_allclose(found["landmarks"], faces @ WEIGHTS.T + BIAS, rtol=1e-5)


def test_a_tensor_with_two_names_is_found_by_both() -> None:
    edit = Edit("twice")
    value = edit.add("act", Relu(), edit.input("image", (None, 3)))
    for name in ("a", "z"):
        edit.output(name, value)
    with Runner(emit(edit.done())) as runner:
        found = runner.run({"image": np.array([[-1.0, 2.0, 3.0]], np.float32)})
    answer = [[0.0, 2.0, 3.0]]
    assert {name: array.tolist() for name, array in found.items()} == {"a": answer, "z": answer}


def test_a_file_is_read_and_known_by_its_digest(dense, tmp_path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(dense)
    with Runner(path) as runner:
        assert runner.digest == file_digest(dense)
    with pytest.raises(InputError, match=r"no-such\.tflite: the model file cannot be read"):
        Runner(tmp_path / "no-such.tflite")


def test_integers_go_in_and_out_untouched() -> None:
    # real = byte / 255 on the way in and (stored - 10) / 100 on the way out
    with Runner(quantize_model([1, 3], 0.01, 10), kernels="reference") as runner:
        assert runner.inputs[0].dtype == runner.outputs[0].dtype == "uint8"
        assert runner.inputs[0].scale == pytest.approx(1 / 255)
        assert (runner.outputs[0].scale, runner.outputs[0].zero_point) == (pytest.approx(0.01), 10)
        found = runner.run({"image": np.array([[0, 51, 255]], np.uint8)})
    assert found["landmarks"].tolist() == [[10, 30, 110]]


def test_time_returns_as_many_samples_as_asked(dense) -> None:
    with Runner(dense) as runner:
        samples = runner.time(warmup=2, runs=7)
    assert len(samples) == 7
    assert all(sample > 0 for sample in samples)


def test_tensors_holds_every_value_of_the_last_item(dense) -> None:
    faces = np.eye(4, dtype=np.float32)
    with Runner(dense, kernels="reference", preserve_all=True) as runner:
        runner.run({"image": faces})
        tensors = runner.tensors()
    assert sorted(tensors) == ["bias", "in0", "kernel", "out0"]
    np.testing.assert_array_equal(tensors["in0"], faces[-1:])
    np.testing.assert_allclose(tensors["out0"], [WEIGHTS[:, 3] + BIAS], rtol=1e-6)


def test_preserve_all_refuses_xnnpack(dense) -> None:
    with pytest.raises(BackendError, match="does not show its intermediate tensors"):
        Runner(dense, preserve_all=True)


@pytest.mark.parametrize(
    ("feeds", "complaint"),
    [
        ({"face": np.zeros((1, 4), np.float32)}, r"inputs \['face'\] given, wanted \['image'\]"),
        ({"image": np.zeros((1, 5), np.float32)}, r"got float32\[1, 5\], wanted float32 items"),
        ({"image": np.zeros((1, 4), np.uint8)}, r"got uint8\[1, 4\]"),
        ({"image": np.zeros((0, 4), np.float32)}, r"got float32\[0, 4\]"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_worker_lives_on(dense, feeds, complaint) -> None:
    with Runner(dense) as runner:
        with pytest.raises(BackendError, match=complaint):
            runner.run(feeds)
        assert runner.run({"image": np.zeros((1, 4), np.float32)})["landmarks"].shape == (1, 3)


@pytest.mark.parametrize("data", [b"garbage", b"", b"\0" * 1000], ids=["text", "empty", "zeros"])
def test_a_corrupt_file_is_refused_with_litert_s_reason(data) -> None:
    with pytest.raises(BackendError, match=r"LiteRT refuses to load the model: .+") as caught:
        Runner(data)
    assert caught.value.hint


def test_a_crash_becomes_an_error_that_names_the_signal() -> None:
    with pytest.raises(BackendError, match=r"crashed with SIGSEGV .* while it was to load"):
        Runner(crashing_model())


def test_a_hang_ends_with_the_time_limit_and_the_worker_stays_dead() -> None:
    with Runner(slow_model(), kernels="reference") as runner:
        runner.timeout_s = 0.3
        pid = runner.pid
        with pytest.raises(BackendError, match=r"did not answer within 0\.3 s while"):
            runner.time(warmup=0, runs=1000)
        assert not is_running(pid)
        with pytest.raises(BackendError, match="worker has ended: the runtime did not answer"):
            runner.time(warmup=0, runs=1)


def test_a_worker_killed_from_outside_is_an_error(dense) -> None:
    with Runner(dense) as runner:
        os.kill(runner.pid, signal.SIGKILL)
        with pytest.raises(BackendError, match="SIGKILL"):
            runner.run({"image": np.zeros((1, 4), np.float32)})


def test_closing_ends_the_worker_and_later_requests_say_so(dense) -> None:
    with Runner(dense) as runner:
        pid = runner.pid
        assert is_running(pid)
    assert not is_running(pid)
    runner.close()
    with pytest.raises(BackendError, match="it was closed"):
        runner.time(warmup=0, runs=1)


def test_the_worker_dies_with_its_parent_even_during_an_inference() -> None:
    script = """
        from lmopt.runtime.runner import Runner
        from tests.support.tiny_tflite import slow_model
        runner = Runner(slow_model(), kernels="reference")
        print(runner.pid, flush=True)
        runner.time(warmup=0, runs=1000)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until_gone(pid)


def test_the_worker_ignores_modules_of_the_current_folder(dense, tmp_path, monkeypatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    with Runner(dense) as runner:
        assert runner.inputs[0].name == "image"


def test_a_worker_takes_one_model_after_the_other(dense) -> None:
    faces = np.ones((2, 4), np.float32)
    with Runner(dense) as runner:
        pid, first = runner.pid, runner.digest
        runner.load(dense_model(2 * WEIGHTS, BIAS))
        found = runner.run({"image": faces})
        assert runner.pid == pid and runner.digest != first
    np.testing.assert_allclose(found["landmarks"], 2 * faces @ WEIGHTS.T + BIAS, rtol=1e-5)


def test_a_sample_has_the_extremes_and_evenly_spaced_values() -> None:
    edit = Edit("copy")
    edit.output("y", edit.add("relu", Relu(), edit.input("image", (None, 100))))
    edit.output("z", edit.add("same", Relu(), edit.input("other", (None, 3))))
    items = ITEMS_PER_REQUEST + 2
    faces = np.random.default_rng(0).uniform(1, 2, (items, 100)).astype(np.float32)
    other = np.arange(3 * items, dtype=np.float32).reshape(items, 3)
    faces[items - 1, 7], faces[0, 3] = 9.0, 0.5
    with Runner(emit(edit.done())) as runner:
        found = runner.sample({"image": faces, "other": other}, 10, np.random.default_rng(1))
    assert (found["y"].low, found["y"].high) == (0.5, 9.0)
    kept = found["y"].values.reshape(items, 10)
    starts = [
        int(np.flatnonzero(row == first[0])[0]) for row, first in zip(faces, kept, strict=True)
    ]
    assert set(starts) == set(range(10))
    for row, start, values in zip(faces, starts, kept, strict=True):
        np.testing.assert_array_equal(values, row[start::10])
    np.testing.assert_array_equal(found["z"].values, other.reshape(-1))


def test_a_sample_of_what_is_no_number_says_so() -> None:
    edit = Edit("copy")
    edit.output("y", edit.add("flat", Reshape(), edit.input("image", (None, 2, 2, 1))))
    broken = np.array([[1, np.nan, 2, 3], [1, 2, 3, 4]], np.float32).reshape(2, 2, 2, 1)
    with Runner(emit(edit.done()), kernels="builtin") as runner:
        found = runner.sample({"image": broken}, 1, np.random.default_rng(1))["y"]
    assert np.isnan(found.low)
    assert np.isnan(found.high)
