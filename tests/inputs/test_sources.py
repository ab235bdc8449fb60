"""Every kind of source under one contract; where none can be opened, and what folders may hold."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpu_eval.errors import UnreadableFile, UnreadableSource
from gpu_eval.inputs.sources import open_source
from tests.inputs.source_contract import SourceContract, read
from tests.support.source_files import (
    make_chained,
    make_folder,
    make_memory,
    make_tar,
    make_zip,
)


class TestFolder(SourceContract):
    def make(self, folder: Path) -> str:
        return make_folder(folder / "split")


class TestFolderWithASlash(SourceContract):
    def make(self, folder: Path) -> str:
        return make_folder(folder / "split") + "/"


class TestFileUrl(SourceContract):
    def make(self, folder: Path) -> str:
        return "file://" + make_folder(folder / "split")


class TestZipStored(SourceContract):
    def make(self, folder: Path) -> str:
        return make_zip(folder / "a.zip", zipfile.ZIP_STORED)


class TestZipDeflated(SourceContract):
    def make(self, folder: Path) -> str:
        return make_zip(folder / "a.bin", zipfile.ZIP_DEFLATED)


class TestTarPax(SourceContract):
    has_borders = False

    def make(self, folder: Path) -> str:
        return make_tar(folder / "a.tar")


class TestTarGnu(SourceContract):
    has_borders = False

    def make(self, folder: Path) -> str:
        return make_tar(folder / "a.tar", tarfile.GNU_FORMAT, "./")


class TestMemoryUrl(SourceContract):
    def make(self, folder: Path) -> str:  # noqa: ARG002
        return make_memory("split")


class TestChainedUrl(SourceContract):
    def make(self, folder: Path) -> str:
        return make_chained(folder / "a.zip")


def test_nothing_there_is_unreadable(tmp_path: Path) -> None:
    for location in (str(tmp_path / "no"), f"file://{tmp_path}/no", "memory://no-such-folder"):
        with pytest.raises(UnreadableSource, match=r"does not exist|no such folder"):
            open_source(location)


def test_other_files_are_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    with pytest.raises(UnreadableSource, match="is empty"):
        open_source(path)
    path.write_bytes(b"neither zip nor tar" * 100)
    with pytest.raises(UnreadableSource, match="neither a folder nor an archive"):
        open_source(path)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_tar_is_refused_with_a_way_out(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = Path(make_tar(tmp_path / "a.tar"))  # told apart by content, not by name
    path.write_bytes(compress(path.read_bytes()))
    with pytest.raises(UnreadableSource, match=r"repack as plain \.tar or \.zip"):
        open_source(path)


def test_unknown_protocol_is_unreadable() -> None:
    with pytest.raises(UnreadableSource, match="cannot be opened"):
        open_source("nosuch://bucket/x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_without_permission_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    with pytest.raises(UnreadableSource, match="Permission denied"):
        open_source(tmp_path).entries()


def test_listing_error_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shut").mkdir()

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UnreadableSource, match="Permission denied") as caught:
        open_source(tmp_path).entries()
    assert str(tmp_path) in str(caught.value.file)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "real/1").mkdir(parents=True)
    (tmp_path / "real/1/a.png").write_bytes(b"abc")
    (tmp_path / "split").mkdir()
    (tmp_path / "split/drives").symlink_to(tmp_path / "real")
    (tmp_path / "split/b.png").symlink_to(tmp_path / "real/1/a.png")
    (tmp_path / "real/1/loop").symlink_to(tmp_path / "split")
    source = open_source(tmp_path / "split")
    assert [entry.name for entry in source.entries()] == ["b.png", "drives/1/a.png"]
    assert read(source, source.entries()) == ([b"abc", b"abc"], {})


def test_dangling_link_is_listed_and_a_problem_when_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    source = open_source(tmp_path)
    _, problems = read(source, source.entries())
    assert isinstance(problems[0], UnreadableFile)
    assert "No such file" in str(problems[0])


def test_special_files_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert open_source(tmp_path).entries() == []
    with pytest.raises(UnreadableSource):
        open_source("/dev/null")


def test_stamp_of_a_file_changes_when_it_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"abc")
    before = open_source(tmp_path).entries()
    status = (tmp_path / "a.png").stat()
    os.utime(tmp_path / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert before[0].stamp != open_source(tmp_path).entries()[0].stamp


def test_file_that_shrinks_or_grows_after_listing_is_a_problem(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"12345")
    source = open_source(tmp_path)
    entries = source.entries()
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "c").write_bytes(b"1234567")
    contents, problems = read(source, entries)
    assert contents == [bytes(5), b"12345", bytes(5)]
    assert "found 3 bytes, expected 5 bytes" in str(problems[0])
    assert "found more bytes, expected 5 bytes" in str(problems[2])


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    original = os.readv
    monkeypatch.setattr(os, "readv", lambda handle, spans: original(handle, [spans[0][:7]]))
    source = open_source(tmp_path)
    assert read(source, source.entries()) == ([bytes(range(100))], {})


def test_fsspec_is_not_imported_for_local_files(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from gpu_eval.inputs.sources import open_source;"
        f"open_source({str(tmp_path)!r}).entries(); sys.exit('fsspec' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
