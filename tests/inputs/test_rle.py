"""Run-length encoded masks: what pycocotools writes is read, and what is broken is told."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.errors import (
    CorruptImage,
)
from gpu_eval.inputs.coco import decode_rle
from gpu_eval.inputs.instance_split import Rle
from gpu_eval.inputs.png import MAX_PIXELS
from gpu_eval.inputs.rle import compress, read_rle

Mask = npt.NDArray[np.uint8]

masks = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32)).map(
    lambda drawn: np.random.default_rng(drawn[2]).integers(0, 2, drawn[:2], dtype=np.uint8)
)


def runs_of(mask: Mask) -> list[int]:
    """Lengths of the runs of 0 and 1 in turn, down the columns, zeros first: the literal way."""
    runs, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@given(masks)
def test_mask_survives_encoding(mask: Mask) -> None:
    for counts in (runs_of(mask), compress(runs_of(mask)).decode()):
        rle = read_rle({"size": list(mask.shape), "counts": counts})
        assert isinstance(rle, Rle)
        assert (rle.height, rle.width) == mask.shape
        decoded = decode_rle(rle, "x")
        assert decoded.dtype == np.uint8
        assert np.array_equal(decoded, mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11
@given(masks)
def test_encoding_is_that_of_pycocotools(mask: Mask) -> None:
    oracle = pytest.importorskip("pycocotools.mask")
    theirs = oracle.encode(np.asfortranarray(mask))
    assert theirs["counts"] == compress(runs_of(mask))
    assert np.array_equal(decode_rle(Rle(*mask.shape, theirs["counts"]), "x"), oracle.decode(theirs))


@pytest.mark.parametrize("shape", [(1080, 1920), (1, 100_000), (100_000, 1), (4000, 3000)])
def test_long_runs_are_those_of_pycocotools(shape: tuple[int, int]) -> None:
    oracle = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(5)
    mask = np.zeros(shape, np.uint8)
    for _ in range(4):
        row, column = rng.integers(0, shape)
        mask[row : row + shape[0] // 3 + 1, column : column + shape[1] // 3 + 1] = 1
    theirs = oracle.encode(np.asfortranarray(mask))
    assert theirs["counts"] == compress(runs_of(mask))
    assert np.array_equal(decode_rle(Rle(*shape, theirs["counts"]), "x"), mask)


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        (None, "there is no segmentation"),
        ("0140", "there is no segmentation"),
        ([[1, 2, 3, 4, 5, 6]], "the segmentation is a polygon, not a mask"),
        ({"counts": "0140"}, "the size is not two whole numbers"),
        ({"size": [2], "counts": [4]}, "the size is not two whole numbers"),
        ({"size": [2.0, 2], "counts": [4]}, "the size is not two whole numbers"),
        ({"size": [True, True], "counts": [1]}, "the size is not two whole numbers"),
        ({"size": "22", "counts": [4]}, "the size is not two whole numbers"),
        ({"size": [0, 2], "counts": [0]}, "the size is not positive"),
        ({"size": [-2, -2], "counts": [4]}, "the size is not positive"),
        ({"size": [2**14, 2**14], "counts": [2**28]}, f"the mask has more than {MAX_PIXELS} pixels"),
        ({"size": [10**400, 1], "counts": [4]}, f"the mask has more than {MAX_PIXELS} pixels"),
        ({"size": [2, 2]}, "the counts are neither text nor a list"),
        ({"size": [2, 2], "counts": 4}, "the counts are neither text nor a list"),
        ({"size": [2, 2], "counts": []}, "the counts do not add up to the size"),
        ({"size": [2, 2], "counts": [3]}, "the counts do not add up to the size"),
        ({"size": [2, 2], "counts": [1, 4]}, "the counts do not add up to the size"),
        ({"size": [2, 2], "counts": [5, -1]}, "the counts are not whole numbers from 0"),
        ({"size": [2, 2], "counts": [4.0]}, "the counts are not whole numbers from 0"),
        ({"size": [2, 2], "counts": ["4"]}, "the counts are not whole numbers from 0"),
        ({"size": [2, 2], "counts": ""}, "the counts are empty"),
        ({"size": [2, 2], "counts": "3"}, "the counts do not add up to the size"),
        ({"size": [2, 2], "counts": "5"}, "the counts do not add up to the size"),
        ({"size": [2, 2], "counts": "o"}, "the counts are not a run-length encoding"),  # ends in a run
        ({"size": [2, 2], "counts": "\0" * 4}, "the counts are not a run-length encoding"),
        ({"size": [2, 2], "counts": "4 "}, "the counts are not a run-length encoding"),
        ({"size": [2, 2], "counts": "4é"}, "the counts are not a run-length encoding"),
        ({"size": [2, 2], "counts": "4\ud800"}, "the counts are not a run-length encoding"),
        ({"size": [2, 2], "counts": "P" * 7 + "0"}, "the counts are not a run-length encoding"),
        ({"size": [2, 2], "counts": "O5"}, "the counts hold a negative run"),
        (
            {"size": [1, 1], "counts": compress([2**27 + 1, 0]).decode()},
            "the counts do not add up to the size",
        ),
    ],
)
def test_broken_encoding_is_told(segmentation: object, told: str) -> None:
    assert read_rle(segmentation) == told


@pytest.mark.parametrize("counts", [b"", b"1", b"5", b"9999", b"o", b"\0", b"\xff"])
def test_broken_encoding_is_a_corrupt_image_when_decoded(counts: bytes) -> None:
    with pytest.raises(CorruptImage, match=r"^preds\.json entry 3: "):
        decode_rle(Rle(2, 2, counts), "preds.json entry 3")


@given(st.binary(max_size=24), st.integers(1, 6), st.integers(1, 6))
def test_random_counts_fill_the_mask_exactly_or_are_refused(counts: bytes, height: int, width: int) -> None:
    try:
        mask = decode_rle(Rle(height, width, counts), "x")
    except CorruptImage:
        return
    assert mask.shape == (height, width)
    assert set(mask.ravel().tolist()) <= {0, 1}
