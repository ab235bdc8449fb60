"""Confusion matrices of a user's own: what is taken, and what is refused in one clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from gpu_eval.errors import OptionError
from gpu_eval.metrics import matrices
from gpu_eval.metrics.matrices import compare_confusions, miou_interval
from tests.support.draws import Draws

IMAGES = 12
MOST = 2**63 - 1


@pytest.fixture(scope="module")
def counts() -> npt.NDArray[np.int64]:
    return Draws(15).integers(2000, IMAGES, 8, 8)


def same_gt(counts: Any) -> Any:
    return counts[:, :, ::-1]


class TestMatrices:
    @pytest.mark.parametrize("change", [np.ndarray.tolist, list, np.uint64, np.uint16, np.int32])
    def test_lists_and_every_integer_are_taken(
        self, counts: npt.NDArray[np.int64], change: Callable[[Any], Any]
    ) -> None:
        assert miou_interval(change(counts), "idd-lite") == miou_interval(counts, "idd-lite")
        pair = compare_confusions(change(counts), change(same_gt(counts)), "idd-lite")
        assert pair == compare_confusions(counts, same_gt(counts), "idd-lite")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda _: None, "no confusion matrices.*found NoneType"),
            (lambda _: [[1], [2, 3]], "no confusion matrices.*found list"),
            (lambda _: "abc", "no confusion matrices.*found str"),
            (iter, "no confusion matrices.*found .*iterator"),
            (lambda c: c[:, :7], r"no confusion matrices.*int64 \(12, 7, 8\).*\(images, 8, 8\): 7 classes"),
            (lambda c: np.pad(c, ((0, 0), (0, 1), (0, 1))), r"no confusion matrices.*\(12, 9, 9\)"),
            (lambda c: c[0], "no confusion matrices"),
            (lambda c: c.astype(float), "no confusion matrices.*float64"),
            (lambda c: c.astype(float).tolist(), "no confusion matrices.*float64"),
            (lambda c: c > 5, "no confusion matrices.*bool"),
            (lambda c: (c.astype(object) + 2**70).tolist(), "no confusion matrices.*object"),
            (lambda c: c - 10**6, "negative counts.*found -"),
            (lambda c: np.full_like(c, 2**62), "more pixels than can be counted"),
            (lambda c: np.full(c.shape, 2**63 + 5, np.uint64), "more pixels than can be counted"),
        ],
    )
    def test_others_are_refused_by_the_name_of_their_argument(
        self, counts: npt.NDArray[np.int64], change: Callable[[Any], Any], words: str
    ) -> None:
        with pytest.raises(OptionError, match=f"confusions: .*{words}"):
            miou_interval(change(counts), "idd-lite")
        with pytest.raises(OptionError, match=f"a: .*{words}"):
            compare_confusions(change(counts), counts, "idd-lite")
        with pytest.raises(OptionError, match=f"b: .*{words}"):
            compare_confusions(counts, change(counts), "idd-lite")

    def test_pairs_of_other_images_are_refused(self, counts: npt.NDArray[np.int64]) -> None:
        with pytest.raises(OptionError, match=r"ground truth differs.*found image 0"):
            compare_confusions(counts, counts[::-1], "idd-lite")
        with pytest.raises(OptionError, match=r"not the same images.*found 2 matrices, expected 12"):
            compare_confusions(counts, counts[:2], "idd-lite")

    @pytest.mark.parametrize("chunk", [1, 4096])
    def test_as_many_pixels_as_int64_holds_are_counted_and_not_one_more(
        self, monkeypatch: pytest.MonkeyPatch, chunk: int
    ) -> None:
        monkeypatch.setattr(matrices, "_CHUNK", chunk)
        many = np.zeros((3, 8, 8), np.uint64)
        many[0, 0, 0], many[1, 1, 1] = MOST - 1, 1
        assert miou_interval(many, "idd-lite").estimate == 1
        many[2, 1, 1] = 1
        with pytest.raises(OptionError, match=f"found {MOST + 1:,}, expected at most {MOST:,}"):
            miou_interval(many, "idd-lite")


class TestUnits:
    @pytest.mark.parametrize("change", [tuple, np.array, pa.array, lambda u: [ord(unit) for unit in u]])
    def test_lists_and_arrays_of_strings_or_integers_are_taken(
        self, counts: npt.NDArray[np.int64], change: Callable[[Any], Any]
    ) -> None:
        names = list("abcdabcdabcd")
        wanted = miou_interval(counts, "idd-lite", units=names)
        assert miou_interval(counts, "idd-lite", units=change(names)) == wanted

    @pytest.mark.parametrize(
        ("units", "words"),
        [
            ([["a"]] * IMAGES, r"image 0 has no unit.*found \['a'\]"),
            (["a"] * 11 + [None], "image 11 has no unit.*found None"),
            (np.full(IMAGES, np.nan), "image 0 has no unit.*found nan"),
            ([1.0] * IMAGES, "image 0 has no unit"),
            ([True] * IMAGES, "image 0 has no unit.*found True"),
            ([""] * IMAGES, "image 0 has no unit.*found ''"),
            ([1, "1"] * 6, "some units are strings and some integers"),
            ("abcdefghijkl", "units are no list.*found str"),
            (b"abcdefghijkl", "units are no list.*found bytes"),
            (dict.fromkeys(range(IMAGES), "a"), "units are no list.*found dict"),
            (set(range(IMAGES)), "units are no list.*found set"),
            ((str(i) for i in range(IMAGES)), "units are no list.*found generator"),
            (np.ones((IMAGES, 2), int), r"units are no list.*found ndarray of shape \(12, 2\)"),
            (5, "units are no list.*found int"),
            (["a"], "not one unit per image.*found 1 units, expected 12"),
        ],
    )
    def test_others_are_refused(self, counts: npt.NDArray[np.int64], units: Any, words: str) -> None:
        with pytest.raises(OptionError, match=words):
            miou_interval(counts, "idd-lite", units=units)
        with pytest.raises(OptionError, match=r"units are no list|has no unit|some units|per image"):
            compare_confusions(counts, counts, "idd-lite", units=units)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *(({"confidence": bad}, "no such confidence") for bad in (None, "0.95", 95, 0, True, [0.95])),
        ({"confidence": float("nan")}, "no such confidence.*found nan"),
        ({"level": "1"}, "no such level"),
        ({"level": [1]}, "no such level"),
        ({"protocol": ["idd"]}, "no such protocol"),
        ({"labels": None}, "no labels.*found None"),
        ({"labels": 7.0}, "no labels.*found 7.0"),
        ({"labels": True}, "no labels.*found True"),
    ],
    ids=repr,
)
def test_options_that_have_no_meaning_are_refused(
    counts: npt.NDArray[np.int64], options: dict[str, Any], words: str
) -> None:
    options = {"labels": "idd-lite", **options}
    with pytest.raises(OptionError, match=words):
        miou_interval(counts, **options)
    with pytest.raises(OptionError, match=words):
        compare_confusions(counts, same_gt(counts), **options)


def test_a_number_of_classes_may_be_numpys(counts: npt.NDArray[np.int64]) -> None:
    labels: Any = np.int64(7)
    assert miou_interval(counts, labels) == miou_interval(counts, 7)
