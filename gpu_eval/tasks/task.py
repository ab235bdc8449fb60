"""What a task is: the contract that every way of scoring a split fulfils, and the work on a shard of it.

A task is a small frozen value with the options of a run: it travels to the processes that score.
`docs/adding_a_task.md` walks through its methods.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa

from gpu_eval.doctor.doubt import Doubt, Sight
from gpu_eval.engines.engine import Job
from gpu_eval.errors import FatalImage, InputError, UnreadableSource
from gpu_eval.inputs.source import Source
from gpu_eval.run_folder import parts
from gpu_eval.run_folder.schema import RunTables
from gpu_eval.scheduling.fatal_images import find_fatal_images
from gpu_eval.scheduling.shards import Shard
from gpu_eval.tasks.process_cache import RunContext, resources
from gpu_eval.tasks.summary import Summary, fatal_image

Image = TypeVar("Image")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Listing:
    """A split that was listed: the manifest of what is to be scored, what is wrong, and what was assumed.

    `preds_are_files` is False where the predictions stand in the manifest itself. `hint` is what to do where
    most predictions are missing, if anything is known. `seen` is what listing saw besides, for
    `Task.examine`.
    """

    manifest: pa.Table
    problems: Sequence[InputError]
    notes: Sequence[str]
    preds_are_files: bool = True
    hint: str | None = None
    seen: Any = None

    @property
    def images(self) -> int:
        return int(self.manifest.num_rows)


class Task(ABC, Generic[Image, Result]):
    """One way of scoring a split, with its options.

    `word` is the task's in the registry. `suffix_option` is what to recommend where most predictions are
    missing. `decoders` are those that its engines name; `summarized` the tables of a part that a summary is
    made of.
    """

    word: ClassVar[str]
    suffix_option: ClassVar[str]
    decoders: ClassVar[tuple[str, ...]]
    summarized: ClassVar[tuple[str, ...]]

    # --- the split ------------------------------------------------------------------------------------

    @abstractmethod
    def list_split(self, gts: str, preds: str, open_source: Callable[[str], Source]) -> Listing:
        """What lies at these places, paired. Raises InputError where nothing can be scored."""

    def examine(self, listing: Listing, sight: Sight) -> Sequence[Doubt]:  # noqa: ARG002
        """What looks like a mix-up in a few images of the split, looked at before it is scored."""
        return ()

    @abstractmethod
    def decides(self) -> Mapping[str, Any]:
        """Everything but the files that decides the numbers, for run.json and the fingerprint."""

    @abstractmethod
    def labels(self) -> Mapping[str, Any]:
        """The classes, for run.json: enough to compute every score again."""

    # --- a shard --------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def tables(self) -> RunTables:
        """All tables of its runs."""

    @abstractmethod
    def images(self, rows: pa.Table) -> list[Any]:
        """The images (with a gt each) of some rows of the manifest."""

    @property
    @abstractmethod
    def job(self) -> Job[Image, Result]:
        """What an engine must know."""

    @abstractmethod
    def is_unread(self, result: Result) -> bool:
        """Whether a file of the image could not be read, or is not the one that was listed."""

    @abstractmethod
    def given_up(self, error: FatalImage) -> Result:
        """The result of an image that is not to be touched again."""

    @abstractmethod
    def part(
        self, first: int, images: Sequence[Image], results: Sequence[Result], preds: str | None
    ) -> dict[str, pa.Table]:
        """The part's tables; `first` is the number of the first image, `preds` where predictions lie."""

    @abstractmethod
    def summary(self, part: Mapping[str, pa.Table]) -> Summary:
        """The summary of a part, from the tables `summarized`."""

    # --- the whole run --------------------------------------------------------------------------------

    def told(self, summary: Summary) -> Mapping[str, Any]:
        """What run.json tells of a summary besides what it tells of every task's."""
        return {"decoders": {name: summary.counts[f"decoder {name}"] for name in self.decoders}}


@dataclass(frozen=True)
class ShardWork(Generic[Image, Result]):
    """Everything needed to score any shard of a run, in any process that sees its files; it travels."""

    task: Task[Image, Result]
    context: RunContext

    def __call__(self, shard: Shard) -> Summary:
        """Score a shard and commit its part."""
        images = self._images(shard.first, shard.last)
        fatal = {image - shard.first for image in shard.fatal}
        with resources(self.context) as here:
            safe = [image for i, image in enumerate(images) if i not in fatal]
            results = iter(here.engine.count(self.task.job, safe, here.gts, here.preds))
            ordered = [
                self.task.given_up(fatal_image(f"{here.gts.location}/{image.gt.name}"))
                if i in fatal
                else next(results)
                for i, image in enumerate(images)
            ]
            seconds = here.engine.take_seconds()
        self._check_read(ordered)
        scored = time.perf_counter()
        part = self.task.part(shard.first, images, ordered, self.context.preds)
        tables = {name: part[name] for name in self.task.tables.parts}
        parts.commit(self.context.folder, shard.number, tables, self.context.fingerprint)
        summary = self.task.summary(part)
        summary.seconds.update({**seconds, "write": time.perf_counter() - scored})
        return summary

    def _images(self, first: int, last: int) -> list[Any]:
        return self.task.images(self.context.manifest(first, last))

    def _check_read(self, results: Sequence[Result]) -> None:
        """Refuse a shard of which nothing could be read: it is this process that does not see the files.

        A worker that joins late, on a machine where a folder is not mounted, would turn good images into
        error rows. Of a single image nobody can tell.
        """
        if len(results) > 1 and all(map(self.task.is_unread, results)):
            places = " or ".join(filter(None, (self.context.gts, self.context.preds)))
            raise UnreadableSource(
                "no image of a shard can be read here",
                file=places,
                found=f"{len(results)} images in a row without their files on {socket.gethostname()}",
                fix="see that all workers see the same files, then go on with --resume",
            )

    def try_image(self, image: int) -> None:
        """Count one image and forget it: what it does to the process is the answer."""
        images = self._images(image, image + 1)
        with resources(self.context) as here:
            here.engine.count(self.task.job, images, here.gts, here.preds)

    def isolate(self, shard: Shard) -> tuple[int, ...]:
        """The images of a shard that kill the process that scores them."""
        return find_fatal_images(self.try_image, shard.first, shard.last, known=shard.fatal)

    def is_done(self, shard: Shard) -> bool:
        """Whether an earlier run has committed the shard. Raises CorruptRun for a foreign part."""
        here = self.context
        return parts.is_committed(here.folder, shard.number, list(self.task.tables.parts), here.fingerprint)

    def recall(self, shard: Shard) -> Summary:
        """The summary of a shard that an earlier run has committed."""
        return self.task.summary(parts.read(self.context.folder, shard.number, self.task.summarized))
