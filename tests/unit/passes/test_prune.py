from dataclasses import dataclass, field

import numpy as np
import pytest

from lmopt import zoo
from lmopt.errors import PassError, UsageError
from lmopt.ir.channels import channel_groups
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.pipeline.base import Need, PassContext
from lmopt.pipeline.services import SparsityPlan, TrainingPlan
from lmopt.pipeline.validation import Validation
from lmopt_passes.finetune import Finetune
from lmopt_passes.prune import Prune


@dataclass
class RecordingTrainer:
    """Stands in for training: zeroes kernels and remembers what it was asked."""

    digest: str = "faces"
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def finetune(
        self,
        graph: Graph,
        plan: TrainingPlan,
        *,
        seed: int,
        validation: Validation | None = None,
    ) -> Graph:
        self.calls.append((plan, seed))
        return self._halved(graph)

    def sparsify(
        self, graph: Graph, plan: TrainingPlan, sparsity: SparsityPlan, *, seed: int
    ) -> Graph:
        self.calls.append((plan, sparsity, seed))
        return self._halved(graph)

    def _halved(self, graph: Graph) -> Graph:
        edit = Edit.of(graph)
        for node in graph.nodes:
            if "kernel" in node.weights:
                kernel = node.weights["kernel"].real().copy()
                kernel.reshape(-1)[::2] = 0
                edit.set_weights(node.name, kernel=kernel)
        return edit.done()


@pytest.fixture(scope="module")
def detector() -> Graph:
    return zoo.initialize(zoo.load("pfld-0.25@none").graph, 0)


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.9])
def test_the_asked_share_of_macs_goes_and_hardly_more(detector: Graph, amount: float) -> None:
    result = Prune(amount, align=1).apply(detector, PassContext())
    assert 1 - amount - 0.02 <= result.graph.macs / detector.macs <= 1 - amount
    assert result.graph.parameters < detector.parameters
    assert "channels removed; MACs 52.4 M -> " in result.notes[0]


def test_layers_keep_the_minimum_and_the_alignment(detector: Graph) -> None:
    small = Prune(0.6, min_channels=12, align=8).apply(detector, PassContext()).graph
    sizes = [group.size for group in channel_groups(small) if group.removable]
    assert all(size % 8 == 0 and size >= 16 for size in sizes)


def test_the_channels_that_cost_most_go_first(detector: Graph) -> None:
    small = Prune(0.5).apply(detector, PassContext()).graph

    def channels(name: str) -> tuple[int, int]:
        return tuple(graph.node(name).results[0].shape[-1] for graph in (detector, small))

    assert channels("stem")[1] < 32 < channels("stem")[0]  # a channel there costs most
    assert channels("s3") == (128, 128)  # 1 of 500 MACs
    assert small.parameters > 0.9 * detector.parameters


def test_an_unreachable_amount_says_what_is_reachable(detector: Graph) -> None:
    with pytest.raises(PassError, match="ask for at most 0"):
        Prune(0.99, min_channels=16).apply(detector, PassContext())


def test_untrained_graphs_are_refused() -> None:
    with pytest.raises(PassError, match="%stem: prune reads weights"):
        Prune().apply(zoo.load("pfld-0.25@none").graph, PassContext())


@pytest.mark.parametrize(
    "options", [{"amount": 0.0}, {"amount": 1.0}, {"min_channels": 0}, {"align": 0}]
)
def test_options_out_of_range_are_usage_errors(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        Prune(**options)


def test_only_magnitude_needs_a_trainer() -> None:
    assert Prune().required() == frozenset()
    assert Prune(method="magnitude").required() == {Need.TRAINER}


def test_magnitude_trains_to_the_sparsity(detector: Graph) -> None:
    trainer = RecordingTrainer()
    ctx = PassContext(seed=3, services={Need.TRAINER: trainer})
    item = Prune(0.5, method="magnitude", epochs=1.5, learning_rate=1e-4, batch=8, loss="l1")
    result = item.apply(detector, ctx)
    ((plan, sparsity, seed),) = trainer.calls
    assert (plan.epochs, plan.learning_rate, plan.batch, plan.loss) == (1.5, 1e-4, 8, "l1")
    assert sparsity == SparsityPlan(0.5)
    assert 0 <= seed < 2**31
    assert result.notes[0] == "50.0% of kernel entries are 0"
    assert "no faster" in result.notes[1]
    assert ctx.reads[Need.TRAINER] == "faces"


def test_finetune_passes_its_plan_on(detector: Graph) -> None:
    trainer = RecordingTrainer()
    ctx = PassContext(seed=3, services={Need.TRAINER: trainer})
    result = Finetune(epochs=0.5, learning_rate=2e-3, batch=16, loss="l2").apply(detector, ctx)
    ((plan, _),) = trainer.calls
    assert plan == TrainingPlan(0.5, 2e-3, 16, "l2")
    assert result.changed
    assert result.notes[-1] == "kept the last epoch"
    assert np.count_nonzero(result.graph.node("stem").weight("kernel").real()) <= 864


def test_finetune_without_faces_says_how_to_give_them(detector: Graph) -> None:
    with pytest.raises(PassError, match="--data"):
        Finetune().apply(detector, PassContext())


@pytest.mark.parametrize("options", [{"epochs": 0}, {"learning_rate": -1.0}, {"batch": 0}])
def test_finetune_options_out_of_range_are_usage_errors(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        Finetune(**options)
