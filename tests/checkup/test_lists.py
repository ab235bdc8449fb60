"""Predicted instances examined alone: lists, COCO results, labels, confidences, masks."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval.checkup.examination import Examination
from gpu_eval.errors import OptionError
from gpu_eval.labels.instance_space import load_instances
from tests.support.commands import gpu_eval_command
from tests.support.instance_split import LIST_SUFFIX, InstanceFiles, write_coco

IDS = load_instances("idd").ids
LEVEL3 = {6: 4, 8: 5, 9: 6, 10: 7, 11: 8, 12: 9, 13: 10, 14: 11, 18: 12}
CS = {6: 24, 8: 25, 9: 32, 10: 33, 12: 26, 13: 27, 14: 28}
SIZE = (40, 60)


def check(preds: Path, **options: object) -> Examination:
    return gpu_eval.check(preds, task="instance", **options)  # type: ignore[arg-type]


def write(
    folder: Path, labels: list[int], *, confidences: list[float] | None = None, size: tuple[int, int] = SIZE
) -> Path:
    """Three images whose lists have these labels, each with a mask of its own."""
    rng = np.random.default_rng(1)
    for number in range(3):
        path = folder / "a" / f"frame{number}{LIST_SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for at, label in enumerate(labels):
            mask = np.zeros(size, np.uint8)
            top, left = rng.integers(0, [size[0] - 10, size[1] - 10])
            mask[top : top + 10, left : left + 10] = 255
            Image.fromarray(mask).save(path.with_name(f"{number}_{at}.png"))
            confidence = confidences[at] if confidences else round(float(rng.random()), 3)
            lines.append(f"{number}_{at}.png {label} {confidence}\n")
        path.write_text("".join(lines))
    return folder


class TestMerelyBad:
    @pytest.mark.parametrize(
        "labels", [list(IDS), [12] * 5, [6], [6, 8, 9], [9, 10, 11, 12], [8, 12], [18], []], ids=str
    )
    def test_labels_of_evaluated_classes_pass(self, tmp_path: Path, labels: list[int]) -> None:
        found = check(write(tmp_path / "p", labels))
        assert found.ok, found.to_dict()

    @pytest.mark.parametrize("labels", [[6, 7, 12], [7, 8], [6, 7, 12, 15, 16, 13], [17, 18]], ids=str)
    def test_labels_that_are_not_evaluated_pass_beside_others(
        self, tmp_path: Path, labels: list[int]
    ) -> None:
        """Models of all labels with instances write caravans and animals, too."""
        found = check(write(tmp_path / "p", labels))
        assert found.ok, found.to_dict()
        ignored = [label for label in labels if label not in IDS]
        assert found.facts["labels"][f"{ignored[0]}, not evaluated"] == 3

    def test_equal_confidences_are_a_fact(self, tmp_path: Path) -> None:
        found = check(write(tmp_path / "p", [6, 12], confidences=[0.9, 0.9]))
        assert found.ok
        assert found.facts["confidences"] == "all 0.9"

    def test_confidences_in_percent_are_a_fact(self, tmp_path: Path) -> None:
        found = check(write(tmp_path / "p", [6, 12], confidences=[90.0, 12.5]))
        assert found.ok
        assert found.facts["confidences outside 0..1"] == 6

    def test_a_good_split_passes_alone_and_with_its_ground_truth(self, instances: InstanceFiles) -> None:
        for gts in (None, instances.gts):
            found = check(instances.preds, gts=gts)
            assert not found.doubts
            assert [kind.first[0].kind for kind in found.problems] in ([], ["SizeMismatch"])


class TestLabels:
    def test_ids_of_level_3_are_named(self, tmp_path: Path) -> None:
        (doubt,) = check(write(tmp_path / "p", [LEVEL3[label] for label in IDS])).doubts
        assert "`level3` ids" in doubt.message
        assert "4 is person (6)" in doubt.fix
        assert "12 is vehicle fallback (18)" in doubt.fix
        assert "18 of 27 predictions would count" in doubt.evidence

    def test_train_ids_of_cityscapes_are_named_and_none_counts(self, tmp_path: Path) -> None:
        found = check(write(tmp_path / "p", list(range(11, 19))), labels="cityscapes")
        (doubt,) = found.doubts
        assert "`train` ids" in doubt.message
        assert doubt.certain
        assert "11 is person (24)" in doubt.fix

    def test_they_pass_with_the_option_that_reads_them(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "p", [LEVEL3[label] for label in IDS])
        found = check(folder, pred_encoding="level3")
        assert found.ok, found.to_dict()
        assert found.facts["labels"]["4 person"] == 3

    @pytest.mark.parametrize(
        ("labels", "named"), [(list(range(9)), "from0"), (list(range(1, 10)), "from1"), ([1, 3, 8], "coco")]
    )
    def test_places_and_categories_of_coco_are_named(
        self, tmp_path: Path, labels: list[int], named: str
    ) -> None:
        (doubt,) = check(write(tmp_path / "p", labels)).doubts
        assert f"`{named}`" in doubt.message

    def test_the_command_that_is_advised_scores(self, instances: InstanceFiles, tmp_path: Path) -> None:
        for path in instances.preds.rglob("*.txt"):
            lines = [line.split() for line in path.read_text().splitlines()]
            path.write_text(
                "".join(f"{mask} {CS[int(n)]} {score}\n" for mask, n, score in lines if int(n) in CS)
            )
        found = check(instances.preds)
        (doubt,) = found.doubts
        command = found.command(doubt)
        assert command == f"gpu-eval instances GTS {instances.preds} -o RUN --pred-encoding cs"
        words = shlex.split(command.replace("GTS", str(instances.gts)).replace("RUN", str(tmp_path / "run")))
        assert gpu_eval_command(*words[1:]).exit_code == 0

    def test_no_evaluated_label_at_all_is_certain(self, tmp_path: Path) -> None:
        found = check(write(tmp_path / "p", [1, 1, 1]))
        (doubt,) = found.doubts
        assert doubt.certain
        assert "0 of 9 predictions would count" in doubt.evidence

    def test_unknown_ids_are_refused(self, tmp_path: Path) -> None:
        found = check(write(tmp_path / "p", [12, 99]))
        assert found.certain
        (kind,) = found.problems
        assert kind.count == 3
        assert "no label of idd has this id" in kind.first[0].message

    def test_exchanged_labels_and_confidences_are_certain(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "p", [12, 6, 9])
        for path in folder.rglob("*.txt"):
            lines = [line.split() for line in path.read_text().splitlines()]
            path.write_text("".join(f"{mask} {score} {label}\n" for mask, label, score in lines))
        (doubt,) = check(folder).doubts
        assert "exchanged" in doubt.message
        assert doubt.certain


class TestMasks:
    def test_what_is_wrong_with_masks_and_lines_is_told_in_one_pass(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "p", [12, 6, 9, 10, 11])
        here = folder / "a"
        (here / "0_0.png").unlink()
        (here / "0_1.png").write_bytes((here / "0_1.png").read_bytes()[:40])
        Image.fromarray(np.ones((20, 30), np.uint8)).save(here / "1_0.png")
        with (here / f"frame1{LIST_SUFFIX}").open("a") as file:
            file.write("1_1.png 12 0.5\n../../etc/x.png 12 0.5\nonly two\n")
        found = check(folder)
        kinds = [kind.first[0].kind for kind in found.problems]
        told = "CorruptImage DuplicateFile MalformedPredictions MissingMask SizeMismatch UnsafePath"
        assert sorted(kinds) == told.split()

    def test_sizes_that_differ_in_one_image_are_refused(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "p", [12, 6])
        Image.fromarray(np.ones((20, 30), np.uint8)).save(folder / "a" / "1_0.png")
        (kind,) = check(folder).problems
        assert kind.first[0].kind == "SizeMismatch"
        assert "30x20" in str(kind.first[0].found)

    def test_some_empty_masks_are_a_fact_and_only_empty_ones_are_certain(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "p", [12, 6])
        empty = Image.fromarray(np.zeros(SIZE, np.uint8))
        empty.save(folder / "a" / "0_0.png")
        found = check(folder)
        assert found.ok
        assert found.facts["empty masks"] == 1
        for path in folder.rglob("*.png"):
            empty.save(path)
        (doubt,) = check(folder).doubts
        assert doubt.certain

    def test_overlaps_are_a_fact(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "p", [12, 6])
        for number in range(3):
            for at, columns in enumerate((slice(0, 10), slice(5, 15))):
                mask = np.zeros(SIZE, np.uint8)
                mask[:, columns] = 255
                Image.fromarray(mask).save(folder / "a" / f"{number}_{at}.png")
        assert check(folder).facts["overlap of masks"] == "33.3% of the pixels under masks, in 3 images"

    @pytest.mark.parametrize("colours", [[0, 0, 0, 255, 0, 0], [255, 0, 0, 0, 0, 0]])
    def test_a_palette_counts_by_its_colours(self, tmp_path: Path, colours: list[int]) -> None:
        folder = write(tmp_path / "p", [12])
        for path in folder.rglob("*.png"):
            mask = Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).convert("P")
            mask.putpalette(colours)
            mask.save(path)
        found = check(folder)
        assert found.ok == (colours[0] == 0)


class TestCoco:
    def test_results_are_examined_like_lists(self, instances: InstanceFiles, tmp_path: Path) -> None:
        file = write_coco(tmp_path / "r.json", instances.images)
        by_lists, by_file = check(instances.preds), check(file)
        assert not by_file.doubts
        assert by_file.facts["predictions"] == by_lists.facts["predictions"]
        assert by_file.facts["labels"] == by_lists.facts["labels"]
        assert by_file.facts["masks"] == by_lists.facts["masks"]
        assert check(file, gts=instances.gts).facts["masks"] == by_file.facts["masks"]

    def test_level_3_ids_are_named_there_too(self, instances: InstanceFiles, tmp_path: Path) -> None:
        images = {
            key: image._replace(
                predictions=[
                    one._replace(label=LEVEL3[IDS[at % len(IDS)]]) for at, one in enumerate(image.predictions)
                ]
            )
            for key, image in instances.images.items()
        }
        (doubt,) = check(write_coco(tmp_path / "r.json", images)).doubts
        assert "`level3` ids" in doubt.message

    def test_broken_json_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "r.json").write_text("{")
        found = check(tmp_path / "r.json")
        assert found.certain
        assert found.problems[0].first[0].message == "not JSON"

    @pytest.mark.parametrize(
        "entry",
        ["1", "null", '{"image_id": [1]}', '{"image_id": "a/b", "category_id": 1e999, "score": "x"}',
         '{"image_id": "a", "category_id": 12, "score": 0, "segmentation": {"size": [2, 2], "counts": "~"}}'],
    )  # fmt: skip
    def test_odd_entries_are_told(self, tmp_path: Path, entry: str) -> None:
        (tmp_path / "r.json").write_text(f"[{entry}]")
        assert check(tmp_path / "r.json").certain


class TestOptions:
    def test_other_endings_of_lists_are_found(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "p", [12, 6])
        for path in folder.rglob("*.txt"):
            path.rename(path.with_name(path.name.replace(LIST_SUFFIX, "_pred.txt")))
        found = check(folder)
        assert found.ok
        assert found.facts["lists"] == 3
        assert any("_pred.txt were looked at" in note for note in found.notes)

    def test_no_list_at_all_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "a.png").write_bytes(b"")
        assert check(tmp_path / "p").problems[0].first[0].kind == "EmptySplit"

    def test_names_say_what_must_be_there(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "p", [12])
        (tmp_path / "names").write_text("a/frame0\na/frame1\na/frame2\na/frame3\n")
        (kind,) = check(folder, names=tmp_path / "names").problems
        assert "a/frame3" in str(kind.first[0].file)

    def test_a_corrected_copy_is_of_label_maps_only(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="only label maps"):
            check(write(tmp_path / "p", [12]), fix=tmp_path / "fixed")

    def test_options_of_the_other_task_have_no_meaning(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "p", [12])
        with pytest.raises(OptionError, match="no meaning for instances"):
            check(folder, gt_encoding="id")
        with pytest.raises(OptionError, match="no meaning for label maps"):
            gpu_eval.check(folder, gt_factor=256)

    def test_ground_truth_of_another_factor_is_read_by_it(self, instances: InstanceFiles) -> None:
        for path in instances.gts.rglob("*.png"):
            values = np.asarray(Image.open(path)).astype(np.uint32)
            coded = np.where(values >= 1000, values // 1000 * 256 + values % 1000, values)
            Image.fromarray(coded.astype(np.uint16)).save(path)
        (doubt,) = check(instances.preds, gts=instances.gts).doubts
        assert doubt.mend == {"gt_factor": "256"}
        assert not check(instances.preds, gts=instances.gts, gt_factor=256).doubts
