"""What a worker sees: asked before work starts, and by `gpu-eval worker-check`."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import uuid
from dataclasses import dataclass, field

from gpu_eval.engines.choose import make_engine
from gpu_eval.errors import GpuEvalError
from gpu_eval.inputs.sources import open_source
from gpu_eval.run_folder.folder import read_facts
from gpu_eval.storage import is_leftover, place, write

PACKAGES = ("gpu-eval", "numpy", "pyarrow", "numba", "distributed", "fsspec")


@dataclass(slots=True)
class WorkerView:
    """One worker's answers. `problems` are sentences; none means that it can work."""

    host: str
    versions: dict[str, str]
    engine: str = ""
    device: str = ""
    problems: list[str] = field(default_factory=list)


def check(
    engine: str,
    inputs: tuple[str, ...] = (),
    output: str | None = None,
    fingerprint: str | None = None,
) -> WorkerView:
    """Whether this process has the engine, sees each of `inputs`, and can write to the folder `output`.

    With `fingerprint` the run that has it must lie in `output`: a folder of the same name on another
    machine's own disk would swallow the results.
    """
    view = WorkerView(socket.gethostname(), {"python": platform.python_version()})
    for package in PACKAGES:
        try:
            view.versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            view.versions[package] = "not installed"
    try:
        made, _ = make_engine(engine, 1)
        view.engine, view.device = made.name, made.describe()
        made.close()
    except GpuEvalError as error:
        view.problems.append(str(error))
    for location in inputs:
        try:
            open_source(location).close()
        except GpuEvalError as error:
            view.problems.append(f"does not see {location}: {error}")
    if output is not None:
        view.problems += _output_problems(output, fingerprint)
    return view


def _output_problems(output: str, fingerprint: str | None) -> list[str]:
    folder = place(output)
    if fingerprint is not None:
        try:
            there = read_facts(folder).get("fingerprint")
        except GpuEvalError as error:
            return [f"does not see the run that was begun in {output}: {error}"]
        if there != fingerprint:
            return [f"sees another run in {output}: it is not the folder that this command writes to"]
    probe = folder / f".probe.{uuid.uuid4().hex}.tmp"
    assert is_leftover(probe)
    try:
        write(probe, lambda file: file.write(b"gpu-eval"))
        probe.unlink()
    except (GpuEvalError, OSError) as error:
        return [f"cannot write to {output}: {error}"]
    return []
