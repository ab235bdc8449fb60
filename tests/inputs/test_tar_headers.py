"""The fast reader of tar headers: what it lists, `tarfile` lists; what it does not know, it leaves to it."""

from __future__ import annotations

import io
import mmap
import tarfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval.inputs.tar_headers import Member, read_headers

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def mapped(data: bytes) -> list[Member] | None:
    with mmap.mmap(-1, len(data)) as memory:
        memory[:] = data
        return read_headers(memory, np.frombuffer(data, np.uint8))


def pack(members: list[tuple[str, bytes | None, dict[str, Any]]], style: str = "gnu") -> bytes:
    """An archive of (name, content, attributes); None makes a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[style]) as archive:
        for name, content, attributes in members:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            for key, value in attributes.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


def literal(data: bytes) -> list[Member] | None:
    """The same by `tarfile`; None where it finds damage, or members that are neither files nor folders."""
    listed = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if member.isdir():
                    listed.append(Member(member.name, 0, member.mtime, -1))
                elif member.isreg() and not member.issparse():
                    listed.append(Member(member.name, member.size, member.mtime, member.offset_data))
                else:
                    return None
            end = archive.offset
    except (tarfile.TarError, ValueError, OSError):
        return None
    return None if any(data[end : end + 512]) or len(data) < end + 512 else listed


# Mode, owner and device: `tarfile` refuses nonsense there, and here nobody looks.
NOT_READ = (slice(100, 124), slice(329, 345))

GOOD = [("drive", None, {}), ("drive/b.png", b"x" * 700, {"mtime": 5}), ("drive/a.png", b"", {})]

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=130)
files = st.lists(
    st.tuples(
        names,
        st.none() | st.binary(max_size=1500),
        st.fixed_dictionaries({}, optional={"mtime": st.floats(0, 1e11) | st.integers(0, 2**31)}),
    ),
    min_size=1,
    max_size=6,
)


class TestWhatItKnows:
    @pytest.mark.parametrize("style", FORMATS)
    def test_files_and_folders_of_every_format(self, style: str) -> None:
        found = mapped(pack(GOOD, style))
        assert found == literal(pack(GOOD, style))
        assert found is not None
        assert [member.name for member in found] == ["drive", "drive/b.png", "drive/a.png"]

    def test_times_with_fractions(self) -> None:
        found = mapped(pack([("a.png", b"1", {"mtime": 1.75})], "pax"))
        assert found == [Member("a.png", 1, 1.75, 1536)]

    def test_a_path_in_two_fields(self) -> None:
        deep = "/".join(["folder"] * 20)
        found = mapped(pack([(f"{deep}/a.png", b"1", {})], "ustar"))
        assert found == [Member(f"{deep}/a.png", 1, 0, 512)]

    @given(members=files, style=st.sampled_from(["gnu", "pax"]))
    def test_any_archive_is_listed_as_by_tarfile_or_left_to_it(
        self, members: list[tuple[str, bytes | None, dict[str, Any]]], style: str
    ) -> None:
        data = pack(members, style)
        found = mapped(data)
        assert found is None or found == literal(data)


class TestWhatItLeaves:
    @pytest.mark.parametrize(
        "members",
        [
            [("a.png", b"1", {"type": tarfile.LNKTYPE, "linkname": "b.png", "size": 0})],
            [("a.png", b"1", {"type": tarfile.SYMTYPE, "linkname": "b.png", "size": 0})],
            [("x" * 150, b"1", {})],
            [("a.png", b"", {"type": tarfile.GNUTYPE_SPARSE})],
            [("a/", b"1", {})],
            [("a.png", b"", {"pax_headers": {"path": "b.png"}})],
            [("a.png", b"", {"pax_headers": {"size": "9"}})],
        ],
    )
    @pytest.mark.parametrize("style", ["gnu", "pax"])
    def test_other_members(self, members: list[tuple[str, bytes | None, dict[str, Any]]], style: str) -> None:
        data = pack(members, style)
        assert mapped(data) is None or mapped(data) == literal(data)
        assert mapped(data) is None or style == "gnu"

    @pytest.mark.parametrize("size", [0, 100, 511, 512, 1000, 1536])
    def test_archives_cut_short(self, size: int) -> None:
        data = pack(GOOD)[:size] or b"\1"
        assert mapped(data) is None

    def test_zeros_alone(self) -> None:
        assert mapped(bytes(10240)) is None

    @settings(max_examples=500)
    @given(
        style=st.sampled_from(sorted(FORMATS)),
        changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=3),
        mended=st.booleans(),
    )
    def test_damage_is_seen_as_by_tarfile(
        self, style: str, changes: list[tuple[int, int]], mended: bool
    ) -> None:
        data = bytearray(pack([*GOOD, ("c.png", b"c" * 512, {"mtime": 1.5 if style == "pax" else 1})], style))
        for at, value in changes:
            if not any(field.start <= at % 512 < field.stop for field in NOT_READ):
                data[at % len(data)] = value
        if mended:  # so that more than the checksum is looked at
            for at in range(0, len(data), 512):
                if data[at + 257 : at + 262] == b"ustar":
                    header = data[at : at + 512]
                    total = 256 + sum(header[:148]) + sum(header[156:])
                    data[at + 148 : at + 156] = b"%06o\0 " % total
        found = mapped(bytes(data))
        assert found is None or found == literal(bytes(data))
