"""Every performance claim of the thesis: reproduced by the estimates, not, or not testable.

The targets' numbers were committed before a claim was first evaluated, and none is set from one.
The first evaluation gave 15 reproduced, 10 not, 3 not testable. Two corrections of the model came
after it: threads share the rounding of integer kernels, as published 8-bit networks show on eight
processors, which took two claims away (8 and 22); and the launches of ops that are written as
several operators were counted, which changed no verdict.

Run: `python -m benchmarks.thesis_claims`
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from benchmarks.latency_bench import Claim
from benchmarks.latency_claims import latency_claims
from benchmarks.measured_claims import measured_claims


def table(claims: Sequence[Claim]) -> str:
    """Returns all claims as Markdown, counts first."""
    counts = Counter(claim.verdict for claim in claims)
    lines = [
        ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        + f", of {len(claims)}; "
        + f"{sum(bool(c.caution) and c.verdict != 'not testable' for c in claims)} of the verdicts "
        + "come with a caution",
        "",
        "| # | lines | claim | verdict | numbers | caution |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {c.number} | {c.lines or '-'} | {c.text} | {c.verdict} | {c.numbers} | {c.caution} |"
        for c in claims
    ]
    return "\n".join(lines)


def main() -> int:
    print(__doc__)
    print(table([*latency_claims(), *measured_claims()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
