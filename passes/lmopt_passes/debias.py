"""debias: landmarks that lie, on average, where the annotations have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmopt.errors import PassError
from lmopt.ir.graph import Graph
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult, Preserves
from lmopt.pipeline.precondition import require_float, require_weights
from lmopt_passes.center_output import linear_answers, shift_answer, shift_behind


@dataclass(frozen=True)
class Debias(Pass):
    """Shifts every landmark by its mean error over upright training faces.

    Annotators have a side and a style. A detector that was trained on mirrored faces answers what
    lies between both sides, one trained on rendered faces what lies there; both are off by a
    constant. Put it behind the last training, before what quantizes.

    Attributes:
        faces: Training faces over which the mean is taken, at most.
    """

    name: ClassVar[str] = "debias"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATOR, Need.CONTRACT})
    preserves: ClassVar[Preserves] = Preserves.SHAPES
    faces: int = 2000

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        require_weights(graph, self.name)
        contract, calibrator = ctx.require_contract(), ctx.calibrator
        answer = dict(graph.outputs).get(contract.output)
        if answer is None:
            raise PassError(
                f"no output '{contract.output}', of which the contract speaks",
                where=graph.name,
                hint="give the contract that belongs to this model",
            )
        mean = calibrator.means(graph, [answer], faces=self.faces)[answer]
        wanted = calibrator.mean_landmarks(faces=self.faces)[None]
        shift = contract.encode(wanted).reshape(mean.shape) - mean
        edit = graph.edit()
        linear = linear_answers(graph).get(answer)
        if linear is not None and mean.ndim == 1 and not graph.users(answer):
            shift_answer(edit, linear, shift)
        else:
            shift_behind(edit, contract.output, answer, shift)
        moved = np.linalg.norm(wanted - contract.decode(mean[None]), axis=-1).mean()
        note = f"landmarks moved by {100 * moved:.2f} % of the crop's side, on average"
        return PassResult(edit.done(), True, (note,))
