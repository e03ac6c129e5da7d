"""The detectors that come with lmopt, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.detector import Detector
from lmopt.detector.scheme import IBUG_68
from lmopt.errors import UsageError, did_you_mean
from lmopt.ir.graph import Graph
from lmopt.zoo import dan, hrnet, pfld, pooled
from lmopt.zoo.archive import Arrays, read_archive, with_weights

WEIGHTS = Path(__file__).parent / "weights"
RECIPES = Path(__file__).parent / "recipes"
"""How each is trained, one `NAME.toml` per detector; see `lmopt.flow.recipe`."""
DEFAULT_WEIGHTS = "synthetic"
NO_WEIGHTS = "none"


@dataclass(frozen=True)
class Entry:
    """A zoo detector.

    Attributes:
        title: For people.
        build: Returns the uninitialised graph; None where there is no folded form.
        folded: Returns the graph without batch norms, or None.
        contract: What it eats and gives.
        begins: A detector that begins with this one, so that its weights serve for both.
    """

    title: str
    build: Callable[[], Graph]
    contract: Contract
    folded: Callable[[], Graph] | None = None
    begins: str | None = None


def _contract(size: int, channels: int) -> Contract:
    return Contract(
        height=size,
        width=size,
        color="gray" if channels == 1 else "rgb",
        mean=(0.0,) * channels,
        std=(255.0,) * channels,
        crop=CropRule("landmarks", 1.25, True),
        output="landmarks",
        order="xyxy",
        unit="unit",
        scheme=IBUG_68,
    )


def _pfld(name: str, title: str, widths: pfld.PfldWidths) -> Entry:
    return Entry(
        title,
        partial(pfld.build, name, widths),
        _contract(pfld.SIZE, 3),
        partial(pfld.build, name, widths, folded=True),
    )


def _pooled(name: str, title: str, pools: int) -> Entry:
    return Entry(title, partial(pooled.build, name, pools), _contract(pooled.SIZE, 1))


def _dan(name: str, stages: int, begins: str | None = None) -> Entry:
    return Entry(
        f"DAN, {stages} stage{'s' if stages > 1 else ''}, {dan.SIZE}x{dan.SIZE} gray",
        partial(dan.build, name, stages),
        _contract(dan.SIZE, 1),
        partial(dan.build, name, stages, folded=True),
        begins,
    )


def _hrnet(name: str) -> Entry:
    return Entry(
        f"HRNetV2-W18, heatmaps decoded inside, {hrnet.SIZE}x{hrnet.SIZE} RGB",
        partial(hrnet.build, name),
        _contract(hrnet.SIZE, 3),
        partial(hrnet.build, name, folded=True),
    )


DETECTORS: Mapping[str, Entry] = {
    "pfld-1.0": _pfld("pfld-1.0", "PFLD, full width, 112x112 RGB", pfld.FULL),
    "pfld-0.25": _pfld("pfld-0.25", "PFLD, bottlenecks x0.25, 112x112 RGB", pfld.QUARTER),
    "dan1": _dan("dan1", 1, begins="dan2"),
    "dan2": _dan("dan2", 2),
    "hrnet-w18": _hrnet("hrnet-w18"),
    "basic": _pooled("basic", "three convolutions, three max-poolings, 96x96 gray", 3),
    "two-pool": _pooled("two-pool", "three convolutions, two max-poolings, 96x96 gray", 2),
    "one-pool": _pooled("one-pool", "three convolutions, one max-pooling, 96x96 gray", 1),
}


def shipped_weights(name: str) -> tuple[str, ...]:
    """Returns the names of the weights that come with a detector."""
    found = (path.name for path in WEIGHTS.glob(f"{name}@*.npz"))
    return tuple(sorted(file.removeprefix(f"{name}@").removesuffix(".npz") for file in found))


def load(spec: str) -> Detector:
    """Returns a zoo detector for `NAME` or `NAME@WEIGHTS`.

    `NAME` alone takes the synthetic weights where they are shipped, else none; `NAME@none` takes
    none on purpose; `NAME@PATH.npz` takes those of a weight archive, as `lmopt train` writes it, of
    this detector or, for dan1, of dan2, which begins with it. Without weights the detector is
    uninitialised and knows its train command.

    Raises:
        UsageError: Unknown detector or weights, with what there is.
        InputError: The weights do not fit the detector.
    """
    name, at, wanted = spec.partition("@")
    if name not in DETECTORS:
        raise UsageError(
            f"unknown detector '{name}'", hint=_suggest(name, tuple(DETECTORS), "detectors")
        )
    entry, shipped = DETECTORS[name], shipped_weights(name)
    train = f"lmopt train {name} --data PATH"
    if not at and DEFAULT_WEIGHTS in shipped:
        wanted = DEFAULT_WEIGHTS
    elif not at or wanted == NO_WEIGHTS:
        return Detector(spec, entry.build(), entry.contract, train)
    if wanted.endswith(".npz"):
        return _with_archive(name, Path(wanted))
    if wanted not in shipped:
        choices = (*shipped, NO_WEIGHTS)
        raise UsageError(
            f"no weights '{wanted}' for detector '{name}'",
            hint=f"{_suggest(wanted, choices, 'weights')}; or train it: {train}",
        )
    return replace(_with_archive(name, WEIGHTS / f"{name}@{wanted}.npz"), name=f"{name}@{wanted}")


def _with_archive(name: str, path: Path) -> Detector:
    entry, arrays = DETECTORS[name], read_archive(path)
    own = _beginning(entry, arrays) or arrays
    graph = with_weights(_form(entry, own), own, str(path))
    return Detector(f"{name}@{path}", graph, entry.contract)


def _beginning(entry: Entry, arrays: Arrays) -> Arrays | None:
    """Returns a detector's own part of the weights of the one it begins; None for other weights."""
    if entry.begins is None or _names(_form(DETECTORS[entry.begins], arrays)) != arrays.keys():
        return None
    return {name: arrays[name] for name in _names(_form(entry, arrays))}


def _form(entry: Entry, arrays: Arrays) -> Graph:
    graph = entry.build()
    if entry.folded is None or _names(graph) <= arrays.keys():
        return graph
    return entry.folded()


def _names(graph: Graph) -> set[str]:
    return {f"{node.name}/{key}" for node in graph.nodes for key in node.weights}


def _suggest(name: str, known: Sequence[str], noun: str) -> str:
    guess = did_you_mean(name, known)
    return f"{f'{guess} ' if guess else ''}{noun}: {', '.join(known)}"
