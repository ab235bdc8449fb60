"""The board: order, ranks and their ranges, published rows, provenance, files for other programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import gpu_eval
from gpu_eval.errors import CorruptRun, IncomparableRuns, OptionError
from gpu_eval.results.semantic_run import Run
from gpu_eval.run_folder.folder import read_facts
from tests.support.boards import Cells, names, ranges
from tests.support.commands import gpu_eval_command
from tests.support.semantic_runs import random_matrices, write_run
from tests.support.semantic_split import TinySplit


def rows_of(runs: list[Run], **options: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = gpu_eval.leaderboard(runs, **options).to_pylist()
    return rows


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Three runs of 60 images, the middle one first: bad, worst, best."""
    quality = {"bad": 0.1, "worst": 0.0, "best": 0.3}
    return [write_run(tmp_path / name, random_matrices(60, better=b)) for name, b in quality.items()]


class TestOrder:
    def test_best_is_first_and_ranks_count_up(self, runs: list[Run]) -> None:
        rows = rows_of(runs)
        assert names(rows) == ["best", "bad", "worst"]
        assert [row["rank"] for row in rows] == [1, 2, 3]
        assert [row["miou_level1"] for row in rows] == sorted((run.miou() for run in runs), reverse=True)

    def test_intervals_are_those_of_the_runs(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "a", random_matrices(60))
        level, (row,) = run.levels.to_pylist()[0], rows_of([run])
        assert (row["miou_level1_low"], row["miou_level1_high"]) == (level["miou_low"], level["miou_high"])

    def test_sorting_by_a_coarser_level_ranks_by_it(self, tmp_path: Path) -> None:
        fine, coarse = np.zeros((27, 27), np.int64), np.zeros((27, 27), np.int64)
        for matrix, wrong in ((fine, 20), (coarse, 1)):
            # gt 0 of level-1 class 0; index 1 shares it, index 20 does not.
            matrix[range(26), range(26)] = 10
            matrix[0, 0], matrix[0, wrong] = (8, 2) if wrong == 20 else (5, 5)
        two = [
            write_run(tmp_path / name, {"1": matrix, "2": matrix}, labels="idd")
            for name, matrix in (("fine", fine), ("coarse", coarse))
        ]
        assert names(rows_of(two)) == ["fine", "coarse"]
        assert names(rows_of(two, sort="L1")) == ["coarse", "fine"]
        assert names(rows_of(two, sort="l3")) == ["fine", "coarse"]

    @pytest.mark.parametrize("options", [{"sort": "L9"}, {"sort": "miou"}, {"protocol": "coco"}])
    def test_unknown_sort_or_protocol_is_refused(self, runs: list[Run], options: dict[str, str]) -> None:
        with pytest.raises(OptionError):
            rows_of(runs, **options)

    def test_same_run_twice_is_refused(self, runs: list[Run]) -> None:
        with pytest.raises(OptionError, match="twice"):
            rows_of([*runs, runs[0]])

    def test_other_ground_truth_split_or_labels_are_refused(self, runs: list[Run], tmp_path: Path) -> None:
        others = (
            ("gt", random_matrices(60, seed=1), "different ground truth"),
            ("split", random_matrices(59), "different splits"),
        )
        for name, matrices, words in others:
            with pytest.raises(IncomparableRuns, match=words):
                rows_of([runs[0], write_run(tmp_path / name, matrices)])

    def test_lost_part_is_noticed(self, runs: list[Run]) -> None:
        (runs[0].folder / "images" / "part-000000.parquet").unlink()
        with pytest.raises(CorruptRun, match="missing"):
            rows_of(runs)


class TestRanges:
    def test_clearly_different_runs_have_one_rank_each(self, runs: list[Run]) -> None:
        assert ranges(rows_of(runs)) == {"best": (1, 1), "bad": (2, 2), "worst": (3, 3)}

    def test_runs_that_noise_could_reorder_share_their_ranges(self, runs: list[Run], tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        twin = {}
        for key, matrix in random_matrices(60, better=0.3).items():
            # A class-0 pixel more or less right per image: no real difference.
            step = int(rng.integers(-1, 2)) if matrix[0, 0] > 1 and matrix[0, 1] > 1 else 0
            twin[key] = matrix.copy()
            twin[key][0, 0] += step
            twin[key][0, 1] -= step
        rows = rows_of([*runs, write_run(tmp_path / "twin", twin)])
        assert ranges(rows) == {"best": (1, 2), "twin": (1, 2), "bad": (3, 3), "worst": (4, 4)}

    def test_equal_scores_share_rank_and_range(self, runs: list[Run], tmp_path: Path) -> None:
        copy = write_run(tmp_path / "copy", random_matrices(60, better=0.3))
        rows = rows_of([*runs, copy])
        assert [row["rank"] for row in rows] == [1, 1, 3, 4]
        assert ranges(rows) == {"best": (1, 2), "copy": (1, 2), "bad": (3, 3), "worst": (4, 4)}
        assert rows[0]["pred_fingerprint"] == rows[1]["pred_fingerprint"]
        assert len({row["gt_fingerprint"] for row in rows}) == 1

    def test_leaving_images_out_costs_the_rank(self, runs: list[Run], tmp_path: Path) -> None:
        matrices: dict[str, Any] = random_matrices(60, better=0.9)
        matrices[min(matrices)] = None
        rows = rows_of([*runs, write_run(tmp_path / "cherry", matrices)])
        last = rows[-1]
        assert names(rows)[-1] == "cherry"
        assert last["miou_level1"] > rows[0]["miou_level1"]
        assert (last["rank"], last["rank_last"], last["images_scored"], last["images"]) == (
            None,
            None,
            59,
            60,
        )
        assert last["completeness"] == pytest.approx(59 / 60)

    def test_run_without_a_score_is_listed_without_a_rank(self, runs: list[Run]) -> None:
        rows = rows_of(runs, sort="AP")
        assert {row["rank"] for row in rows} == {None}


class TestHowItIsTold:
    """Method, units and the reading of ranges, on terminals and in files."""

    @staticmethod
    def told(runs: list[Run], folder: Path) -> dict[str, str]:
        result = gpu_eval_command("leaderboard", *(run.folder for run in runs), "-o", folder)
        assert (result.exit_code, result.exception) == (0, None), result.stderr
        files = {kind: (folder / f"leaderboard.{kind}").read_text() for kind in ("md", "html", "csv")}
        return {"terminal": " ".join(result.stdout.split()), **files}

    def test_units_of_runs_that_lack_a_drive_are_a_range_and_stand_in_every_row(self, tmp_path: Path) -> None:
        runs = []
        for name, better in (("all", 0.3), ("most", 0.1), ("less", 0.2)):
            matrices: dict[str, Any] = random_matrices(36, drives=12, better=better)
            if name == "less":
                matrices |= dict.fromkeys([key for key in matrices if key.startswith("drive00")])
            runs.append(write_run(tmp_path / name, matrices))
        told = self.told(runs, tmp_path / "board")
        for kind in ("terminal", "md", "html"):
            assert "jackknife t, 11-12 drives, as each run has them" in told[kind]
        rows = list(csv.DictReader(io.StringIO(told["csv"])))
        assert [row["units"] for row in rows] == ["12 drives", "12 drives", "11 drives"]
        assert {row["interval_method"] for row in rows} == {"jackknife t"}
        assert rows[0]["detectable"] == rows[1]["detectable"] != ""
        assert rows[2]["detectable"] == ""
        assert told["md"].count("11 drives<br>jackknife t") == 1
        assert told["html"].count("11 drives<small>jackknife t</small>") == 1
        assert [row["units"] for row in rows_of(runs)] == ["12 drives", "12 drives", "11 drives"]

    def test_ranges_claim_no_more_than_they_show_and_name_the_unit(self, tmp_path: Path) -> None:
        runs = [
            write_run(tmp_path / str(i), random_matrices(40, drives=10, better=0.1 * i)) for i in range(2)
        ]
        told = self.told(runs, tmp_path / "board")
        for kind in ("terminal", "md", "html"):
            assert "other drives of the same kind" in told[kind]
            assert "whose ranges do not overlap are told apart" in told[kind]
            assert "change places" not in told[kind]

    def test_a_board_of_one_run_says_how_its_intervals_came_about(self, tmp_path: Path) -> None:
        matrices: dict[str, Any] = random_matrices(40, drives=10)
        for name in ("whole", "lacking"):
            told = self.told([write_run(tmp_path / name, matrices)], tmp_path / "board")
            assert "Brackets: 95% intervals: jackknife t, 10 drives." in told["terminal"]
            assert "Range:" not in told["terminal"]
            matrices[min(matrices)] = None

    def test_without_intervals_the_reason_stands_for_them(self, tmp_path: Path) -> None:
        runs = [write_run(tmp_path / str(i), random_matrices(1, better=0.3 * i)) for i in range(2)]
        told = self.told(runs, tmp_path / "board")
        for kind in ("terminal", "md", "html"):
            assert "No intervals: 1 image: no other to compare with." in told[kind]
            assert "Brackets" not in told[kind]

    def test_runs_of_no_image_are_listed_without_a_rank(self, tmp_path: Path) -> None:
        runs = [write_run(tmp_path / name, {}) for name in "ab"]
        rows = rows_of(runs)
        assert [(row["rank"], row["images"], row["completeness"]) for row in rows] == [(None, 0, None)] * 2
        assert "no class has a score" in self.told(runs, tmp_path / "board")["terminal"]


class TestPublished:
    @pytest.fixture
    def idd(self, tmp_path: Path) -> Run:
        return write_run(tmp_path / "mine", random_matrices(20, classes=26), labels="idd")

    def test_published_rows_stand_among_the_runs_without_rank_or_interval(self, idd: Run) -> None:
        rows = rows_of([idd], published=True)
        scores = [row["miou_level3"] for row in rows if row["miou_level3"] is not None]
        assert scores == sorted(scores, reverse=True)
        published = [row for row in rows if row["source"] == "published"]
        assert len(published) == 18 + 6
        assert {(row["rank"], row["rank_first"], row["miou_level3_low"]) for row in published} == {
            (None,) * 3
        }
        (mine,) = [row for row in rows if row["source"] == "scored"]
        assert (mine["rank"], mine["rank_first"], mine["rank_last"]) == (1, 1, 1)

    def test_published_rows_are_the_benchmarks(self, idd: Run) -> None:
        rows = {
            (row["run"], row["published_rank"]): row
            for row in rows_of([idd], published=True)
            if row["source"] == "published"
        }
        first = rows["AutoNUE pixel-level board", 1]
        assert (first["method"], first["miou_level3"], first["miou_level1"]) == (
            "Inplace ABN",
            0.7432,
            0.8972,
        )
        panet = rows["AutoNUE instance-level board", 1]
        assert (panet["method"], panet["ap"], panet["ap50"]) == ("PANET", 0.3918, 0.6753)

    def test_sorting_by_ap50_puts_the_instance_board_first(self, idd: Run) -> None:
        rows = rows_of([idd], published=True, sort="AP50")
        assert [row["ap50"] for row in rows[:3]] == [0.6753, 0.5001, 0.4991]
        assert "PANET" in gpu_eval_command("leaderboard", idd.folder, "--published", "--sort", "AP50").stdout

    def test_published_rows_are_marked_wherever_they_are_shown(self, idd: Run, tmp_path: Path) -> None:
        shown = gpu_eval_command("leaderboard", idd.folder, "--published", "-o", tmp_path / "board")
        for text in (
            shown.stdout,
            *((tmp_path / "board" / f"leaderboard.{kind}").read_text() for kind in ("md", "html")),
        ):
            assert "not scored here" in text
            assert "AutoNUE pixel-level board" in text

    def test_other_benchmarks_have_no_published_rows(self, runs: list[Run]) -> None:
        with pytest.raises(OptionError, match="no published rows"):
            rows_of(runs, published=True)


class TestFiles:
    @pytest.fixture
    def board(self, runs: list[Run], tmp_path: Path) -> Path:
        given = ("--team", "A | <b>B</b> & *C*", "--method", "x\ny", "--link", "https://example.org/?a=1&b=2")
        assert gpu_eval_command("tag", runs[2].folder, *given).exit_code == 0
        result = gpu_eval_command("leaderboard", *(run.folder for run in runs), "-o", tmp_path / "board")
        assert result.exit_code == 0, result.stderr
        assert "leaderboard.html" in result.stderr
        return tmp_path / "board"

    def test_parquet_and_csv_hold_the_board(self, board: Path, runs: list[Run]) -> None:
        opened = [gpu_eval.open_run(run.folder) for run in runs]
        expected = gpu_eval.leaderboard(opened)
        assert pq.read_table(board / "leaderboard.parquet").equals(expected)
        rows = list(csv.DictReader(io.StringIO((board / "leaderboard.csv").read_text())))
        assert [float(row["miou_level1"]) for row in rows] == expected["miou_level1"].to_pylist()
        assert rows[0]["team"] == "A | <b>B</b> & *C*"
        assert rows[0]["ap"] == ""

    def test_markdown_is_one_table_of_equal_rows(self, board: Path) -> None:
        lines = [line for line in (board / "leaderboard.md").read_text().splitlines() if line.startswith("|")]
        assert len(lines) == 2 + 3
        assert {line.replace(r"\|", "").count("|") for line in lines} == {lines[0].count("|")}
        assert r"A \| &lt;b&gt;B&lt;/b&gt; &amp; \*C\*" in lines[2]
        assert "[x y](<https://example.org/?a=1&amp;b=2>)" in lines[2]

    def test_html_is_well_formed_escaped_and_loads_nothing(self, board: Path) -> None:
        text = (board / "leaderboard.html").read_text()
        page = Cells()
        page.feed(text)
        page.close()
        assert page.open == []
        assert len({len(row) for row in page.rows}) == 1
        assert len(page.rows) == 1 + 3
        assert "A | <b>B</b> & *C*" in page.rows[1][2]
        assert page.links == ["https://example.org/?a=1&b=2"]
        assert "default-src 'none'" in text
        assert "prefers-color-scheme: dark" in text
        assert "<script" not in text
        assert " src=" not in text

    def test_link_that_is_no_web_address_is_never_a_link(self, runs: list[Run], tmp_path: Path) -> None:
        path = runs[0].folder / "run.json"
        facts = json.loads(path.read_text())
        facts["entry"] = {"team": "t", "method": "m", "link": "javascript:alert(1)"}
        path.write_text(json.dumps(facts))
        gpu_eval_command("leaderboard", runs[0].folder, "-o", tmp_path / "board")
        for kind in ("md", "html"):
            assert "javascript" not in (tmp_path / "board" / f"leaderboard.{kind}").read_text()

    def test_json_and_csv_are_printed_whole(self, runs: list[Run]) -> None:
        folders = [run.folder for run in runs]
        told = json.loads(gpu_eval_command("leaderboard", *folders, "--format", "json").stdout)
        rows = list(
            csv.DictReader(io.StringIO(gpu_eval_command("leaderboard", *folders, "--format", "csv").stdout))
        )
        assert [row["rank"] for row in told] == [1, 2, 3]
        assert [row["pred_fingerprint"] for row in rows] == [row["pred_fingerprint"] for row in told]

    def test_refused_board_writes_nothing(self, runs: list[Run], tmp_path: Path) -> None:
        other = write_run(tmp_path / "other", random_matrices(60, seed=1))
        result = gpu_eval_command("leaderboard", runs[0].folder, other.folder, "-o", tmp_path / "board")
        assert result.exit_code == 2
        assert not (tmp_path / "board").exists()


class TestEntry:
    def test_entry_is_given_at_score_time(self, split: TinySplit, tmp_path: Path) -> None:
        out = tmp_path / "run"
        result = gpu_eval_command(
            "score", split.gts, split.preds, "-o", out, "--res", "native", "--team", "T", "--method", "M"
        )
        assert result.exit_code == 0, result.stderr
        (row,) = gpu_eval.leaderboard([out]).to_pylist()
        assert (row["team"], row["method"], row["link"]) == ("T", "M", None)

    def test_tag_changes_what_is_given_and_nothing_else(self, runs: list[Run]) -> None:
        folder = runs[0].folder
        before = read_facts(folder)
        gpu_eval_command("tag", folder, "--team", "T", "--link", "https://example.org")
        gpu_eval_command("tag", folder, "--team", "", "--method", "M")
        after = read_facts(folder)
        assert after.pop("entry") == {"team": None, "method": "M", "link": "https://example.org"}
        before.pop("entry")
        assert after == before

    def test_link_must_be_a_web_address(self, runs: list[Run]) -> None:
        result = gpu_eval_command("tag", runs[0].folder, "--link", "javascript:alert(1)")
        assert result.exit_code == 2
        assert "web address" in result.stderr

    def test_tag_without_anything_to_set_is_a_usage_error(self, runs: list[Run]) -> None:
        assert gpu_eval_command("tag", runs[0].folder).exit_code == 2

    def test_tag_of_a_folder_without_a_run_is_refused(self, tmp_path: Path) -> None:
        result = gpu_eval_command("tag", tmp_path, "--team", "T")
        assert result.exit_code == 2
        assert list(tmp_path.iterdir()) == []
