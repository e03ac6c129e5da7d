"""Activation statistics of a float graph on faces, from the very file the runtime would run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lmopt.calibration.kernel_inputs import moments_of
from lmopt.codegen.tflite import emit
from lmopt.data.augment import TrainingFaces
from lmopt.data.crop import cut_all, mean_shape
from lmopt.data.dataset import Dataset
from lmopt.detector.contract import Contract
from lmopt.errors import PassError
from lmopt.ir.graph import Graph, Value
from lmopt.ir.types import DType, ValueRange
from lmopt.pipeline.services import Moments, Observer
from lmopt.quant.ranges import OBSERVERS, ActivationSample, rounding_error
from lmopt.runtime.runner import Runner, to_model_input

VALUES_PER_FACE = 2048
"""Of each activation that the choice of its range looks at, about."""
FACE_COUNTS = (12, 25, 50, 100, 200, 400)
"""Numbers of calibration faces that `FaceCalibrator.excess_errors` compares."""
OTHER_FACES = 200
"""Faces it compares them on, at most half of all."""
_BATCH = 2


class FaceCalibrator:
    """Observes activations on training faces; implements `lmopt.pipeline.services.Calibrator`.

    Attributes:
        digest: Covers faces and contract.
    """

    def __init__(self, faces: Dataset, contract: Contract, *, threads: int = 2) -> None:
        """Keeps the training faces.

        Args:
            faces: Faces to draw from; test faces must not be among them.
            contract: How faces are cut and fed.
            threads: Threads of the runtime.
        """
        self._faces = faces
        self._contract = contract
        self._threads = threads
        self._cut: dict[tuple[int, bool], NDArray[np.uint8]] = {}
        self.digest = hashlib.blake2b(
            f"{faces.digest}/{contract!r}".encode(), digest_size=16
        ).hexdigest()

    @property
    def available(self) -> int:
        """Returns how many training faces there are."""
        return len(self._faces.faces)

    def ranges(
        self,
        graph: Graph,
        values: Sequence[Value],
        observer: Observer,
        *,
        faces: int,
        storage: DType,
        augmented: bool = False,
    ) -> Mapping[Value, ValueRange]:
        """Returns the range `observer` chooses for each value.

        The input keeps the exact range that the contract's normalisation gives bytes. Faces are
        seen upright, or (`augmented`) turned, moved and recoloured as training shows them.

        Raises:
            PassError: There are no faces, or a value is not finite.
        """
        choose = OBSERVERS[observer]
        samples = self._samples(graph, _computed(graph, values), self.crops(faces, augmented))
        found = {value: choose(sample, storage) for value, sample in samples.items()}
        return {**found, **dict.fromkeys((n.value for n in graph.inputs), self._input_range())}

    def excess_errors(
        self, graph: Graph, values: Sequence[Value], observer: Observer, *, storage: DType
    ) -> Mapping[int, float]:
        """Returns what ranges from few faces cost on others, by the number of faces.

        It is the squared rounding error above the least that any range reaches on the others, as a
        part of that, averaged over values. See `FACE_COUNTS`.

        Raises:
            PassError: There are fewer than two faces, or a value is not finite.
        """
        watched = _computed(graph, values)
        drawn = self.crops(FACE_COUNTS[-1] + OTHER_FACES)
        if len(drawn) < 2:
            raise PassError(f"{len(drawn)} training face; wanted at least 2", hint="set faces=1")
        drawn = drawn[np.random.default_rng(1).permutation(len(drawn))]
        most = len(drawn) - min(OTHER_FACES, len(drawn) // 2)
        others = self._samples(graph, watched, drawn[most:])
        least = {
            value: rounding_error(OBSERVERS["mse"](sample, storage), sample, storage)
            for value, sample in others.items()
        }
        curve = {}
        for count in (*(n for n in FACE_COUNTS if n < most), min(most, FACE_COUNTS[-1])):
            samples = self._samples(graph, watched, drawn[:count])
            errors = {
                value: rounding_error(OBSERVERS[observer](sample, storage), others[value], storage)
                for value, sample in samples.items()
            }
            excess = [errors[value] / least[value] - 1 for value in watched if least[value] > 0]
            curve[count] = float(np.mean(excess)) if excess else 0.0
        return curve

    def _samples(
        self, graph: Graph, values: Sequence[Value], pixels: NDArray[np.uint8]
    ) -> dict[Value, ActivationSample]:
        with Runner(_showing(graph, values), threads=self._threads) as runner:
            info = runner.inputs[0]
            feed = to_model_input(self._contract.normalize(pixels), info)
            found = runner.sample({info.name: feed}, VALUES_PER_FACE, np.random.default_rng(0))
        seen = (found[_shown(position)] for position in range(len(values)))
        return {
            value: ActivationSample(float(each.low), float(each.high), each.values)
            for value, each in zip(values, seen, strict=True)
        }

    def means(
        self, graph: Graph, values: Sequence[Value], *, faces: int
    ) -> Mapping[Value, NDArray[np.float64]]:
        """Returns the mean of each value over faces, as real numbers, without the batch.

        Raises:
            PassError: There are no faces.
        """
        if not values:
            return {}
        sums: list[NDArray[np.float64]] = [np.zeros(())] * len(values)
        for results in self.observed(graph, values, faces):
            for position, array in enumerate(results):
                sums[position] = sums[position] + array.sum(axis=0, dtype=np.float64)
        count = len(self.crops(faces))
        return {value: total / count for value, total in zip(values, sums, strict=True)}

    def mean_landmarks(self, *, faces: int) -> NDArray[np.float64]:
        """Returns the mean annotation of the faces that `means` sees, in unit coordinates.

        Raises:
            PassError: There are no faces.
        """
        return mean_shape(self._drawn(faces).faces, self._contract.crop)

    def values(
        self, graph: Graph, values: Sequence[Value], *, faces: int
    ) -> Mapping[Value, NDArray[np.floating]]:
        """Returns each value on every face, as real numbers.

        Raises:
            PassError: There are no faces.
        """
        pixels = self._contract.normalize(self.crops(faces))
        watched = _computed(graph, dict.fromkeys(values))
        parts: list[list[NDArray[np.floating]]] = [[] for _ in watched]
        if watched:
            for found in self.observed(graph, watched, faces):
                for part, array in zip(parts, found, strict=True):
                    part.append(array)
        seen = {v: np.concatenate(part) for v, part in zip(watched, parts, strict=True)}
        return {value: seen.get(value, pixels) for value in values}

    def kernel_inputs(
        self, graph: Graph, names: Sequence[str], *, faces: int
    ) -> Mapping[str, Moments]:
        """Returns the moments of what kernels are multiplied with; see `moments_of`.

        Raises:
            PassError: There are no faces.
        """
        nodes = [graph.node(name) for name in names]
        watched = _computed(graph, dict.fromkeys(node.inputs[0] for node in nodes))

        def operands() -> Iterator[list[NDArray[np.floating]]]:
            pixels = self._contract.normalize(self.crops(faces))
            for number, found in enumerate(self.observed(graph, watched, faces)):
                seen = dict(zip(watched, found, strict=True))
                batch = pixels[number * _BATCH : (number + 1) * _BATCH]
                yield [seen.get(node.inputs[0], batch) for node in nodes]

        return moments_of(nodes, operands())

    def observed(
        self, graph: Graph, values: Sequence[Value], faces: int, augmented: bool = False
    ) -> Iterator[list[NDArray[np.floating]]]:
        """Yields what each value is, as real numbers, for batches of the same faces each time."""
        pixels = self.crops(faces, augmented)
        yield from values_on_crops(graph, values, pixels, self._contract, threads=self._threads)

    def _input_range(self) -> ValueRange:
        ends = self._contract.normalize(
            np.array([[0] * self._contract.channels, [255] * self._contract.channels], np.uint8)
        )
        return ValueRange(float(ends.min()), float(ends.max()))

    def crops(self, count: int, augmented: bool = False) -> NDArray[np.uint8]:
        """Returns the calibration crops, [count, height, width, channels], upright or augmented.

        Raises:
            PassError: There are no faces.
        """
        if (count, augmented) not in self._cut:
            some = self._drawn(count)
            if augmented:
                pixels, _ = TrainingFaces(some, self._contract).batch(len(some), seed=0, index=0)
            else:
                pixels = cut_all(some, self._contract).pixels
            self._cut[count, augmented] = pixels
        return self._cut[count, augmented]

    def _drawn(self, count: int) -> Dataset:
        if count < 1:
            raise PassError(f"{count} calibration faces; wanted at least 1", hint="set faces=200")
        order = np.random.default_rng(0).permutation(len(self._faces.faces))[:count]
        if not len(order):
            raise PassError("there are no training faces to calibrate on")
        chosen = {self._faces.faces[k].id for k in order}
        return self._faces.keep(lambda face: face.id in chosen)


def values_on_crops(
    graph: Graph,
    values: Sequence[Value],
    pixels: NDArray[np.uint8],
    contract: Contract,
    *,
    threads: int,
) -> Iterator[list[NDArray[np.floating]]]:
    """Yields what values of a graph's file are, as real numbers, for batches of crops."""
    grids = [graph.type(value).quant for value in values]
    with Runner(_showing(graph, values), threads=threads) as runner:
        info = runner.inputs[0]
        for start in range(0, len(pixels), _BATCH):
            batch = contract.normalize(pixels[start : start + _BATCH])
            found = runner.run({info.name: to_model_input(batch, info)})
            yield [
                array if grid is None else grid.dequantize(array)
                for array, grid in zip(
                    (found[_shown(k)] for k in range(len(grids))), grids, strict=True
                )
            ]


def _computed(graph: Graph, values: Iterable[Value]) -> list[Value]:
    """Returns those values that are no inputs."""
    inputs = {node.value for node in graph.inputs}
    return [value for value in values if value not in inputs]


def _showing(graph: Graph, values: Sequence[Value]) -> bytes:
    """Returns the file of a graph that has values for further outputs."""
    edit = graph.edit()
    for position, value in enumerate(values):
        edit.output(_shown(position), value)
    return emit(edit.done())


def _shown(position: int) -> str:
    return f"observed_{position}"
