"""The version of the package, which is part of a run's fingerprint."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def _find() -> str:
    """The installed package's; in a checkout that is not installed the one in its pyproject.toml."""
    try:
        return version("gpu-eval")
    except PackageNotFoundError as missing:
        try:
            text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
        except OSError:
            raise PackageNotFoundError(
                "gpu-eval: it is not installed, and there is no pyproject.toml beside its folder"
            ) from missing
        return str(tomllib.loads(text)["project"]["version"])


__version__ = _find()
