"""The shape of the house: which file may import what, and who owns a heavy dependency."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpu_eval
from gpu_eval import errors

PACKAGE = Path(gpu_eval.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

BASE = {"errors", "storage", "version"}
STATIONS = {*BASE, "labels", "inputs", "engines", "scheduling", "metrics", "report"}
# What a station may import besides itself; a file at the top is a station of its own.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "version": set(),
    "storage": {"errors"},
    "synthetic": set(),
    "labels": BASE,
    "inputs": {*BASE, "labels"},
    "engines": {*BASE, "labels", "inputs"},
    "scheduling": {*BASE, "labels", "inputs", "engines"},
    "metrics": {*BASE, "labels"},
    "report": {*BASE, "labels", "metrics"},
    "runs": STATIONS,
    "meter": STATIONS,
    "thumbnails": STATIONS,
    "api": {*STATIONS, "runs", "meter", "thumbnails"},
    "terminal": {*STATIONS, "runs", "meter", "api"},
    "options": {"terminal", "runs"},
    "cli": {*STATIONS, "runs", "meter", "api", "terminal", "options", "synthetic"},
    "__main__": {"cli"},
}

OWNERS = {
    "numba": {
        *(f"engines/{name}.py" for name in ("png_kernels", "segment_kernels", "simd")),
        "inputs/file_kernels.py",
    },
    "llvmlite": {"engines/simd.py", "inputs/file_kernels.py"},
    "deflate": {"engines/libdeflate.py"},
    "fsspec": {"inputs/sources.py"},
    "upath": {"storage.py"},
    "duckdb": {"report/folder.py"},
    "altair": {"report/plots.py", "report/run.py"},  # run.py: for its type checker only
    "vl_convert": {"report/html.py"},
    "rich": {file for file in FILES if file.startswith("terminal/")},
    "click": {"cli.py", "options.py"},
    "cupy": {"engines/cuda.py"},
    "dask": {"scheduling/cluster.py", "scheduling/starting.py"},
    # api, crew and joining: for their type checker only
    "distributed": {
        *(f"scheduling/{name}.py" for name in ("cluster", "starting")),
        *(f"runs/{name}.py" for name in ("crew", "joining")),
        "api.py",
    },
    "cloudpickle": {"scheduling/cluster.py"},
    "pycocotools": set(),
}

SPEAKERS = {"cli.py", "terminal/console.py"}


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def stations_imported(path: Path) -> set[str]:
    parts = (name.split(".") for name in imported(path))
    names = {name[1] for name in parts if name[0] == "gpu_eval" and len(name) > 1}
    return {name for name in names if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


def station(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_imports_run_one_way(file: str) -> None:
    here = station(file)
    assert here in MAY_IMPORT, f"{file} is new: say in MAY_IMPORT where it stands"
    assert stations_imported(FILES[file]) <= MAY_IMPORT[here] | {here}


@pytest.mark.parametrize("module", OWNERS)
def test_heavy_dependency_has_one_owner(module: str) -> None:
    users = {
        file for file, path in FILES.items() if module in {name.split(".")[0] for name in imported(path)}
    }
    assert users <= OWNERS[module]


@pytest.mark.parametrize("file", [file for file in FILES if file not in SPEAKERS])
def test_only_the_command_line_prints_exits_or_catches_everything(file: str) -> None:
    told = []
    for node in ast.walk(ast.parse(FILES[file].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("print", "exit", "quit", "sys.exit", "os._exit"):
                told.append(f"line {node.lineno}: {name}()")
        elif isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            if caught in ("Exception", "BaseException", "everything"):
                told.append(f"line {node.lineno}: except {caught}")
        elif isinstance(node, ast.Raise) and node.exc and "SystemExit" in ast.unparse(node.exc):
            told.append(f"line {node.lineno}: raise SystemExit")
    assert told == []


@pytest.mark.parametrize("file", FILES)
def test_no_file_is_over_500_lines(file: str) -> None:
    assert len(FILES[file].read_text(encoding="utf-8").splitlines()) <= 500


def test_public_names_resolve_and_are_sorted() -> None:
    assert gpu_eval.__all__ == sorted(gpu_eval.__all__)
    assert len(set(gpu_eval.__all__)) == len(gpu_eval.__all__)
    for name in gpu_eval.__all__:
        assert getattr(gpu_eval, name) is not None
    assert set(gpu_eval.__all__) <= set(dir(gpu_eval))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gpu_eval.nonsense  # noqa: B018


def test_error_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2 - 2
        if line.strip() and depth >= 0:
            name = line.split()[0]
            above = [*above[:depth], name]
            drawn[name] = above[-2] if depth else "Exception"
    written = {
        name: thing.__bases__[0].__name__
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and thing.__module__ == errors.__name__
    }
    assert drawn == written


def test_errors_say_their_exit_code() -> None:
    codes = {cls: cls.exit_code for cls in vars(errors).values() if inspect.isclass(cls)
             and issubclass(cls, errors.GpuEvalError)}  # fmt: skip
    for cls, code in codes.items():
        if issubclass(cls, errors.InputError | errors.ReportError | errors.EngineUnavailable):
            assert code == 2, cls
        elif issubclass(cls, errors.Interrupted):
            assert code == 130
        else:
            assert code == 1, cls
