"""Zip and plain tar archives, mapped into memory and read in place.

No file position is shared, so any number of threads may read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import InputError, UnreadableSource
from gpu_eval.inputs.source import (
    Entry,
    by_name,
    changed,
    check_names,
    is_hidden_path,
    plain_name,
    reason,
    refuse,
    spans,
    unreadable,
)
from gpu_eval.inputs.tar_headers import read_headers

MAX_FILE_SIZE = 2**30  # of one archive member, inflated: far above any label map, far below a bomb


class _MappedArchive(ABC):
    """What tar and zip share: a read-only map of the whole file."""

    def __init__(self, location: str) -> None:
        self.location = location
        with open(location, "rb") as file:
            status = os.fstat(file.fileno())
            self._size = status.st_size
            if self._size == 0:
                refuse("is empty", location, expected="a folder, a .zip or a plain .tar")
            if not stat.S_ISREG(status.st_mode):
                refuse("is not a regular file", location, expected="a folder, a .zip or a plain .tar")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)

    def read_into(
        self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int64], dict[int, InputError]]:
        offsets = spans(entries)
        problems: dict[int, InputError] = {}
        # A map read past the end of its file kills the process, so a shortened archive must be seen before.
        try:
            whole = os.stat(self.location).st_size == self._size
        except OSError:
            whole = False
        done = self._read_plain(entries, buffer, offsets) if whole else np.zeros(len(entries), bool)
        for index in np.flatnonzero(~done).tolist():
            entry, span = entries[index], buffer[offsets[index] : offsets[index + 1]]
            path = f"{self.location}/{entry.name}"
            if whole:
                problem = self._read_member(entry, span, path)
            else:
                problem = unreadable(path, "the archive was replaced since it was opened")
            if problem is not None:
                problems[index] = problem
                span[:] = 0
        return offsets, problems

    def _read_plain(
        self,
        entries: Sequence[Entry],
        buffer: npt.NDArray[np.uint8],  # noqa: ARG002
        offsets: npt.NDArray[np.int64],  # noqa: ARG002
    ) -> npt.NDArray[np.bool_]:
        """Read the members whose bytes only need to be copied, all at once; which ones those were."""
        return np.zeros(len(entries), bool)

    @abstractmethod
    def _read_member(self, entry: Entry, span: npt.NDArray[np.uint8], path: str) -> InputError | None:
        """Put a member's bytes into `span`, or say why that cannot be done."""

    def close(self) -> None:
        self._bytes = np.empty(0, np.uint8)
        with contextlib.suppress(BufferError):  # a thread is still reading; the map goes with its last view
            self._map.close()


class TarSource(_MappedArchive):
    """The regular files of an uncompressed tar; hard links lead to the bytes of the file they name."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._lock = threading.Lock()
        self._entries: list[Entry] | None = None
        try:
            tarfile.open(location, "r:").close()
        except tarfile.TarError as error:
            self.close()
            raise UnreadableSource(
                "neither a folder nor an archive that can be read",
                file=location,
                found=str(error),
                expected="a folder, a .zip or a plain .tar",
            ) from error

    def entries(self) -> list[Entry]:
        with self._lock:
            if self._entries is None:
                self._entries = self._index()
            return list(self._entries)

    def _index(self) -> list[Entry]:
        members = read_headers(self._map, self._bytes)
        if members is None:
            names, entries = self._members()
        else:
            names = [member.name for member in members]
            entries = [
                Entry(plain_name(name), size, f"{offset}/{mtime}", offset)
                for name, size, mtime, offset in members
                if offset >= 0
            ]
        check_names(names, self.location)
        return sorted((entry for entry in entries if not is_hidden_path(entry.name)), key=by_name)

    def _members(self) -> tuple[list[str], list[Entry]]:
        """The names of all members, and an entry for each file and link."""
        members: dict[str, Entry] = {}
        names: list[str] = []
        entries: list[Entry] = []
        try:
            with tarfile.open(self.location, "r:") as archive:
                for member in archive:
                    names.append(member.name)
                    name = plain_name(member.name)
                    if member.issparse():
                        refuse("holds a sparse file", self.location, found=name, fix="pack without --sparse")
                    if member.isreg():
                        stamp = f"{member.offset_data}/{member.mtime}"
                        entry = Entry(name, member.size, stamp, member.offset_data)
                    elif member.islnk() and plain_name(member.linkname) in members:
                        target = members[plain_name(member.linkname)]
                        entry = Entry(name, target.size, target.stamp, target.offset)
                    elif member.islnk() or member.issym():
                        entry = Entry(name, 0, "link")
                    else:
                        continue
                    members[name] = entry
                    entries.append(entry)
                end = archive.offset
        except (tarfile.TarError, ValueError, OSError) as error:
            raise UnreadableSource(
                "the archive is damaged or truncated",
                file=self.location,
                found=reason(error),
                fix="copy or pack it again",
            ) from error
        # tarfile takes a damaged header after the first as the end; a real end is a block of zeros.
        mark = self._bytes[end : end + tarfile.BLOCKSIZE]
        if mark.size < tarfile.BLOCKSIZE or mark.any():
            refuse(
                "the archive is damaged or truncated",
                self.location,
                found=f"no member and no end mark at byte {end}",
                fix="copy or pack it again",
            )
        return names, entries

    def _read_plain(
        self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        from gpu_eval.inputs.read_many import copy_spans

        begins = np.array([entry.offset for entry in entries], np.int64)
        inside = (begins >= 0) & (begins + np.diff(offsets) <= self._size)
        copy_spans(self._bytes, np.where(inside, begins, -1), buffer, offsets)
        return inside

    def _read_member(
        self,
        entry: Entry,
        span: npt.NDArray[np.uint8],  # noqa: ARG002
        path: str,
    ) -> InputError | None:
        # The others are plain.
        if entry.offset < 0:
            return unreadable(path, "a link without a file in the archive", fix="pack with --dereference")
        return changed(path, f"{max(self._size - entry.offset, 0)} bytes", entry)


class ZipSource(_MappedArchive):
    """The files of a zip, stored or deflated."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        try:
            with zipfile.ZipFile(location) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except (zipfile.BadZipFile, NotImplementedError, struct.error, UnicodeDecodeError) as error:
            self.close()
            raise UnreadableSource(
                "the zip archive is damaged or truncated",
                file=location,
                found=str(error),
                fix="copy or pack it again",
            ) from error
        self._members = {member.header_offset: member for member in members}

    def entries(self) -> list[Entry]:
        members = self._members.values()
        check_names((member.orig_filename for member in members), self.location)
        listed = [(plain_name(member.filename), member) for member in members]
        listed = [(name, member) for name, member in listed if not is_hidden_path(name)]
        encrypted = [name for name, member in listed if member.flag_bits & 1]
        if encrypted:
            refuse(
                "holds encrypted files",
                self.location,
                found=f"{encrypted[0]} and {len(encrypted) - 1} more",
                fix="pack without a password",
            )
        return sorted(
            (
                Entry(name, member.file_size, f"{member.CRC:08x}", member.header_offset)
                for name, member in listed
            ),
            key=by_name,
        )

    def _read_member(self, entry: Entry, span: npt.NDArray[np.uint8], path: str) -> InputError | None:
        member = self._members.get(entry.offset)
        if member is None or member.file_size != entry.size or f"{member.CRC:08x}" != entry.stamp:
            return changed(path, "another archive", entry)
        if entry.size > MAX_FILE_SIZE:
            return unreadable(
                path, "too large", found=f"{entry.size} bytes", expected=f"at most {MAX_FILE_SIZE}"
            )
        header = self._bytes[entry.offset : entry.offset + 30].tobytes()
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            return unreadable(path, "the zip archive is damaged", found="no local header")
        # APPNOTE 4.3.7: name and extra field lie between the local header and the data; their lengths
        # may differ from those in the central directory.
        name_length, extra_length = struct.unpack_from("<HH", header, 26)
        first = entry.offset + 30 + name_length + extra_length
        data = self._bytes[first : first + member.compress_size]
        if member.compress_type == zipfile.ZIP_DEFLATED:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                inflated = inflater.decompress(data.data, entry.size + 1)
            except zlib.error as error:
                return unreadable(path, "the zip archive is damaged", found=str(error), cause=error)
            data = np.frombuffer(inflated, np.uint8)
        elif member.compress_type != zipfile.ZIP_STORED:
            return unreadable(
                path,
                "compressed by a method that cannot be read in place",
                found=f"method {member.compress_type}",
                expected="stored or deflated",
                fix="pack with the usual settings",
            )
        if data.size != entry.size or zlib.crc32(data.data) != member.CRC:
            return unreadable(path, "the zip archive is damaged", found="a wrong size or CRC of the content")
        span[:] = data
        return None
