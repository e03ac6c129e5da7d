"""Golden tests: each `*.lmir` beside this file runs a pipeline and checks the text that comes out.

// WHY: what the case guards
// RUN: fold-batchnorm
graph g
...
// CHECK: a line of the output, whole and in order (`@*` stands for any digest)
// CHECK-NOT: a piece of text that no line of the output holds
// CHECK-NOTE: a piece of a note
// ERROR: a piece of the error message
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmopt.errors import LmoptError
from lmopt.ir.text import parse_graph
from lmopt.pipeline.manager import Pipeline
from tests.support.services import full_context

FILES = sorted(Path(__file__).parent.glob("*.lmir"))
_DIRECTIVE = re.compile(r"^// (WHY|RUN|CHECK|CHECK-NOT|CHECK-NOTE|ERROR): *(.*?) *$", re.MULTILINE)
_LOOKALIKE = re.compile(r"^\s*//\s*(WHY|RUN|CHECK|ERROR)\b", re.MULTILINE | re.IGNORECASE)
_DIGEST = re.compile(r"@[0-9a-f]{32}")


@dataclass(frozen=True)
class Golden:
    """A golden file, read."""

    run: str
    text: str
    directives: tuple[tuple[str, str], ...]

    def all(self, kind: str) -> list[str]:
        return [text for name, text in self.directives if name == kind]


def read_golden(text: str, where: str) -> Golden:
    """Returns a golden file; refuses one that runs, explains or checks nothing."""
    directives = tuple(_DIRECTIVE.findall(text))
    if len(directives) != len(_LOOKALIKE.findall(text)):
        raise ValueError(f"{where}: a line looks like a directive but is none")
    golden = Golden("", text, directives)
    for kind in ("RUN", "WHY"):
        if len(golden.all(kind)) != 1 or not golden.all(kind)[0]:
            raise ValueError(f"{where}: needs exactly one {kind} line")
    checks = [content for kind, content in directives if kind not in ("RUN", "WHY")]
    if not (golden.all("CHECK") or golden.all("ERROR")) or not all(checks):
        raise ValueError(f"{where}: checks nothing: give a CHECK or an ERROR line")
    if golden.all("ERROR") and len(checks) != len(golden.all("ERROR")):
        raise ValueError(f"{where}: a run that fails has no output to check")
    return Golden(golden.all("RUN")[0], text, directives)


def check_golden(golden: Golden) -> None:
    """Runs a golden file and asserts everything it expects."""
    if golden.all("ERROR"):
        with pytest.raises(LmoptError) as caught:
            _run(golden)
        for piece in golden.all("ERROR"):
            assert piece in str(caught.value)
        return
    output, notes = _run(golden)
    shown = _DIGEST.sub("@*", output)
    lines = iter(shown.splitlines())
    for wanted in golden.all("CHECK"):
        assert any(line == wanted for line in lines), f"no line (in order)\n{wanted}\nin\n{shown}"
    for piece in golden.all("CHECK-NOT"):
        assert piece not in shown, f"{piece} in\n{shown}"
    for piece in golden.all("CHECK-NOTE"):
        assert any(piece in note for note in notes), f"no note with {piece!r} in {notes}"


def _run(golden: Golden) -> tuple[str, tuple[str, ...]]:
    pipeline = Pipeline.parse(golden.run)
    result = pipeline.run(parse_graph(golden.text), full_context(), verify_each=True)
    return str(result.graph), result.notes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path):
    check_golden(read_golden(path.read_text(), path.name))


GOOD = """// WHY: relu fuses
// RUN: fold-batchnorm
graph g
%x = input() : f32[?,2]
%y = dense(%x) {units=1} [bias=f32[1]=0, kernel=f32[2,1]=[1.0, 2.0]]
%z = relu(%y)
output out = %z
// CHECK: output out = %y
// CHECK-NOT: relu(
"""


def test_the_runner_takes_a_good_file():
    check_golden(read_golden(GOOD, "good"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CHECK: output out = %y", "output out = %y"),
        ("CHECK: output out = %y", "CHECK:"),
        ("CHECK: output out = %y", "CHEK: output out = %y"),
        ("// RUN:", "// Run:"),
        ("// RUN:", "//RUN:"),
        ("// WHY: relu fuses\n", ""),
        ("// RUN: fold-batchnorm", "// RUN:"),
        ("// CHECK-NOT: relu(", "// ERROR: relu"),
    ],
)
def test_the_runner_refuses_a_file_that_checks_nothing(old: str, new: str):
    with pytest.raises(ValueError, match="bad"):
        read_golden(GOOD.replace(old, new), "bad")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CHECK: output out = %y", "CHECK: output out = %z"),
        ("CHECK: output out = %y", "CHECK: output out"),
        ("CHECK: output out = %y", "CHECK: output out = %y\n// CHECK: graph g"),
        ("CHECK-NOT: relu(", "CHECK-NOT: relu"),
        ("CHECK-NOT: relu(", "CHECK-NOTE: relu"),
    ],
)
def test_the_runner_fails_where_the_output_differs(old: str, new: str):
    with pytest.raises(AssertionError):
        check_golden(read_golden(GOOD.replace(old, new), "bad"))


def test_the_runner_fails_where_an_expected_error_does_not_come():
    text = GOOD.split("// CHECK")[0] + "// ERROR: no such thing\n"
    with pytest.raises(pytest.fail.Exception):
        check_golden(read_golden(text, "bad"))
