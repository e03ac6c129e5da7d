"""lmopt: optimizes facial-landmark detectors for phones.

The functions a program needs are here and are imported when they are first used, so that
`import lmopt` costs nothing::

    import lmopt

    detector = lmopt.load("pfld-0.25@300w")
    small = lmopt.compile(detector, "fold-batchnorm,quantize-int8", data="faces/afw")
    print(lmopt.evaluate("small.tflite", "faces/afw").nme_percent)
    result = lmopt.optimize(lmopt.OptimizeRequest(target="host"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmopt.flow.compilation import compile
    from lmopt.flow.evaluation import evaluate, evaluate_protocols
    from lmopt.flow.inspection import inspect
    from lmopt.flow.measuring import measure
    from lmopt.flow.optimization import optimize
    from lmopt.flow.request import OptimizeRequest, SearchRequest
    from lmopt.flow.searching import search
    from lmopt.flow.sensitivity import sensitivity
    from lmopt.flow.sources import load
    from lmopt.flow.storage import compare_storage
    from lmopt.flow.training import train
    from lmopt.pipeline.manager import Pipeline

    __version__: str

__all__ = [
    "OptimizeRequest",
    "Pipeline",
    "SearchRequest",
    "__version__",
    "compare_storage",
    "compile",
    "evaluate",
    "evaluate_protocols",
    "inspect",
    "load",
    "measure",
    "optimize",
    "search",
    "sensitivity",
    "train",
]

_HOMES = {
    "OptimizeRequest": "lmopt.flow.request",
    "Pipeline": "lmopt.pipeline.manager",
    "SearchRequest": "lmopt.flow.request",
    "compare_storage": "lmopt.flow.storage",
    "compile": "lmopt.flow.compilation",
    "evaluate": "lmopt.flow.evaluation",
    "evaluate_protocols": "lmopt.flow.evaluation",
    "inspect": "lmopt.flow.inspection",
    "load": "lmopt.flow.sources",
    "measure": "lmopt.flow.measuring",
    "optimize": "lmopt.flow.optimization",
    "search": "lmopt.flow.searching",
    "sensitivity": "lmopt.flow.sensitivity",
    "train": "lmopt.flow.training",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lmopt")
    if name not in _HOMES:
        raise AttributeError(f"module 'lmopt' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
