"""What engines and meters say alike of two maps: folding of what is outside, shapes, aspect ratios."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError

# Relative difference of aspect ratios that earns a warning. 858x480 for 16:9 differs by 0.5 %.
ASPECT_TOLERANCE = 0.01


def fold_outside(joint: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Joint counts with the pixels outside the encodings counted as void.

    From shape (..., n + 2, n + 2), rows gt, columns prediction, the last two indices void and outside, to
    (..., n + 1, n + 1), a new contiguous array.
    """
    n = joint.shape[-1] - 2
    folded = joint[..., : n + 1, : n + 1].copy()
    folded[..., n, :] += joint[..., n + 1, : n + 1]
    folded[..., :, n] += joint[..., : n + 1, n + 1]
    folded[..., n, n] += joint[..., n + 1, n + 1]
    return folded


def aspect_warning(gt_size: tuple[int, int], pred_size: tuple[int, int]) -> str | None:
    """What to say of sizes (height, width) of different aspect ratios."""
    (gt_height, gt_width), (pred_height, pred_width) = gt_size, pred_size
    if abs(gt_width * pred_height / (pred_width * gt_height) - 1.0) <= ASPECT_TOLERANCE:
        return None
    return (
        f"aspect ratio of the prediction ({pred_width}x{pred_height}) is not that of the "
        f"ground truth ({gt_width}x{gt_height})"
    )


def different_shapes(gt: tuple[int, ...], pred: tuple[int, ...]) -> OptionError:
    """The error of arrays that cannot be counted together."""
    return OptionError(
        "gt and pred differ in shape",
        found=f"{gt} and {pred}",
        expected="one shape",
        fix="resize the prediction by nearest neighbour first",
    )
