"""Where files come from: a folder, a zip, a plain tar, an fsspec URL, each read in place, never unpacked.

Archives are mapped into memory and hold no shared file position, so any number of threads may read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import InputError, UnreadableFile, UnreadableSource, UnsafePath

MAX_FILE_SIZE = 2**30  # of one archive member, inflated: far above any label map, far below a bomb

_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_REPACK = "unpack or repack as plain .tar or .zip, which can be read in place"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source."""

    name: str  # POSIX path relative to the source's root
    size: int  # bytes of the file, decompressed
    stamp: (
        str  # changes when the content may have: mtime in ns, offset and mtime in a tar, CRC in a zip, etag
    )
    offset: int = -1  # tar: where the bytes start; zip: where the local header starts


class Source(Protocol):
    """A set of files that may be listed, and read by many threads at once."""

    @property
    def location(self) -> str:
        """What the user gave: a path or a URL."""
        ...

    def entries(self) -> list[Entry]:
        """All regular files but hidden ones, sorted by name. An archive may hold a name twice.

        Raises
            UnreadableSource: it cannot be listed to its end.
            UnsafePath: an archive member climbs out of its archive.
        """
        ...

    def read_into(
        self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int64], dict[int, InputError]]:
        """Put file i at `buffer[offsets[i]:offsets[i + 1]]`; (offsets, problems by index).

        offsets has shape (n + 1,) and is the running sum of the sizes; the buffer must be as large. A file
        that cannot be read, or is not as it was listed, becomes a problem, its span zeros; the others are
        read.
        """
        ...

    def close(self) -> None:
        """Let go of handles and maps; reading afterwards is an error of the caller."""
        ...


def open_source(location: str | os.PathLike[str]) -> Source:
    """The source at a path (folder, zip, plain tar; told apart by content) or at an fsspec URL.

    Raises
        UnreadableSource: nothing there, no access, or nothing that can be read in place.
    """
    text = os.fspath(location)
    if "://" in text:
        protocol, _, path = text.partition("://")
        if protocol not in ("file", "local"):
            return RemoteSource(text)
        text = path
    try:
        if stat.S_ISDIR(os.stat(text).st_mode):
            return FolderSource(text)
        with open(text, "rb") as file:
            start = file.read(8)
        for magic, name in _COMPRESSED:
            if start.startswith(magic):
                _refuse("a compressed archive cannot be read in place", text, found=name, fix=_REPACK)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return ZipSource(text)
        return TarSource(text)
    except FileNotFoundError as error:
        raise UnreadableSource("does not exist", file=text, fix="check the path") from error
    except OSError as error:
        raise UnreadableSource("cannot be opened", file=text, found=_reason(error)) from error


class FolderSource:
    """The files below a folder; links are followed, folder loops are not."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._prefix = location.rstrip("/") + "/"

    def entries(self) -> list[Entry]:
        try:
            return sorted(self._walk("", frozenset()), key=_by_name)
        except OSError as error:
            raise UnreadableSource(
                "cannot be listed", file=error.filename or self.location, found=_reason(error)
            ) from error

    def _walk(self, folder: str, above: frozenset[tuple[int, int]]) -> Iterator[Entry]:
        here = os.stat(self._prefix + folder)
        identity = (here.st_dev, here.st_ino)
        if identity in above:
            return
        folders = []
        with os.scandir(self._prefix + folder) as items:
            for item in items:
                if _is_hidden(item.name):
                    continue
                name = folder + item.name
                try:
                    status = item.stat()
                except FileNotFoundError:  # a dangling link: told when read, not passed over in silence
                    yield Entry(name, 0, "dangling")
                    continue
                if stat.S_ISDIR(status.st_mode):
                    folders.append(f"{name}/")
                elif stat.S_ISREG(status.st_mode):
                    yield Entry(name, status.st_size, str(status.st_mtime_ns))
        for name in folders:
            yield from self._walk(name, above | {identity})

    def read_into(
        self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int64], dict[int, InputError]]:
        offsets, view = _spans(entries), buffer.data
        ends = offsets.tolist()
        problems: dict[int, InputError] = {}
        surplus = bytearray(1)  # one byte more than listed is asked for: a grown file shows without an fstat
        for index, entry in enumerate(entries):
            span = view[ends[index] : ends[index + 1]]
            path = self._prefix + entry.name
            try:
                handle = os.open(path, os.O_RDONLY)
                try:
                    size = _read_fully(handle, span, surplus)
                finally:
                    os.close(handle)
            except OSError as error:
                problems[index] = _unreadable(path, "cannot be read", found=_reason(error), cause=error)
            else:
                if size == entry.size:
                    continue
                found = f"{size} bytes" if size < entry.size else "more bytes"
                problems[index] = _changed(path, found, entry)
            buffer[ends[index] : ends[index + 1]] = 0
        return offsets, problems

    def close(self) -> None:
        pass


class _MappedArchive:
    """What tar and zip share: a read-only map of the whole file."""

    def __init__(self, location: str) -> None:
        self.location = location
        with open(location, "rb") as file:
            status = os.fstat(file.fileno())
            self._size = status.st_size
            if self._size == 0:
                _refuse("is empty", location, expected="a folder, a .zip or a plain .tar")
            if not stat.S_ISREG(status.st_mode):
                _refuse("is not a regular file", location, expected="a folder, a .zip or a plain .tar")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)

    def read_into(
        self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int64], dict[int, InputError]]:
        offsets = _spans(entries)
        ends = offsets.tolist()
        problems: dict[int, InputError] = {}
        # A map read past the end of its file kills the process, so a shortened archive must be seen before.
        try:
            size_now = os.stat(self.location).st_size
        except OSError:
            size_now = -1
        for index, entry in enumerate(entries):
            span = buffer[ends[index] : ends[index + 1]]
            path = f"{self.location}/{entry.name}"
            if size_now != self._size:
                problem: InputError | None = _unreadable(path, "the archive was replaced since it was opened")
            else:
                problem = self._read_member(entry, span, path)
            if problem is not None:
                problems[index] = problem
                span[:] = 0
        return offsets, problems

    def _read_member(self, entry: Entry, span: npt.NDArray[np.uint8], path: str) -> InputError | None:
        raise NotImplementedError

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
        members: dict[str, Entry] = {}
        names: list[str] = []
        entries: list[Entry] = []
        try:
            with tarfile.open(self.location, "r:") as archive:
                for member in archive:
                    names.append(member.name)
                    name = _plain_name(member.name)
                    if member.issparse():
                        _refuse("holds a sparse file", self.location, found=name, fix="pack without --sparse")
                    if member.isreg():
                        stamp = f"{member.offset_data}/{member.mtime}"
                        entry = Entry(name, member.size, stamp, member.offset_data)
                    elif member.islnk() and _plain_name(member.linkname) in members:
                        target = members[_plain_name(member.linkname)]
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
                found=_reason(error),
                fix="copy or pack it again",
            ) from error
        # tarfile takes a damaged header after the first as the end; a real end is a block of zeros.
        mark = self._bytes[end : end + tarfile.BLOCKSIZE]
        if mark.size < tarfile.BLOCKSIZE or mark.any():
            _refuse(
                "the archive is damaged or truncated",
                self.location,
                found=f"no member and no end mark at byte {end}",
                fix="copy or pack it again",
            )
        _check_names(names, self.location)
        return sorted((entry for entry in entries if not _is_hidden_path(entry.name)), key=_by_name)

    def _read_member(self, entry: Entry, span: npt.NDArray[np.uint8], path: str) -> InputError | None:
        if entry.offset < 0:
            return _unreadable(path, "a link without a file in the archive", fix="pack with --dereference")
        data = self._bytes[entry.offset : entry.offset + entry.size]
        if data.size != entry.size:
            return _changed(path, f"{data.size} bytes", entry)
        span[:] = data
        return None


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
        _check_names((member.orig_filename for member in members), self.location)
        listed = [(_plain_name(member.filename), member) for member in members]
        listed = [(name, member) for name, member in listed if not _is_hidden_path(name)]
        encrypted = [name for name, member in listed if member.flag_bits & 1]
        if encrypted:
            _refuse(
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
            key=_by_name,
        )

    def _read_member(self, entry: Entry, span: npt.NDArray[np.uint8], path: str) -> InputError | None:
        member = self._members.get(entry.offset)
        if member is None or member.file_size != entry.size or f"{member.CRC:08x}" != entry.stamp:
            return _changed(path, "another archive", entry)
        if entry.size > MAX_FILE_SIZE:
            return _unreadable(
                path, "too large", found=f"{entry.size} bytes", expected=f"at most {MAX_FILE_SIZE}"
            )
        header = self._bytes[entry.offset : entry.offset + 30].tobytes()
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            return _unreadable(path, "the zip archive is damaged", found="no local header")
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
                return _unreadable(path, "the zip archive is damaged", found=str(error), cause=error)
            data = np.frombuffer(inflated, np.uint8)
        elif member.compress_type != zipfile.ZIP_STORED:
            return _unreadable(
                path,
                "compressed by a method that cannot be read in place",
                found=f"method {member.compress_type}",
                expected="stored or deflated",
                fix="pack with the usual settings",
            )
        if data.size != entry.size or zlib.crc32(data.data) != member.CRC:
            return _unreadable(path, "the zip archive is damaged", found="a wrong size or CRC of the content")
        span[:] = data
        return None


class RemoteSource:
    """The files below an fsspec URL, chained URLs ("zip://::s3://...") included."""

    def __init__(self, location: str) -> None:
        import fsspec

        self.location = location
        # An archive file system is closed with its source, so it must not be one that fsspec shares.
        options: dict[str, Any] = {"skip_instance_cache": True} if "::" in location else {}
        try:
            self._files, root = fsspec.core.url_to_fs(location, **options)
            self._root = str(root).rstrip("/")
            if not self._files.isdir(self._root):
                _refuse("no such folder", location, expected="a folder, or zip://::<URL of a zip>")
        except (OSError, ValueError, ImportError, RuntimeError, zipfile.BadZipFile) as error:
            raise UnreadableSource("cannot be opened", file=location, found=_reason(error)) from error
        # Async file systems fetch many files at once by themselves; the others may share file positions.
        self._lock: contextlib.AbstractContextManager[object] = (
            contextlib.nullcontext() if self._files.async_impl else threading.Lock()
        )

    def entries(self) -> list[Entry]:
        prefix = f"{self._root}/" if self._root else ""
        entries = []
        try:
            with self._lock:
                for path, info in self._files.find(self._root, detail=True).items():
                    name = path.removeprefix(prefix)
                    if info["type"] != "file" or _is_hidden_path(name):
                        continue
                    size = info.get("size")
                    entries.append(
                        Entry(name, int(self._files.size(path) if size is None else size), _stamp(info))
                    )
        except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
            raise UnreadableSource("cannot be listed", file=self.location, found=_reason(error)) from error
        _check_names((entry.name for entry in entries), self.location)
        return sorted(entries, key=_by_name)

    def read_into(
        self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int64], dict[int, InputError]]:
        offsets = _spans(entries)
        ends = offsets.tolist()
        problems: dict[int, InputError] = {}
        prefix = f"{self._root}/" if self._root else ""
        wanted = [index for index, entry in enumerate(entries) if entry.size > 0]
        with self._lock:
            contents = self._files.cat_ranges(
                [prefix + entries[index].name for index in wanted],
                [0] * len(wanted),
                [entries[index].size + 1 for index in wanted],  # one more: a grown file shows
                on_error="return",
            )
        for index, content in zip(wanted, contents, strict=True):
            entry, span = entries[index], buffer[ends[index] : ends[index + 1]]
            path = f"{self.location.rstrip('/')}/{entry.name}"
            if isinstance(content, Exception):
                problems[index] = _unreadable(path, "cannot be read", found=_reason(content), cause=content)
            elif len(content) != entry.size:
                found = f"{len(content)} bytes" if len(content) < entry.size else "more bytes"
                problems[index] = _changed(path, found, entry)
            else:
                span[:] = np.frombuffer(content, np.uint8)
                continue
            span[:] = 0
        return offsets, problems

    def close(self) -> None:
        if "::" not in self.location:
            return
        for name in ("zip", "tar", "fo"):  # what fsspec's archive file systems hold open
            part = getattr(self._files, name, None)
            if part is not None and hasattr(part, "close"):
                part.close()


def _spans(entries: Sequence[Entry]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(entries) + 1, np.int64)
    np.cumsum([entry.size for entry in entries], out=offsets[1:])
    return offsets


def _read_fully(handle: int, span: memoryview, surplus: bytearray) -> int:
    """Bytes read; len(span) + 1 if the file holds more than the span takes."""
    done = os.readv(handle, (span, surplus))
    while 0 < done < len(span):
        count = os.readv(handle, (span[done:], surplus))
        if count == 0:
            break
        done += count
    return done


def _by_name(entry: Entry) -> str:
    return entry.name


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_hidden_path(name: str) -> bool:
    return any(_is_hidden(part) for part in name.split("/"))


def _plain_name(name: str) -> str:
    """An archive's name as a relative POSIX path: no "./", and the separators of Windows packers turned."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _check_names(names: Iterable[str], location: str) -> None:
    """Refuse members that name a place outside: nothing is unpacked here, but others unpack this archive."""
    unsafe = [
        name
        for name in names
        if name.startswith(("/", "\\"))
        or "\0" in name
        or re.match(r"[A-Za-z]:", name)
        or (".." in name and ".." in re.split(r"[/\\]", name))
    ]
    if unsafe:
        raise UnsafePath(
            "a member's name leads out of the archive",
            file=location,
            found=repr(unsafe[0]) + (f" and {len(unsafe) - 1} more" if len(unsafe) > 1 else ""),
            expected="relative paths without '..'",
            fix="pack it again from inside the folder",
        )


def _stamp(info: dict[str, Any]) -> str:
    """The first of the facts by which file systems tell versions apart."""
    for key in (
        "ETag",
        "etag",
        "md5Hash",
        "CRC",
        "mtime",
        "LastModified",
        "last_modified",
        "updated",
        "created",
    ):
        if info.get(key) is not None:
            return str(info[key])
    return ""


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _refuse(
    message: str,
    location: str,
    *,
    found: str | None = None,
    expected: str | None = None,
    fix: str | None = None,
) -> NoReturn:
    raise UnreadableSource(message, file=location, found=found, expected=expected, fix=fix)


def _changed(path: str, found: str, entry: Entry) -> UnreadableFile:
    return _unreadable(
        path, "changed since it was listed", found=found, expected=f"{entry.size} bytes", fix="run again"
    )


def _unreadable(
    path: str,
    message: str,
    *,
    found: str | None = None,
    expected: str | None = None,
    fix: str | None = None,
    cause: BaseException | None = None,
) -> UnreadableFile:
    error = UnreadableFile(message, file=path, found=found, expected=expected, fix=fix)
    error.__cause__ = cause
    return error
