"""Profiles found for phones, or proposed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lmopt.device.matching import accelerator_of, is_of, matching
from lmopt.device.phone import Phone
from lmopt.errors import InputError, UsageError
from lmopt.target.catalog import installed, load_target

VELVET = Phone(
    *("serial", "LGE LM-G910", "MT6883", frozenset({"mt6883", "mt6885"}), "10", 29, ("arm64-v8a",)),
    *("Mali-G57", ("neuron-ann",), {0: 2_000_000, 4: 2_000_000}, True),
)


@pytest.mark.parametrize("engine", ["cpu", "gpu", "npu"])
def test_the_profile_of_the_chip_is_found(engine: str) -> None:
    found = matching(VELVET, engine)
    assert found.name == {"cpu": "velvet-cpu", "gpu": "velvet-gpu", "npu": "velvet-apu"}[engine]
    assert is_of(found, VELVET) and not is_of(load_target("p30-cpu"), VELVET)


def test_every_phone_profile_is_known_by_lower_case_names() -> None:
    phones = [load_target(name) for name in installed() if not name.startswith(("desktop", "host"))]
    assert len(phones) == 6
    for target in phones:
        assert target.device is not None, target.name
        assert all(name == name.lower() for name in target.device.names)


@pytest.mark.parametrize(
    ("ghz", "dot_products", "near"), [(2.84, True, "p30-cpu"), (1.8, False, "htc10-cpu")]
)
def test_an_unknown_chip_gets_a_proposal(ghz: float, dot_products: bool, near: str) -> None:
    unknown = replace(
        VELVET,
        soc="SM8150",
        names=frozenset({"sm8150"}),
        max_khz={0: 1_780_000, 7: int(ghz * 1e6)},
        dot_products=dot_products,
    )
    with pytest.raises(UsageError, match="no cpu profile is about SM8150") as caught:
        matching(unknown)
    assert f"--target {near}" in str(caught.value)


def test_the_accelerator_must_be_there_where_the_phone_lists_them() -> None:
    apu = load_target("velvet-apu")
    assert accelerator_of(apu, VELVET) == "neuron-ann"
    assert accelerator_of(apu, replace(VELVET, accelerators=())) == "neuron-ann"
    assert accelerator_of(load_target("velvet-cpu"), VELVET) is None
    with pytest.raises(InputError, match="no NNAPI driver 'neuron-ann', but mtk-neuron"):
        accelerator_of(apu, replace(VELVET, accelerators=("mtk-neuron",)))
