"""Drafts are targets, and the editors' schema is the one that is read."""

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmopt.cli.app import app
from lmopt.errors import InputError, UsageError
from lmopt.target import draft as module
from lmopt.target.draft import SCHEMA, draft, schema_text, write_draft
from lmopt.target.schema import read_target
from lmopt.target.vocabulary import LIMITS, REQUIRED, UNITS


def test_a_draft_is_a_target_whose_numbers_are_guesses() -> None:
    target = read_target(draft("board"), "board", "board.toml")
    assert target.title == "board" and target.storage == ("i8", "f32")
    assert set(REQUIRED) <= target.quantities.keys()
    assert {quantity.kind for quantity in target.quantities.values()} == {"guess"}


def test_a_draft_with_everything_in_is_a_target_too() -> None:
    lines = draft("board").splitlines()
    start = next(k for k, line in enumerate(lines) if "quantities" in line)
    full = "\n".join(line.removeprefix("# ") for line in lines[start:])
    target = read_target("\n".join(lines[:start]) + "\n" + full, "board", "board.toml")
    assert target.quantities.keys() == UNITS.keys()
    assert target.clusters[0].macs_per_cycle["i8"] == 32 and target.fusion is not None
    assert target.runtime is not None and target.limits.keys() == {"per_channel"}


def test_the_schema_for_editors_is_current() -> None:
    text = (Path(module.__file__).parent / SCHEMA).read_text()
    assert text == schema_text(), f"python -m lmopt.target.draft > lmopt/target/{SCHEMA}"
    schema = json.loads(text)
    assert schema["properties"]["quantities"]["properties"].keys() == UNITS.keys()
    assert schema["properties"]["limits"]["properties"].keys() == LIMITS.keys()
    assert schema["additionalProperties"] is False
    named = tomllib.loads(draft("board")).keys()
    assert named <= schema["properties"].keys()


def test_new_writes_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["targets", "new", "board"])
    assert made.exit_code == 0 and made.stdout.strip() == "board.toml"
    shown = CliRunner().invoke(app, ["targets", "./board.toml"])
    assert shown.exit_code == 0 and "say where this is from" in shown.stdout
    with pytest.raises(InputError, match="such a file already"):
        write_draft("board", tmp_path)
    with pytest.raises(UsageError, match="no name for a target"):
        draft("../board")
