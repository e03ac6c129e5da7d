"""The cache of pass results: taken when everything a pass read is the same, else not."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from lmopt.detector import IBUG_68, Contract, CropRule
from lmopt.ir import Graph
from lmopt.ir.text import parse_graph
from lmopt.pipeline import cache as cache_module
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult
from lmopt.pipeline.cache import PipelineCache, Shelf
from lmopt.pipeline.manager import Pipeline, PipelineResult
from lmopt.target.catalog import load_target
from tests.support.services import NudgingTrainer

GRAPH = parse_graph(
    "graph g\n%x = input() : f32[?,3]\n"
    "%y = dense(%x) {units=2} [bias=f32[2]~1, kernel=f32[3,2]~2]\n"
    "output out = %y"
)
CONTRACT = Contract(
    8, 8, "rgb", (0.0,) * 3, (255.0,) * 3, CropRule(), "landmarks", "xyxy", "unit", IBUG_68
)


@dataclass(frozen=True)
class Train(Pass):
    """Trains with the seed of the run."""

    name: ClassVar[str] = "train"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.TRAINER})
    epochs: float = 1.0

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        seed = ctx.derive_seed("train")
        return PassResult(ctx.trainer.finetune(graph, None, seed=seed), True, ("trained",))


@dataclass(frozen=True)
class Look(Pass):
    """Reads the contract and changes nothing."""

    name: ClassVar[str] = "look"

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        return PassResult(graph, False, (str(ctx.require_contract().crop),))


@dataclass(frozen=True)
class Fit(Pass):
    """Reads what the engine runs and changes nothing."""

    name: ClassVar[str] = "fit"

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        return PassResult(graph, False, (str(len(ctx.engine.supported_ops)),))


@dataclass(frozen=True)
class Ask(Pass):
    """Reads what the run may have or not and changes nothing."""

    name: ClassVar[str] = "ask"

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        found = (ctx.cost_if_any, ctx.calibrator_if_any, ctx.engine_if_any)
        return PassResult(graph, False, (str([item is not None for item in found]),))


@pytest.fixture
def cache(tmp_path: Path) -> PipelineCache:
    return PipelineCache(tmp_path / "cache")


def context(seed: int = 0, digest: str = "faces-1") -> PassContext:
    return PassContext(seed, None, CONTRACT, {Need.TRAINER: NudgingTrainer(digest)})


def run(
    cache: PipelineCache, *passes: Pass, ctx: PassContext | None = None, graph: Graph = GRAPH
) -> PipelineResult:
    return Pipeline(passes).run(graph, context() if ctx is None else ctx, cache=cache)


def cached(result: PipelineResult) -> list[bool]:
    return [step.cached for step in result.steps]


def test_a_second_run_takes_the_stored_result_and_does_no_work(cache: PipelineCache):
    first = run(cache, Train(), Look())
    ctx = context()
    second = run(cache, Train(), Look(), ctx=ctx)
    assert cached(first) == [False, False]
    assert cached(second) == [True, True]
    assert second.graph == first.graph
    assert second.notes == first.notes == ("trained", "landmarks box x1.25, square")
    assert [s.changed for s in second.steps] == [True, False]
    assert ctx.services[Need.TRAINER].calls == 0
    assert ctx.reads == {"seed": "0", "trainer": "faces-1", "contract": repr(CONTRACT)}


@pytest.mark.parametrize("need", [Need.COST, Need.CALIBRATOR, None])
def test_what_a_pass_found_missing_must_be_missing_again(cache: PipelineCache, need: Need | None):
    assert cached(run(cache, Ask())) == [False]
    assert cached(run(cache, Ask())) == [True]
    ctx = context()
    if need is None:
        ctx.target = load_target("velvet-gpu")
    else:
        ctx.services = {need: NudgingTrainer()}
    assert cached(run(cache, Ask(), ctx=ctx)) == [False]


def test_pipelines_that_begin_alike_share_the_beginning(cache: PipelineCache):
    run(cache, Train(), Train(2.0))
    assert cached(run(cache, Train(), Train(3.0))) == [True, False]
    assert cached(run(cache, Train(), Train(2.0), Train())) == [True, True, False]


@pytest.mark.parametrize(
    "ctx", [context(seed=1), context(digest="faces-2"), context(seed=1, digest="faces-2")]
)
def test_what_the_pass_read_must_be_the_same(cache: PipelineCache, ctx: PassContext):
    first = run(cache, Train())
    second = run(cache, Train(), ctx=ctx)
    assert cached(second) == [False]
    if ctx.seed:
        assert second.graph != first.graph
    assert cached(run(cache, Train())) == [True]
    assert cached(run(cache, Train(), ctx=ctx)) == [True]


def test_the_engine_that_a_pass_fits_a_graph_to_must_be_the_same(cache: PipelineCache) -> None:
    gpu, cpu = (load_target(name) for name in ("velvet-gpu", "velvet-cpu"))
    alike = replace(gpu, name="another", quantities={})
    for target, stored in ((gpu, False), (gpu, True), (alike, True), (cpu, False)):
        found = run(cache, Fit(), ctx=PassContext(target=target))
        assert cached(found) == [stored]


def test_what_the_pass_did_not_read_may_differ(cache: PipelineCache):
    run(cache, Look())
    assert cached(run(cache, Look(), ctx=context(seed=9, digest="other"))) == [True]
    other = replace(context(), contract=replace(CONTRACT, height=16))
    assert cached(run(cache, Look(), ctx=other)) == [False]


def test_weights_options_and_code_are_part_of_the_key(
    cache: PipelineCache, monkeypatch: pytest.MonkeyPatch
):
    run(cache, Train())
    edit = GRAPH.edit()
    edit.set_weights("y", bias=np.zeros(2, np.float32))
    assert cached(run(cache, Train(), graph=edit.done())) == [False]
    assert cached(run(cache, Train(1.5))) == [False]
    monkeypatch.setattr(cache_module, "_code", lambda package: "edited")
    cache_module._versions.cache_clear()
    assert cached(run(cache, Train())) == [False]
    monkeypatch.undo()
    cache_module._versions.cache_clear()
    assert cached(run(cache, Train())) == [True]


@pytest.mark.parametrize("pattern", ["*.npz", "*.json"])
@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"reads": 3}'])
def test_a_damaged_entry_is_noted_removed_and_made_anew(
    cache: PipelineCache, pattern: str, damage: bytes
):
    first = run(cache, Train())
    (victim,) = cache.folder.rglob(pattern)
    victim.write_bytes(damage)
    second = run(cache, Train())
    assert cached(second) == [False]
    assert second.graph == first.graph
    assert any("removed a damaged cache entry" in note for note in second.notes)
    third = run(cache, Train())
    assert cached(third) == [True]
    assert third.notes == ("trained",)


def test_a_missing_graph_file_counts_as_damage(cache: PipelineCache):
    run(cache, Train())
    next(cache.folder.rglob("*.npz")).unlink()
    assert cached(run(cache, Train())) == [False]


def test_an_entry_that_read_something_unknown_is_not_taken(cache: PipelineCache):
    run(cache, Train())
    record = next(cache.folder.rglob("*.json"))
    entry = json.loads(record.read_text())
    entry["reads"]["phase of the moon"] = "full"
    record.write_text(json.dumps(entry))
    assert cached(run(cache, Train())) == [False]


def test_a_service_without_a_digest_is_not_cached(cache: PipelineCache):
    ctx = context(digest="")
    assert "not cached, trainer has no digest" in run(cache, Train(), ctx=ctx).notes[-1]
    assert cached(run(cache, Train(), ctx=ctx)) == [False]


def test_a_folder_that_cannot_be_written_is_a_note(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    result = run(PipelineCache(tmp_path / "file"), Train())
    assert result.steps[0].changed
    assert "not cached" in result.notes[-1]


def test_provenance_survives(cache: PipelineCache):
    edit = GRAPH.edit()
    edit.touch("y", "earlier-pass")
    touched = edit.done()
    run(cache, Train(), graph=touched)
    again = run(cache, Train(), graph=touched).graph
    assert again.node("y").loc == touched.node("y").loc


def test_no_partial_files_are_left(cache: PipelineCache):
    run(cache, Train(), Look())
    assert {path.suffix for path in cache.folder.rglob("*") if path.is_file()} == {".npz", ".json"}


def test_a_shelf_gives_back_what_was_put_under_the_same_key(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "new")
    assert shelf.get("a", "b") is None
    shelf.put(b"found", "a", "b")
    assert shelf.get("a", "b") == b"found"
    assert shelf.get("a", "c") is shelf.get("ab") is None


def test_a_shelf_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shelf = Shelf(tmp_path / "file" / "shelf")
    shelf.put(b"found", "a")
    assert shelf.get("a") is None
