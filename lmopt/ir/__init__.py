"""The intermediate representation: immutable typed graphs of landmark detectors."""

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Loc, Node, Value
from lmopt.ir.types import DType, Quant, TensorType, ValueRange, Weight

__all__ = [
    "DType",
    "Edit",
    "Graph",
    "Loc",
    "Node",
    "Quant",
    "TensorType",
    "Value",
    "ValueRange",
    "Weight",
]
