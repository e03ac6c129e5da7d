"""Networks of published latencies are the papers', and their rows are found."""

from pathlib import Path

import pytest

from benchmarks.published.catalog import find, network
from benchmarks.published.series import COLUMNS, SERIES, networks, read_table
from benchmarks.published_latency import evaluate, table
from lmopt.cost.fit import Fit
from lmopt.errors import InputError

# Parameters in millions as the papers or their releases count them, batch norms folded.
PARAMETERS = {
    "mobilenet": (4.22, 568),
    "MobileNet v2": (3.49, 300),
    "MobileNet v3 Large": (5.47, 217),
    "MobileNet v3 Small": (2.53, 56),
    "shufflenet_v2": (2.27, 145),
    "GhostNet_x1_0": (5.17, 141),
    "mnasnet": (4.36, 314),
    "squeezenet": (1.24, 349),
    "resnet18": (11.68, 1814),
    "ResNet50": (25.53, 4089),
    "vgg16": (138.36, 15470),
    "googlenet": (7.00, 1583),
    "DenseNet 121": (7.91, 2834),
    "HRNet_W18_C": (21.27, 4284),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_size_that_their_papers_give(name: str) -> None:
    graph = network(name, 224)
    assert graph is not None
    millions, macs = PARAMETERS[name]
    assert graph.parameters / 1e6 == pytest.approx(millions, rel=0.005)
    assert graph.macs / 1e6 == pytest.approx(macs, rel=0.01)


def test_names_of_all_frameworks_find_their_network() -> None:
    same = ("MobileNetV1", "mobilenet", "Mobilenet_1.0_224(float)", "MobileNetV1_quant")
    assert len({str(network(name, 224)) for name in same}) == 1
    assert find("resnet50_int8") is not None and find("ResNet200_vd") is not None
    assert find("NASNet mobile") is None and find("vision_transformer") is None


def write(path: Path, rows: list[tuple[str, float]]) -> Path:
    head = "Kirin 980,CPU A76 2.6 GHz (1 big core),Paddle-Lite 2.11,fp32,1"
    lines = [f"{head},{name},224,{ms}," for name, ms in rows]
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    return path


def test_a_table_is_fitted_and_left_out_networks_predicted(tmp_path: Path) -> None:
    names = ("MobileNetV1", "MobileNetV2", "MobileNetV3_small_x1_0", "ResNet50")
    series = next(s for s in SERIES if s.name == "Kirin 980 (A76), Paddle-Lite 2.11")
    flat = networks(series, read_table(write(tmp_path / "flat.csv", [(n, 1.0) for n in names])))
    # Latencies that follow the form exactly, on a processor a quarter faster than expected.
    truth = Fit({**series.expected, "rate": 1.25 * series.expected["rate"]})
    rows = [(n.name, truth.ms(n.samples[0])) for n in flat]
    rows.append(("unheard of", 3.0))
    outcome = evaluate(series, read_table(write(tmp_path / "made.csv", rows)))
    assert outcome.total == 5 and len(outcome.networks) == 4
    assert max(outcome.errors()) < 0.1 and outcome.threads == (1,)
    assert "| 4 / 5 | 1 |" in table([outcome])


def test_a_missing_table_says_which_columns_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--table FILE"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="lacks the columns soc"):
        read_table(tmp_path / "other.csv")
