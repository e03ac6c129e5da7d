"""What the two studies published, as far as their texts hold the numbers.

The thesis: Haapamäki, Facial landmark detection on mobile devices, University of Oulu, 2020. The
paper: a study of max-pooling in small landmark networks on an HTC 10. NME and STD are in percent of
the distance of the outer eye corners.
"""

from __future__ import annotations

from collections.abc import Mapping

Table = Mapping[str, Mapping[str, float]]

THESIS = ("pfld-0.25", "pfld-1.0", "dan1", "dan2", "hrnet-w18")
PAPER = ("basic", "two-pool", "one-pool")
TRAINING_FACES = 3148

PARAMETERS: Mapping[str, int] = {
    "pfld-0.25": 322_864,
    "pfld-1.0": 1_236_544,
    "dan1": 11_150_664,
    "dan2": 23_108_444,
    "hrnet-w18": 9_737_688,
}
"""Table 2."""


def _table(columns: tuple[str, ...], rows: Mapping[str, tuple[float, ...]]) -> Table:
    return {name: dict(zip(columns, row, strict=True)) for name, row in rows.items()}


_SUBSETS = ("common", "challenging", "full")
LANDMARK_BOXES = _table(
    _SUBSETS,
    {
        "pfld-0.25": (4.0268, 7.0156, 4.6124),
        "pfld-1.0": (4.0149, 6.8337, 4.5672),
        "dan1": (3.6889, 6.3864, 4.2174),
        "dan2": (3.5802, 6.1933, 4.0922),
        "hrnet-w18": (3.5413, 6.3220, 4.0861),
    },
)
"""Table 4: boxes of the true landmarks."""

DETECTOR_BOXES = _table(
    _SUBSETS,
    {
        "pfld-0.25": (4.9899, 8.1256, 5.6043),
        "pfld-1.0": (4.7407, 7.5147, 5.2842),
        "dan1": (4.7739, 7.9278, 5.3918),
        "dan2": (4.7751, 7.7262, 5.3533),
        "hrnet-w18": (4.0183, 7.1191, 4.6259),
    },
)
"""Table 6: boxes of MTCNN."""

CATEGORIES = _table(
    (
        *("all", "female", "male", "young", "old"),
        *("occlusion", "expression", "pose", "lighting"),
    ),
    {
        "pfld-0.25": (6.237, 5.753, 6.649, 5.629, 6.686, 7.461, 7.863, 8.549, 6.780),
        "pfld-1.0": (5.821, 5.456, 6.132, 5.423, 6.007, 6.933, 7.404, 7.750, 6.272),
        "dan1": (5.984, 5.593, 6.316, 5.538, 6.042, 7.242, 7.577, 8.268, 6.433),
        "dan2": (5.963, 5.626, 6.250, 5.506, 5.958, 7.306, 7.550, 8.009, 6.331),
        "hrnet-w18": (5.227, 4.960, 5.455, 4.677, 5.089, 6.706, 6.727, 7.383, 5.910),
    },
)
"""Table 8."""

STABILITY = _table(
    ("frames", "sigma 0.01", "sigma 0.1", "sigma 0.2"),
    {
        "pfld-0.25": (0.3301, 0.1542, 0.9570, 1.7665),
        "pfld-1.0": (0.3282, 0.1615, 1.0204, 1.8179),
        "dan1": (0.2928, 0.1305, 0.7876, 2.2130),
        "dan2": (0.2907, 0.1242, 0.7897, 2.0419),
        "hrnet-w18": (0.5774, 0.2708, 1.1084, 2.3896),
    },
)
"""Table 9."""

POOLED = _table(
    ("accuracy", "loss", "file MB"),
    {
        "basic": (0.63, 0.17, 32.5),
        "two-pool": (0.64, 0.12, 120.0),
        "one-pool": (0.69, 0.38, 518.0),
    },
)
"""The paper's tables 1 and 2."""
