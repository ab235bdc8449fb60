"""The instance task as every engine has it: what it is told, what it gives back, and the rules of masks.

An engine knows no classes here: it counts the pixels of each mask on each raw value of its gt.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpu_eval.engines.engine import Job
from gpu_eval.errors import InputError, SizeMismatch
from gpu_eval.inputs.instance_split import InstanceImage


@dataclass(slots=True)
class InstanceResult:
    """What an engine found out about the instances of one image.

    `gt_values`: int64, shape (g,), the raw pixel values that occur in the gt, ascending; `gt_pixels`:
    int64 (g,), how often; `overlaps`: int64 (predictions, g), pixels of each mask on each gt value, so a
    row's sum is the mask's area, None if any mask is broken; all three are None if the gt is. `errors` holds
    every broken file of the image. `size` is the gt's (height, width). `decoders` counts files by decoder:
    "simd", "cuda", "pillow", "rle".
    """

    gt_values: npt.NDArray[np.int64] | None = None
    gt_pixels: npt.NDArray[np.int64] | None = None
    overlaps: npt.NDArray[np.int64] | None = None
    errors: list[InputError] = field(default_factory=list)
    size: tuple[int, int] | None = None
    decoders: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class InstanceJob(Job[InstanceImage, InstanceResult]):
    """The job of counting all masks of each image on its gt: there is nothing to know besides the files.

    An image without a list of predictions (None) is counted as one without predictions.
    """

    task = "instance"


def mask_of_another_size(
    mask: tuple[int, ...], gt: tuple[int, int], *, file: str, gt_file: str
) -> SizeMismatch:
    """The error of a mask whose (height, width) is not its gt's: nothing is resized.

    The fast forms only ask whether the sizes are equal: `count_masks` of `cpu/instance_kernels`, and the
    choice of images in `cuda/instance`.
    """
    return SizeMismatch(
        "the mask is not as large as its ground truth",
        file=file,
        found=f"{mask[0]} rows of {mask[1]} pixels",
        expected=f"{gt[0]} rows of {gt[1]} pixels, as {gt_file}",
        fix="save masks at the size of the ground truth: nothing is resized",
    )
