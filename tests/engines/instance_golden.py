"""The contract of engines for instances on the golden set; see `instance_contract`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpu_eval.engines.engine import Engine
from gpu_eval.engines.instance import InstanceResult
from gpu_eval.errors import InputError, SizeMismatch, WrongImageMode
from gpu_eval.inputs.instance_split import InstanceImage, Prediction, read_split
from gpu_eval.inputs.sources import open_source
from gpu_eval.labels.instance_space import load_instances
from tests.engines.instance_contract import JOB, Pixels, assert_counts, by_speed
from tests.support.shared import SHARED, needs_shared


@needs_shared
class InstanceGolden:
    """The golden set, and the modes of masks that the reference reads."""

    def test_each_image_of_the_instance_set(self, engine: Engine, decoder: str) -> None:
        gts, preds = (open_source(SHARED / "golden/instance" / side) for side in ("gt", "pred"))
        files = {entry.name: entry for entry in preds.entries()}
        images = []
        for gt in gts.entries():
            key = gt.name.removesuffix("_gtFine_instanceids.png")
            masks = [file for name, file in files.items() if name.startswith(f"{key}/")]
            predictions = tuple(Prediction(mask, 9, 0.5, 1) for mask in masks)
            images.append(InstanceImage(key, "", gt, predictions, None))
        assert len(images) == 8
        assert sum(len(image.predictions) for image in images) == 447
        for image, result in zip(images, engine.count(JOB, images, gts, preds), strict=True):
            gt = by_pillow(SHARED / "golden/instance/gt" / image.gt.name)
            masks = [
                by_pillow(SHARED / "golden/instance/pred" / prediction.mask.name, "L")
                for prediction in image.predictions
            ]
            assert_counts(result, gt, masks)
            assert by_speed(result, decoder) == {"fast": len(masks) + 1}

    @pytest.mark.parametrize(
        ("case", "areas"),
        [
            ("plain", [600, 440, 600]),
            ("palette_normal", [600]),
            ("rgb_white", [600]),
            ("mask16_255", [600]),
            ("mask_one_bit", [600]),
            ("only_empty_masks", [0]),
            ("empty_txt", []),
            ("gt_value_255", [600, 440, 600]),
        ],
    )
    def test_modes_of_masks_that_the_reference_reads(
        self, engine: Engine, case: str, areas: list[int]
    ) -> None:
        _, (result,) = count_split(engine, SHARED / "golden/instance_edge" / case)
        assert result.errors == []
        assert result.overlaps.sum(axis=1).tolist() == areas

    @pytest.mark.parametrize(
        ("case", "error", "words"),
        [
            # The reference finds an empty mask and scores it.
            ("palette_index1_black", WrongImageMode, "index 1 black"),
            # The reference ends with NumPy's broadcast error.
            ("mask_smaller", SizeMismatch, "32 rows of 48 pixels, expected 64 rows of 96 pixels"),
        ],
    )
    def test_masks_that_are_refused(
        self, engine: Engine, case: str, error: type[InputError], words: str
    ) -> None:
        _, (result,) = count_split(engine, SHARED / "golden/instance_edge" / case)
        assert [type(told) for told in result.errors] == [error]
        assert words in str(result.errors[0])


def count_split(engine: Engine, folder: Path) -> tuple[tuple[InstanceImage, ...], list[InstanceResult]]:
    gts, preds = open_source(folder / "gt"), open_source(folder / "pred")
    split = read_split(gts, preds, load_instances("idd"))
    assert split.problems == ()
    return split.images, engine.count(JOB, split.images, gts, preds)


def by_pillow(path: Path, mode: str | None = None) -> Pixels:
    """As the reference opens a gt, or a mask with mode "L"."""
    with Image.open(path) as image:
        return np.array(image.convert(mode) if mode else image)
