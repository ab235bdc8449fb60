"""Files named as toolchains name them, from the command line: found, or an advice that leads to a score."""

from __future__ import annotations

import random
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval.labels import load_labels
from tests.support.commands import gpu_eval_command
from tests.support.layouts import GT_KINDS, cityscapes_keys, draw_cityscapes, idd_keys
from tests.support.shared import SHARED

IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TO_TRAIN = {raw: train for train, raw in enumerate(IDS)}
CITYSCAPES, IDD = GT_KINDS[0], "_gtFine_labellevel3Ids.png"


def drawn_maps(key: str, values: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Gt and prediction of an image: blocks of these values, of which the prediction has most right."""
    draw = np.random.default_rng(list(key.encode()))
    gt = draw.choice(np.array(values, np.uint8), (6, 8)).repeat(4, axis=0).repeat(4, axis=1)
    wrong = draw.random(gt.shape) < 0.15
    return gt, np.where(wrong, draw.choice(np.array(values, np.uint8), gt.shape), gt)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write(root: Path, pairs: Mapping[str, str], values: tuple[int, ...] = IDS) -> tuple[Path, Path, float]:
    """The files of gt and prediction names below `root`, and the mIoU that they have when named alike."""
    plain = root / "plain"
    for number, (gt_name, pred_name) in enumerate(pairs.items()):
        gt, pred = drawn_maps(gt_name, values)
        for side, name, pixels in (("gt", gt_name, gt), ("pred", pred_name, pred)):
            save(root / side / name, pixels)
            save(plain / side / f"0/{number}.png", pixels)
    return root / "gt", root / "pred", _plain_miou(plain, "cityscapes" if set(values) <= set(IDS) else "idd")


def _plain_miou(plain: Path, labels: str) -> float:
    run = gpu_eval.score(
        plain / "gt", plain / "pred", out=plain / "run", labels=labels, res="native", threads=1,
        gt_suffix=".png", pred_suffix=".png",
    )  # fmt: skip
    return run.miou()


def score(out: Path, *words: object) -> tuple[int, str, float | None, list[str]]:
    """Exit code, what was said on standard error, and the mIoU and the notes of the run if there is one."""
    result = gpu_eval_command("score", *words, "-o", out, "-j", 1, "--res", "native", "--format", "json")
    if result.exit_code:
        return result.exit_code, " ".join(result.stderr.split()), None, []
    run = gpu_eval.open_run(out, "semantic")
    return 0, result.stderr, run.miou(), run.facts["notes"]


def options_in(said: str) -> list[str]:
    """The first options that the advice at the end of an error gives."""
    found = re.search(r"give ((?:--[a-z-]+ (?:'[^']*'|\S+) ?)+)", said)
    assert found is not None, said
    return [word.rstrip(",") for word in shlex.split(found[1])]


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("ending", ["_leftImg8bit.png", "_leftImg8bit_pred.png", "_mine.png", ".png"])
def test_results_of_toolchains_score_without_options(tmp_path: Path, ending: str, archive: bool) -> None:
    layout = draw_cityscapes(random.Random(ending), ending)
    gts, preds, miou = write(tmp_path, layout.pairs)
    for name in {*layout.gts, *layout.preds}:
        for side, names in ((gts, layout.gts), (preds, layout.preds)):
            if name in names and not (side / name).exists():
                (side / name).parent.mkdir(parents=True, exist_ok=True)
                (side / name).write_text("no label map")
    if archive:
        preds = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", preds))
    code, said, found, notes = score(tmp_path / "run", gts, preds, "--labels", "cityscapes")
    assert (code, found) == (0, miou), said
    assert all(note in said for note in notes)
    assert any(ending in note for note in notes)


@pytest.mark.parametrize("side", ["gt", "pred", "both"])
@pytest.mark.parametrize("ending", ["_pred.png", "_mine.png", " out.png"])
def test_wrong_suffix_names_the_one_that_scores(tmp_path: Path, ending: str, side: str) -> None:
    pairs = {key + IDD: key + ending for key in idd_keys(random.Random(3), 6)}
    gts, preds, miou = write(tmp_path, pairs, tuple(range(26)))
    wrong = {"gt": ["--gt-suffix", "_gt.png"], "pred": ["--pred-suffix", "_o.png"]}
    given = [word for name, words in wrong.items() if side in (name, "both") for word in words]
    code, said, _, _ = score(tmp_path / "run", gts, preds, *given)
    assert code == 2
    code, said, found, _ = score(tmp_path / "run", gts, preds, *given, *options_in(said))
    assert (code, found) == (0, miou), said


def test_one_of_two_kinds_is_chosen_by_the_option_that_is_named(tmp_path: Path) -> None:
    keys = idd_keys(random.Random(3), 6)
    gts, preds, miou = write(tmp_path, {key + IDD: f"{key}_one.png" for key in keys}, tuple(range(26)))
    for key in keys:
        save(preds / f"{key}_two.png", np.zeros((24, 32), np.uint8))
    code, said, _, _ = score(tmp_path / "run", gts, preds)
    assert code == 2
    assert score(tmp_path / "run", gts, preds, *options_in(said))[2] == miou


def test_flat_predictions_of_names_that_repeat_score_once_they_are_in_their_folders(tmp_path: Path) -> None:
    pairs = {f"{drive}/{frame}{IDD}": f"{drive}/{frame}_pred.png" for drive in (1, 2) for frame in "abc"}
    gts, preds, miou = write(tmp_path, pairs, tuple(range(26)))
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in pairs.values():
        (flat / name[2:]).write_bytes((preds / name).read_bytes())
    code, said, _, _ = score(tmp_path / "run", gts, flat)
    assert code == 2
    assert "share their file names" in said
    assert "put each prediction into the folder of its ground truth, such as 1/a_pred.png" in said
    assert score(tmp_path / "run", gts, preds)[2] == miou


def test_two_folders_of_one_split_score_by_the_folder_that_is_named(tmp_path: Path) -> None:
    keys = cityscapes_keys(random.Random(4), 6)
    pairs = {key + CITYSCAPES: f"ids/{key.split('/')[1]}.png" for key in keys}
    gts, preds, miou = write(tmp_path, pairs)
    for name in pairs.values():
        save(preds / name.replace("ids", "color"), np.zeros((24, 32, 3), np.uint8))
    code, said, _, _ = score(tmp_path / "run", gts, preds, "--labels", "cityscapes")
    assert code == 2
    named = said.rpartition("give one of these folders: ")[2].split(", ")
    assert score(tmp_path / "run", gts, named[1], "--labels", "cityscapes")[2] == miou


def test_split_of_which_a_folder_was_predicted_scores_with_the_folder_that_is_named(tmp_path: Path) -> None:
    keys = cityscapes_keys(random.Random(5), 6)
    gts, preds, miou = write(tmp_path, {f"val/{key}{CITYSCAPES}": f"{key}_pred.png" for key in keys})
    for number in range(2 * len(keys)):
        save(gts / f"train/zurich/zurich_{number:06d}_000019{CITYSCAPES}", np.zeros((4, 4), np.uint8))
    code, said, _, _ = score(tmp_path / "run", gts, preds, "--labels", "cityscapes")
    assert code == 2
    named = re.search(r"give (\S+) as the ground truth", said)
    assert named is not None, said
    assert score(tmp_path / "run", named[1], preds, "--labels", "cityscapes")[2] == miou


class TestEncodingsInNames:
    def test_train_ids_alone_are_no_gt_until_the_advised_options_say_so(self, tmp_path: Path) -> None:
        keys = cityscapes_keys(random.Random(6), 6)
        gts, preds, miou = write(tmp_path, {key + CITYSCAPES: f"{key}_pred.png" for key in keys})
        table = np.array([TO_TRAIN.get(value, 255) for value in range(256)], np.uint8)
        for key in keys:
            path = gts / (key + CITYSCAPES)
            save(gts / f"{key}_gtFine_labelTrainIds.png", table[np.asarray(Image.open(path))])
        with_both = score(tmp_path / "both", gts, preds, "--labels", "cityscapes")
        assert with_both[2] == miou
        for key in keys:
            (gts / (key + CITYSCAPES)).unlink()
        code, said, _, _ = score(tmp_path / "run", gts, preds, "--labels", "cityscapes")
        assert code == 2
        options = options_in(said)
        assert options == ["--gt-encoding", "train", "--gt-suffix", "_gtFine_labelTrainIds.png"]
        assert score(tmp_path / "run", gts, preds, "--labels", "cityscapes", *options)[2] == miou
        encoding = score(tmp_path / "run2", gts, preds, "--labels", "cityscapes", *options[:2])
        assert encoding[2] == miou

    @pytest.mark.parametrize("side", ["gt", "pred"])
    def test_maps_of_colours_are_found_where_their_encoding_is_asked_for(
        self, tmp_path: Path, side: str
    ) -> None:
        keys = cityscapes_keys(random.Random(9), 6)
        ids = tuple(value for value in IDS if value != 17)  # poles and groups of them have one colour
        pairs = {key + CITYSCAPES: f"{key.split('/')[1]}_leftImg8bit.png" for key in keys}
        gts, preds, _ = write(tmp_path, pairs, ids)
        words = [gts, preds, "--labels", "cityscapes"]
        miou = score(tmp_path / "plain" / "again", *words)[2]
        space = load_labels("cityscapes")
        colours = np.zeros((256, 3), np.uint8)
        for value in ids:
            colours[value] = space.colours[space.encoding("id").table[value]]
        root, endings = (gts, (CITYSCAPES, "_gtFine_color.png"))
        if side == "pred":
            root, endings = preds, ("_leftImg8bit.png", "_leftImg8bit_color.png")
        for path in sorted(root.rglob(f"*{endings[0]}")):
            name = path.name.replace(*endings)
            Image.fromarray(colours[np.asarray(Image.open(path))]).save(path.with_name(name))
        code, said, found, _ = score(tmp_path / "run", *words, f"--{side}-encoding", "colour")
        assert (code, found) == (0, miou), said

    def test_predictions_whose_names_say_another_encoding_are_told_of(self, tmp_path: Path) -> None:
        keys = cityscapes_keys(random.Random(7), 6)
        pairs = {key + CITYSCAPES: f"{key}_gtFine_labelTrainIds.png" for key in keys}
        gts, preds, miou = write(tmp_path, pairs)
        code, _, found, notes = score(tmp_path / "run", gts, preds, "--labels", "cityscapes")
        assert (code, found) == (0, miou)
        assert any("say the encoding train; the files were read as id" in note for note in notes)


class TestOtherFiles:
    """Files that are no label maps: one sentence, which followed leads to a score."""

    keys = idd_keys(random.Random(8), 6)

    def split(self, tmp_path: Path) -> tuple[Path, Path, float]:
        return write(tmp_path, {key + IDD: f"{key}.png" for key in self.keys}, tuple(range(26)))

    @pytest.mark.parametrize("given", [[], ["--pred-suffix", ".npy"]])
    def test_arrays_score_once_saved_as_the_sentence_says(self, tmp_path: Path, given: list[str]) -> None:
        gts, preds, miou = self.split(tmp_path)
        for path in sorted(preds.rglob("*.png")):
            np.save(path.with_suffix(".npy"), np.asarray(Image.open(path), np.int64))
            path.unlink()
        code, said, _, _ = score(tmp_path / "run", gts, preds, *given)
        assert code == 2
        assert said.count(".npy files") == 1
        assert "6 .npy files: save label maps as 8-bit PNG: " in said
        line = said.rpartition("8-bit PNG: ")[2]
        assert line == f"Image.fromarray(ids.astype('uint8')).save('{self.keys[0]}.png')"
        for path in sorted(preds.rglob("*.npy")):
            name = path.relative_to(preds).with_suffix("").as_posix()
            said_for_it = line.replace(self.keys[0], str(preds / name))
            eval(said_for_it, {"Image": Image, "ids": np.load(path)})
        assert score(tmp_path / "run", gts, preds)[2] == miou

    @pytest.mark.parametrize(
        ("kind", "sentence"),
        [
            (".jpg", "JPEG is lossy and cannot hold labels: save label maps as 8-bit PNG"),
            (".json", "polygons must be drawn first: cityscapesscripts"),
            (".txt", "are scored by gpu-eval instances"),
            (".tif", "save label maps as 8-bit PNG"),
        ],
    )
    @pytest.mark.parametrize("side", ["gt", "pred"])
    @pytest.mark.parametrize("given", [False, True])
    def test_other_kinds_are_never_proposed(
        self, tmp_path: Path, kind: str, sentence: str, side: str, given: bool
    ) -> None:
        gts, preds, _ = self.split(tmp_path)
        for path in sorted((tmp_path / side).rglob("*.png")):
            path.rename(path.with_suffix(kind))
        suffix = [f"--{side}-suffix", kind] if given else []
        code, said, _, _ = score(tmp_path / "run", gts, preds, *suffix)
        assert code == 2
        assert sentence in said
        assert f"6 {kind} files" in said
        assert f"suffix {kind}" not in said


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no cases at {SHARED.parent / 'cases'}")
@pytest.mark.parametrize("given", [[], ["--pred-suffix", "_leftImg8bit.png"]], ids=["C2", "C1"])
def test_flat_cases_are_scored(tmp_path: Path, given: list[str]) -> None:
    inputs = SHARED.parent / "cases" / "inputs"
    sides = inputs / "two_gt", inputs / "flat"
    code, said, found, notes = score(tmp_path / "run", *sides, "--labels", "cityscapes", *given)
    assert (code, found) == (0, pytest.approx(0.8383, abs=1e-4)), said
    assert len(notes) == 2 - bool(given)
