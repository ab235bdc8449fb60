"""Folders as the archives that people send."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path


def zipped(folder: Path, target: Path, method: int = zipfile.ZIP_STORED, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def tarred(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w") as archive:
        archive.add(folder, arcname=".")
    return target
