"""What a front minimises, by name."""

from dataclasses import replace

import pytest

import lmopt
from lmopt.errors import UsageError
from lmopt.exploration.candidate import OBJECTIVES, trained_from_json
from lmopt.exploration.front import Front
from tests.unit.report.results import candidate


def test_latency_stays_the_last_objective_and_more_stand_before_it() -> None:
    made = candidate("p", 5, 7.0)
    made = replace(made, trained=replace(made.trained, std_percent=0.25))
    size = float(made.trained.size_bytes)
    assert made.minimised(()) == made.objectives == (7.0, 5)
    assert made.minimised(OBJECTIVES) == (7.0, size, 0.25, 5)
    assert made.to_json()["std_percent"] == 0.25
    assert trained_from_json(made.trained.__dict__) == made.trained


def test_a_smaller_file_is_on_the_front_where_bytes_count() -> None:
    fast, slow = candidate("fast", 5, 7.0), candidate("slow", 9, 7.5)
    slow = replace(slow, trained=replace(slow.trained, size_bytes=1))
    assert len(Front.of((fast, slow), lambda c: c.minimised(())).points) == 1
    assert Front.of((fast, slow), lambda c: c.minimised(("bytes",))).points == (fast, slow)


@pytest.mark.parametrize("request_of", [lmopt.OptimizeRequest, lmopt.SearchRequest])
def test_an_objective_that_is_none_is_refused_before_any_work(request_of) -> None:
    with pytest.raises(UsageError, match="no objective 'size'") as error:
        request_of(target="host", objectives=("size",))
    assert error.value.hint == "choose bytes, stability"
    with pytest.raises(UsageError, match="named twice"):
        request_of(target="host", objectives=("bytes", "bytes"))
