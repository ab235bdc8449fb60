"""Instance runs ranked by AP: the rules of semantic runs, and never both on one board."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import gpu_eval
from gpu_eval.errors import CorruptRun, IncomparableRuns, OptionError
from gpu_eval.metrics import student
from gpu_eval.metrics.matching import PROTOCOLS
from gpu_eval.results.instance_run import InstanceRun
from gpu_eval.results.leaderboard import leaderboard
from gpu_eval.results.semantic_run import Run
from gpu_eval.run_folder import schema
from gpu_eval.run_folder.folder import read_facts
from tests.reference.instances import Image, Prediction
from tests.support.boards import Cells, names, ranges
from tests.support.commands import gpu_eval_command
from tests.support.instance_runs import random_images, repeated, write_instance_run

Images = Mapping[str, Image | None]


def rows_of(runs: list[InstanceRun], **options: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = gpu_eval.leaderboard(runs, **options).to_pylist()
    return rows


def without_one_pixel(image: Image) -> Image:
    """The same with an instance that is a pixel smaller."""
    gt = image.gt.copy()
    place = np.argwhere(gt >= 12000)[0]
    gt[tuple(place)] = 0
    return image._replace(gt=gt)


class TestOrder:
    def test_best_ap_is_first_and_the_columns_are_those_of_instances(self, runs: list[InstanceRun]) -> None:
        board = gpu_eval.leaderboard(runs)
        rows = board.to_pylist()
        assert names(rows) == ["best", "bad", "worst"]
        assert [row["rank"] for row in rows] == [1, 2, 3]
        assert [row["ap"] for row in rows] == sorted((run.ap() for run in runs), reverse=True)
        assert [row["ap50"] for row in rows] == [runs[i].ap50() for i in (2, 0, 1)]
        assert {row["protocol"] for row in rows} == {"autonue"}
        assert board.schema.equals(schema.tables_of("instance").board)
        assert not [name for name in board.column_names if "miou" in name]

    def test_protocol_of_cityscapes_is_ranked_by_its_own_ap(self, runs: list[InstanceRun]) -> None:
        rows = rows_of(runs, protocol="cityscapes")
        assert [row["ap"] for row in rows] == [runs[i].ap("cityscapes") for i in (2, 0, 1)]
        assert rows[0]["ap"] != runs[2].ap()
        assert {row["protocol"] for row in rows} == {"cityscapes"}

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_intervals_are_those_of_drives_really_left_out(self, protocol: str, tmp_path: Path) -> None:
        images = random_images(20, drives=10, found=0.4)
        run = write_instance_run(tmp_path / "run", images, shard_size=7)
        (row,) = leaderboard([run], protocol=protocol).to_pylist()
        told = {one["protocol"]: one for one in run.scores.to_pylist()}[protocol]
        drives = [i // 2 for i in range(20)]
        samples = [
            repeated(list(images.values()), drives, [d for d in range(10) if d != left_out], protocol)
            for left_out in range(10)
        ]
        for name in ("ap", "ap50"):
            moves = np.array([getattr(sample, f"mean_{name}") for sample in samples]) - row[name]
            error = np.sqrt(9 / 10 * np.square(moves - moves.mean()).sum())
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert (low, high) == (told[f"{name}_low"], told[f"{name}_high"])
            odds = [np.log(bound / (1 - bound)) for bound in (low, row[name], high)]
            assert odds[2] - odds[1] == pytest.approx(odds[1] - odds[0])
            half = (odds[2] - odds[1]) * row[name] * (1 - row[name])
            # As many standard errors as 1 to 9 degrees of freedom make it.
            ratios = student.quantile(0.05, np.array([9.0, 1.0]))
            assert ratios[0] * (1 - 1e-9) <= half / error <= ratios[1] * (1 + 1e-9)

    def test_sorting_by_ap50_ranks_by_it(self, tmp_path: Path) -> None:
        gt = np.zeros((40, 40), np.int64)
        gt[:20, :20], gt[20:, 20:] = 12000, 12001
        exact, near = gt == 12000, np.zeros((2, 40, 40), bool)
        near[0, :20, :12] = near[1, 20:, 20:32] = True  # IoU 0.6
        sides = {
            "exact": [Prediction(exact, 12, 0.9)],
            "near": [Prediction(mask, 12, 0.9) for mask in near],
        }
        two = [
            write_instance_run(tmp_path / name, {f"{i}": Image(gt, preds) for i in range(3)})
            for name, preds in sides.items()
        ]
        assert names(rows_of(two)) == ["exact", "near"]
        assert names(rows_of(two, sort="AP")) == ["exact", "near"]
        assert names(rows_of(two, sort="ap50")) == ["near", "exact"]

    @pytest.mark.parametrize("options", [{"sort": "L3"}, {"sort": "miou"}, {"protocol": "idd"}])
    def test_sort_or_protocol_of_label_maps_is_refused(
        self, runs: list[InstanceRun], options: dict[str, str]
    ) -> None:
        with pytest.raises(OptionError, match=r"expected (AP, AP50|autonue or cityscapes)"):
            rows_of(runs, **options)

    def test_same_run_twice_is_refused(self, runs: list[InstanceRun]) -> None:
        with pytest.raises(OptionError, match="twice"):
            rows_of([*runs, runs[0]])

    def test_lost_part_is_noticed(self, tmp_path: Path) -> None:
        for table in ("images", "instances", "intersections"):
            run = write_instance_run(tmp_path / table, random_images(4), shard_size=2)
            (run.folder / table / "part-000001.parquet").unlink()
            with pytest.raises(CorruptRun, match="no such file"):
                rows_of([InstanceRun(run.folder)])


class TestRanges:
    def test_clearly_different_runs_have_one_rank_each(self, runs: list[InstanceRun]) -> None:
        assert ranges(rows_of(runs)) == {"best": (1, 1), "bad": (2, 2), "worst": (3, 3)}

    def test_runs_that_noise_could_reorder_share_their_ranges(
        self, runs: list[InstanceRun], tmp_path: Path
    ) -> None:
        rng = np.random.default_rng(0)
        twin = {}
        for key, image in random_images(40, drives=10, found=0.8).items():
            # Confidences move a little: no real difference.
            moved = [one._replace(confidence=one.confidence + rng.random() / 50) for one in image.predictions]
            twin[key] = image._replace(predictions=moved)
        rows = rows_of([*runs, write_instance_run(tmp_path / "twin", twin)])
        assert ranges(rows) == {"best": (1, 2), "twin": (1, 2), "bad": (3, 3), "worst": (4, 4)}
        assert len({row["ap"] for row in rows}) == 4
        assert len({row["pred_fingerprint"] for row in rows}) == 4

    def test_equal_content_shares_rank_range_and_fingerprints_however_it_is_cut(
        self, runs: list[InstanceRun], tmp_path: Path
    ) -> None:
        images = random_images(40, drives=10, found=0.8)
        rows = rows_of([*runs, write_instance_run(tmp_path / "copy", images, shard_size=7)])
        assert [row["rank"] for row in rows] == [1, 1, 3, 4]
        assert ranges(rows) == {"best": (1, 2), "copy": (1, 2), "bad": (3, 3), "worst": (4, 4)}
        assert rows[0]["pred_fingerprint"] == rows[1]["pred_fingerprint"]
        assert len({row["pred_fingerprint"] for row in rows}) == 3
        assert len({row["gt_fingerprint"] for row in rows}) == 1

    def test_leaving_images_out_costs_the_rank(self, runs: list[InstanceRun], tmp_path: Path) -> None:
        images: dict[str, Image | None] = {**random_images(40, drives=10, found=1.0)}
        images[min(images)] = None
        rows = rows_of([*runs, write_instance_run(tmp_path / "cherry", images)])
        assert names(rows)[-1] == "cherry"
        last = rows[-1]
        assert last["ap"] > rows[0]["ap"]
        assert (last["rank"], last["rank_last"], last["images_scored"], last["images"]) == (
            None,
            None,
            39,
            40,
        )

    def test_run_without_ground_truth_is_listed_without_a_rank(self, tmp_path: Path) -> None:
        nothing = Image(np.zeros((20, 20), np.int64), [])
        run = write_instance_run(tmp_path / "run", {"1": nothing, "2": nothing})
        (row,) = rows_of([run])
        assert (row["rank"], row["ap"], row["ap_low"]) == (None, None, None)
        assert " AP " in gpu_eval_command("leaderboard", run.folder).stdout


class TestRefused:
    """By the board and by the comparison alike."""

    @staticmethod
    def refused(one: Run | InstanceRun, other: Run | InstanceRun, error: type[Exception], words: str) -> None:
        for use in (lambda: gpu_eval.leaderboard([one, other]), lambda: gpu_eval.compare(one, other)):
            with pytest.raises(error, match=words):
                use()
        for name in ("leaderboard", "compare"):
            result = gpu_eval_command(name, one.folder, other.folder)
            assert (result.exit_code, result.stdout) == (2, "")
            assert re.search(words, " ".join(result.stderr.split()))

    def test_other_ground_truth_is_named(self, runs: list[InstanceRun], tmp_path: Path) -> None:
        images: dict[str, Image | None] = {**random_images(40, drives=10)}
        key = next(key for key, image in images.items() if image is not None and (image.gt >= 12000).any())
        image = images[key]
        assert image is not None
        images[key] = without_one_pixel(image)
        other = write_instance_run(tmp_path / "gt", images)
        self.refused(runs[0], other, IncomparableRuns, rf"different ground truth.*1 of 40 images.*{key}")

    def test_other_area_range_is_named(self, runs: list[InstanceRun], tmp_path: Path) -> None:
        other = write_instance_run(tmp_path / "area", random_images(40, drives=10), area=(50, 2000))
        words = r"different area ranges.*found 50 to 2000 pixels, expected 100 to inf pixels"
        self.refused(runs[0], other, IncomparableRuns, words)

    def test_other_labels_are_named(self, runs: list[InstanceRun], tmp_path: Path) -> None:
        other = write_instance_run(tmp_path / "labels", random_images(40, drives=10), labels="cityscapes")
        self.refused(runs[0], other, IncomparableRuns, r"different label spaces.*cityscapes.*idd")

    def test_other_images_are_named(self, runs: list[InstanceRun], tmp_path: Path) -> None:
        images = random_images(40, drives=10)
        del images[max(images)]
        other = write_instance_run(tmp_path / "split", images)
        with pytest.raises(IncomparableRuns, match=r"different splits.*drive09/frame0039"):
            gpu_eval.leaderboard([runs[0], other])
        with pytest.raises(IncomparableRuns, match=r"1 only in .*drive09/frame0039.*--common"):
            gpu_eval.compare(runs[0], other)

    def test_label_maps_and_instances_together_are_refused_with_one_of_each(
        self, runs: list[InstanceRun], semantic: Run
    ) -> None:
        for pair in ((runs[0], semantic), (semantic, runs[0])):
            words = rf"{pair[1].folder}: runs of different kinds .*{pair[0].folder}.*give runs of one kind"
            self.refused(pair[0], pair[1], OptionError, words)
        with pytest.raises(OptionError, match="different kinds"):
            gpu_eval.leaderboard([*runs, semantic])


class TestPublished:
    def test_published_ap_stands_among_the_runs_and_label_maps_do_not(self, runs: list[InstanceRun]) -> None:
        rows = rows_of(runs, published=True)
        published = [row for row in rows if row["source"] == "published"]
        assert {row["run"] for row in published} == {"AutoNUE instance-level board"}
        assert [row["published_rank"] for row in published] == [1, 2, 3, 4, 5, 6]
        assert {(row["rank"], row["rank_first"], row["ap_low"]) for row in published} == {(None, None, None)}
        assert [row["ap"] for row in rows] == sorted((row["ap"] for row in rows), reverse=True)
        assert [row["rank"] for row in rows if row["source"] == "scored"] == [1, 2, 3]

    def test_other_benchmarks_have_no_published_rows(self, tmp_path: Path) -> None:
        run = write_instance_run(tmp_path / "run", random_images(2), labels="cityscapes")
        with pytest.raises(OptionError, match="no published rows"):
            rows_of([run], published=True)


class TestFiles:
    @pytest.fixture
    def board(self, runs: list[InstanceRun], tmp_path: Path) -> Path:
        folders = [run.folder for run in runs]
        result = gpu_eval_command("leaderboard", *folders, "--published", "-o", tmp_path / "board")
        assert result.exit_code == 0, result.stderr
        assert "AP50" in result.stdout
        assert "mIoU" not in result.stdout
        return tmp_path / "board"

    def test_parquet_and_csv_hold_the_board(self, board: Path, runs: list[InstanceRun]) -> None:
        folders = [run.folder for run in runs]
        expected = gpu_eval.leaderboard(folders, published=True)
        written = pq.read_table(board / "leaderboard.parquet")
        ignored = ["run"]  # the folders as they were given
        assert written.drop_columns(ignored).equals(expected.drop_columns(ignored))
        rows = list(csv.DictReader(io.StringIO((board / "leaderboard.csv").read_text())))
        for name in ("ap", "ap50_high"):
            assert [float(row[name]) if row[name] else None for row in rows] == expected[name].to_pylist()

    def test_markdown_and_html_show_ap_with_intervals(self, board: Path, runs: list[InstanceRun]) -> None:
        text = (board / "leaderboard.html").read_text()
        page = Cells()
        page.feed(text)
        page.close()
        assert page.open == []
        head = [cell for cell in page.rows[0] if cell]
        assert head[:5] == ["rank", "range", "method", "AP", "AP50"]
        assert head[5:] == ["intervals", "classes", "sizes", "images", "provenance", "fingerprints"]
        best = next(row for row in page.rows if row[0] == "1")
        row = next(row for row in rows_of(runs) if row["rank"] == 1)
        shown = [f"{row[n]:.4f}[{row[f'{n}_low']:.3f}, {row[f'{n}_high']:.3f}]" for n in ("ap", "ap50")]
        assert best[3:5] == shown
        lines = [line for line in (board / "leaderboard.md").read_text().splitlines() if line.startswith("|")]
        assert lines[0].split(" | ")[3:5] == ["AP", "AP50"]
        assert len(lines) == 2 + 3 + 6

    def test_tag_names_a_run_of_instances(self, tmp_path: Path) -> None:
        folder = write_instance_run(tmp_path / "run", random_images(3)).folder
        before = read_facts(folder)
        given = ("--team", "T", "--method", "M", "--link", "https://example.org")
        assert gpu_eval_command("tag", folder, *given).exit_code == 0
        (row,) = rows_of([InstanceRun(folder)])
        assert (row["team"], row["method"], row["link"]) == ("T", "M", "https://example.org")
        assert {**read_facts(folder), "entry": before["entry"]} == before

    def test_leaderboard_as_json_holds_ap_intervals(self, runs: list[InstanceRun]) -> None:
        told = json.loads(
            gpu_eval_command("leaderboard", *(run.folder for run in runs), "--format", "json").stdout
        )
        assert [row["rank"] for row in told] == [1, 2, 3]
        assert all(row["ap_low"] < row["ap"] < row["ap_high"] for row in told)
