"""Archives that are hostile, damaged, cut or of a kind that is not read."""

from __future__ import annotations

import io
import os
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_eval.errors import UnreadableSource, UnsafePath
from gpu_eval.inputs import archives
from gpu_eval.inputs.sources import open_source
from tests.inputs.source_contract import read
from tests.support.source_files import (
    FILES,
    make_tar,
    make_zip,
)

ARCHIVES: dict[str, Callable[[Path], str]] = {
    "zip stored": lambda tmp: make_zip(tmp / "a.zip", zipfile.ZIP_STORED),
    "zip deflated": lambda tmp: make_zip(tmp / "a.bin", zipfile.ZIP_DEFLATED),
    "tar pax": lambda tmp: make_tar(tmp / "a.tar"),
    "tar gnu": lambda tmp: make_tar(tmp / "a.tar", tarfile.GNU_FORMAT, "./"),
}

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
    path = Path(ARCHIVES[kind](tmp_path))
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
    path = Path(ARCHIVES[kind](tmp_path))
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
