"""Label maps examined alone: what is doubted, what is refused, and what is merely bad and passes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval.checkup.examination import Examination
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.labels import load_labels
from tests.support.check_files import RAW_ID, SUBMISSION, Map, by_table, coloured, rewrite, three_channels
from tests.support.semantic_split import SUFFIX, TinySplit

CITYSCAPES = load_labels("cityscapes")


def the_doubt(examination: Examination) -> Doubt:
    assert [kind.facts() for kind in examination.problems] == []
    (doubt,) = examination.doubts
    return doubt


def write_maps(folder: Path, maps: list[Map], suffix: str = SUFFIX) -> Path:
    for number, values in enumerate(maps):
        path = folder / "ab"[number % 2] / f"x_{number:06d}_{number:06d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(path)
    return folder


def drawn(classes: list[int], seed: int = 0, size: tuple[int, int] = (36, 64)) -> list[Map]:
    rng = np.random.default_rng(seed)
    return [rng.choice(classes, size) for _ in range(6)]


def as_instance_ids(values: Map) -> Map:
    wide = values.astype(np.uint16)
    return np.where(wide % 2, wide * 1000 + 3, wide)


class TestMerelyBad:
    """No word about what an honest model may predict."""

    @pytest.mark.parametrize(
        "classes",
        [
            list(range(26)),  # random
            [0],
            [7],
            [25],
            [26],  # void everywhere
            list(range(13)),  # trained on half of the classes
            list(range(13, 26)),
            list(range(0, 26, 2)),
            list(range(1, 26, 2)),
            [0, 9, 22, 24, 25],  # very early
            [*range(26), 26, 255],
            list(range(1, 26)),  # never the first class
        ],
        ids=str,
    )
    def test_of_idd(self, tmp_path: Path, classes: list[int]) -> None:
        found = gpu_eval.check(write_maps(tmp_path / "p", drawn(classes)))
        assert found.ok, found.to_dict()
        assert found.doubts == ()

    @pytest.mark.parametrize("seed", range(10))
    def test_of_half_of_the_classes_drawn(self, tmp_path: Path, seed: int) -> None:
        rng = np.random.default_rng([seed, 9])
        classes = sorted(rng.permutation(26)[:13].tolist())
        assert gpu_eval.check(write_maps(tmp_path / "p", drawn(classes, seed))).ok

    @pytest.mark.parametrize("seed", range(10))
    def test_of_cityscapes(self, tmp_path: Path, seed: int) -> None:
        rng = np.random.default_rng([seed, 8])
        ids = [v for v in range(34) if CITYSCAPES.encoding("id").table[v] < 19]
        classes = sorted(rng.permutation(ids)[: int(rng.integers(1, 20))].tolist())
        folder = write_maps(tmp_path / "p", drawn(classes, seed), "_gtFine_labelIds.png")
        assert gpu_eval.check(folder, labels="cityscapes").ok

    def test_of_a_binary_table(self, tmp_path: Path) -> None:
        folder = write_maps(tmp_path / "p", drawn([0]), ".png")
        found = gpu_eval.check(folder, labels=2)
        assert found.ok
        assert found.facts["maps of one value"] == 6


class TestEncodings:
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (SUBMISSION, "submission"),
            (lambda values: np.where(values == 255, 26, values + 1).astype(np.uint8), "submission"),
            (RAW_ID, "id"),
        ],
        ids=["submission", "from 1 without 27", "raw ids"],
    )
    def test_another_encoding_is_named(
        self, split: TinySplit, change: Callable[[Map], Map], named: str
    ) -> None:
        rewrite(split.preds, change)
        found = gpu_eval.check(split.preds)
        doubt = the_doubt(found)
        assert doubt.kind == "encoding"
        assert f"`{named}`, not `level3`" in doubt.message
        assert doubt.mend == {"pred_encoding": named}
        assert found.command(doubt) == (
            f"gpu-eval check {split.preds} --pred-encoding {named} --fix {split.preds}-fixed"
        )

    @pytest.mark.parametrize("classes", [list(range(19)), [0, 1, 2, 8, 10, 11, 13]])
    def test_train_ids_of_cityscapes_are_named(self, tmp_path: Path, classes: list[int]) -> None:
        folder = write_maps(tmp_path / "p", drawn(classes), "_gtFine_labelIds.png")
        doubt = the_doubt(gpu_eval.check(folder, labels="cityscapes"))
        assert doubt.mend == {"pred_encoding": "train"}

    def test_named_with_the_option_the_maps_pass(self, split: TinySplit) -> None:
        rewrite(split.preds, SUBMISSION)
        assert gpu_eval.check(split.preds, pred_encoding="submission").ok

    def test_it_is_certain_where_scoring_would_refuse_maps(self, tmp_path: Path) -> None:
        ids = [26, 27, 28, 29, 30, 31, 32, 33, 34, 0, 3, 12]
        found = gpu_eval.check(write_maps(tmp_path / "p", drawn(ids)))
        assert the_doubt(found).certain
        assert "6 of 6 maps would be refused" in the_doubt(found).evidence

    def test_values_that_no_encoding_has_are_refused_where_they_are_most(self, tmp_path: Path) -> None:
        found = gpu_eval.check(write_maps(tmp_path / "p", drawn([100, 120, 140, 3])))
        doubt = the_doubt(found)
        assert (doubt.kind, doubt.certain) == ("values", True)
        assert "6 of 6 maps would be refused" in doubt.evidence

    def test_a_shift_by_one_is_named(self, tmp_path: Path) -> None:
        ids = [v + 1 for v in range(34) if CITYSCAPES.encoding("id").table[v] < 19]
        folder = write_maps(tmp_path / "p", drawn(ids), "_gtFine_labelIds.png")
        doubt = the_doubt(gpu_eval.check(folder, labels="cityscapes"))
        assert doubt.mend == {"pred_encoding": "id+1"}

    def test_instance_ids_are_named(self, split: TinySplit) -> None:
        rewrite(split.preds, as_instance_ids)
        assert "id * 1000 + n" in the_doubt(gpu_eval.check(split.preds)).message

    def test_interpolated_labels_are_named(self, tmp_path: Path) -> None:
        maps = [
            np.asarray(Image.fromarray(m.astype(np.uint8)).resize((640, 360), Image.Resampling.NEAREST))
            for m in drawn([*range(26), 255])
        ]
        blurred = [np.asarray(Image.fromarray(m).resize((656, 369), Image.Resampling.BILINEAR)) for m in maps]
        found = gpu_eval.check(write_maps(tmp_path / "p", blurred))
        assert found.ok
        assert any("interpolation between labels makes so many" in note for note in found.notes)

    def test_a_few_values_outside_are_said_and_not_doubted(self, tmp_path: Path) -> None:
        maps = drawn(list(range(26)))
        maps[0][:2] = 99
        found = gpu_eval.check(write_maps(tmp_path / "p", maps))
        assert found.ok
        assert "0.93% of the pixels have values that `level3` does not have" in found.notes[0]

    def test_a_binary_mask_is_no_label_map(self, tmp_path: Path) -> None:
        doubt = the_doubt(gpu_eval.check(write_maps(tmp_path / "p", drawn([0, 255]))))
        assert "binary mask" in doubt.message

    def test_255_that_is_a_class_is_no_binary_mask(self, tmp_path: Path) -> None:
        assert gpu_eval.check(write_maps(tmp_path / "p", drawn([0, 255]), ".png"), labels=256).ok


class TestSizes:
    @pytest.mark.parametrize(
        ("size", "why"),
        [
            ((1088, 1920), "1920x1080 padded to a multiple of 16"),
            ((736, 1280), "1280x720 padded to a multiple of 32"),
            ((1920, 1080), "exchanged"),
            ((128, 72), "exchanged"),
        ],
    )
    def test_a_size_that_no_frame_has_is_doubted(
        self, tmp_path: Path, size: tuple[int, int], why: str
    ) -> None:
        doubt = the_doubt(gpu_eval.check(write_maps(tmp_path / "p", [np.ones(size)] * 2)))
        assert doubt.kind == "size"
        assert why in doubt.evidence

    @pytest.mark.parametrize(
        "size",
        [
            (1080, 1920),
            (720, 1280),
            (480, 858),
            (240, 426),
            (964, 1280),
            (540, 960),
            (36, 64),
            (256, 256),
            (512, 512),
        ],
    )
    def test_frames_and_small_frames_are_not(self, tmp_path: Path, size: tuple[int, int]) -> None:
        assert gpu_eval.check(write_maps(tmp_path / "p", [np.ones(size)] * 2)).ok

    def test_sizes_are_counted_as_people_write_them(self, tmp_path: Path) -> None:
        maps = [np.ones((720, 1280)), np.ones((720, 1280)), np.ones((1080, 1920))]
        facts = gpu_eval.check(write_maps(tmp_path / "p", maps)).facts
        assert facts["sizes"] == {"1280x720": 2, "1920x1080": 1}

    def test_frames_of_a_table_of_ones_own_may_have_any_size(self, tmp_path: Path) -> None:
        maps = [np.ones((480, 640))] * 5 + [np.ones((640, 480)), np.ones((384, 500))]
        assert gpu_eval.check(write_maps(tmp_path / "p", maps), labels=3).ok


class TestModes:
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (three_channels, "three equal channels"),
            (coloured, "colour rendering in the table's colours"),
            (
                lambda v: np.random.default_rng(0).integers(0, 256, (*v.shape, 3)).astype(np.uint8),
                "do not name",
            ),
            (lambda v: np.stack([v, np.full_like(v, 255)], 2), "opaque alpha"),
            (lambda v: Image.fromarray(v > 3), "less than 8 bits"),
        ],
    )
    def test_what_pixels_are_instead_of_labels_is_said(
        self, split: TinySplit, change: Callable[[Map], Map], told: str
    ) -> None:
        rewrite(split.preds, change)
        found = gpu_eval.check(split.preds)
        (kind,) = found.problems
        assert kind.count == len(split)
        assert kind.first[0].kind == "WrongImageMode"
        ((form, count),) = found.facts["instead of labels"].items()
        assert told in form
        assert count == len(split)
        fixable = told != "do not name"
        assert (kind.command is not None) == fixable

    def test_colours_pass_with_their_encoding_and_are_counted_as_classes(self, split: TinySplit) -> None:
        rewrite(split.preds, coloured)
        found = gpu_eval.check(split.preds, split.gts, pred_encoding="colour")
        assert found.ok, found.to_dict()
        assert found.facts["classes that occur"] == "25 of 26"

    def test_many_files_of_one_kind_are_one_answer(self, tmp_path: Path) -> None:
        """Not each of them is decoded to see what it is."""
        folder = write_maps(tmp_path / "p", drawn([3, 4], size=(4, 6)))
        rewrite(folder, three_channels)
        first = next(folder.rglob("*.png"))
        for number in range(600):
            os.link(first, folder / "a" / f"more{number}{SUFFIX}")
        (kind,) = gpu_eval.check(folder).problems
        assert kind.count == 606
        assert kind.command is not None

    def test_ids_are_no_colours(self, split: TinySplit) -> None:
        (kind,) = gpu_eval.check(split.preds, pred_encoding="colour").problems
        assert kind.count == 6
        assert "grey values are no colours" in kind.first[0].message

    def test_other_spellings_of_an_encoding_are_taken(self, split: TinySplit) -> None:
        assert gpu_eval.check(split.preds, split.gts, pred_encoding="level3Ids").ok

    def test_sixteen_bits_are_a_fact(self, split: TinySplit) -> None:
        rewrite(split.preds, lambda values: values.astype(np.uint16))
        found = gpu_eval.check(split.preds)
        assert found.ok
        assert found.facts["modes"] == {"16-bit grey": 6}


class TestFiles:
    def test_every_damaged_file_counts(self, split: TinySplit) -> None:
        names = split.names
        whole = (split.preds / names[0]).read_bytes()
        (split.preds / names[0]).write_bytes(whole[: len(whole) // 2])
        (split.preds / names[1]).write_bytes(b"")
        (split.preds / names[2]).write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
        found = gpu_eval.check(split.preds)
        assert found.certain
        assert sum(kind.count for kind in found.problems) == 3
        assert all(kind.first[0].kind == "CorruptImage" for kind in found.problems)

    def test_ten_thousand_wrong_files_are_a_short_answer(self, tmp_path: Path) -> None:
        for drive in range(10):
            (tmp_path / "p" / str(drive)).mkdir(parents=True)
            for number in range(1000):
                (tmp_path / "p" / str(drive) / f"f{number}{SUFFIX}").write_bytes(b"no png %d" % number)
        found = gpu_eval.check(tmp_path / "p")
        (kind,) = found.problems
        assert kind.count == 10_000
        assert len(kind.first) == 10
        assert len(str(found.to_dict())) < 10_000

    def test_a_folder_without_maps_says_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "a_logits.npy").write_bytes(b"")
        (kind,) = gpu_eval.check(tmp_path / "p").problems
        assert kind.first[0].kind == "EmptySplit"
        assert "_logits.npy (1)" in str(kind.first[0])

    def test_another_ending_is_looked_at_and_said(self, tmp_path: Path) -> None:
        folder = write_maps(tmp_path / "p", drawn([3, 4]), "_pred.png")
        found = gpu_eval.check(folder)
        assert found.ok
        assert any("_pred.png were looked at" in note for note in found.notes)
        assert found.facts["label maps"] == 6

    def test_broken_ground_truth_is_found_too(self, split: TinySplit) -> None:
        (split.gts / split.names[0]).write_bytes(b"\x89PNG")
        found = gpu_eval.check(split.preds, split.gts)
        assert found.certain
        assert str(split.gts) in str(found.problems[0].first[0].file)

    def test_a_good_split_is_good(self, split: TinySplit) -> None:
        found = gpu_eval.check(split.preds, split.gts)
        assert found.ok, found.to_dict()
        assert found.facts["classes that occur"] == "26 of 26"

    def test_by_table_of_a_level_is_no_mix_up_that_shows(self, split: TinySplit) -> None:
        """Level-2 ids are ids of level 3, too: only ground truth tells them apart."""
        rewrite(split.preds, by_table({v: v // 2 for v in range(26)}))
        assert gpu_eval.check(split.preds).ok
