import numpy as np
import pytest

from lmopt.detector.scheme import COFW_29, IBUG_68, SCHEMES, WFLW_98, LandmarkScheme, scheme_for
from lmopt.errors import InputError


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_named_schemes_are_whole_and_symmetric(scheme: LandmarkScheme):
    assert scheme_for(scheme.count) is scheme
    assert scheme.mirror is not None and scheme.eye_corners is not None and scheme.pupils
    right, left = scheme.eye_corners
    assert scheme.mirror[right] == left
    assert sorted(scheme.mirror[k] for k in scheme.pupils[0]) == sorted(scheme.pupils[1])
    assert list(scheme.regions) == ["jaw", "brows", "nose", "eyes", "mouth"]
    everywhere = [k for points in scheme.regions.values() for k in points]
    assert sorted(everywhere) == list(range(scheme.count))
    for points in scheme.regions.values():
        assert {scheme.mirror[k] for k in points} == set(points)


def test_landmarks_on_the_middle_line_are_their_own_mirror():
    def middle(scheme: LandmarkScheme) -> list[int]:
        return np.flatnonzero(np.array(scheme.mirror) == np.arange(scheme.count)).tolist()

    assert middle(IBUG_68) == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert middle(WFLW_98) == [16, 51, 52, 53, 54, 57, 79, 85, 90, 94]
    assert middle(COFW_29) == [20, 21, 24, 25, 26, 27, 28]


def test_a_region_beyond_the_landmarks_is_refused():
    with pytest.raises(InputError, match="beyond 4"):
        LandmarkScheme("five", 5, regions={"mouth": (3, 5)})
