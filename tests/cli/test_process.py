"""The command as a process of its own: pipes, terminals, encodings, Ctrl-C, and what it imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gpu_eval
from gpu_eval import errors
from tests.support.commands import gpu_eval_process, start_slow, wait_for_parts
from tests.support.run_tables import assert_same_tables
from tests.support.scoring import score
from tests.support.semantic_split import TinySplit
from tests.support.toy_work import wait_for

HEAVY = ("numpy", "numba", "pyarrow", "duckdb", "rich", "pandas", "PIL", "fsspec", "click.testing")


class TestProcess:
    def test_help_imports_nothing_heavy(self) -> None:
        code = f"import gpu_eval.cli.commands, sys; print({set(HEAVY)!r} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "set()", done.stderr

    def test_help_and_version(self) -> None:
        done = gpu_eval_process("--help")
        assert done.returncode == 0
        for command in ("score", "show", "query", "info", "demo"):
            assert command in done.stdout
        assert gpu_eval.__version__ in gpu_eval_process("--version").stdout

    def test_pipe_gets_no_control_codes(self, arguments: list[object]) -> None:
        done = gpu_eval_process(*arguments)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert "\r" not in done.stdout + done.stderr
        widest = max(len(line) for line in done.stdout.splitlines())
        assert widest <= 200

    def test_pipe_gets_errors_without_control_codes(self, split: TinySplit, arguments: list[object]) -> None:
        (split.preds / split.names[0]).write_bytes(b"")
        done = gpu_eval_process(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_terminal_of_an_old_encoding_is_no_crash(self, arguments: list[object], encoding: str) -> None:
        done = gpu_eval_process(*arguments, environment={"PYTHONIOENCODING": encoding})
        assert done.returncode == 0, done.stderr
        assert "mIoU" in done.stdout

    def test_closed_pipe_is_no_traceback(self, scored: Path) -> None:
        query = f"{sys.executable} -m gpu_eval query {scored} 'SELECT * FROM cells' --format csv"
        done = subprocess.run(
            ["bash", "-c", f"{query} | head -n 1"], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.startswith("image_id,gt,pred,pixels")
        assert "Traceback" not in done.stderr

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
    def test_terminal_sees_a_progress_bar(self, split: TinySplit, tmp_path: Path) -> None:
        import pty

        leader, follower = pty.openpty()
        code = ["-m", "gpu_eval", "score", str(split.gts), str(split.preds), "-o", str(tmp_path / "run")]
        running = subprocess.Popen(
            [sys.executable, *code, "--shard-size", "1"],
            stdout=subprocess.DEVNULL, stderr=follower, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        os.close(follower)
        seen = b""
        try:
            while chunk := os.read(leader, 65536):
                seen += chunk
        except OSError:  # Linux says EIO at the end of a pseudo-terminal
            pass
        os.close(leader)
        assert running.wait(timeout=60) == 0
        assert b"images/s" in seen
        assert b"/6 images" in seen

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
    @pytest.mark.parametrize("parts", [0, 2])
    def test_ctrl_c_exits_with_130_and_resume_finishes(
        self, split: TinySplit, tmp_path: Path, parts: int
    ) -> None:
        out = tmp_path / "run"
        options = ["--res", "native", "--shard-size", 1, "-j", 1]
        running = start_slow("score", split.gts, split.preds, "-o", out, *options)
        try:
            wait_for_parts(out, parts, running)
            wait_for((out / "manifest.parquet").exists)
            running.send_signal(signal.SIGINT)
            _, told = running.communicate(timeout=60)
        finally:
            running.kill()
        assert running.returncode == 130, told
        assert b"interrupted" in told
        assert b"Traceback" not in told
        kept = len(list((out / "images").glob("part-*.parquet")))
        assert kept < 6
        with pytest.raises(errors.IncompleteRun):
            gpu_eval.open_run(out)

        resumed = gpu_eval_process("score", split.gts, split.preds, "-o", out, *options, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        if kept:
            assert f"resumed: {kept} of 6 images were scored before" in resumed.stderr
        undisturbed = score(split, tmp_path / "undisturbed", shard_size=1)
        assert_same_tables(undisturbed.folder, out)
