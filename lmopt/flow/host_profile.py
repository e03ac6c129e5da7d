"""The numbers of the target `host`: this machine's, measured once and kept in the cache."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.cost.estimate import MODEL, estimate
from lmopt.cost.kernels import Kernel, kernels
from lmopt.errors import BackendError, InputError
from lmopt.files import default_cache, write_atomically
from lmopt.flow.events import Activity, Listener, Noted, ignore
from lmopt.flow.folding import folded
from lmopt.flow.prices import path_of, with_prices
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.op import Op
from lmopt.ir.ops import Add, Conv2D, DepthwiseConv2D
from lmopt.latency import host
from lmopt.latency.harness import compare
from lmopt.latency.micronets import stored
from lmopt.target.catalog import load_target
from lmopt.target.profile import Quantity, Target
from lmopt.target.vocabulary import REQUIRED, UNITS

HOST = "host"
HOW = "lmopt inspect pfld-0.25@none --target host"
"""The command that measures this machine when it has not been."""
FIT = f"{MODEL}; chains, version 2"
"""What the numbers were fitted for and how; others in the cache are measured again."""
SHORT, LONG = 2, 10
"""Ops in the two chains whose difference tells the time of one op."""
LEAST_US = 0.01
"""Least overhead: what the clock cannot tell from nothing."""
LEAST_ARITHMETIC = 0.25
"""Least part of a convolution's time that counts as arithmetic, however slow memory seems."""
LEAST_ERROR = 0.3
SIXTEEN_BITS = ("peak_i16", "depthwise_i16", "bandwidth_i16")
"""What the runtime's own kernels reach, which its engine does not take."""
HELD_OUT = "pfld-0.25@none"


@dataclass(frozen=True)
class Chain:
    """Equal ops one behind the other, on tensors as landmark detectors have them.

    Attributes:
        op: Keeps the shape of its operand.
        shape: Height, width and channels.
        storage: f32, i8, u8 or i16.
    """

    op: Op
    shape: tuple[int, int, int]
    storage: str = "f32"

    def graph(self, length: int) -> Graph:
        """Returns `length` ops named op0, op1 and so on, with float ends."""
        edit = Edit("chain")
        image = value = edit.input("image", (None, *self.shape))
        for k in range(length):
            others = (image,) if self.op.arity == 2 else ()
            value = edit.add(f"op{k}", self.op, value, *others)
        edit.output("y", value)
        return stored(zoo.initialize(edit.done(), 0), self.storage)


CHAINS: Mapping[str, Chain] = {
    "tiny": Chain(Add(), (1, 1, 8)),
    "memory": Chain(Add(), (56, 56, 32)),
    "pointwise": Chain(Conv2D(32, (1, 1)), (28, 28, 32)),
    "window": Chain(Conv2D(16, (3, 3)), (28, 28, 16)),
    "depthwise": Chain(DepthwiseConv2D((3, 3)), (28, 28, 64)),
    "pointwise_i8": Chain(Conv2D(32, (1, 1)), (28, 28, 32), "i8"),
    "depthwise_i8": Chain(DepthwiseConv2D((3, 3)), (28, 28, 64), "i8"),
    "pointwise_u8": Chain(Conv2D(32, (1, 1)), (28, 28, 32), "u8"),
    "memory_i16": Chain(Add(), (28, 28, 32), "i16"),
    "pointwise_i16": Chain(Conv2D(32, (1, 1)), (28, 28, 32), "i16"),
    "depthwise_i16": Chain(DepthwiseConv2D((3, 3)), (28, 28, 16), "i16"),
}


def host_target(listen: Listener = ignore) -> Target:
    """Returns the target `host` with this machine's numbers, measured when none are kept.

    Measuring takes about ten seconds and has the machine to itself. The numbers serve estimates
    alone: a latency that is reported for this host is measured on the very file.

    Args:
        listen: Hears that a measurement begins, and what disturbed it.

    Raises:
        BackendError: The timings make no sense, or the machine is not free for measuring.
    """
    known = known_host()
    if known.quantities:
        return known
    listen(Activity("measuring the rates of this machine, about ten seconds"))
    path = profile_path()
    found, busy = _measure(known)
    if busy > 0:
        listen(Noted(f"other work took {busy:.1f} cores meanwhile: delete {path} to measure again"))
    document = {"fit": FIT, "quantities": {key: asdict(q) for key, q in found.items()}}
    try:
        write_atomically(path, json.dumps(document, indent=1).encode())
    except InputError as error:
        listen(Noted(f"the rates of this machine are not kept: {error}"))
    return replace(known, quantities=found)


def known_host() -> Target:
    """Returns the target `host` with the numbers kept for this machine; none if there are none.

    Its thread counts are those that this machine has.
    """
    target = load_target(HOST)
    threads = tuple(n for n in target.threads if n <= host.usable_cores()) or (1,)
    target = replace(target, threads=threads)
    found = _read(profile_path(), _wanted(target))
    return with_prices(replace(target, quantities=found), prices_path()) if found else target


def target_named(name: str | Path) -> Target:
    """Returns a target with what is known of it: by calibration, and of this machine if `host`.

    Raises:
        UsageError: No such target.
        InputError: Its file is broken.
    """
    if name == HOST:
        return known_host()
    target = load_target(name)
    return with_prices(target, path_of(target.name))


def profile_path() -> Path:
    """Returns where this machine's numbers are kept: a file named by its fingerprint."""
    return default_cache() / "hosts" / f"{host.describe().fingerprint}.json"


def prices_path() -> Path:
    """Returns where the prices of a calibrated machine are kept, beside its numbers."""
    return profile_path().with_suffix(".prices.json")


def _wanted(target: Target) -> frozenset[str]:
    peaks = (f"peak_{storage}" for storage in target.storage)
    speedups = (f"speedup_{count}" for count in target.threads if count > 1)
    return frozenset({*REQUIRED, *peaks, *speedups, *SIXTEEN_BITS})


def _read(path: Path, wanted: frozenset[str]) -> dict[str, Quantity]:
    """Returns the kept numbers, or none unless they are whole and fitted the present way."""
    try:
        document = json.loads(path.read_bytes())
        found = {key: Quantity(**entry) for key, entry in document["quantities"].items()}
        whole = document["fit"] == FIT and found.keys() == wanted
        sound = all(q.unit == UNITS[k] and 0 < q.value < math.inf for k, q in found.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return found if whole and sound else {}


def _measure(target: Target) -> tuple[dict[str, Quantity], float]:
    """Returns every number of this machine, and the cores that disturbing work took (0: none).

    Chains are timed in one interleaved run on one thread. Thread counts are timed in a second,
    of one chain and the detectors that check the fit: all chains at all of them would be more
    processes than a machine bears.
    """
    chains = {
        (name, length): emit(chain.graph(length))
        for name, chain in CHAINS.items()
        for length in (SHORT, LONG)
    }
    drawn = folded(zoo.load(HELD_OUT).graph)
    checks = {storage: stored(drawn, storage) for storage in ("f32", "i8")}
    with host.exclusive("measuring the rates of this machine"):
        single = compare(
            {f"{name}/{length}": data for (name, length), data in chains.items()}, max_seconds=4.0
        )
        threaded = compare(
            {
                "pointwise": chains["pointwise", LONG],
                **{storage: emit(graph) for storage, graph in checks.items()},
            },
            threads=target.threads,
            max_seconds=2.0,
        )
    us = {(name, length): single[f"{name}/{length}", 1].p50 * 1e3 for name, length in chains}
    by_threads = {count: threaded["pointwise", count].p50 * 1e3 for count in target.threads}
    load = max(m.other_load if m.busy else 0.0 for m in (*single.values(), *threaded.values()))
    source = _source(load)
    values = fit(target, us, by_threads)
    found = {key: Quantity(v, UNITS[key], "fitted", source) for key, v in values.items()}
    half = f"as peak_f32: float16 weights are computed in float32; {source}"
    found["peak_f16"] = replace(found["peak_f16"], source=half)
    fitted = replace(target, quantities=found)
    worst = max(
        abs(estimate(graph, fitted, threads=count).latency_ms / threaded[storage, count].p50 - 1)
        for storage, graph in checks.items()
        for count in target.threads
    )
    found["error"] = Quantity(
        max(worst, LEAST_ERROR),
        UNITS["error"],
        "fitted",
        f"{HELD_OUT}, in float and int8 and not in the fit, is off by up to {worst:.0%}; at least "
        f"{LEAST_ERROR:.0%} is stated; {source}",
    )
    return found, load


def fit(
    target: Target, us: Mapping[tuple[str, int], float], by_threads: Mapping[int, float]
) -> dict[str, float]:
    """Returns the numbers of a CPU by name, in the units of the target schema.

    One op of a chain takes the difference of the long and the short one per op. The tiny chain
    gives the launch of a kernel and, less its launches, the call itself; what other ops take
    beyond a launch is their work:

    * `bandwidth`: bytes of the memory-bound chain over its time.
    * `peak_f32`: the faster of the two float convolutions, pointwise and 3x3, memory traffic off;
      `conv_share` is the geometric mean of both over it.
    * `peak_i8`, `peak_u8`: `peak_f32` times the gain of the pointwise convolution in that storage.
    * `bandwidth_i16`, `peak_i16`, `depthwise_i16`: of sums, pointwise and depthwise convolutions in
      16 bits.
    * `depthwise_share`: depthwise rate over the peak of its storage, geometric mean of float
      and int8.
    * `speedup_n`: time of the long pointwise chain on one thread over that on n, overheads off.
    * `error`: `LEAST_ERROR`, until detectors outside the fit say more.

    Args:
        target: Tells how a graph becomes kernels.
        us: Median time of a chain by its name and length, on one thread.
        by_threads: Median time of the long pointwise chain by thread count.

    Units:
        Times are microseconds.

    Raises:
        BackendError: Ten ops took no longer than two.
    """

    def step(name: str) -> float:
        return (us[name, LONG] - us[name, SHORT]) / (LONG - SHORT)

    launch = max(step("tiny"), LEAST_US)
    invoke = max(us["tiny", SHORT] - SHORT * launch, LEAST_US)

    def work(name: str) -> float:
        return _positive(step(name) - launch, f"one op of the chain '{name}'")

    bandwidth = _kernel("memory", target).nbytes / work("memory") / 1e3

    def rate(name: str, bandwidth: float = bandwidth) -> float:
        kernel = _kernel(name, target)
        spent = work(name)
        arithmetic = max(spent - kernel.nbytes / bandwidth / 1e3, LEAST_ARITHMETIC * spent)
        return kernel.macs / arithmetic / 1e3

    def spent(count: int) -> float:
        beyond = by_threads[count] - invoke - LONG * launch
        return _positive(beyond, f"the pointwise chain on {count} threads")

    convolutions = (rate("pointwise"), rate("window"))
    peak = max(convolutions)
    gain = {storage: rate(f"pointwise_{storage}") / rate("pointwise") for storage in ("i8", "u8")}
    moved = _kernel("memory_i16", target).nbytes / work("memory_i16") / 1e3
    depthwise = (rate("depthwise") / peak, rate("depthwise_i8") / (peak * gain["i8"]))
    return {
        "peak_f32": peak,
        "peak_f16": peak,
        **{f"peak_{storage}": peak * value for storage, value in gain.items()},
        "peak_i16": rate("pointwise_i16", moved),
        "depthwise_i16": rate("depthwise_i16", moved),
        "bandwidth_i16": moved,
        "conv_share": _geometric_mean(convolutions) / peak,
        "depthwise_share": _geometric_mean(depthwise),
        "bandwidth": bandwidth,
        "kernel_overhead": launch,
        "invoke_overhead": invoke,
        **{f"speedup_{n}": spent(1) / spent(n) for n in by_threads if n > 1},
        "error": LEAST_ERROR,
    }


def _kernel(name: str, target: Target) -> Kernel:
    """Returns what the cost model makes of one op of a chain."""
    graph = CHAINS[name].graph(SHORT)
    return next(kernel for kernel in kernels(graph, target) if kernel.node == "op1")


def _positive(us: float, what: str) -> float:
    if us > 0:
        return us
    raise BackendError(
        f"{what} seems to take {us:.2f} us: timings on this machine make no sense now",
        hint="try again when less else is running",
    )


def _geometric_mean(values: Sequence[float]) -> float:
    return math.prod(values) ** (1 / len(values))


def _source(load: float) -> str:
    here = host.describe()
    cores = f"{here.cores} core{'s' if here.cores != 1 else ''}"
    busy = f", while other work took {load:.1f} cores" if load > 0 else ""
    return f"measured on {here.cpu}, {cores} on {date.today()} with LiteRT {here.litert}{busy}"
