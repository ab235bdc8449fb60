"""One contract for runs of every task: stopped anywhere, they end with the tables of one that was not."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import gpu_eval
from gpu_eval import errors
from tests.support.commands import start_slow, wait_for_parts
from tests.support.run_tables import assert_same_tables
from tests.support.scoring import Split, score
from tests.support.stopped_runs import committed_parts, identity, parts_of, stop_at


class ResumeContract:
    """A task says how its command is spelled, what its parts are, and how its files are broken."""

    # The command without its inputs; runs of one thread, a shard an image.
    command: tuple[object, ...]
    # Options that make another run of the same files.
    other: Mapping[str, Any]
    # The tables that are written in parts.
    part_tables: tuple[str, ...]

    @pytest.fixture
    def files(self) -> Split:
        """Six images that a test may change."""
        raise NotImplementedError

    def assert_right(self, files: Split, run: Any) -> None:
        """The run's numbers are those of the literal evaluator."""
        raise NotImplementedError

    def spoil(self, files: Split) -> None:
        """Break two of the images."""
        raise NotImplementedError

    @pytest.mark.parametrize("parts", [1, 4])
    def test_killed_run_is_finished_with_equal_tables(self, files: Split, tmp_path: Path, parts: int) -> None:
        out = tmp_path / "killed"
        process = start_slow(*self.command, files.gts, files.preds, "-o", out, "--shard-size", 1, "-j", 1)
        try:
            wait_for_parts(out, parts, process)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        done = committed_parts(out)
        shards, rest = divmod(len(done), len(self.part_tables))
        assert rest == 0
        assert parts <= shards < 6
        with pytest.raises(errors.IncompleteRun, match="--resume"):
            gpu_eval.open_run(out)
        run = score(files, out, shard_size=1, resume=True)
        assert {path: identity(path) for path in done} == done
        assert run.facts["images_resumed"] == shards
        self.assert_right(files, run)
        score(files, tmp_path / "undisturbed", shard_size=1)
        assert_same_tables(tmp_path / "undisturbed", out)

    @pytest.mark.parametrize("keep", [0, 0.5, 0.99])
    def test_truncated_part_is_scored_again(self, files: Split, tmp_path: Path, keep: float) -> None:
        out = tmp_path / "run"
        score(files, out, shard_size=1)
        for name in self.part_tables:
            before = parts_of(out)
            path = out / name / "part-000002.parquet"
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * keep)])
            run = score(files, out, resume=True, shard_size=1)
            assert run.facts["images_resumed"] == 5
            assert path.read_bytes() == content
            after = parts_of(out)
            changed = {path for path in after if after[path] != before[path]}
            assert changed == {out / table / path.name for table in self.part_tables}
            self.assert_right(files, run)

    def test_part_of_another_run_is_refused_and_kept(self, files: Split, tmp_path: Path) -> None:
        out, other = tmp_path / "run", tmp_path / "other"
        stop_at(files, out, 3)
        score(files, other, shard_size=1, **self.other)
        for name in self.part_tables:
            path = out / name / "part-000000.parquet"
            ours = path.read_bytes()
            shutil.copy(other / name / path.name, path)
            foreign = path.read_bytes()
            with pytest.raises(errors.CorruptRun, match="another run") as caught:
                score(files, out, resume=True, shard_size=1)
            assert caught.value.file == str(path)
            assert path.read_bytes() == foreign
            path.write_bytes(ours)

    def test_stopped_by_problems_is_finished_without_them(self, files: Split, tmp_path: Path) -> None:
        self.spoil(files)
        out = tmp_path / "run"
        told = []
        for resume in (False, True):
            with pytest.raises(errors.SplitProblems, match="--resume --on-error skip") as stopped:
                score(files, out, shard_size=1, resume=resume)
            told.append([(problem.kind, str(problem)) for problem in stopped.value.problems])
        assert told[0] == told[1]
        run = score(files, out, shard_size=1, resume=True, on_error="skip")
        assert run.facts["images_resumed"] == 6
        assert (run.facts["images_scored"], run.facts["images_failed"]) == (4, 2)
        score(files, tmp_path / "undisturbed", shard_size=1, on_error="skip")
        assert_same_tables(tmp_path / "undisturbed", out)
        again = score(files, out, shard_size=1, resume=True)  # complete, and stays so
        assert again.facts["on_error"] == "skip"
        assert_same_tables(tmp_path / "undisturbed", out)

    def test_complete_run_stays_what_it_is(self, files: Split, tmp_path: Path) -> None:
        out = tmp_path / "run"
        score(files, out, shard_size=1)
        score(files, tmp_path / "undisturbed", shard_size=1)
        parts = parts_of(out)
        run = score(files, out, shard_size=1, resume=True)
        assert run.facts["images_resumed"] == 6
        assert parts_of(out) == parts
        assert_same_tables(tmp_path / "undisturbed", out)

    def test_another_run_is_refused_unless_overwritten(self, files: Split, tmp_path: Path) -> None:
        out = tmp_path / "run"
        score(files, out, shard_size=1)
        before = parts_of(out)
        with pytest.raises(errors.RunExists, match="a complete run"):
            score(files, out, shard_size=4)
        assert parts_of(out) == before
        self.assert_right(files, score(files, out, shard_size=4, overwrite=True))
        assert len(parts_of(out)) == 2 * len(self.part_tables)
        score(files, tmp_path / "undisturbed", shard_size=4)
        assert_same_tables(tmp_path / "undisturbed", out)
