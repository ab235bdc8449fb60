"""The same files as a folder, an archive and a URL, some of them hidden."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import fsspec

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
