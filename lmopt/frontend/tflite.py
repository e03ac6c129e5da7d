"""TFLite files to graphs: those of lmopt in full, those of others where the ops are the IR's."""

from __future__ import annotations

from lmopt.errors import GraphError, InputError
from lmopt.frontend.tflite_composite import read_composite
from lmopt.frontend.tflite_file import TfliteFile
from lmopt.frontend.tflite_importer import Importer
from lmopt.frontend.tflite_ops import cut_hint, read_operator
from lmopt.ir.graph import Graph


def read(data: bytes, where: str) -> tuple[Graph, dict[str, str]]:
    """Returns the graph of a TFLite file and its metadata texts.

    Nodes are called after the tensors they give. Float16 weights stay float16, grids stay as
    they are in the file, zeros that stand for a missing bias stay zeros.

    Args:
        data: The file.
        where: What to call it in messages.

    Raises:
        InputError: Not a TFLite file, cut short, corrupt, or with an operator that is not in the
            IR; the message says which, at what position, with which tensors.
    """
    file = TfliteFile(data, where)
    place, hint = where, "lmopt reads its own files and plain ones of TFLite converters"
    try:
        importer = Importer(file, where)
        position = 0
        while position < len(file.operators):
            operator = file.operators[position]
            place, hint = operator.where, cut_hint(importer, operator)
            taken = read_composite(importer, position)
            if not taken:
                read_operator(importer, operator)
            position += taken or 1
        place = where
        return importer.graph(), file.metadata
    except GraphError as error:
        spot = f"{place}: {error.where}" if error.where else place
        raise InputError(
            f"not a graph of lmopt: {error.what}",
            where=spot,
            hint=error.hint or hint,
        ) from error


def inputs(data: bytes, where: str = "model") -> tuple[str, ...]:
    """Returns the names of a TFLite file's inputs, whatever its operators are.

    Raises:
        InputError: Not a TFLite file, cut short or corrupt.
    """
    return tuple(name for name, _ in TfliteFile(data, where).inputs)


def metadata(data: bytes, where: str = "model") -> dict[str, str]:
    """Returns the metadata texts of a TFLite file, whatever its operators are.

    Raises:
        InputError: Not a TFLite file, cut short or corrupt.
    """
    return TfliteFile(data, where).metadata
