import json
import re
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lmopt.detector.document as document
from lmopt.detector import IBUG_68, Contract, CropRule, LandmarkScheme
from lmopt.detector.document import (
    contract_from_json,
    contract_to_document,
    contract_to_json,
    load_contract,
    scheme_named,
)
from lmopt.errors import InputError

CONTRACT = Contract(
    height=112,
    width=112,
    color="rgb",
    mean=(0.0, 0.0, 0.0),
    std=(255.0, 255.0, 255.0),
    crop=CropRule("landmarks", 1.25, True),
    output="landmarks",
    order="xyxy",
    unit="unit",
    scheme=IBUG_68,
)
FIVE = LandmarkScheme(
    "five-points",
    5,
    mirror=(1, 0, 2, 4, 3),
    eye_corners=(0, 1),
    pupils=((0,), (1,)),
    regions={"mouth": (3, 4)},
)


def documented() -> tuple[str, str]:
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", document.__doc__ or "")
    contract, scheme = (textwrap.dedent(block) for block in blocks)
    return contract, scheme


def refusal(**changes: object) -> InputError:
    """The error of the five-point contract with `a__b=value` put at key a.b (None removes)."""
    tables = json.loads(contract_to_json(replace(CONTRACT, scheme=FIVE)))
    for path, value in changes.items():
        *tables_of, key = path.split("__")
        table = tables
        for name in tables_of:
            table = table[name]
        if value is None:
            del table[key]
        else:
            table[key] = value
    with pytest.raises(InputError) as caught:
        contract_from_json(json.dumps(tables), "model.tflite")
    assert caught.value.where == "model.tflite"
    assert caught.value.hint
    return caught.value


def test_the_documented_example_is_a_contract(tmp_path: Path):
    contract, scheme = documented()
    file = tmp_path / "contract.toml"
    file.write_text(contract)
    assert load_contract(file) == CONTRACT
    nameless = "\n".join(line for line in contract.splitlines() if not line.startswith("scheme"))
    file.write_text(f"{nameless}\n{scheme}")
    own = load_contract(file)
    assert own == replace(CONTRACT, scheme=FIVE)
    assert own.scheme.regions == FIVE.regions


def test_equal_contracts_give_the_same_text():
    whole = replace(CONTRACT, mean=(0, 0, 0), crop=CropRule(margin=1.25))
    assert contract_to_json(whole) == contract_to_json(CONTRACT)
    assert contract_to_document(CONTRACT)["scheme"] == "ibug-68"
    # A scheme that only borrows a known name is written out.
    borrowed = replace(CONTRACT, scheme=LandmarkScheme("ibug-68", 68))
    assert contract_from_json(contract_to_json(borrowed), "x") == borrowed != CONTRACT


@given(
    st.builds(
        Contract,
        height=st.integers(1, 512),
        width=st.integers(1, 512),
        color=st.just("gray"),
        mean=st.tuples(st.floats(-1e3, 1e3)),
        std=st.tuples(st.floats(1e-3, 1e3)),
        crop=st.builds(
            CropRule, st.sampled_from(["landmarks", "given"]), st.floats(0.1, 9), st.booleans()
        ),
        output=st.text(min_size=1),
        order=st.sampled_from(["xyxy", "xxyy"]),
        unit=st.sampled_from(["unit", "pixel", "centered"]),
        scheme=st.sampled_from(
            [IBUG_68, FIVE, LandmarkScheme("points-7", 7), LandmarkScheme("odd", 3, (2, 1, 0))]
        ),
    )
)
def test_json_round_trip(contract: Contract):
    again = contract_from_json(contract_to_json(contract), "x")
    assert again == contract
    assert again.scheme.regions == contract.scheme.regions
    points = np.linspace(-1, 2, contract.scheme.count * 2).reshape(1, -1, 2)
    assert np.array_equal(again.encode(points), contract.encode(points))


@pytest.mark.parametrize(
    ("changes", "what", "hint"),
    [
        ({"colour": "rgb"}, "unknown key 'colour'", "did you mean 'color'?"),
        ({"crop__margn": 1.0, "crop__margin": None}, "unknown key 'crop.margn'", "'margin'"),
        ({"scheme__zzz": 1}, "unknown key 'scheme.zzz'", "there are: name, count, mirror"),
        ({"unit": None}, "no key 'unit'", "height, width"),
        ({"crop__box": None}, "no key 'crop.box'", "box, margin, square"),
        ({"height": True}, "'height' is True: wanted a valid integer", ""),
        ({"height": 0}, "'height' is 0: wanted greater than or equal to 1", ""),
        ({"color": "RGB"}, "'color' is 'RGB': wanted 'rgb', 'bgr' or 'gray'", ""),
        ({"crop": 3}, "'crop' is 3: wanted a table", ""),
        ({"crop__square": 1}, "'crop.square' is 1: wanted a valid boolean", ""),
        ({"crop__margin": float("nan")}, "'crop.margin' is nan", ""),
        ({"mean": [0.0]}, "1 value(s) of mean for 3 channel(s)", ""),
        ({"std": [1.0, 1.0, 0.0]}, "'std.2' is 0.0: wanted greater than 0", ""),
        ({"scheme": 3}, "'scheme' is 3: wanted a table", ""),
        ({"scheme": "ibug68"}, "unknown landmark scheme 'ibug68'", "ibug-68"),
        ({"scheme__mirror": [0, 1]}, "the mirror map must pair the 5 landmarks", ""),
        ({"scheme__eye_corners": [1]}, "'scheme.eye_corners' is [1]", ""),
        ({"scheme__pupils": [[0], [9]]}, "names a landmark beyond 4", ""),
    ],
)
def test_a_wrong_document_names_place_and_key(changes: dict[str, object], what: str, hint: str):
    error = refusal(**changes)
    assert what in error.what
    assert hint in (error.hint or "")


def test_files_that_are_no_document_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"gone.toml: the contract cannot be read: No such file"):
        load_contract(tmp_path / "gone.toml")
    file = tmp_path / "bad.toml"
    file.write_text("height = 1\nwidth 2\n")
    with pytest.raises(InputError, match=r"bad.toml: no TOML: .*line 2"):
        load_contract(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"bad.toml: no TOML"):
        load_contract(file)
    with pytest.raises(InputError, match="m: no JSON"):
        contract_from_json("{", "m")
    with pytest.raises(InputError, match="the contract is 3: wanted a table"):
        contract_from_json("3", "m")


def test_schemes_are_found_by_name():
    assert scheme_named("ibug-68") is IBUG_68
    assert scheme_named("points-98") == LandmarkScheme("points-98", 98)
    for name in ("points-0", "points-x", "IBUG-68"):
        with pytest.raises(InputError, match=f"unknown landmark scheme '{name}'"):
            scheme_named(name)
