"""One contract for every kind of source: the same files, the same bytes, the same problems."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import os
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from gpu_eval.errors import InputError, UnreadableFile, UnreadableSource, UnsafePath
from gpu_eval.inputs import archives
from gpu_eval.inputs.sources import Entry, Source, open_source

LONG = "d" * 120 + "/" + "f" * 150 + ".png"
FILES: dict[str, bytes] = {
    "17/024541_gt.png": bytes(range(256)) * 200,
    "17/empty.png": b"",
    "2/a.png": b"a" * 70_001,
    LONG: b"long names need pax or GNU headers",
    "top.txt": b"x",
    "straße/ü [1].png": b"brackets are no glob",
}
HIDDEN = {".DS_Store": b"no", "17/._024541_gt.png": b"no", "__MACOSX/17/x.png": b"no", ".git/x": b"no"}


def make_folder(root: Path) -> str:
    for name, content in {**FILES, **HIDDEN}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return str(root)


def make_zip(path: Path, method: int) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("17")
        for name, content in {**FILES, **HIDDEN}.items():
            archive.writestr(name, content)
    return str(path)


def make_tar(path: Path, style: int = tarfile.PAX_FORMAT, prefix: str = "") -> str:
    with tarfile.open(path, "w", format=style) as archive:
        folder = tarfile.TarInfo(prefix + "17")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in {**FILES, **HIDDEN}.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return str(path)


def make_memory(name: str) -> str:
    files = fsspec.filesystem("memory")
    for key, content in {**FILES, **HIDDEN}.items():
        files.pipe_file(f"/{name}/{key}", content)
    return f"memory://{name}"


def make_chained(path: Path) -> str:
    files = fsspec.filesystem("memory")
    files.pipe_file("/chained.zip", Path(make_zip(path, zipfile.ZIP_DEFLATED)).read_bytes())
    return "zip://::memory://chained.zip"


MAKERS: dict[str, Callable[[Path], str]] = {
    "folder": lambda tmp: make_folder(tmp / "split"),
    "folder with a slash": lambda tmp: make_folder(tmp / "split") + "/",
    "file URL": lambda tmp: "file://" + make_folder(tmp / "split"),
    "zip stored": lambda tmp: make_zip(tmp / "a.zip", zipfile.ZIP_STORED),
    "zip deflated": lambda tmp: make_zip(tmp / "a.bin", zipfile.ZIP_DEFLATED),
    "tar pax": lambda tmp: make_tar(tmp / "a.tar"),
    "tar gnu": lambda tmp: make_tar(tmp / "a.tar", tarfile.GNU_FORMAT, "./"),
    "memory URL": lambda _: make_memory("split"),
    "chained URL": lambda tmp: make_chained(tmp / "a.zip"),
}


@pytest.fixture(params=MAKERS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    opened = open_source(MAKERS[request.param](tmp_path))
    yield opened
    opened.close()
    fsspec.filesystem("memory").store.clear()


def read(source: Source, entries: list[Entry]) -> tuple[list[bytes], dict[int, InputError]]:
    buffer = np.full(sum(entry.size for entry in entries) + 3, 0xEE, np.uint8)
    offsets, problems = source.read_into(entries, buffer)
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [sum(one.size for one in entries[:i]) for i in range(len(entries) + 1)]
    assert buffer[offsets[-1] :].tolist() == [0xEE] * 3
    return [buffer[a:b].tobytes() for a, b in itertools.pairwise(offsets)], problems


class TestEverySource:
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
        if isinstance(source, archives.TarSource):  # the bytes of a tar have no borders of their own
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


HOSTILE = [
    "/etc/passwd.png",
    "../x.png",
    "a/../../x.png",
    "C:\\x.png",
    "c:/x.png",
    "a\\..\\..\\x",
    "\\\\host\\x",
]


@pytest.mark.parametrize("name", [*HOSTILE, "a\0/../x.png"])
def test_zip_with_a_hostile_name_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.png", b"x")
        for spelled in (name, name + ".2"):
            member = zipfile.ZipInfo("x")
            member.filename = spelled
            archive.writestr(member, b"x")
    source = open_source(tmp_path / "a.zip")
    with pytest.raises(UnsafePath, match="and 1 more"):
        source.entries()
    source.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_tar_with_a_hostile_name_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("good.png"))
        archive.addfile(tarfile.TarInfo(name))
    source = open_source(tmp_path / "a.tar")
    with pytest.raises(UnsafePath):
        source.entries()
    source.close()


def test_zip_of_a_windows_packer_has_plain_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        member = zipfile.ZipInfo("x")
        member.filename = "17\\a.png"
        archive.writestr(member, b"abc")
    source = open_source(tmp_path / "a.zip")
    assert [entry.name for entry in source.entries()] == ["17/a.png"]
    assert read(source, source.entries()) == ([b"abc"], {})
    source.close()


def test_archive_may_hold_a_name_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a.png", b"one")
        archive.writestr("a.png", b"three")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for content in (b"one", b"three"):
            member = tarfile.TarInfo("a.png")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for name in ("a.zip", "a.tar"):
        source = open_source(tmp_path / name)
        assert [entry.name for entry in source.entries()] == ["a.png", "a.png"]
        assert read(source, source.entries()) == ([b"one", b"three"], {})
        source.close()


def test_hard_link_in_a_tar_leads_to_its_file_and_a_symbolic_link_is_a_problem(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
        for name, kind in (("b.png", tarfile.LNKTYPE), ("c.png", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "a.png"
            archive.addfile(link)
    source = open_source(tmp_path / "a.tar")
    contents, problems = read(source, source.entries())
    assert contents == [b"abc", b"abc", b""]
    assert list(problems) == [2]
    assert "--dereference" in str(problems[2])
    source.close()


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["zip stored", "zip deflated", "tar pax", "tar gnu"])
def test_truncated_archive_is_unreadable(tmp_path: Path, kind: str, keep: float) -> None:
    path = Path(MAKERS[kind](tmp_path))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    if kind.startswith("tar") and keep == 0.9 and not any(data[int(len(data) * keep) - 512 :]):
        pytest.skip("only padding was cut off")
    with pytest.raises(UnreadableSource, match="damaged or truncated"):
        open_source(path).entries()


def test_damaged_header_inside_a_tar_is_not_taken_for_its_end(tmp_path: Path) -> None:
    path = Path(make_tar(tmp_path / "a.tar"))
    data = bytearray(path.read_bytes())
    data[data.index(b"2/a.png")] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableSource, match="no member and no end mark"):
        open_source(path).entries()


def test_tar_cut_between_members_is_unreadable(tmp_path: Path) -> None:
    path = Path(make_tar(tmp_path / "a.tar", tarfile.GNU_FORMAT))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"2/a.png")])
    with pytest.raises(UnreadableSource, match="damaged or truncated"):
        open_source(path).entries()


@pytest.mark.parametrize("kind", ["zip stored", "zip deflated", "tar pax"])
def test_archive_that_is_cut_while_open_is_a_problem_not_a_crash(tmp_path: Path, kind: str) -> None:
    path = Path(MAKERS[kind](tmp_path))
    source = open_source(path)
    entries = source.entries()
    os.truncate(path, 100)
    contents, problems = read(source, entries)
    assert len(problems) == len(entries)
    assert all(not any(content) for content in contents)
    path.unlink()
    assert len(read(source, entries)[1]) == len(entries)
    source.close()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_flipped_byte_in_a_zip_member_is_a_problem(tmp_path: Path, method: int) -> None:
    path = Path(make_zip(tmp_path / "a.zip", method))
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("17/024541_gt.png")
    data = bytearray(path.read_bytes())
    data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 0x55
    path.write_bytes(data)
    source = open_source(path)
    contents, problems = read(source, source.entries())
    assert list(problems) == [0]
    assert "zip archive is damaged" in str(problems[0])
    assert not any(contents[0])
    assert contents[-1] == FILES[sorted(FILES)[-1]]
    source.close()


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = Path(make_zip(tmp_path / "a.zip", zipfile.ZIP_STORED))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1) + 8] |= 1
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(UnreadableSource, match="encrypted"):
        source.entries()
    source.close()


def test_other_zip_methods_are_a_problem_that_says_what_to_do(tmp_path: Path) -> None:
    source = open_source(make_zip(tmp_path / "a.zip", zipfile.ZIP_LZMA))
    _, problems = read(source, source.entries())
    assert len(problems) == len(FILES)
    assert "stored or deflated" in str(problems[0])
    source.close()


def test_zip_member_with_a_huge_size_is_a_problem_without_inflating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_FILE_SIZE", 1000)
    source = open_source(make_zip(tmp_path / "a.zip", zipfile.ZIP_DEFLATED))
    entries = source.entries()
    _, problems = read(source, entries)
    assert {entries[index].name for index in problems} == {
        n for n, content in FILES.items() if len(content) > 1000
    }
    source.close()


def test_sparse_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("a.png")
        member.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(member)
    source = open_source(tmp_path / "a.tar")
    with pytest.raises(UnreadableSource, match="sparse"):
        source.entries()
    source.close()


def test_fsspec_is_not_imported_for_local_files(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from gpu_eval.inputs.sources import open_source;"
        f"open_source({str(tmp_path)!r}).entries(); sys.exit('fsspec' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
