"""A model file in the runtime, read through its contract."""

from __future__ import annotations

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
            real = self.contract.normalize(crops[start : start + FACES_AT_ONCE])
            answer = self._runner.run({self._image.name: to_model_input(real, self._image)})
            outputs.append(from_model_output(answer[self._coordinates.name], self._coordinates))
        points = self.contract.decode(np.concatenate(outputs))
        if not np.isfinite(points).all():
            raise BackendError(
                f"output '{self._coordinates.name}' holds numbers that are not finite",
                where=self._where,
                hint="the training diverged, or a conversion overflowed",
            )
        return points

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
