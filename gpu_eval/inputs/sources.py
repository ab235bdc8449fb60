"""Where files come from: a folder, a zip, a plain tar, an fsspec URL, each read in place, never unpacked."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import InputError, UnreadableSource
from gpu_eval.inputs.archives import TarSource, ZipSource
from gpu_eval.inputs.source import (
    Entry,
    Source,
    by_name,
    changed,
    check_names,
    is_hidden,
    is_hidden_path,
    reason,
    refuse,
    spans,
    unreadable,
)

__all__ = ["Entry", "FolderSource", "RemoteSource", "Source", "open_source"]

_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_REPACK = "unpack or repack as plain .tar or .zip, which can be read in place"


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
                refuse("a compressed archive cannot be read in place", text, found=name, fix=_REPACK)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return ZipSource(text)
        return TarSource(text)
    except FileNotFoundError as error:
        raise UnreadableSource("does not exist", file=text, fix="check the path") from error
    except OSError as error:
        raise UnreadableSource("cannot be opened", file=text, found=reason(error)) from error


class FolderSource:
    """The files below a folder; links are followed, folder loops are not."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._prefix = location.rstrip("/") + "/"

    def entries(self) -> list[Entry]:
        try:
            return sorted(self._walk("", frozenset()), key=by_name)
        except OSError as error:
            raise UnreadableSource(
                "cannot be listed", file=error.filename or self.location, found=reason(error)
            ) from error

    def _walk(self, folder: str, above: frozenset[tuple[int, int]]) -> Iterator[Entry]:
        here = os.stat(self._prefix + folder)
        identity = (here.st_dev, here.st_ino)
        if identity in above:
            return
        folders = []
        with os.scandir(self._prefix + folder) as items:
            for item in items:
                if is_hidden(item.name):
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
        from gpu_eval.inputs.read_many import read_files

        offsets = spans(entries)
        paths = [os.fsencode(self._prefix + entry.name) for entry in entries]
        problems: dict[int, InputError] = {}
        for index in read_files(paths, offsets, buffer):
            span = buffer[offsets[index] : offsets[index + 1]]
            problem = self._read_one(entries[index], span.data)
            if problem is not None:
                problems[index] = problem
                span[:] = 0
        return offsets, problems

    def _read_one(self, entry: Entry, span: memoryview) -> InputError | None:
        """Read a file with all patience, or say why that cannot be done."""
        path = self._prefix + entry.name
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                # One byte more than listed is asked for: a grown file shows without an fstat.
                size = _read_fully(handle, span, bytearray(1))
            finally:
                os.close(handle)
        except OSError as error:
            return unreadable(path, "cannot be read", found=reason(error), cause=error)
        if size == entry.size:
            return None
        return changed(path, f"{size} bytes" if size < entry.size else "more bytes", entry)

    def close(self) -> None:
        pass


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
                refuse("no such folder", location, expected="a folder, or zip://::<URL of a zip>")
        except (OSError, ValueError, ImportError, RuntimeError, zipfile.BadZipFile) as error:
            raise UnreadableSource("cannot be opened", file=location, found=reason(error)) from error
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
                    if info["type"] != "file" or is_hidden_path(name):
                        continue
                    size = info.get("size")
                    entries.append(
                        Entry(name, int(self._files.size(path) if size is None else size), _stamp(info))
                    )
        except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
            raise UnreadableSource("cannot be listed", file=self.location, found=reason(error)) from error
        check_names((entry.name for entry in entries), self.location)
        return sorted(entries, key=by_name)

    def read_into(
        self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int64], dict[int, InputError]]:
        offsets = spans(entries)
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
                problems[index] = unreadable(path, "cannot be read", found=reason(content), cause=content)
            elif len(content) != entry.size:
                found = f"{len(content)} bytes" if len(content) < entry.size else "more bytes"
                problems[index] = changed(path, found, entry)
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


def _read_fully(handle: int, span: memoryview, surplus: bytearray) -> int:
    """Bytes read; len(span) + 1 if the file holds more than the span takes."""
    done = os.readv(handle, (span, surplus))
    while 0 < done < len(span):
        count = os.readv(handle, (span[done:], surplus))
        if count == 0:
            break
        done += count
    return done


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
