"""Instance scores against cityscapesScripts as published, run on files of a random split."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.average_precision import AveragePrecision, average_precision
from gpu_eval.metrics.matching import THRESHOLDS, outcomes
from tests.reference.instances import BACKGROUND, EVALUATED, Image, Prediction, random_split
from tests.support.instance_runs import table_of
from tests.support.numbers import close, floats

IDD = load_instances("idd")
SCRIPT = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script's module with IDD's labels in place of its own, and the one NumPy name it misses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its import has to say about its own text
        reason = "cityscapesScripts is not installed"
        module = pytest.importorskip(SCRIPT, reason=reason, exc_type=ImportError)
        reader = importlib.import_module("cityscapesscripts.evaluation.instances2dict")
        label = importlib.import_module("cityscapesscripts.helpers.labels").Label
    evaluated = dict(zip(IDD.ids, IDD.names, strict=True))
    labels = [
        label(evaluated.get(raw, f"label {raw}"), raw, raw, "", 0, raw in evaluated, raw in IDD.void_ids, ())
        for raw in [*IDD.ids, *sorted({*IDD.known_ids, 255} - set(IDD.ids))]
    ]
    by_id = {one.id: one for one in labels}
    for each in (module, reader):
        monkeypatch.setattr(each, "labels", labels)
        monkeypatch.setattr(each, "id2label", by_id)
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    monkeypatch.setattr(module.args, "quiet", True)
    return module


def write(root: Path, images: list[Image]) -> tuple[list[str], list[str]]:
    """The split as files; the lists of predictions and of gt maps, in the images' order."""
    preds, gts = [], []
    for number, image in enumerate(images):
        lines = []
        for index, (mask, label, confidence) in enumerate(image.predictions):
            name = f"{number}_{index}.png"
            PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(root / name)
            lines.append(f"{name} {label} {confidence!r}\n")
        listed, gt = root / f"{number}.txt", root / f"{number}_gt.png"
        listed.write_text("".join(lines))
        PIL.Image.fromarray(image.gt.astype(np.uint16)).save(gt)
        preds.append(str(listed))
        gts.append(str(gt))
    return preds, gts


def run(script: Any, root: Path, images: list[Image], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Its AP matrix (classes, thresholds) and its averages."""
    preds, gts = write(root, images)
    monkeypatch.setattr(script.args, "predictionPath", str(root))
    script.setInstanceLabels(script.args)
    found = script.instances2dict(gts)
    aps = script.evaluateMatches(script.matchGtWithPreds(preds, gts, found, script.args), script.args)
    return aps[0], script.computeAverages(aps, script.args)


def ours(images: list[Image], protocol: str = "cityscapes") -> AveragePrecision:
    return average_precision(outcomes(table_of(images), IDD, protocol))


def with_a_stray_of_each_class(images: list[Image]) -> list[Image]:
    """One more prediction a class, on plain background: then no class has ignored predictions alone."""
    first, *others = images
    background = np.isin(first.gt, BACKGROUND)
    strays = [Prediction(background, raw, 0.3) for raw in EVALUATED]
    return [Image(first.gt, [*first.predictions, *strays]), *others]


@pytest.mark.parametrize(
    ("seed", "images", "classes"),
    [(21, 1, (12,)), (22, 5, (6, 9, 12)), (23, 12, (8, 18)), (24, 20, EVALUATED)],
)
def test_cityscapes_protocol_is_the_published_script(
    script: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    images: int,
    classes: tuple[int, ...],
) -> None:
    split = with_a_stray_of_each_class(random_split(seed, images, classes))
    matrix, averages = run(script, tmp_path, split, monkeypatch)
    assert script.args.instLabels == list(IDD.names)
    assert script.args.overlaps.tolist() == list(THRESHOLDS)
    got = ours(split)
    assert np.nanmax(matrix) > 0
    close(got.ap, matrix)
    close(got.mean_ap, averages["allAp"])
    close(got.mean_ap50, averages["allAp50%"])
    classes = [averages["classes"][name] for name in IDD.names]
    close(got.class_ap, floats([one["ap"] for one in classes]))
    close(got.class_ap50, floats([one["ap50%"] for one in classes]))


def test_split_of_the_parity_test_tells_the_protocols_apart() -> None:
    split = random_split(24, 20)
    assert not np.array_equal(ours(split).fp, ours(split, "autonue").fp)


def test_published_script_stops_where_all_predictions_are_ignored_and_ours_gives_0(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gt = np.zeros((40, 40), np.int64)
    gt[:20, :20] = 12000
    gt[30:] = 35
    split = [Image(gt, [Prediction(gt == 35, 12, 0.9)])]
    with pytest.raises(IndexError):
        run(script, tmp_path, split, monkeypatch)
    got = ours(split)
    assert got.ap[IDD.ids.index(12)].tolist() == [0.0] * len(THRESHOLDS)
    assert got.mean_ap == 0.0
