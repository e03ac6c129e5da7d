"""What every rendering of a storage comparison says."""

from __future__ import annotations

from lmopt.exploration.storage import StorageComparison, StorageRow
from lmopt.report.summary import latency_text, target_columns
from lmopt.units import human_bytes


def choice(found: StorageComparison) -> str:
    """Returns which form is chosen and why, as a sentence."""
    runtime = f" ({found.runtime})" if found.runtime else ""
    rule = found.row(found.chosen).rule
    return f"storage for {found.target}{runtime}: {found.chosen}: {rule}"


def columns(found: StorageComparison) -> tuple[str, ...]:
    """Returns the headings that belong to `cells`."""
    target = target_columns(found.target, found.baseline)
    kind = found.baseline.latency.kind
    return (
        "storage",
        "NME val %",
        "change",
        "host ms (measured)",
        *target,
        f"time against {found.chosen} ({kind})",
        "size",
        "why",
    )


def cells(row: StorageRow, found: StorageComparison) -> tuple[str, ...]:
    """Returns a form's texts in the order of `columns`."""
    name = f"{row.form} (chosen)" if row.form == found.chosen else row.form
    candidate, change, ratio = row.candidate, found.nme_change(row), found.time_ratio(row)
    if candidate is None or change is None:
        blanks = ("-",) * (len(columns(found)) - 2)
        return (name, *blanks, row.reason if row.rule.legal else f"not legal: {row.rule}")
    there = target_columns(found.target, found.baseline)
    target = (latency_text(candidate.latency),) if there else ()
    return (
        name,
        f"{candidate.trained.val_nme_percent:.3f}",
        f"{change:+.3f}",
        latency_text(candidate.host),
        *target,
        "-" if ratio is None else f"{ratio:.2f}x",
        human_bytes(candidate.trained.size_bytes),
        str(row.rule),
    )


def remarks(found: StorageComparison) -> tuple[str, ...]:
    """Returns what the numbers say against the rule, and how SavedModels compare, as lines."""
    chosen = found.row(found.chosen).candidate
    lines: list[str] = []
    for row in found.rows:
        if row.candidate is None:
            continue
        if chosen is not None and row.candidate is not chosen:
            nme, ms = row.candidate.objectives
            if nme <= chosen.trained.val_nme_percent and ms < chosen.latency.ms:
                lines.append(
                    f"{row.form} loses no NME against {found.chosen} and is faster "
                    f"({row.candidate.latency.kind}): {row.candidate.trained.model}"
                )
        if row.candidate.trained.saved_models is not None:
            lines += [
                n for n in row.candidate.trained.notes if n.startswith(f"SavedModel {row.form}")
            ]
    return tuple(lines)
