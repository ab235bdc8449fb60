"""`gpu_eval.score_instances` on the golden splits: the numbers of the public scripts, or why ours differ."""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import gpu_eval
from gpu_eval import errors
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.results.instance_run import InstanceRun
from tests.reference.instances import read_drive
from tests.support.instance_split import literal
from tests.support.instance_tables import matrix, of_protocol
from tests.support.numbers import close, floats
from tests.support.packing import tarred, zipped
from tests.support.run_tables import assert_same_tables
from tests.support.shared import SHARED, golden_cases, needs_shared, shared_json

IDD = load_instances("idd")
GOLDEN, EDGES_FOLDER = SHARED / "golden" / "instance", SHARED / "golden" / "instance_edge"


def score_folder(folder: Path, out: Path, below: str = "") -> InstanceRun:
    """The run of `folder`/gt and `folder`/pred, or of a drive of them."""
    return gpu_eval.score_instances(folder / "gt" / below, folder / "pred" / below, out=out, threads=1)


@needs_shared
class TestGolden:
    @pytest.mark.parametrize("case", golden_cases("instance", lambda _: True))
    def test_numbers_are_those_of_the_scripts(self, case: str, tmp_path: Path) -> None:
        expected = shared_json("golden/instance/expected.json")["cases"][case]
        drives = expected["drives"]
        below = drives[0] if len(drives) == 1 else ""
        run = score_folder(GOLDEN, tmp_path / "run", below)
        assert run.images.num_rows == expected["images"]
        for protocol, official in (
            ("autonue", expected["official"]),
            ("cityscapes", expected["groups_ignored"]),
        ):
            close(matrix(run, protocol), floats(official["ap_matrix"]))
            close((run.ap(protocol), run.ap50(protocol)), (official["ap"], official["ap50"]))
        counts = np.stack([matrix(run, "autonue", name) for name in ("tp", "fp", "fn")], axis=2)
        for row, by_threshold in zip(of_protocol(run.classes), counts.tolist(), strict=True):
            name = row["class_name"]
            close(
                (row["ap"], row["ap50"]),
                floats([expected["official"]["classes"][name][k] for k in ("ap", "ap50")]),
            )
            assert row["gt"] == expected["counted_gt"][name]
            assert row["predictions"] == expected["predictions_used"][name]
            known = [counted for counted in expected["tp_fp_fn"][name] if counted is not None]
            assert known in ([], by_threshold)
        small = run.sql(
            "SELECT class_name FROM instances WHERE kind = 'gt' AND autonue_why = 'outside the area range'"
        )
        assert Counter(small["class_name"].to_pylist()) == +Counter(expected["too_small_gt"])

    def test_archives_give_the_tables_of_the_folders(self, tmp_path: Path) -> None:
        score_folder(GOLDEN, tmp_path / "folders")
        for side in ("gt", "pred"):
            tarred(GOLDEN / side, tmp_path / f"{side}.tar")
            zipped(GOLDEN / side, tmp_path / f"{side}.zip", zipfile.ZIP_DEFLATED)
        for one, other in (("tar", "zip"), ("zip", "tar")):
            gpu_eval.score_instances(
                tmp_path / f"gt.{one}", tmp_path / f"pred.{other}", out=tmp_path / "packed", overwrite=True
            )
            assert_same_tables(tmp_path / "folders", tmp_path / "packed")


@dataclass(frozen=True)
class Edge:
    """Ours where it is not the reference's: (AP, AP50), or an error with these words; and why."""

    numbers: tuple[float, float] | None = None
    error: str | None = None
    words: str = ""
    why: str = ""


SAME = Edge()
EDGES: dict[str, Edge] = {
    "plain": SAME,
    "same_mask_twice": Edge(
        error="DuplicateFile",
        words="line 4: the mask stands in the list twice",
        why="the reference keeps the last line without a word",
    ),
    "float_label_truncates": SAME,
    "nonevaluated_label_missing_mask": SAME,
    "evaluated_label_missing_mask": Edge(error="MissingMask", words="line 4: the mask is not there"),
    "unknown_label_40": Edge(error="MalformedPredictions", words="line 4: no label of idd has this id"),
    "blank_line_end": Edge(numbers=(0.375, 0.5), why="an empty line says nothing; the reference stops there"),
    "crlf": SAME,
    "double_space": Edge(numbers=(0.25, 0.25), why="two blanks are as clear as one; the reference stops"),
    "parent_path": Edge(
        error="UnsafePath",
        words="line 1: the mask's path leads out of the folder of the list",
        why="a submission reads nothing but itself",
    ),
    "missing_txt": Edge(error="EmptySplit", words="no list of predictions"),
    "empty_txt": SAME,
    "mask_smaller": Edge(error="SizeMismatch", words="s.png"),
    "all_predictions_ignored": Edge(numbers=(0.0, 0.0), why="none was found; the reference: IndexError"),
    "only_empty_masks": SAME,
    "tie_tp_fp": SAME,
    "palette_index1_black": Edge(
        error="WrongImageMode",
        words="A.png",
        why="the reference finds the mask empty, by its colours; its author meant the indices",
    ),
    "palette_normal": SAME,
    "rgb_white": SAME,
    "mask16_255": SAME,
    "mask_one_bit": SAME,
    "gt_value_255": SAME,
    "ignored_on_animal_group": SAME,
    "car_group_not_ignored": SAME,
}  # fmt: skip


@needs_shared
class TestGoldenEdges:
    def test_every_case_is_in_the_table(self) -> None:
        assert set(EDGES) == set(shared_json("golden/instance_edge/expected.json")["cases"])

    @pytest.mark.parametrize("name", EDGES)
    def test_case(self, name: str, tmp_path: Path) -> None:
        edge, folder = EDGES[name], EDGES_FOLDER / name
        expected = shared_json("golden/instance_edge/expected.json")["cases"][name]
        assert edge != SAME or expected["outcome"] == "ok"
        assert edge.error is not None or edge.numbers is not None or edge == SAME
        if edge.error is not None:
            with pytest.raises(errors.InputError) as caught:
                score_folder(folder, tmp_path / "run")
            problems = getattr(caught.value, "problems", (caught.value,))
            assert edge.words in str(problems[0])
            assert {problem.kind for problem in problems} == {edge.error}
            assert all(str(folder) in str(problem.file) for problem in problems)
            return
        run = score_folder(folder, tmp_path / "run")
        if edge.numbers is not None:
            close((run.ap(), run.ap50()), edge.numbers)
            return
        close(matrix(run, "autonue"), floats(expected["ap_matrix"]))
        close((run.ap(), run.ap50()), (expected["ap"], expected["ap50"]))
        used = {row["class_name"]: row["predictions"] for row in of_protocol(run.classes)}
        assert used == expected["predictions_used"]
        rows = literal(dict(enumerate(read_drive(folder, "0"))), "cityscapes")
        close(matrix(run, "cityscapes"), [[one.ap for one in row] for row in rows])

    def test_cut_label_is_told(self, tmp_path: Path) -> None:
        folder = EDGES_FOLDER / "float_label_truncates"
        run = score_folder(folder, tmp_path / "run")
        (note,) = run.facts["notes"]
        assert "1 label ids" in note
        assert "A.png 12.9 0.9" in note
