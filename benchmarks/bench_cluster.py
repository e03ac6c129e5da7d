"""How many candidates an hour a second node of a cluster adds, measurements still alone.

    python -m benchmarks.bench_cluster --data FACES/afw FACES/helen FACES/lfpw

Two Ray nodes with one core each on this machine against one such node: the same candidates, each
trained, scored and then measured on this machine, while whoever trains there waits. Runs are taken
in the order one, two, two, one, each with an empty cache.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

from lmopt.files import write_atomically
from lmopt.flow.candidates import obtain
from lmopt.flow.cluster import Cluster
from lmopt.flow.crew import Scored, Task
from lmopt.flow.gauging import Gauge
from lmopt.flow.host_profile import target_named
from lmopt.flow.journal import Journal
from lmopt.flow.pipelines import BASELINE
from lmopt.flow.request import SearchRequest
from lmopt.flow.sources import as_faces, load
from lmopt.flow.workbench import Workbench
from lmopt.latency import host
from lmopt.pipeline.manager import Pipeline
from lmopt.report.json_document import json_text

RESULTS = Path(__file__).parent / "results" / "cluster.json"
ORDER = (1, 2, 2, 1)


def main() -> None:
    """Runs all four and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--detector", default="pfld-0.25@300w")
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=Path("out/bench_cluster"))
    given = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    for nodes in ORDER:
        shutil.rmtree(given.out, ignore_errors=True)
        rates[nodes].append(candidates_per_hour(nodes, given))
        print(f"{nodes} nodes: {rates[nodes][-1]:.0f} candidates an hour", flush=True)
    gain = float(np.mean(rates[2]) / np.mean(rates[1]))
    document = {
        "machine": str(host.describe()),
        "detector": given.detector,
        "epochs": given.epochs,
        "candidates": given.candidates,
        "candidates_per_hour": {str(nodes): found for nodes, found in rates.items()},
        "gain": gain,
    }
    write_atomically(RESULTS, (json_text(document) + "\n").encode())
    print(f"two nodes make {gain:.2f} times as many candidates an hour as one")


def candidates_per_hour(count: int, given: argparse.Namespace) -> float:
    """Returns the rate of `count` nodes with one core each, all makers ready beforehand."""
    from ray.cluster_utils import Cluster as Nodes

    detector, faces, target = load(given.detector), as_faces(given.data, None), target_named("host")
    journal = Journal(given.out)
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(count):
            nodes.add_node(num_cpus=1)
        with (
            Workbench(detector, faces, target, cache=journal.cache) as bench,
            Cluster(nodes.address, print) as cluster,
        ):
            baseline, _ = obtain(bench, journal, Pipeline.parse(BASELINE))
            gauge = Gauge(SearchRequest("host", threads=1), target, baseline)
            crew = cluster.crew(bench, journal, tuple(given.data))
            crew.wait(count)
            for number in range(count):  # so that TensorFlow is loaded everywhere
                text = f"{BASELINE},finetune{{epochs=0.0{number + 1}}}"
                crew.begin(Task(-number - 1, 1, Pipeline.parse(text)))
            for _ in range(count):
                crew.finish()
            shares = np.linspace(0.1, 0.6, given.candidates)
            texts = [f"prune{{amount={x:.3g}}},finetune{{epochs={given.epochs:g}}}" for x in shares]
            waiting = [
                Task(number, 1, Pipeline.parse(f"{BASELINE},{text}"))
                for number, text in enumerate(texts)
            ]
            start, made = time.monotonic(), 0
            while made < given.candidates:
                while waiting and not crew.is_full:
                    crew.begin(waiting.pop(0))
                outcome = crew.finish()
                assert isinstance(outcome.found, Scored), outcome.found
                gauge.of(outcome.found.made)
                made += 1
            return made / (time.monotonic() - start) * 3600
    finally:
        nodes.shutdown()


if __name__ == "__main__":
    main()
