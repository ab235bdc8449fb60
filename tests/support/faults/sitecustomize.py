"""Accidents for processes that have this folder on their PYTHONPATH: Python imports this file first.

They also know the protocol disk:// (see `disk`).

GPU_EVAL_SLOW is seconds that each call of the CPU engine waits; GPU_EVAL_DEADLY is a part of a file name
whose image kills the process that scores it.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from typing import Any

import disk

CPU = "gpu_eval.engines.cpu.engine"


class _Accidents(importlib.abc.MetaPathFinder):
    """Patches the engine when it is imported, so that processes without it stay quick."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002
        if name != CPU:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_patch(module: Any) -> None:
            execute(module)
            _patch(module.CpuEngine)

        spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


def _patch(engine: Any) -> None:
    count = engine.count
    deadly = os.environ.get("GPU_EVAL_DEADLY", "")

    def accident(self: Any, job: Any, images: Any, *arguments: Any) -> Any:
        time.sleep(float(os.environ.get("GPU_EVAL_SLOW", "0")))
        if deadly and any(deadly in image.gt.name for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return count(self, job, images, *arguments)

    engine.count = accident


sys.meta_path.insert(0, _Accidents())
disk.register()
