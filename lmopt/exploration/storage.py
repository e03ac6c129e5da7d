"""What a detector costs in each storage form, on one target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lmopt.exploration.candidate import Candidate
from lmopt.target.profile import FormRule, StorageForm


@dataclass(frozen=True)
class StorageRow:
    """A detector in one form.

    Attributes:
        form: The form.
        rule: What the target says about it.
        pipeline: What made the file; empty where the form is not legal.
        candidate: The file with validation NME and latencies; None where there is none.
        reason: Why there is none; empty where there is one.
    """

    form: StorageForm
    rule: FormRule
    pipeline: str
    candidate: Candidate | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return {
            "form": self.form,
            **asdict(self.rule),
            "pipeline": self.pipeline,
            "candidate": None if self.candidate is None else self.candidate.to_json(),
            "no_candidate": self.reason,
        }


@dataclass(frozen=True)
class StorageComparison:
    """A detector in every form, nothing else changed.

    Attributes:
        target: Target name.
        runtime: What loads the file there, with its version; empty where the profile names none.
        chosen: The form that the target's rules prefer.
        baseline: The float32 file; also there where the target does not take it.
        rows: Every form; the chosen one first, then in the target's order, illegal ones last.
    """

    target: str
    runtime: str
    chosen: StorageForm
    baseline: Candidate
    rows: tuple[StorageRow, ...]

    def row(self, form: StorageForm) -> StorageRow:
        """Returns the row of a form."""
        return next(row for row in self.rows if row.form == form)

    def nme_change(self, row: StorageRow) -> float | None:
        """Returns the points of validation NME that a form costs against float32."""
        if row.candidate is None:
            return None
        return row.candidate.trained.val_nme_percent - self.baseline.trained.val_nme_percent

    def time_ratio(self, row: StorageRow) -> float | None:
        """Returns a form's latency over the chosen form's, both of one kind."""
        chosen = self.row(self.chosen).candidate
        if row.candidate is None or chosen is None:
            return None
        return row.candidate.latency.ms / chosen.latency.ms

    def to_json(self) -> dict[str, Any]:
        """Returns the document `lmopt storage --json` prints."""
        return {
            "target": self.target,
            "runtime": self.runtime,
            "chosen": self.chosen,
            "why": str(self.row(self.chosen).rule),
            "baseline": self.baseline.to_json(),
            "forms": [
                {
                    **row.to_json(),
                    "val_nme_change": self.nme_change(row),
                    "latency_ratio": self.time_ratio(row),
                }
                for row in self.rows
            ],
        }
