"""Made-up drives of three classes, the same under every version of NumPy and Python."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpu_eval.metrics.semantic_sums import iou_parts
from gpu_eval.metrics.uncertainty import Parts
from tests.support.draws import Draws

Counts = npt.NDArray[np.int64]

# Logit of being right, of each class.
EASE = np.array([2.0, 1.0, 0.0])


def drives(draws: Draws, count: int, models: int = 1) -> tuple[Counts, Counts, Counts]:
    """TP and union (models, count, 3), gt (count, 3): 1,000 pixels a drive and class, give or take."""
    gt = np.rint(1000 * np.exp(0.5 * draws.normal(count, 3))).astype(np.int64)
    mood = EASE + draws.normal(count, 1) + 0.5 * draws.normal(count, 3)
    own = mood + 0.5 * draws.normal(models, count, 3)
    tp = np.rint(gt / (1 + np.exp(-own))).astype(np.int64)
    return tp, gt + (gt - tp)[..., [1, 2, 0]], gt


def runs(draws: Draws, count: int, models: int = 1) -> list[Parts]:
    tp, union, gt = drives(draws, count, models)
    return [iou_parts(tp[m], gt, union[m], "idd") for m in range(models)]
