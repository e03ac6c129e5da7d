from pathlib import Path

import numpy as np
import pytest

from lmopt import zoo
from lmopt.errors import InputError, UsageError
from lmopt.pipeline.base import PassContext
from lmopt.pipeline.manager import Pipeline
from lmopt.zoo import catalog, dan, pfld

COUNTS = {
    "pfld-1.0": 1_236_544,
    "pfld-0.25": 320_608,
    "dan1": 11_150_664,
    "dan2": 23_108_444,
    "hrnet-w18": 9_688_536,
    "basic": 8_326_340,
    "two-pool": 31_558_340,
    "one-pool": 136_006_340,
}


@pytest.mark.parametrize("name", zoo.DETECTORS)
def test_parameter_counts(name: str) -> None:
    assert zoo.load(f"{name}@none").graph.parameters == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "millions"), [("pfld-1.0", 273), ("dan1", 2557), ("dan2", 5129), ("hrnet-w18", 4660)]
)
def test_macs_are_those_of_the_thesis(name: str, millions: int) -> None:
    assert round(zoo.load(f"{name}@none").graph.macs / 1e6) == millions


@pytest.mark.parametrize("name", zoo.DETECTORS)
def test_contract_fits_the_graph(name: str) -> None:
    detector = zoo.load(f"{name}@none")
    contract = detector.require_contract()
    (image,) = detector.graph.inputs
    assert image.name == "image"
    assert image.results[0].shape == (None, contract.height, contract.width, contract.channels)
    ((output, value),) = detector.graph.outputs
    assert output == contract.output
    assert detector.graph.type(value).shape == (None, 2 * contract.scheme.count)


def test_pfld_feature_scales() -> None:
    graph = pfld.build("p", pfld.FULL)
    assert graph.node("block13_project_bn").results[0].shape == (None, 14, 14, 16)
    assert graph.node("s2_relu").results[0].shape == (None, 7, 7, 32)
    assert graph.node("s3").results[0].shape == (None, 1, 1, 128)
    assert graph.node("features").results[0].shape == (None, 176)
    adds = [n.name for n in graph.nodes if n.op.kind == "add"]
    assert adds == [f"block{k}_add" for k in (2, 3, 4, 5, 7, 8, 9, 10, 11, 12)]


def test_unknown_detector_is_a_usage_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        zoo.load("pfdl-0.25")
    assert "unknown detector 'pfdl-0.25'" in str(caught.value)
    assert "did you mean 'pfld-0.25'" in str(caught.value)
    assert "one-pool" in str(caught.value)


def test_unknown_weights_name_the_train_call() -> None:
    with pytest.raises(UsageError, match="lmopt train basic"):
        zoo.load("basic@imagenet")


def test_a_detector_without_weights_refuses_and_names_the_train_call() -> None:
    with pytest.raises(InputError, match=r"lmopt train pfld-1\.0 --data"):
        zoo.load("pfld-1.0@none").require_weights()


@pytest.mark.parametrize("folded", [False, True])
def test_shipped_weights_load_in_the_form_they_were_written(
    folded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "WEIGHTS", tmp_path)
    graph = zoo.initialize(pfld.build("pfld-0.25", pfld.QUARTER, folded=folded), 3)
    zoo.write_archive(graph, tmp_path / "pfld-0.25@synthetic.npz", half=False)
    detector = zoo.load("pfld-0.25")
    assert detector.name == "pfld-0.25@synthetic"
    assert detector.graph.digest() == graph.digest()
    assert ("stem_bn" in detector.graph) is not folded


@pytest.mark.parametrize("folded", [False, True])
def test_a_shorter_cascade_takes_its_part_of_a_longer_ones_weights(
    folded: bool, tmp_path: Path
) -> None:
    long = zoo.initialize(dan.build("dan2", 2, folded=folded), 3)
    zoo.write_archive(long, tmp_path / "dan2.npz", half=False)
    short = zoo.load(f"dan1@{tmp_path / 'dan2.npz'}").graph
    assert "stage2_offset" not in short
    for node in short.nodes:
        for key, weight in node.weights.items():
            np.testing.assert_array_equal(weight.real(), long.node(node.name).weight(key).real())


def test_weights_with_foreign_layers_are_no_longer_cascade(tmp_path: Path) -> None:
    zoo.write_archive(zoo.initialize(dan.build("dan1", 1), 3), tmp_path / "dan1.npz")
    arrays = zoo.read_archive(tmp_path / "dan1.npz")
    np.savez(tmp_path / "more.npz", **arrays, **{"stage2_offset/kernel": np.zeros(3)})
    with pytest.raises(InputError, match=r"1 unknown \(first: stage2_offset/kernel\)"):
        zoo.load(f"dan1@{tmp_path / 'more.npz'}")


def test_half_weights_come_back_rounded(tmp_path: Path) -> None:
    graph = zoo.initialize(pfld.build("p", pfld.QUARTER), 3)
    zoo.write_archive(graph, tmp_path / "w.npz")
    back = zoo.with_weights(graph, zoo.read_archive(tmp_path / "w.npz"), "w.npz")
    kernel = graph.node("stem").weight("kernel").real()
    np.testing.assert_array_equal(
        back.node("stem").weight("kernel").real(), kernel.astype(np.float16).astype(np.float32)
    )


def test_weights_of_another_graph_are_refused(tmp_path: Path) -> None:
    graph = zoo.initialize(pfld.build("p", pfld.QUARTER), 3)
    zoo.write_archive(graph, tmp_path / "w.npz")
    arrays = dict(zoo.read_archive(tmp_path / "w.npz"))
    with pytest.raises(InputError, match="has shape"):
        zoo.with_weights(pfld.build("p", pfld.FULL), arrays, "w.npz")
    del arrays["stem/kernel"]
    with pytest.raises(InputError, match=r"1 missing \(first: stem/kernel\)"):
        zoo.with_weights(graph, arrays, "w.npz")


def _bytes_of_an_archive(tmp_path: Path) -> bytes:
    np.savez_compressed(tmp_path / "good.npz", **{"stem/kernel": np.arange(999.0)})
    return (tmp_path / "good.npz").read_bytes()


@pytest.mark.parametrize("damage", ["cut", "flipped", "array", "pickle", "text", "missing"])
def test_a_file_that_is_no_archive_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    good = _bytes_of_an_archive(tmp_path)
    if damage == "array":
        np.save(path.open("wb"), np.zeros(3))
    elif damage == "pickle":
        np.savez(path, **{"stem/kernel": np.array([{}], object)})
    elif damage != "missing":
        middle = len(good) // 2
        flipped = good[:middle] + bytes(255 - b for b in good[middle : middle + 9])
        path.write_bytes(
            {"cut": good[:99], "flipped": flipped + good[middle + 9 :], "text": b"hello"}[damage]
        )
    with pytest.raises(InputError, match=r"w\.npz: not a readable weight archive"):
        zoo.read_archive(path)


def test_initial_values_follow_the_seed_and_the_fan() -> None:
    graph = pfld.build("p", pfld.FULL)
    one, two = zoo.initialize(graph, 1), zoo.initialize(graph, 2)
    assert one.is_initialized
    assert one.digest() == zoo.initialize(graph, 1).digest() != two.digest()
    kernel = one.node("block7_expand").weight("kernel").real()
    assert kernel.std() == pytest.approx((2 / 128) ** 0.5, rel=0.02)
    dense = one.node("landmarks").weight("kernel").real()
    assert np.abs(dense).max() <= (6 / (176 + 136)) ** 0.5
    assert one.node("stem_bn").weight("variance").real().tolist() == [1.0] * 64


@pytest.mark.parametrize("name", ["pfld-1.0", "pfld-0.25", "dan1", "dan2", "hrnet-w18"])
def test_the_folded_form_is_what_folding_gives(name: str) -> None:
    entry = zoo.DETECTORS[name]
    assert entry.folded is not None
    folded = Pipeline.parse("fold-batchnorm").run(entry.build(), PassContext()).graph
    assert str(folded) == str(entry.folded())
