"""One contract for every kind of source: the same files, the same bytes, the same problems."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from gpu_eval.errors import InputError, UnreadableFile
from gpu_eval.inputs.sources import Entry, Source, open_source
from tests.support.source_files import FILES


def read(source: Source, entries: list[Entry]) -> tuple[list[bytes], dict[int, InputError]]:
    buffer = np.full(sum(entry.size for entry in entries) + 3, 0xEE, np.uint8)
    offsets, problems = source.read_into(entries, buffer)
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [sum(one.size for one in entries[:i]) for i in range(len(entries) + 1)]
    assert buffer[offsets[-1] :].tolist() == [0xEE] * 3
    return [buffer[a:b].tobytes() for a, b in itertools.pairwise(offsets)], problems


class SourceContract:
    """What every source keeps; an implementation says where `FILES` and `HIDDEN` are, as it reads them."""

    # Whether a file of another size than listed shows: the bytes of a tar have no borders of their own.
    has_borders = True

    def make(self, folder: Path) -> str:
        """The location of a source with `FILES` and `HIDDEN`, made in an empty folder."""
        raise NotImplementedError

    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[Source]:
        opened = open_source(self.make(tmp_path))
        yield opened
        opened.close()
        fsspec.filesystem("memory").store.clear()

    def test_lists_all_files_but_hidden_ones_by_name(self, source: Source) -> None:
        entries = source.entries()
        assert [entry.name for entry in entries] == sorted(FILES)
        assert [entry.size for entry in entries] == [len(FILES[name]) for name in sorted(FILES)]
        assert all(entry.stamp for entry in entries)

    def test_listing_again_gives_the_same(self, source: Source) -> None:
        assert source.entries() == source.entries()

    def test_reads_the_bytes_of_all_files(self, source: Source) -> None:
        entries = source.entries()
        contents, problems = read(source, entries)
        assert problems == {}
        assert contents == [FILES[entry.name] for entry in entries]

    def test_reads_in_the_order_asked_and_repeats(self, source: Source) -> None:
        entries = [*source.entries()[::-1], source.entries()[0]]
        contents, problems = read(source, entries)
        assert problems == {}
        assert contents == [FILES[entry.name] for entry in entries]

    def test_reading_nothing_is_no_problem(self, source: Source) -> None:
        assert read(source, []) == ([], {})

    def test_reads_what_another_process_listed(self, source: Source) -> None:
        entries = source.entries()
        again = open_source(source.location)
        try:
            contents, problems = read(again, entries)
        finally:
            again.close()
        assert problems == {}
        assert contents == [FILES[entry.name] for entry in entries]

    def test_threads_do_not_disturb_each_other(self, source: Source) -> None:
        entries = source.entries()
        orders = [entries[i % len(entries) :] + entries[: i % len(entries)] for i in range(40)]
        with ThreadPoolExecutor(8) as pool:
            for order, (contents, problems) in zip(
                orders, pool.map(lambda order: read(source, order), orders), strict=True
            ):
                assert problems == {}
                assert contents == [FILES[entry.name] for entry in order]

    @pytest.mark.parametrize("change", [-1, 1, 5000])
    def test_file_of_another_size_than_listed_is_a_problem_of_its_own(
        self, source: Source, change: int
    ) -> None:
        entries = source.entries()
        index = [entry.name for entry in entries].index("2/a.png")
        right = entries[index]
        entries[index] = Entry(right.name, right.size + change, right.stamp, right.offset)
        contents, problems = read(source, entries)
        if not self.has_borders:
            return
        assert list(problems) == [index]
        assert isinstance(problems[index], UnreadableFile)
        assert str(problems[index].file).endswith("2/a.png")
        assert contents[index] == bytes(entries[index].size)
        for at, entry in enumerate(entries):
            assert at == index or contents[at] == FILES[entry.name]

    def test_file_that_is_not_there_is_a_problem_of_its_own(self, source: Source) -> None:
        entries = [*source.entries(), Entry("17/gone.png", 10, "1", 2**40)]
        contents, problems = read(source, entries)
        assert list(problems) == [len(FILES)]
        assert "17/gone.png" in str(problems[len(FILES)])
        assert contents[-1] == bytes(10)
        assert contents[0] == FILES[entries[0].name]
