"""The package costs nothing until a function is used, and help needs no heavy module."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lmopt

HEAVY = ("tensorflow", "tf_keras", "ai_edge_litert", "numpy", "cv2", "matplotlib", "networkx")


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('modules:', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    modules = done.stdout.rpartition("modules:")[2].split()
    return {name.partition(".")[0] for name in modules}


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_after("import lmopt")
    assert "lmopt" in loaded
    assert loaded.isdisjoint({*HEAVY, "typer", "pydantic"})


def test_help_loads_nothing_heavy() -> None:
    call = "from lmopt.cli.app import app\ntry:\n    app(['--help'])\nexcept SystemExit: pass"
    loaded = loaded_after(call)
    assert "typer" in loaded
    assert loaded.isdisjoint({*HEAVY, "pydantic"})


@pytest.mark.parametrize("name", lmopt.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(lmopt, name)
    assert name in dir(lmopt)
    assert isinstance(found, str) or found.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="optimise"):
        lmopt.optimise  # noqa: B018
