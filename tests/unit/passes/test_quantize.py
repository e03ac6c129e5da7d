import numpy as np
import pytest

from lmopt.errors import PassError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Conv2D, Dense, Mean
from lmopt.ir.types import DType
from lmopt.pipeline.base import Need, Pass, PassContext
from lmopt_passes.qat import Qat
from lmopt_passes.quantize_int8 import QuantizeInt8
from lmopt_passes.quantize_int16 import QuantizeInt16
from lmopt_passes.quantize_uint8 import QuantizeUint8
from tests.support.services import DistanceScorer, DrawnCalibrator, NudgingTrainer

SERVICES = {
    Need.CALIBRATOR: DrawnCalibrator(),
    Need.TRAINER: NudgingTrainer(),
    Need.SCORER: DistanceScorer(),
}


def detector() -> Graph:
    edit = Edit("small")
    rng = np.random.default_rng(0)
    x = edit.input("image", (None, 6, 6, 3))
    for name, width in (("stem", 3), ("head_conv", 4)):
        kernel = rng.normal(size=(3, 3, width, 4)).astype(np.float32)
        x = edit.add(name, Conv2D(4, use_bias=False), x, weights={"kernel": kernel})
    kernel = rng.normal(size=(4, 10)).astype(np.float32)
    mean = edit.add("mean", Mean(), x)
    edit.output(
        "landmarks", edit.add("head", Dense(10, use_bias=False), mean, weights={"kernel": kernel})
    )
    return edit.done()


@pytest.mark.parametrize(
    ("item", "storage"),
    [
        (QuantizeInt8(keep_float=("head*",)), DType.I8),
        (QuantizeUint8(keep_float=("head*",)), DType.U8),
        (QuantizeInt16(keep_float=("head*",)), DType.I16),
        (Qat(keep_float=("head*",)), DType.I8),
    ],
    ids=["int8", "uint8", "int16", "qat"],
)
def test_named_nodes_stay_in_float32(item: Pass, storage: DType):
    result = item.apply(detector(), PassContext(services=SERVICES)).graph
    dtypes = {node.name: node.results[0].dtype for node in result.nodes}
    assert dtypes["stem"] is storage
    assert dtypes["head_conv"] is dtypes["head"] is DType.F32
    assert dtypes["mean"] is storage


def test_a_name_that_matches_nothing_is_refused():
    with pytest.raises(PassError, match="no node is called 'haed'"):
        QuantizeInt8(keep_float=("haed",)).apply(detector(), PassContext(services=SERVICES))
