"""`disk://path`: an fsspec file system that several processes share, as they would share an object store."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class DiskFileSystem(LocalFileSystem):
    """The files of this machine's disk behind a URL, so that nothing takes them for a folder."""

    protocol = ("disk",)

    def __init__(self, **options: Any) -> None:
        super().__init__(auto_mkdir=True, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).removeprefix("disk://").strip("/")

    def unstrip_protocol(self, name: str) -> str:
        return f"disk://{self._strip_protocol(name).lstrip('/')}"


def register() -> None:
    """Make the protocol known to this process."""
    fsspec.register_implementation("disk", DiskFileSystem, clobber=True)
