"""The tasks. Each is one word, which names its file in every room.

A task is added by a file in each room and a line in TASKS; `docs/adding_a_task.md` walks through them.
Modules are found by that name, on first use: who scores label maps does not load what instances need.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType

# The rooms that hold a file of each task, and that file's module; {} is the task's word.
ROOMS: Mapping[str, str] = MappingProxyType(
    {
        "engines": "gpu_eval.engines.{}",
        "engines/cpu": "gpu_eval.engines.cpu.{}",
        "engines/cuda": "gpu_eval.engines.cuda.{}",
        "tasks": "gpu_eval.tasks.{}",
        "run_folder": "gpu_eval.run_folder.{}_schema",
        "results": "gpu_eval.results.{}_run",
        "cli": "gpu_eval.cli.show_{}",
    }
)


@dataclass(frozen=True, slots=True)
class Registered:
    """A task: its command of `gpu-eval`, the score it is ranked by as people write it, and how many of its
    images make a committed part, unless a user says otherwise."""

    command: str
    score: str
    shard_size: int


TASKS: dict[str, Registered] = {
    "semantic": Registered(command="score", score="mIoU", shard_size=512),
    "instance": Registered(command="instances", score="AP", shard_size=128),
}


def module(room: str, task: str) -> ModuleType:
    """The file of a task in a room."""
    return importlib.import_module(ROOMS[room].format(task))
