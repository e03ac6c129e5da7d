"""A model judged by protocols, alone or against another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmopt.scoring.rows import Comparison, Row, compare
from lmopt.scoring.suite import ProtocolName


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The rows of one model, and of the other one where two are compared.

    Attributes:
        model: What was evaluated.
        rows: By protocol, in the order they were asked for.
        against: The other model, or None.
        other_rows: Its rows.
        comparisons: The model minus the other one, for each row; None where not testable.
    """

    model: str
    rows: Mapping[ProtocolName, tuple[Row, ...]]
    against: str | None = None
    other_rows: Mapping[ProtocolName, tuple[Row, ...]] = field(default_factory=dict)
    comparisons: Mapping[ProtocolName, tuple[Comparison | None, ...]] = field(default_factory=dict)

    @classmethod
    def of_two(
        cls,
        model: str,
        rows: Mapping[ProtocolName, tuple[Row, ...]],
        against: str,
        other_rows: Mapping[ProtocolName, tuple[Row, ...]],
    ) -> Evaluation:
        """Returns two models' rows with their differences.

        Raises:
            InputError: Rows were not found by one protocol on the same faces.
        """
        comparisons = {
            name: tuple(map(compare, found, other_rows[name])) for name, found in rows.items()
        }
        return cls(model, rows, against, other_rows, comparisons)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report: per protocol its rows."""
        document: dict[str, Any] = {"model": self.model, "protocols": _json(self.rows)}
        if self.against is not None:
            document["against"] = {
                "model": self.against,
                "protocols": _json(self.other_rows),
                "comparisons": {
                    name: [None if one is None else one.to_json() for one in found]
                    for name, found in self.comparisons.items()
                },
            }
        return document


def _json(rows: Mapping[ProtocolName, tuple[Row, ...]]) -> dict[str, Any]:
    return {name: [row.to_json() for row in found] for name, found in rows.items()}
