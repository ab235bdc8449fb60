"""Lists of instances named as toolchains name them, from the command line: found, or advice that scores."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval.inputs.rle import compress
from tests.support.commands import gpu_eval_command
from tests.support.instance_split import run_lengths

KEYS = ("aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "bonn/bonn_000002_000019")
GT = "_gtFine_instanceIds.png"
Place = Callable[[str], str]  # of a key, the path of its prediction without suffix


def base(key: str) -> str:
    return key.rpartition("/")[2]


def write_gts(root: Path) -> Path:
    """Three images with two cars and a person each, and the other files that Cityscapes has beside them."""
    for key in KEYS:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        gt = np.zeros((40, 60), np.uint16)
        gt[2:20, 2:20], gt[2:20, 30:50], gt[24:38, 4:30] = 26000, 26001, 24000
        Image.fromarray(gt).save(f"{path}{GT}")
        for other in ("_gtFine_labelIds.png", "_gtFine_labelTrainIds.png", "_gtFine_color.png"):
            Image.fromarray((gt > 0).astype(np.uint8)).save(f"{path}{other}")
        Path(f"{path}_gtFine_polygons.json").write_text("{}")
    return root


def masks(key: str) -> list[tuple[np.ndarray, int, float]]:
    """What was predicted of an image: mask, raw id, confidence. Each image is predicted a little worse."""
    worse = KEYS.index(key)
    found = []
    for number, (rows, columns, label) in enumerate(
        (((2, 20), (2, 20), 26), ((2, 20), (30, 50), 26), ((24, 38), (4, 30), 24))
    ):
        mask = np.zeros((40, 60), np.uint8)
        mask[rows[0] : rows[1] - 2 * worse, columns[0] + number : columns[1]] = 255
        found.append((mask, label, 0.9 - 0.1 * number - 0.02 * worse))
    return found


def write_lists(root: Path, place: Place, suffix: str) -> Path:
    """Lists with these names, their masks beside them, named from the folder of the list."""
    for key in KEYS:
        path = root / (place(key) + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, (mask, label, confidence) in enumerate(masks(key)):
            name = f"{base(key)}_leftImg8bit_{number}_thing.png"
            Image.fromarray(mask).save(path.parent / name)
            lines.append(f"{name} {label} {confidence}\n")
        path.write_text("".join(lines))
    return root


def score(out: Path, *words: object) -> tuple[int, str, float | None]:
    """Exit code, what was said on standard error, and the AP of the run if there is one."""
    result = gpu_eval_command("instances", *words, "-o", out, "-j", 1, "--format", "json", "--overwrite")
    said = " ".join(result.stderr.split())
    return result.exit_code, said, gpu_eval.open_run(out, "instance").ap() if not result.exit_code else None


@pytest.fixture
def gts(tmp_path: Path) -> Path:
    return write_gts(tmp_path / "gtFine" / "val")


@pytest.fixture
def ap(tmp_path: Path, gts: Path) -> float:
    """The AP of the predictions when they lie as the benchmark has them."""
    preds = write_lists(tmp_path / "plain", str, "_leftImg8bit.txt")
    _, said, found = score(tmp_path / "run", gts, preds, "--labels", "cityscapes")
    assert found is not None, said
    assert 0.3 < found < 0.99
    return found


PLACES: dict[str, Place] = {"flat": base, "cities": str, "deep": lambda key: f"a/b/c/d/e/{base(key)}"}


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "suffix", ["_leftImg8bit_pred.txt", "_leftImg8bit.txt", "_pred.txt", ".txt", "_x.txt"]
)
def test_lists_of_toolchains_score_without_options(
    tmp_path: Path, gts: Path, ap: float, suffix: str, place: str, archive: bool
) -> None:
    preds = write_lists(tmp_path / "preds", PLACES[place], suffix)
    if archive:
        preds = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", preds))
    code, said, found = score(tmp_path / "run", gts, preds, "--labels", "cityscapes")
    assert (code, found) == (0, ap), said
    assert ("were taken as list of predictions" in said) == (suffix != "_leftImg8bit.txt")
    assert ("by file name alone" in said) == (place != "cities")


def test_wrong_suffixes_name_those_that_score(tmp_path: Path, gts: Path, ap: float) -> None:
    preds = write_lists(tmp_path / "preds", base, "_leftImg8bit_pred.txt")
    words = [gts, preds, "--labels", "cityscapes"]
    for wrong in (["--list-suffix", "_o.txt"], ["--gt-suffix", "_gt.png"]):
        code, said, _ = score(tmp_path / "run", *words, *wrong)
        assert code == 2
        advised = re.search(r"give (--[a-z]+-suffix) (\S+)$", said)
        assert advised is not None, said
        assert score(tmp_path / "run", *words, *wrong, *advised.groups())[2] == ap


def coco_of(name: Place) -> list[dict[str, object]]:
    return [
        {
            "file_name": name(key),
            "category_id": label,
            "score": confidence,
            "segmentation": {"size": [40, 60], "counts": compress(run_lengths(mask > 0)).decode()},
        }
        for key in KEYS
        for mask, label, confidence in masks(key)
    ]


@pytest.mark.parametrize("name", [str, base, lambda key: f"leftImg8bit/val/{key}_leftImg8bit.png"])
def test_coco_results_name_images_with_or_without_folders(
    tmp_path: Path, gts: Path, ap: float, name: Place
) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps(coco_of(name)))
    code, said, found = score(tmp_path / "run", gts, results, "--labels", "cityscapes")
    assert (code, found) == (0, ap), said


def test_folder_of_coco_results_scores_with_the_file_that_is_named(
    tmp_path: Path, gts: Path, ap: float
) -> None:
    folder = tmp_path / "inference"
    folder.mkdir()
    (folder / "coco_instances_results.json").write_text(json.dumps(coco_of(base)))
    (folder / "log.pth").write_text("")
    code, said, _ = score(tmp_path / "run", gts, folder, "--labels", "cityscapes")
    assert code == 2
    named = re.search(r"named itself, in place of its folder: (\S+)$", said)
    assert named is not None, said
    assert score(tmp_path / "run", gts, named[1], "--labels", "cityscapes")[2] == ap


def test_masks_without_lists_score_once_the_list_is_written_that_is_named(
    tmp_path: Path, gts: Path, ap: float
) -> None:
    preds = write_lists(tmp_path / "preds", base, "_leftImg8bit.txt")
    lists = {path.name: path.read_text() for path in preds.glob("*.txt")}
    for name in lists:
        (preds / name).unlink()
    code, said, _ = score(tmp_path / "run", gts, preds, "--labels", "cityscapes")
    assert code == 2
    assert "write a list per image with a line `mask.png labelID confidence` per mask" in said
    named = said.rpartition("such as ")[2]
    assert named == f"{KEYS[0]}_leftImg8bit.txt"
    for name, text in lists.items():
        (preds / name).write_text(text)
    assert score(tmp_path / "run", gts, preds, "--labels", "cityscapes")[2] == ap


@pytest.mark.parametrize("suffix", ["_leftImg8bit_pred.txt", "_x.txt"])
def test_flat_lists_of_names_that_repeat_over_drives_are_refused(tmp_path: Path, suffix: str) -> None:
    for drive in (1, 2):
        (tmp_path / f"gt/{drive}").mkdir(parents=True)
        for frame in "ab":
            (tmp_path / f"gt/{drive}/{frame}_gtFine_instanceids.png").write_text("")
    (tmp_path / "pred").mkdir()
    for frame in "ab":
        (tmp_path / f"pred/{frame}{suffix}").write_text("")
    code, said, _ = score(tmp_path / "run", tmp_path / "gt", tmp_path / "pred", "--list-suffix", suffix)
    assert code == 2
    assert "share their file names" in said
    assert f"into the folder of its ground truth, such as 1/a{suffix}" in said
