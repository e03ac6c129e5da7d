"""Keras files made by hand: what is read of settings, and what damaged files are told."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from lmopt.errors import InputError
from lmopt.frontend.keras import read
from lmopt.ir import ops
from lmopt.ir.interp import run

INPUT = {"class_name": "InputLayer", "config": {"batch_shape": [None, 4, 4, 2], "name": "image"}}

TENSOR = {"class_name": "__keras_tensor__", "config": {"keras_history": ["image", 0, 0]}}


def layer(kind, name="it", **config):
    return {"class_name": kind, "config": {"name": name, **config}}


def sequential(*layers):
    return {"class_name": "Sequential", "config": {"name": "net", "layers": [INPUT, *layers]}}


def functional(*layers, outputs):
    listed = [{**INPUT, "name": "image", "inbound_nodes": []}, *layers]
    config = {"layers": listed, "input_layers": [["image", 0, 0]], "output_layers": outputs}
    return {"class_name": "Functional", "config": {"name": "net", **config}}


def stored(groups):
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.create_group("layers")
        for slot, arrays in groups.items():
            for position, array in enumerate(arrays):
                file[f"{slot}/vars/{position}"] = np.asarray(array, np.float32)
    return memory.getvalue()


def archive(path, config, groups=None):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("model.weights.h5", stored(groups or {}))
    return path


def hdf5(path, config, groups):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        root = file.create_group("model_weights")
        for name, weights in groups.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key in weights]
            for key, array in weights.items():
                group[key] = np.asarray(array, np.float32)
    return path


def refused(path):
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.where and caught.value.where.startswith(str(path))
    assert caught.value.hint
    return caught.value


@pytest.fixture
def model(tmp_path):
    return tmp_path / "model.keras"


def test_one_layer_gives_one_node(model):
    graph = read(archive(model, sequential(layer("ReLU", max_value=6.0))))
    assert str(graph) == (
        "graph net\n%image = input() : f32[?,4,4,2]\n"
        "%it = relu6(%image) : f32[?,4,4,2]\noutput it = %it\n"
    )


def halfway(x, axis):
    """Twice as many pixels along an axis, each a quarter of the way to its neighbour."""
    size = x.shape[axis]
    places = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
    before = np.floor(places).astype(int)
    share = (places - before).reshape([-1 if k == axis else 1 for k in range(x.ndim)])
    after = np.minimum(before + 1, size - 1)
    return x.take(before, axis) * (1 - share) + x.take(after, axis) * share


@pytest.mark.parametrize(
    ("made", "want"),
    [
        (layer("ReLU", negative_slope=0.25), lambda x: np.where(x > 0, x, x / 4)),
        (layer("LeakyReLU", alpha=0.30000001192092896), lambda x: np.where(x > 0, x, 0.3 * x)),
        (layer("Activation", activation="swish"), lambda x: x / (1 + np.exp(-x))),
        (layer("Activation", activation="hard_silu"), lambda x: x * np.clip(x + 3, 0, 6) / 6),
        (layer("Rescaling", scale=0.5, offset=[1, 2]), lambda x: x / 2 + [1, 2]),
        (
            layer("Rescaling", scale={"class_name": "__numpy__", "config": {"value": [3, 4]}}),
            lambda x: x * [3, 4],
        ),
        (layer("Rescaling", scale=1.0), lambda x: x),
        (
            layer("Normalization", mean=[1, 2], variance=[4, 0.25]),
            lambda x: (x - [1, 2]) / [2, 0.5],
        ),
        (layer("Normalization", axis=None, mean=1, variance=4, invert=True), lambda x: x * 2 + 1),
        (layer("ZeroPadding2D", padding=1), lambda x: np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))),
        (
            layer("ZeroPadding2D", padding=[[0, 1], 2]),
            lambda x: np.pad(x, ((0, 0), (0, 1), (2, 2), (0, 0))),
        ),
        (layer("UpSampling2D", size=[2, 3]), lambda x: x.repeat(2, 1).repeat(3, 2)),
        (
            layer("UpSampling2D", interpolation="bilinear"),
            lambda x: halfway(halfway(x, 1), 2),
        ),
        (layer("Resizing", height=2, width=4), lambda x: (x[:, 0::2] + x[:, 1::2]) / 2),
        (
            layer("Resizing", height=2, width=2, interpolation="nearest"),
            lambda x: x[:, 1::2, 1::2],
        ),
        (layer("AveragePooling2D", pool_size=4), lambda x: x.mean((1, 2), keepdims=True)),
        (layer("MaxPooling2D", pool_size=[4, 4]), lambda x: x.max((1, 2), keepdims=True)),
        (layer("GlobalAveragePooling2D"), lambda x: x.mean((1, 2))),
        (layer("Reshape", target_shape=[8, -1]), lambda x: x.reshape(-1, 8, 4)),
        (layer("Dropout", rate=0.5), lambda x: x),
        (layer("ELU", alpha=0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
        (layer("Activation", activation="mish"), lambda x: x * np.tanh(np.log1p(np.exp(x)))),
        (
            layer("Gelu", approximate=True),
            lambda x: x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
        ),
        (
            layer("LayerNormalization", scale=False, center=False, epsilon=0.5),
            lambda x: (x - x.mean(3, keepdims=True)) / (x.var(3, keepdims=True) + 0.5) ** 0.5,
        ),
        *(
            (
                layer("Pad", pad_width=[[0, 0], [1, 0], [0, 2], [0, 0]], mode=mode),
                lambda x, mode=mode: np.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)), mode),
            )
            for mode in ("constant", "reflect", "symmetric")
        ),
    ],
)
def test_a_layer_without_weights_computes_what_its_settings_say(model, made, want):
    x = np.random.default_rng(3).normal(0, 2, (2, 4, 4, 2)).astype(np.float32)
    got = run(read(archive(model, sequential(made))), {"image": x})["it"]
    np.testing.assert_allclose(got, want(x.astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_weights_go_by_the_place_of_the_layer_among_its_kind(model):
    config = sequential(
        layer("Conv2D", "first", filters=2, kernel_size=1, use_bias=False),
        layer("Conv2D", "second", filters=1, kernel_size=[1, 1], activation="sigmoid"),
    )
    one, two, bias = np.full((1, 1, 2, 2), 2.0), np.full((1, 1, 2, 1), 3.0), [0.5]
    groups = {"layers/conv2d": [one], "layers/conv2d_1": [two, bias]}
    graph = read(archive(model, config, groups))
    assert [node.name for node in graph.nodes] == ["image", "first", "second/linear", "second"]
    np.testing.assert_array_equal(graph.node("first").weight("kernel").array, one)
    np.testing.assert_array_equal(graph.node("second/linear").weight("bias").array, bias)
    old = {key.replace("layers", "_layer_checkpoint_dependencies"): v for key, v in groups.items()}
    with zipfile.ZipFile(model, "w") as file:
        file.writestr("config.json", json.dumps(config))
        with h5py.File(io.BytesIO(stored(old)), "r+") as weights:
            del weights["layers"]
            weights.flush()
            file.writestr("model.weights.h5", weights.id.get_file_image())
    assert read(model) == graph


def test_batch_norm_without_scale_and_center_has_ones_and_zeros(model):
    config = sequential(layer("BatchNormalization", axis=[3], scale=False, center=False))
    graph = read(archive(model, config, {"layers/batch_normalization": [[1, 2], [3, 4]]}))
    weights = {key: weight.real().tolist() for key, weight in graph.node("it").weights.items()}
    assert weights == {"gamma": [1, 1], "beta": [0, 0], "mean": [1, 2], "variance": [3, 4]}


def test_names_become_identifiers(model):
    graph = read(archive(model, sequential(layer("ReLU", "a b"), layer("ReLU", "a:b"))))
    assert [node.name for node in graph.nodes] == ["image", "a_b", "a_b_2"]
    assert [name for name, _ in graph.outputs] == ["a_b"]


def test_calls_may_stand_before_what_feeds_them(model):
    late = {
        **layer("Add", "late"),
        "name": "late",
        "inbound_nodes": [[["b", 0, 0], ["image", 0, 0]]],
    }
    early = {**layer("ReLU", "b"), "name": "b", "inbound_nodes": [[["image", 0, 0, {}]]]}
    graph = read(archive(model, functional(late, early, outputs=["late", 0, 0])))
    assert [node.name for node in graph.nodes] == ["image", "b", "late"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (layer("Dot"), "no layer Dot"),
        (layer("Softmax", axis=1), "axis is 1"),
        (layer("Lambda", function=["code"]), "Python code"),
        (layer("ReLU", max_value=6.0, negative_slope=0.1), "max_value is 6.0"),
        (layer("ReLU", threshold=0.5), "threshold is 0.5"),
        (layer("Activation", activation="selu"), "activation is 'selu'"),
        (layer("Activation", activation="hard_sigmoid"), "2 and 3 differ in hard_sigmoid"),
        (layer("Cropping2D", cropping=[[2, 2], [0, 0]]), "cropping is"),
        (layer("Permute", dims=[1, 3]), "1 to 3 in some order"),
        (layer("Activation", activation={"class_name": "__lambda__"}), "activation is"),
        (layer("MaxPooling2D", data_format="channels_first"), "wanted 'channels_last'"),
        (layer("MaxPooling2D", padding="causal"), "padding is 'causal'"),
        (layer("MaxPooling2D", pool_size=[5, 5]), "leaves nothing"),
        (layer("MaxPooling2D", pool_size=[2, 2, 2]), "pool_size is"),
        (layer("Dense", units=-1), "units is -1"),
        (layer("Dense", units=2), "0 weights in the file; wanted 2 (kernel, bias)"),
        (layer("Dense", units=2, dtype={"config": {"mode": "int8"}}), "dtype is"),
        (layer("BatchNormalization", axis=1), "axis is 1"),
        (layer("PReLU", shared_axes=[4]), "shared_axes is [4]"),
        (layer("Activation", activation="gelu"), "activation is 'gelu'"),
        (layer("Gelu", approximate=False), "approximate is False; wanted true"),
        (layer("LayerNormalization", axis=0), "axis is 0"),
        (layer("LayerNormalization", rms_scaling=True), "rms_scaling is True"),
        (layer("Pad", pad_width=[[0, 0], [1, 1], [1, 1], [1, 0]]), "pad_width is"),
        (layer("Pad", pad_width=[[0, 0], [1, 1], [1, 1], [0, 0]], mode="wrap"), "mode is 'wrap'"),
        (layer("Reshape", target_shape=[5]), "reshape cannot put"),
        (layer("Rescaling", scale="x"), "scale is 'x'"),
        (layer("Rescaling", scale=1e39), "numbers that float32 holds"),
        (layer("ReLU", dtype=["float32"]), "dtype is ['float32']"),
        (layer("TFOpLambda", function="linalg.matmul"), "function is 'linalg.matmul'"),
        (layer("Normalization", mean=[1, 2, 3], variance=[1, 1, 1]), "each of 2 channels"),
        (layer("Add"), "called with 1 operands"),
        ({**layer("ReLU"), "module": "my.layers"}, "never runs"),
        ({**layer("ReLU"), "registered_name": "my>ReLU"}, "never runs"),
    ],
)
def test_a_layer_that_cannot_be_read_is_named(model, made, message):
    error = refused(archive(model, sequential(made)))
    assert f"layer 'it' ({made['class_name']})" in error.where
    assert message in error.what


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([[["nowhere", 0, 0, {}]]], "come from no layer"),
        ([[["it", 0, 0, {}]]], "come from no layer"),
        ([[["image", 0, 3, {}]]], "result 3 of call 0 of 'image' does not exist"),
        ([[["image", 0, 0, {"training": True}]]], "training=True"),
        ([[["image", 0, 0, {}], 7]], "cannot be read"),
        ([{"args": [{"class_name": "__keras_tensor__", "config": {}}]}], "cannot be read"),
        ([{"args": [{"class_name": "__lambda__"}], "kwargs": {}}], "called with __lambda__"),
        ([{"args": [TENSOR, "mean"], "kwargs": {}}], "called with 'mean'"),
        ([[["image", 0, 0, {"mask": None, "training": [1]}]]], "called with training=[1]"),
        ([[["_CONSTANT_VALUE", -1, [1.0, 2.0], {}]]], "called with [1.0, 2.0]"),
        ("image", "no list"),
        ([], "called with 0 operands"),
    ],
)
def test_a_call_that_cannot_be_read_is_named(model, nodes, message):
    it = {**layer("ReLU"), "name": "it", "inbound_nodes": nodes}
    error = refused(archive(model, functional(it, outputs=[["it", 0, 0]])))
    assert message in error.what and "'it' (ReLU)" in error.where


def piece(start=None, stop=None, step=None):
    return {"start": start, "stop": stop, "step": step}


def three(*items):
    """A slice as Keras 3 writes it."""
    kinds = [{"class_name": "__slice__", "config": i} if isinstance(i, dict) else i for i in items]
    node = {"args": [TENSOR, kinds if len(kinds) > 1 else kinds[0]], "kwargs": {}}
    return {**layer("GetItem"), "name": "it", "inbound_nodes": [node]}


def two(*items):
    """The same as Keras 2 writes it."""
    node = ["image", 0, 0, {"slice_spec": list(items)}]
    it = layer("SlicingOpLambda", function="__operators__.getitem")
    return {**it, "name": "it", "inbound_nodes": [node]}


@pytest.mark.parametrize("write", [two, three])
@pytest.mark.parametrize(
    ("items", "begin", "size", "stride"),
    [
        ((piece(), piece(step=2), piece(None, -1)), (0, 0, 0), (-1, 3, -1), (2, 1, 1)),
        ((piece(0), piece(1, 99), piece(-3, -1), piece()), (1, 1, 0), (-1, 2, -1), (1, 1, 1)),
        ((piece(), piece(-9), piece(), piece(1)), (0, 0, 1), (-1, -1, -1), (1, 1, 1)),
        ((piece(),), (0, 0, 0), (-1, -1, -1), (1, 1, 1)),
    ],
)
def test_brackets_are_a_slice(model, write, items, begin, size, stride):
    graph = read(archive(model, functional(write(*items), outputs=["it", 0, 0])))
    assert [node.name for node in graph.nodes] == ["image", "it"]
    assert graph.node("it").op == ops.Slice(begin, size, stride)


def test_numbers_and_an_ellipsis_in_brackets(model):
    it = three(piece(), -1, piece(), piece(1))
    it["inbound_nodes"][0]["args"][1][2] = {"class_name": "__ellipsis__", "config": {}}
    graph = read(archive(model, functional(it, outputs=["it", 0, 0])))
    x = np.random.default_rng(3).normal(size=(2, 4, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(run(graph, {"image": x})["it"], x[:, -1, ..., 1:])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ((piece(), piece(step=-1)), "it takes [:, ::-1]; wanted slices with steps above 0"),
        ((piece(), piece(step=0)), "it takes [:, ::0]; wanted slices"),
        ((piece(), None), "it takes [:, newaxis]; wanted slices"),
        ((piece(), 4), "it takes [:, 4]; wanted slices"),
        ((piece(1),), "it takes [1:] of [None, 4, 4, 2]; wanted"),
        ((0, piece(1, 2)), "it takes [0, 1:2] of"),
        ((piece(),) * 5, "it takes [:, :, :, :, :] of"),
        ((piece(), piece(4)), "it takes nothing"),
        ((piece(), [0, 2]), "its index holds [0, 2]"),
        ((piece(), ["image", 0, 0]), "its index holds ['image', 0, 0]"),
        ((piece(), piece("a")), "its index holds {"),
    ],
)
def test_brackets_that_no_slice_says_are_named(model, items, message):
    error = refused(archive(model, functional(two(*items), outputs=["it", 0, 0])))
    assert error.what.startswith(message) and "layer 'it' (SlicingOpLambda)" in error.where
    assert "damaged" not in error.hint


@pytest.mark.parametrize(
    ("made", "nodes", "message"),
    [
        (layer("Attention"), [{"args": [{"class_name": "x"}]}], "lmopt knows no layer Attention"),
        (layer("Einsum"), [{"args": ["ab,bc->ac", TENSOR]}], "lmopt knows no layer Einsum"),
        (layer("Mask"), [[["image", 0, 0, {"mask": [1]}]]], "lmopt knows no layer Mask"),
        (
            layer("TFOpLambda", function="einsum"),
            [["image", 0, 0, {"equation": "a"}]],
            "its function is 'einsum'; wanted one of",
        ),
    ],
)
def test_an_unknown_layer_is_named_whatever_it_is_called_with(model, made, nodes, message):
    it = {**made, "name": "it", "inbound_nodes": nodes}
    error = refused(archive(model, functional(it, outputs=[["it", 0, 0]])))
    assert error.what.startswith(message) and "cut the model before it" in error.hint
    assert f"layer 'it' ({made['class_name']})" in error.where


@pytest.mark.parametrize("outputs", [None, [], [["it"]], [["gone", 0, 0]], [["it", 0, True]]])
def test_outputs_that_cannot_be_read_are_refused(model, outputs):
    it = {**layer("ReLU"), "name": "it", "inbound_nodes": [[["image", 0, 0, {}]]]}
    refused(archive(model, functional(it, outputs=outputs)))


@pytest.mark.parametrize("shape", [None, [None], [None, None, 4, 3], [None, 0, 4, 3], "big"])
def test_an_input_needs_known_dimensions(model, shape):
    entry = {"class_name": "InputLayer", "config": {"batch_shape": shape, "name": "image"}}
    config = {"class_name": "Sequential", "config": {"layers": [entry, layer("ReLU")]}}
    assert "wanted" in refused(archive(model, config)).what


def test_a_subclassed_model_is_refused(model):
    error = refused(archive(model, {"class_name": "Net", "config": {"width": 3}}))
    assert "the model is a Net" in error.what and "keras.Model(inputs, outputs)" in error.hint


def test_weights_of_another_shape_are_refused(model):
    groups = {"layers/dense": [np.zeros((3, 2)), np.zeros(2)]}
    error = refused(archive(model, sequential(layer("Dense", units=2)), groups))
    assert error.what == "its kernel is [3, 2] in the file; wanted [2, 2]"


def test_nested_weights_of_a_h5_file_are_found_by_name(tmp_path):
    inner = sequential(layer("Dense", "a", units=1), layer("Dense", "b", units=1))
    inner["config"]["name"] = "inner"
    weights = {"b/kernel:0": [[3]], "b/bias:0": [4], "a/kernel:0": [[1], [2]], "a/bias:0": [0]}
    path = tmp_path / "model.h5"
    graph = read(hdf5(path, sequential(inner), {"inner": weights}))
    assert graph.node("inner/a").weight("kernel").real().tolist() == [[1], [2]]
    assert graph.node("inner/b").weight("bias").real().tolist() == [4]
    del weights["b/kernel:0"]
    error = refused(hdf5(path, sequential(inner), {"inner": weights}))
    assert "its kernel is not among the weights of the nested model 'inner'" in error.what


def test_links_out_of_the_file_are_refused(tmp_path):
    path = tmp_path / "model.h5"
    hdf5(path, sequential(layer("Dense", units=2)), {"it": {"k": np.eye(2), "b": [0, 0]}})
    hdf5(tmp_path / "other.h5", {}, {"it": {"k": np.eye(2)}})
    with h5py.File(path, "r+") as file:
        del file["model_weights/it/k"]
        file["model_weights/it/k"] = h5py.ExternalLink("other.h5", "model_weights/it/k")
    assert "link to another place" in refused(path).what


class TestDamage:
    """Every file that is no whole model is refused with a place and a next step."""

    def test_no_file(self, tmp_path):
        assert "no such file" in refused(tmp_path / "gone.keras").what

    def test_a_folder(self, tmp_path):
        assert "folder" in refused(tmp_path).what

    @pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps({"weights": [1]})])
    def test_another_format(self, model, content):
        model.write_bytes(content)
        assert "neither a zip archive" in refused(model).what

    @pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
    def test_an_archive_cut_short(self, model, share):
        archive(model, sequential(layer("ReLU")))
        data = model.read_bytes()
        model.write_bytes(data[: int(len(data) * share)])
        assert "has no end" in refused(model).what

    def test_an_archive_with_flipped_bytes(self, model):
        data = bytearray(archive(model, sequential(layer("ReLU"))).read_bytes())
        data[60:80] = bytes(20)
        model.write_bytes(bytes(data))
        assert "config.json cannot be read" in refused(model).what

    @pytest.mark.parametrize("kept", ["config.json", "model.weights.h5"])
    def test_an_archive_without_a_part(self, model, kept):
        with zipfile.ZipFile(model, "w") as file:
            file.writestr(kept, json.dumps(sequential(layer("ReLU"))))
        gone = {"config.json", "model.weights.h5"} - {kept}
        assert f"holds no {gone.pop()}" in refused(model).what

    @pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 100_000])
    def test_an_architecture_that_is_no_json_object(self, model, text):
        with zipfile.ZipFile(model, "w") as file:
            file.writestr("config.json", text)
            file.writestr("model.weights.h5", stored({}))
        assert "JSON" in refused(model).what

    def test_weights_that_are_no_hdf5(self, model):
        with zipfile.ZipFile(model, "w") as file:
            file.writestr("config.json", json.dumps(sequential(layer("ReLU"))))
            file.writestr("model.weights.h5", b"x")
        assert "cannot be opened" in refused(model).what

    def test_a_h5_file_cut_short(self, tmp_path):
        path = hdf5(tmp_path / "model.h5", sequential(layer("ReLU")), {"it": {}})
        path.write_bytes(path.read_bytes()[:-200])
        assert "cannot be opened" in refused(path).what

    @pytest.mark.timeout(100)
    def test_a_h5_file_that_its_library_would_read_for_ever(self, tmp_path, monkeypatch):
        monkeypatch.setattr("lmopt.trial.TIMEOUT_S", 4.0)
        path = tmp_path / "model.h5"
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = '{"class_name": "Sequential", "config": {"layers": []}}'
            file.attrs["keras_version"] = "2.21.0"
        data = bytearray(path.read_bytes())
        # The length of the text, which stands before it in the heap.
        data[data.index(b'{"class_name"') - 8] = 130
        path.write_bytes(data)
        assert "reading it does not end within 4 s" in refused(path).what

    def test_a_h5_file_of_weights_alone(self, tmp_path):
        path = tmp_path / "model.weights.h5"
        path.write_bytes(stored({"layers/dense": [[1.0]]}))
        error = refused(path)
        assert "no architecture" in error.what and "model.save" in error.hint

    def test_a_h5_file_without_weights(self, tmp_path):
        path = tmp_path / "model.h5"
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps(sequential(layer("ReLU")))
        assert "no weights" in refused(path).what

    def test_models_nested_without_end(self, model):
        inner = layer("ReLU")
        for depth in range(40):
            inner = sequential(inner)
            inner["config"]["name"] = f"m{depth}"
        assert "deep" in refused(archive(model, inner)).what


def test_reading_needs_no_tensorflow(model):
    archive(model, sequential(layer("ReLU")))
    code = (
        "import sys; from pathlib import Path; from lmopt.frontend.keras import read; "
        f"read(Path({str(model)!r})); "
        "print([m for m in ('tensorflow', 'keras', 'tf_keras') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
