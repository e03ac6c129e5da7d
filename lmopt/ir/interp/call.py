"""One node at work: what every kernel of the interpreter is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir.graph import Node
from lmopt.ir.types import Quant, TensorType

Array = NDArray[Any]


@dataclass(frozen=True)
class Call:
    """A node, the arrays it is applied to and their types.

    Attributes:
        node: Its op and weights.
        operands: An array per operand, batch first.
        types: The operands' types, with their grids.
    """

    node: Node
    operands: tuple[Array, ...]
    types: tuple[TensorType, ...]

    @property
    def x(self) -> Array:
        """Returns the first operand."""
        return self.operands[0]

    @property
    def result(self) -> TensorType:
        """Returns the type of the result."""
        return self.node.results[0]

    def grid(self, operand: int) -> Quant:
        """Returns the grid of an operand, or raises GraphError when it is real."""
        return require_grid(self.types[operand], f"operand {operand}")

    @property
    def result_grid(self) -> Quant:
        """Returns the grid of the result, or raises GraphError when it is real."""
        return require_grid(self.result, "the result")


Kernel = Callable[[Call], Array]


def require_grid(type: TensorType, what: str) -> Quant:
    """Returns the grid of a type, or raises GraphError naming what lacks one."""
    if type.quant is None:
        raise GraphError(f"{what} has type {type}, wanted integers with scale and zero point")
    return type.quant
