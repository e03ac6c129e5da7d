"""A model file in the runtime, read through its contract."""

from __future__ import annotations

import math
from dataclasses import fields
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.detector.document import CONTRACT_KEY, contract_from_json
from lmopt.errors import BackendError, InputError
from lmopt.frontend import tflite
from lmopt.runtime.runner import Runner, TensorInfo, from_model_output, to_model_input

FACES_AT_ONCE = 256


class LoadedModel:
    """Finds landmarks in crops; loaded once, used as a context manager.

    Attributes:
        contract: What the file eats and gives.
        digest: 32 hex digits over the file's bytes.
    """

    def __init__(
        self,
        data: bytes,
        contract: Contract,
        where: str,
        *,
        threads: int = 1,
        timeout_s: float = 60,
    ) -> None:
        """Loads a file.

        Raises:
            InputError: The file's own contract or its tensors do not fit the contract.
            BackendError: The runtime refuses the file.
        """
        _check_own_contract(data, contract, where)
        self.contract, self._where = contract, where
        self._runner = Runner(data, threads=threads, timeout_s=timeout_s, name=where)
        try:
            self._image, self._coordinates = _border(self._runner, contract, where)
        except InputError:
            self._runner.close()
            raise
        self.digest = self._runner.digest

    def find(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Returns the landmarks in unit coordinates of each crop, [faces, landmarks, 2].

        Shapes:
            crops: [faces, height, width, channels] in the contract's colour order.

        Raises:
            InputError: The output is not two numbers per landmark.
            BackendError: The runtime fails on the file, or the file answers with NaN.
        """
        outputs = []
        for start in range(0, len(crops), FACES_AT_ONCE):
            image = self.stored(crops[start : start + FACES_AT_ONCE])
            answer = self._runner.run({self._image.name: image})
            outputs.append(from_model_output(answer[self._coordinates.name], self._coordinates))
        points = self.contract.decode(np.concatenate(outputs))
        if not np.isfinite(points).all():
            raise BackendError(
                f"output '{self._coordinates.name}' holds numbers that are not finite",
                where=self._where,
                hint="the training diverged, or a conversion overflowed",
            )
        return points

    def stored(self, crops: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Returns crops as the file's input stores them, in the shape of `crops`."""
        return to_model_input(self.contract.normalize(crops), self._image)

    def landmarks_in(self, outputs: bytes) -> NDArray[np.float64]:
        """Returns the landmarks, [1, landmarks, 2], in the bytes of all outputs, one by one.

        Raises:
            BackendError: They are not as many bytes as the file's outputs have.
        """
        start = 0
        for info in self._runner.outputs:
            size = np.dtype(info.dtype).itemsize * math.prod(info.shape)
            if info == self._coordinates and start + size <= len(outputs):
                raw = np.frombuffer(outputs[start : start + size], info.dtype)
                answer = from_model_output(raw.reshape(info.shape), info)
                return self.contract.decode(answer)
            start += size
        raise BackendError(
            f"{len(outputs)} bytes of outputs, the file's end at {start}", where=self._where
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.close()


def _check_own_contract(data: bytes, contract: Contract, where: str) -> None:
    text = tflite.metadata(data, where).get(CONTRACT_KEY)
    if text is None:
        return
    own = contract_from_json(text, f"{where}, metadata {CONTRACT_KEY}")
    differing = [
        f"{name} {getattr(own, name)} in the file against {getattr(contract, name)}"
        for name in (field.name for field in fields(Contract))
        if getattr(own, name) != getattr(contract, name)
    ]
    if differing:
        raise InputError(
            f"the file was made for another contract: {'; '.join(differing)}",
            where=where,
            hint="score the file without --contract: it carries its own",
        )


def _border(runner: Runner, contract: Contract, where: str) -> tuple[TensorInfo, TensorInfo]:
    wanted = (1, contract.height, contract.width, contract.channels)
    if [info.shape for info in runner.inputs] != [wanted]:
        got = ", ".join(f"'{i.name}' {list(i.shape)}" for i in runner.inputs)
        raise InputError(
            f"the model's inputs are {got or 'none'}, the contract wants one of {list(wanted)}",
            where=where,
            hint="give the contract that belongs to this model",
        )
    outputs = {info.name: info for info in runner.outputs}
    if contract.output not in outputs:
        raise InputError(
            f"the model has no output '{contract.output}', it has {sorted(outputs)}",
            where=where,
            hint="name one of them as `output` in the contract",
        )
    return runner.inputs[0], outputs[contract.output]
