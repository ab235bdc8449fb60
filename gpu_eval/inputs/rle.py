"""COCO's run-length encoding of masks, checked before it is trusted.

The rules are those of cocoapi, common/maskApi.c: runs of 0 and 1 in turn, down the columns. The compressed
form (`rleToString`) writes each run, from the fourth on its difference from the last but one, as a signed
LEB128 of five bits per character, in the characters 48 to 111; bit 5 says that more follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import CorruptImage
from gpu_eval.inputs.instance_split import Rle
from gpu_eval.inputs.png import MAX_PIXELS

EXPECTED_RLE = '{"size": [height, width], "counts": run lengths}'

MAX_CHARACTERS = 7  # of one run: 35 bits, more than any difference of two runs in MAX_PIXELS takes


def read_rle(segmentation: Any) -> Rle | str:
    """The mask of a COCO "segmentation", or what is wrong with it. Counts may be compressed or a list."""
    if isinstance(segmentation, list):
        return "the segmentation is a polygon, not a mask"
    if not isinstance(segmentation, dict):
        return "there is no segmentation"
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        return "the size is not two whole numbers"
    height, width = size
    if height < 1 or width < 1:
        return "the size is not positive"
    if height * width > MAX_PIXELS:
        return f"the mask has more than {MAX_PIXELS} pixels"
    if isinstance(counts, str):
        rle = Rle(height, width, counts.encode("utf-8", "surrogatepass"))
        runs = _runs(rle)
        return runs if isinstance(runs, str) else rle
    if not isinstance(counts, list):
        return "the counts are neither text nor a list"
    if not all(type(run) is int and run >= 0 for run in counts):
        return "the counts are not whole numbers from 0"
    if sum(counts) != height * width:
        return "the counts do not add up to the size"
    return Rle(height, width, compress(counts))


def decode_rle(rle: Rle, file: str) -> npt.NDArray[np.uint8]:
    """The mask, shape (height, width), 1 where the instance is; contiguous down the columns.

    Raises CorruptImage, which names `file`, where the runs do not fill the mask exactly.
    """
    runs = _runs(rle)
    if isinstance(runs, str):
        raise CorruptImage(runs, file=file, expected=EXPECTED_RLE)
    bits = np.zeros(runs.size, np.uint8)
    bits[1::2] = 1
    return np.repeat(bits, runs).reshape(rle.width, rle.height).T


def compress(runs: Sequence[int]) -> bytes:
    """The compressed form of run lengths (`rleToString`)."""
    characters = bytearray()
    for index, run in enumerate(runs):
        rest = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = rest & 31
            rest >>= 5
            more = rest != (-1 if bits & 16 else 0)
            characters.append(48 + bits + 32 * more)
    return bytes(characters)


def _runs(rle: Rle) -> npt.NDArray[np.int64] | str:
    """The run lengths, shape (runs,), or why there are none that fill the mask exactly."""
    characters = np.frombuffer(rle.counts, np.uint8).astype(np.int64) - 48
    if characters.size == 0:
        return "the counts are empty"
    ends = np.flatnonzero(characters & 32 == 0)
    if characters.min() < 0 or characters.max() > 63 or ends.size == 0 or ends[-1] != characters.size - 1:
        return "the counts are not a run-length encoding"
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > MAX_CHARACTERS:
        return "the counts are not a run-length encoding"
    place = np.arange(characters.size) - starts.repeat(lengths)
    runs = np.add.reduceat((characters & 31) << (5 * place), starts)
    runs -= (characters[ends] >> 4 & 1) << (5 * lengths)  # the sign bit of the last character
    for first in (1, 2):
        runs[first::2] = runs[first::2].cumsum()
    if runs.min() < 0:
        return "the counts hold a negative run"
    if runs.max() > MAX_PIXELS or runs.sum() != rle.height * rle.width:
        return "the counts do not add up to the size"
    return runs
