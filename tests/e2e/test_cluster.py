"""Searches on a real Ray cluster: several nodes on this machine, one of which is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import lmopt
from lmopt.errors import BackendError, UsageError
from lmopt.flow import cluster as clusters
from lmopt.flow.cluster import Cluster
from lmopt.flow.events import Event, Noted, Raced, Training
from lmopt.flow.request import SearchRequest
from lmopt.flow.workbench import Workbench
from tests.e2e.test_search import SPACE, detector
from tests.support.android_device import Device
from tests.support.phones import PLAIN, requires_adb

ray = pytest.importorskip("ray", reason="no Ray: pip install 'lmopt[cluster]'")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[object]:
    """A head without cores, and a node with one."""
    from ray.cluster_utils import Cluster as Nodes

    made = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=1)
    try:
        yield made
    finally:
        made.shutdown()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    source, path = detector(), tmp_path / "small.tflite"
    path.write_bytes(Workbench(source, None, None).file(source.graph))
    (tmp_path / "space.toml").write_text(SPACE.to_toml())
    return path


@requires_adb
def test_a_killed_nodes_work_is_done_elsewhere_and_the_phones_node_measures(
    nodes, small, faces, tmp_path, phone: Device
):
    doomed = [nodes.add_node(num_cpus=1)]
    owner = nodes.add_node(num_cpus=0, resources={clusters.PHONE: 1})
    tool = tmp_path / "benchmark_model"
    tool.write_text(PLAIN)  # says that a file takes a microsecond a byte
    seen: list[Event] = []

    def listen(event: Event) -> None:
        seen.append(event)
        if doomed and sum(isinstance(e, Raced) and e.fidelity == 1 for e in seen) == 2:
            nodes.remove_node(doomed.pop(), allow_graceful=False)

    request = SearchRequest(
        target="auto",
        detector=str(small),
        data=(faces,),
        space=tmp_path / "space.toml",
        device="adb",
        threads=4,
        benchmark_model=tool,
        cluster=nodes.address,
        out=tmp_path / "out",
    )
    try:
        result = lmopt.search(request, listen)
    finally:
        nodes.remove_node(owner)
    notes = [event.text for event in seen if isinstance(event, Noted)]
    assert sum(note.endswith("makes candidates") for note in notes) == 2
    assert sum(note.endswith("is made elsewhere") for note in notes) == 1
    sketches = {str(tried.asked.sketch) for tried in result.candidates}
    assert sketches == {f"prune{{amount={share}}}" for share in (0.3, 0.5, 0.7)}
    assert not [tried.failure for tried in result.candidates if tried.failure]
    rows = [row for tried in result.candidates for row in tried.findings]
    assert max(len(tried.findings) for tried in result.candidates) == 3
    assert sorted(row.place for row in rows) == list(range(len(rows)))  # nothing was made twice
    # What makers trained was not trained again here: it came from the cache they share.
    assert not [event for event in seen if isinstance(event, Training)]

    base = result.optimized.baseline
    assert result.optimized.target == "p30-cpu" and "VOG-L29" in base.latency.where
    for tried in result.candidates:
        size = tried.findings[0].size_bytes
        assert tried.findings[0].latency_ms == size / 1e3
        assert tried.findings[0].ms.value == pytest.approx(size / base.trained.size_bytes)
    for point in result.optimized.front:
        assert point.latency.kind == "measured"
        score = lmopt.evaluate(Path(point.trained.model), faces)
        assert score.nme_percent == pytest.approx(point.nme_percent, abs=1e-9)
    assert phone.left == []


def test_a_node_that_would_make_something_else_is_refused(
    nodes, small, faces, tmp_path, monkeypatch
):
    monkeypatch.setattr(clusters, "code_here", lambda: "another")
    request = SearchRequest(
        target="velvet-apu",
        detector=str(small),
        data=(faces,),
        space=tmp_path / "space.toml",
        latency="estimate",
        cluster=nodes.address,
        out=tmp_path / "out",
    )
    with pytest.raises(BackendError, match=r"maker 1 on .*: this node has another lmopt"):
        lmopt.search(request)


def test_what_is_no_cluster_is_said() -> None:
    with pytest.raises(UsageError, match="must run on a node of the cluster"):
        Cluster("ray://somewhere:10001", print)
    with (
        pytest.raises(BackendError, match=r"no Ray cluster answers"),
        Cluster("127.0.0.1:1", print),
    ):
        pass
