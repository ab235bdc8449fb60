"""Files read and spans copied by one call: the bytes, and what is said of files that are not as listed."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil

from gpu_eval.inputs.read_many import copy_spans, read_files

GUARD = 0x5A


def read(paths: list[Path], sizes: list[int]) -> tuple[list[int], list[bytes], bytes]:
    """Which files were not as listed, what came, and the guard behind the last span."""
    offsets = np.cumsum([0, *sizes])
    target = np.full(int(offsets[-1]) + 64, GUARD, np.uint8)
    odd = read_files([os.fsencode(path) for path in paths], offsets, target)
    spans = [target[a:b].tobytes() for a, b in pairwise(offsets)]
    return odd, spans, target[offsets[-1] :].tobytes()


def write(folder: Path, *contents: bytes) -> list[Path]:
    paths = [folder / f"{number} ä.bin" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


class TestReadFiles:
    def test_each_file_comes_to_its_span(self, tmp_path: Path) -> None:
        contents = [b"first", b"", os.urandom(300_000), b"x"]
        paths = write(tmp_path, *contents)
        odd, spans, guard = read(paths, [len(content) for content in contents])
        assert odd == []
        assert spans == contents
        assert set(guard) == {GUARD}

    def test_files_that_are_not_as_listed_are_told(self, tmp_path: Path) -> None:
        grown, shrunk, good = write(tmp_path, b"0123456789", b"01", b"good")
        (tmp_path / "folder").mkdir()
        paths = [grown, shrunk, tmp_path / "missing", tmp_path / "folder", good]
        odd, spans, guard = read(paths, [4, 4, 4, 4, 4])
        assert odd == [0, 1, 2, 3]
        assert spans[4] == b"good"
        assert set(guard) == {GUARD}

    def test_no_files(self) -> None:
        assert read([], []) == ([], [], bytes([GUARD]) * 64)

    def test_no_file_stays_open(self, tmp_path: Path) -> None:
        paths = [*write(tmp_path, b"1", b"22"), tmp_path / "missing", tmp_path]
        before = psutil.Process().num_fds()
        for _ in range(50):
            read(paths, [1, 1, 1, 1])
        assert psutil.Process().num_fds() == before

    def test_threads_read_side_by_side(self, tmp_path: Path) -> None:
        contents = [os.urandom(1000 + number) for number in range(40)]
        paths = write(tmp_path, *contents)
        results: list[list[bytes]] = []

        def work() -> None:
            for _ in range(20):
                results.append(read(paths, [len(content) for content in contents])[1])

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 80
        assert all(result == contents for result in results)


def test_spans_are_copied_and_negative_begins_are_passed_over() -> None:
    source, target = np.arange(100, dtype=np.uint8), np.full(20, GUARD, np.uint8)
    copy_spans(source, np.array([90, -1, 0, 5]), target, np.array([0, 10, 13, 13, 16]))
    assert target.tolist() == [*range(90, 100), GUARD, GUARD, GUARD, 5, 6, 7, *[GUARD] * 4]
