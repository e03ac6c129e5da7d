"""Claims of the studies are judged by our figures, and tables say where there are none."""

from __future__ import annotations

from benchmarks import studies
from benchmarks.claims import all_claims
from benchmarks.seed_tables import kept, known_parameters, markdown, trained

DATA = {"name": "faces", "digest": "d", "train": 8, "validation": 1, "test": 3}


def published(scale: float = 1.0) -> dict[str, dict[str, float]]:
    """What a detector has that reproduces the published figures, all times `scale`."""
    found: dict[str, dict[str, float]] = {}
    for name in studies.THESIS:
        row = {
            "boxes/landmarks": studies.LANDMARK_BOXES[name]["full"],
            "boxes/given": studies.DETECTOR_BOXES[name]["full"],
        }
        row |= {f"categories/{k}": v for k, v in studies.CATEGORIES[name].items()}
        row |= {f"stability/{k}": v for k, v in studies.STABILITY[name].items()}
        found[name] = {key: scale * value for key, value in row.items()}
    return found


def test_the_published_figures_reproduce_their_own_claims() -> None:
    sizes = {name: float(count) for name, count in studies.PARAMETERS.items()}
    claims = list(all_claims(published(), sizes))
    tested = [claim for claim in claims if claim.verdict != "not testable"]
    assert len(tested) >= 50
    assert {claim.verdict for claim in tested} == {"reproduced"}


def test_a_turned_order_is_not_reproduced_and_a_missing_one_not_testable() -> None:
    figures = published(-1.0)
    del figures["dan1"], figures["dan2"]
    claims = {claim.source: claim for claim in all_claims(figures, {})}
    turned = claims["Table 4, NME in landmark boxes"]
    assert turned.verdict == "not reproduced"
    assert "pfld-0.25 -4.6124" in turned.numbers
    assert "without" in turned.numbers and "dan1" in turned.numbers
    assert claims["Table 2, parameters"].verdict == "not testable"
    missing = [c for c in all_claims(figures, {}) if c.text.startswith("dan1:")]
    assert missing and all(c.numbers == "dan1 has no trained weights" for c in missing)


def test_what_is_above_eight_percent_is_not_trained() -> None:
    good, bad = {"boxes/landmarks": 7.9}, {"boxes/landmarks": 8.0}
    assert trained({"a": good, "b": bad}) == {"a": good}


def test_the_zoo_is_counted_and_kept_weights_prefer_real_faces() -> None:
    assert known_parameters()["pfld-1.0"] == studies.PARAMETERS["pfld-1.0"]
    assert kept()["pfld-0.25"] == "pfld-0.25@300w"
    assert set(kept()) == set(studies.THESIS)
    assert kept()["dan1"] == kept()["dan2"].replace("dan2", "dan1", 1)


def test_tables_show_ours_beside_the_published() -> None:
    figures = {"pfld-0.25": {"boxes/landmarks": 4.9926, "stability/sigma 0.1": 1.5}}
    claims = tuple(all_claims(figures, {}))
    text = markdown(DATA, {"pfld-0.25": "x.tflite"}, {"pfld-0.25": 320_608.0}, figures, claims)
    assert "| pfld-0.25 | 320,608 | 322,864 | 1.3 | - |" in text
    assert "| pfld-0.25 | 4.993 | - | - | 4.612 | 5.604 |" in text
    assert "| pfld-0.25 | ours | - | - | 1.500 | - |" in text
    assert "the thesis trained on 3148" in text
    assert "### Not testable" in text
