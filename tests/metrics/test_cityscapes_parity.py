"""Label maps of Cityscapes against cityscapesScripts as published: its table, its files, its scores."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval.labels import load_labels

SCRIPT = "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling"
CITIES = ("aachen", "bonn", "ulm")


@pytest.fixture
def script() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its import has to say about its own text
        return pytest.importorskip(SCRIPT, reason="cityscapesScripts is not installed", exc_type=ImportError)


def test_table_of_classes_and_categories_is_that_of_cityscapesscripts() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    space = load_labels("cityscapes")
    evaluated = [label for label in labels if not label.ignoreInEval]
    categories = list(dict.fromkeys(label.category for label in evaluated))
    assert space.level(2).names == tuple(label.name for label in evaluated)
    assert space.level(1).names == tuple(categories)
    assert space.colours == tuple(label.color for label in evaluated)
    for number, category in enumerate(categories):
        members = tuple(place for place, label in enumerate(evaluated) if label.category == category)
        assert space.level(1).groups[number] == members
    for label in labels:
        if label.id >= 0:
            expected = space.void if label.ignoreInEval else evaluated.index(label)
            assert space.encoding("id").table[label.id] == expected
        if not label.ignoreInEval:
            assert space.encoding("train").table[label.trainId] == evaluated.index(label)
    assert space.encoding("train").table[255] == space.void


def write(root: Path, seed: int) -> None:
    """Two images of each city under gtFine/val with the other files of an image, and flat results."""
    draw = np.random.default_rng(seed)
    (root / "results").mkdir()
    for number, city in enumerate(CITIES * 2):
        base = f"{city}_{number:06d}_000019"
        folder = root / "gtFine" / "val" / city
        folder.mkdir(parents=True, exist_ok=True)
        # Every id may occur on both sides, also those that count for nothing; some never do.
        gt = draw.choice(draw.permutation(34)[:25], (8, 16)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
        pred = np.where(draw.random(gt.shape) < 0.3, draw.integers(0, 34, gt.shape), gt).astype(np.uint8)
        Image.fromarray(gt).save(folder / f"{base}_gtFine_labelIds.png")
        Image.fromarray(gt.astype(np.uint16) * 1000).save(folder / f"{base}_gtFine_instanceIds.png")
        Image.fromarray(np.dstack([gt] * 3)).save(folder / f"{base}_gtFine_color.png")
        Image.fromarray(np.full_like(gt, 255)).save(folder / f"{base}_gtFine_labelTrainIds.png")
        (folder / f"{base}_gtFine_polygons.json").write_text("{}")
        Image.fromarray(pred).save(root / "results" / f"{base}_leftImg8bit.png")


@pytest.mark.parametrize("seed", range(3))
def test_flat_results_score_without_options_as_the_script_scores_them(
    script: Any, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, seed)
    for name, value in {
        "evalInstLevelScore": False, "evalPixelAccuracy": False, "quiet": True, "JSONOutput": False,
        "predictionPath": str(tmp_path / "results"), "predictionWalk": None,
    }.items():  # fmt: skip
        monkeypatch.setattr(script.args, name, value)
    gts = sorted(map(str, (tmp_path / "gtFine").rglob("*_gtFine_labelIds.png")))
    theirs = script.evaluateImgLists([script.getPrediction(script.args, gt) for gt in gts], gts, script.args)

    sides = tmp_path / "gtFine" / "val", tmp_path / "results"
    run = gpu_eval.score(*sides, out=tmp_path / "run", labels="cityscapes", threads=1)
    assert run.miou(2) == pytest.approx(theirs["averageScoreClasses"], rel=1e-12)
    assert run.miou(1) == pytest.approx(theirs["averageScoreCategories"], rel=1e-12)
    for level, scores in ((2, theirs["classScores"]), (1, theirs["categoryScores"])):
        ours = {row["class_name"]: row["iou"] for row in run.classes.to_pylist() if row["level"] == level}
        assert ours == pytest.approx({name: scores[name] for name in ours}, rel=1e-12, nan_ok=True)
