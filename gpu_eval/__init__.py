"""Scores a whole test split of segmentation predictions.

    import gpu_eval
    run = gpu_eval.score("gt.tar", "preds/", out="runs/mymodel")
    run.miou(level=3), run.classes, run.sql("SELECT ...")

Submodules load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_eval import errors
    from gpu_eval.api import (
        ConfusionMeter,
        Progress,
        check,
        compare,
        compare_confusions,
        confusion_matrix,
        leaderboard,
        miou_interval,
        open_run,
        score,
        score_instances,
        tag,
        write_html,
    )
    from gpu_eval.checkup.examination import Examination
    from gpu_eval.errors import Doubtful, DoubtWarning, GpuEvalError, SplitProblems
    from gpu_eval.labels import LabelSpace, load_labels
    from gpu_eval.results.compare import Comparison
    from gpu_eval.results.instance_run import InstanceRun
    from gpu_eval.results.semantic_run import Run
    from gpu_eval.version import __version__

__all__ = [
    "Comparison",
    "ConfusionMeter",
    "DoubtWarning",
    "Doubtful",
    "Examination",
    "GpuEvalError",
    "InstanceRun",
    "LabelSpace",
    "Progress",
    "Run",
    "SplitProblems",
    "__version__",
    "check",
    "compare",
    "compare_confusions",
    "confusion_matrix",
    "errors",
    "leaderboard",
    "load_labels",
    "miou_interval",
    "open_run",
    "score",
    "score_instances",
    "tag",
    "write_html",
]

_HOMES = {
    "Comparison": "results.compare",
    "DoubtWarning": "errors",
    "Doubtful": "errors",
    "Examination": "checkup.examination",
    "GpuEvalError": "errors",
    "InstanceRun": "results.instance_run",
    "LabelSpace": "labels",
    "Run": "results.semantic_run",
    "SplitProblems": "errors",
    "__version__": "version",
    "compare_confusions": "metrics.matrices",
    "load_labels": "labels",
    "miou_interval": "metrics.matrices",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "errors":
        return importlib.import_module("gpu_eval.errors")
    return getattr(importlib.import_module(f"gpu_eval.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return list(__all__)
