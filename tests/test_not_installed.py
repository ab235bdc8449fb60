"""A checkout works without being installed: its version and its kernels are found beside the package."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from gpu_eval import version
from gpu_eval.engines.cuda import kernels

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_package(name: str) -> str:
        raise PackageNotFoundError(name)

    def no_module(name: str) -> Path:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(version, "version", no_package)
    monkeypatch.setattr(kernels, "files", no_module)


def test_the_version_is_that_of_pyproject() -> None:
    assert version._find() == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_without_pyproject_the_error_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(version, "__file__", str(tmp_path / "gpu_eval" / "version.py"))
    with pytest.raises(PackageNotFoundError, match=r"not installed, and there is no pyproject\.toml"):
        version._find()


def test_kernels_are_read_from_the_folder_beside_the_package() -> None:
    assert kernels.folder() == ROOT / "kernels"
    assert 'extern "C"' in kernels.CONFUSION.source.text()
