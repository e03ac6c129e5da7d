"""A detector: a graph together with its contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lmopt.detector.contract import Contract
from lmopt.errors import InputError
from lmopt.ir.graph import Graph


@dataclass(frozen=True)
class Detector:
    """What lmopt optimizes.

    Attributes:
        name: As the user calls it, weights included (`pfld-0.25@300w`).
        graph: The float graph.
        contract: Its contract; None for a user's model that came without one.
        train_command: What to run when the graph has no weights yet.
    """

    name: str
    graph: Graph
    contract: Contract | None = None
    train_command: str = ""

    def with_graph(self, graph: Graph) -> Detector:
        """Returns the detector with another graph."""
        return replace(self, graph=graph)

    def require_contract(self) -> Contract:
        """Returns the contract.

        Raises:
            InputError: There is none; the message says how to give or guess one. Or the model
                has several inputs, which no contract describes.
        """
        self.require_one_input()
        if self.contract is None:
            raise no_contract(self.name)
        return self.contract

    def require_one_input(self) -> None:
        """Raises InputError naming the inputs unless there is exactly one."""
        check_one_input(self.name, [node.name for node in self.graph.inputs])

    def require_weights(self) -> None:
        """Raises InputError naming the training call unless every weight has values."""
        if not self.graph.is_initialized:
            raise InputError(
                "the detector has no weights yet: scoring or optimizing it would mean nothing",
                where=self.name,
                hint=f"train it first: {self.train_command}" if self.train_command else None,
            )


def check_one_input(name: str, inputs: Sequence[str]) -> None:
    """Raises InputError naming the inputs of the model called `name` unless it is one."""
    if len(inputs) != 1:
        listed = ", ".join(f"'{entry}'" for entry in inputs)
        raise InputError(
            f"the model has {len(inputs)} inputs ({listed}); wanted one, the picture",
            where=name,
            hint="save a model whose only input is the picture: make the others constants in it, "
            "or compute them from the picture",
        )


def no_contract(name: str) -> InputError:
    """Returns the error for a model whose answers cannot be read."""
    return InputError(
        "the model has no contract (input size, colour, normalisation, crop, output), "
        "so its landmarks cannot be read",
        where=name,
        hint="give --contract FILE.toml, or let "
        f"`lmopt inspect {name} --guess-contract --data DIR` rank the plausible ones",
    )
