"""How far a run is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from gpu_eval.cli.console import err, say
from gpu_eval.runs.drive import Progress as RunProgress

# Seconds between lines of progress where standard error is not a terminal.
LINE_INTERVAL = 5.0


class ProgressLine:
    """A bar with images/s and time left on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._console = err()
        self._bar: Progress | None = None
        self._told = time.monotonic()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, progress: RunProgress) -> None:
        fresh = progress.done - progress.resumed
        speed = fresh / progress.seconds if progress.seconds > 0 else 0.0
        told = f"{speed:,.0f} images/s"
        if progress.workers > 1:
            told += f" ({progress.workers} workers, {speed / progress.workers:,.0f} each)"
        if self._console.is_terminal:
            self._draw(progress, told)
        elif progress.done == progress.resumed and progress.resumed:
            say(f"resumed: {progress.done} of {progress.total} images were scored before")
        elif time.monotonic() - self._told >= LINE_INTERVAL:
            self._told = time.monotonic()
            left = (progress.total - progress.done) / speed if speed else math.inf
            say(f"{progress.done}/{progress.total} images, {told}, {left:,.0f} s left")

    def say(self, text: str) -> None:
        """A line for the person, above the bar."""
        self._console.print(Text(text))

    def _draw(self, progress: RunProgress, speed: str) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("scoring"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} images"),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=progress.total, speed="")
        self._bar.update(self._task, completed=progress.done, speed=speed)
