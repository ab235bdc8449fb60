"""The shape of the house: who imports whom, who owns a heavy dependency, where a task has its files."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import gpu_eval
from gpu_eval import errors, registry

PACKAGE = Path(gpu_eval.__file__).parent
DOCS = PACKAGE.parent / "docs"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
SOURCES = {file: path.read_text(encoding="utf-8") for file, path in FILES.items()}

MOST_FILES, MOST_LINES, LONGEST_SUITE = 14, 500, 400

# What each room imports besides itself: no less, so that it says what is, and no more. A file at the top is a
# room of its own.
IMPORTS: dict[str, set[str]] = {
    "__main__": {"cli"},
    "api": {
        "checkup",
        "engines",
        "errors",
        "labels",
        "meter",
        "metrics",
        "page",
        "registry",
        "results",
        "run_folder",
        "runs",
        "storage",
        "tasks",
        "thumbnails",
    },
    "checkup": {
        "doctor",
        "engines",
        "errors",
        "inputs",
        "labels",
        "metrics",
        "runs",
        "storage",
        "tasks",
    },
    "cli": {
        "api",
        "checkup",
        "doctor",
        "engines",
        "errors",
        "metrics",
        "registry",
        "results",
        "runs",
        "synthetic",
        "version",
    },
    "c_functions": set(),
    "doctor": {"engines", "errors", "inputs", "labels"},
    "engines": {"c_functions", "errors", "inputs", "labels", "registry"},
    "errors": set(),
    "inputs": {"c_functions", "errors", "labels"},
    "labels": {"errors"},
    "meter": {"doctor", "engines", "errors", "labels", "metrics"},
    "metrics": {"errors", "labels"},
    "page": {"errors", "labels", "metrics", "results"},
    "registry": set(),
    "results": {"doctor", "errors", "labels", "metrics", "page", "registry", "run_folder", "storage"},
    "run_folder": {"errors", "inputs", "labels", "metrics", "registry", "storage"},
    "runs": {
        "doctor",
        "engines",
        "errors",
        "inputs",
        "registry",
        "results",
        "run_folder",
        "scheduling",
        "storage",
        "tasks",
        "version",
    },
    "scheduling": {"errors", "version"},
    "storage": {"errors"},
    "synthetic": set(),
    "tasks": {
        "doctor",
        "engines",
        "errors",
        "inputs",
        "labels",
        "metrics",
        "run_folder",
        "scheduling",
        "storage",
    },
    "thumbnails": {"engines", "errors", "inputs", "labels", "page", "results", "run_folder", "storage"},
    "version": set(),
}

# The one circle: a run shows itself through the page, on first use.
DISPLAYS = {("results/run.py", "page"), ("results/semantic_run.py", "page")}

OWNERS = {
    "numba": {
        "c_functions.py",
        "engines/png_kernels.py",
        "engines/simd.py",
        "engines/cuda/stream_kernels.py",
        "inputs/read_many.py",
    },
    "llvmlite": {"c_functions.py", "engines/simd.py"},
    "deflate": {"engines/libdeflate.py"},
    "fsspec": {"inputs/sources.py"},
    "upath": {"storage.py"},
    "duckdb": {"run_folder/sql.py"},
    "altair": {"page/charts.py", "results/semantic_run.py"},  # semantic_run: for its type checker only
    "vl_convert": {"page/html.py"},
    "rich": {f"cli/{name}.py" for name in ("console", "fitted", "progress")}
    | {f"cli/show_{name}.py" for name in ("comparison", "examination", "instance", "semantic", "workers")},
    "click": {"cli/commands.py", "cli/options.py"},
    "cupy": {"engines/cuda/cupy_device.py", "engines/cuda/arrays.py"},
    "dask": {"scheduling/dask_cluster.py"},
    # api, drive, workers and cluster_options: for their type checker only
    "distributed": {
        *(f"scheduling/dask_{name}.py" for name in ("cluster", "executor")),
        *(f"runs/{name}.py" for name in ("cluster_options", "drive", "workers")),
        "api.py",
    },
    "cloudpickle": {"scheduling/dask_executor.py"},
    "pycocotools": set(),
}

SPEAKERS = {"cli/commands.py", "cli/console.py"}

# Where a task has no file of its name in a room, and which file stands for it.
EXCEPTIONS: Mapping[tuple[str, str], str] = {
    ("labels", "semantic"): "labels/space.py",  # the label space of all tasks
    ("inputs", "semantic"): "inputs/pairs.py",  # pairing, which other splits begin with
    ("metrics", "instance"): "metrics/matching.py",  # and average_precision.py
}
# Files that are a task's own, or that people call by a task's name.
KNOW_TASKS = {
    "registry.py",
    "api.py",
    "__init__.py",
    "thumbnails.py",
    "cli/commands.py",
    *(file for file in FILES if re.search(r"semantic|instance", file)),
}
TASK_CLASSES = {
    "Run", "InstanceRun", "SemanticTask", "InstanceTask", "SemanticJob", "InstanceJob",
    "SemanticImages", "InstanceImages",
}  # fmt: skip
# Rooms whose files of a task are imported by name, in no need of the registry.
MORE_ROOMS = {"labels": "gpu_eval.labels.{}_space", "inputs": "gpu_eval.inputs.{}_split"} | {
    "metrics": "gpu_eval.metrics.{}"
}


def imported(file: str) -> Iterator[str]:
    """Full names of all modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(SOURCES[file])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(module: str) -> str | None:
    """The file of the package that a full name is in; None for other packages."""
    parts = module.split(".")
    if parts[0] != "gpu_eval":
        return None
    for length in range(len(parts), 1, -1):
        place = "/".join(parts[1:length])
        for file in (f"{place}.py", f"{place}/__init__.py"):
            if file in FILES:
                return file
    return None  # a name of the package's own top


def files_imported(file: str) -> set[str]:
    return {found for found in map(file_of, imported(file)) if found is not None and found != file}


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("name", IMPORTS)
def test_a_room_imports_what_is_said_here_and_nothing_else(name: str) -> None:
    files = [file for file in FILES if room(file) == name]
    assert {room(other) for file in files for other in files_imported(file)} - {name} == IMPORTS[name]


def test_every_room_is_said_here() -> None:
    assert {room(file) for file in FILES} - {"__init__"} == set(IMPORTS)


def test_files_import_each_other_in_no_circle() -> None:
    """As far as imports say it; files of a task are found by name as well, through the registry."""
    graph = {
        file: {other for other in files_imported(file) if (file, room(other)) not in DISPLAYS}
        for file in FILES
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")
    assert set(order) == set(FILES)


@pytest.mark.parametrize(("file", "page"), sorted(DISPLAYS))
def test_a_run_loads_the_page_when_it_is_shown_and_not_before(file: str, page: str) -> None:
    at_top = {
        node.module
        for node in ast.parse(SOURCES[file]).body
        if isinstance(node, ast.ImportFrom) and node.module is not None
    }
    assert not any(module.startswith(f"gpu_eval.{page}") for module in at_top)


@pytest.mark.parametrize("module", OWNERS)
def test_heavy_dependency_has_one_owner(module: str) -> None:
    users = {file for file in FILES if module in {name.split(".")[0] for name in imported(file)}}
    assert users <= OWNERS[module]


@pytest.mark.parametrize("file", [file for file in FILES if file not in SPEAKERS])
def test_only_the_command_line_prints_exits_or_catches_everything(file: str) -> None:
    told = []
    for node in ast.walk(ast.parse(SOURCES[file])):
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
    assert len(SOURCES[file].splitlines()) <= MOST_LINES


@pytest.mark.parametrize("suite", sorted((PACKAGE.parent / "tests").rglob("test_*.py")), ids=str)
def test_no_suite_is_over_400_lines(suite: Path) -> None:
    assert len(suite.read_text(encoding="utf-8").splitlines()) <= LONGEST_SUITE


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in FILES.values()}), ids=lambda path: path.name
)
def test_no_room_has_more_than_14_files(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MOST_FILES


class TestTasks:
    """A task is one word, which names its file in every room."""

    @pytest.mark.parametrize("task", registry.TASKS)
    @pytest.mark.parametrize("place", {**registry.ROOMS, **MORE_ROOMS})
    def test_a_task_has_a_file_of_its_name_in_every_room(self, place: str, task: str) -> None:
        pattern = {**registry.ROOMS, **MORE_ROOMS}[place]
        expected = pattern.format(task).removeprefix("gpu_eval.").replace(".", "/") + ".py"
        exception = EXCEPTIONS.get((place, task))
        assert (exception or expected) in FILES
        assert exception is None or expected not in FILES, "an exception that is none any more"

    @pytest.mark.parametrize("file", [file for file in FILES if file not in KNOW_TASKS])
    def test_nothing_but_the_registry_knows_which_tasks_there_are(self, file: str) -> None:
        """No task's word, and no run or job of a task, outside of the task's own files."""
        asked = []
        for node in ast.walk(ast.parse(SOURCES[file])):
            if isinstance(node, ast.Constant) and node.value in registry.TASKS:
                asked.append(f"line {node.lineno}: {node.value!r}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
                classes = set(re.findall(r"\w+", ast.unparse(node.args[1])))
                asked += [f"line {node.lineno}: {name}" for name in sorted(classes & TASK_CLASSES)]
        assert asked == []

    def test_the_page_on_adding_a_task_names_every_room(self) -> None:
        page = (DOCS / "adding_a_task.md").read_text(encoding="utf-8")
        for pattern in {**registry.ROOMS, **MORE_ROOMS}.values():
            assert f"`{pattern.removeprefix('gpu_eval.').replace('.', '/').format('<task>')}.py`" in page
        for file in EXCEPTIONS.values():
            assert f"`{file}`" in page


class TestArchitecturePage:
    def test_it_names_every_file_in_its_room(self) -> None:
        page = (DOCS / "architecture.md").read_text(encoding="utf-8")
        top, *rest = re.split(r"\*\*`(\w+)/`\*\*", page)
        sections = {"": top} | dict(zip(rest[::2], rest[1::2], strict=True))
        missing = []
        for file in FILES:
            place, _, name = file.rpartition("/") if file.count("/") == 0 else file.partition("/")
            if not name.endswith("__init__.py") and f"`{name}`" not in sections.get(place, ""):
                missing.append(file)
        assert missing == []

    def test_every_file_that_it_names_is_there(self) -> None:
        page = (DOCS / "architecture.md").read_text(encoding="utf-8")
        root = PACKAGE.parent
        parts = re.split(r"\*\*`(\w+)/`\*\*", page)
        lost = []
        for place, section in (("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)):
            for name in re.findall(r"`([\w./-]+\.(?:py|cu|md|csv|sh|html))`", section):
                places = (root, PACKAGE, PACKAGE / place, DOCS)
                # In a table of files a name is one of that room; in a sentence it may be of any.
                in_table = any(line.startswith("|") and f"`{name}`" in line for line in section.splitlines())
                if "/" not in name and not in_table:
                    places = tuple(path.parent for path in root.rglob(name))
                if not any((folder / name).is_file() for folder in places):
                    lost.append(name)
        assert lost == []


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
            drawn[name] = above[-2] if depth else "UserWarning" if name.endswith("Warning") else "Exception"
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
