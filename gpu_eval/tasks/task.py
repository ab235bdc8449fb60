"""A shard's work, whatever the task: count its images, commit its part, send back a tally."""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa

from gpu_eval.errors import FatalImage, UnreadableSource
from gpu_eval.scheduling import shards as sharding
from gpu_eval.scheduling.fatal_images import find_poison
from gpu_eval.scheduling.shards import Shard
from gpu_eval.tasks import process_cache as workplace
from gpu_eval.tasks.process_cache import Tools, Workplace
from gpu_eval.tasks.summary import Tally, fatal_image

Image = TypeVar("Image")
Result = TypeVar("Result")


class ShardWork(ABC, Generic[Image, Result]):
    """Everything needed to score any shard of a run, in any process that sees its files; it travels.

    `part_tables` are a part's tables in the order of writing, the last one is the commit; `told_by` those
    that a tally is made of.
    """

    workplace: Workplace
    part_tables: ClassVar[tuple[str, ...]]
    told_by: ClassVar[tuple[str, ...]]

    @abstractmethod
    def images(self, rows: pa.Table) -> list[Any]:
        """The images (with a gt each) of some rows of the manifest."""

    @abstractmethod
    def count(self, images: Sequence[Image], tools: Tools) -> list[Result]:
        """What the engine makes of each image."""

    @abstractmethod
    def is_unread(self, result: Result) -> bool:
        """Whether a file of the image could not be read, or is not the one that was listed."""

    @abstractmethod
    def given_up(self, error: FatalImage) -> Result:
        """The result of an image that is not to be touched again."""

    @abstractmethod
    def part(self, first: int, images: Sequence[Image], results: Sequence[Result]) -> dict[str, pa.Table]:
        """The part's tables; `first` is the number of the first image."""

    @abstractmethod
    def tally(self, part: dict[str, pa.Table]) -> Tally:
        """The summary of a part, from the tables `told_by`."""

    def __call__(self, shard: Shard) -> Tally:
        """Score a shard and commit its part."""
        images = self.images(workplace.rows(self.workplace, shard.first, shard.last))
        fatal = {image - shard.first for image in shard.poisoned}
        with workplace.at(self.workplace) as tools:
            results = iter(self.count([image for i, image in enumerate(images) if i not in fatal], tools))
            ordered = [
                self.given_up(fatal_image(f"{tools.gts.location}/{image.gt.name}"))
                if i in fatal
                else next(results)
                for i, image in enumerate(images)
            ]
            seconds = tools.engine.take_seconds()
        self._check_read(ordered)
        scored = time.perf_counter()
        part = self.part(shard.first, images, ordered)
        tables = {name: part[name] for name in self.part_tables}
        sharding.commit(self.workplace.folder, shard, tables, self.workplace.fingerprint)
        tally = self.tally(part)
        tally.seconds.update({**seconds, "write": time.perf_counter() - scored})
        return tally

    def _check_read(self, results: Sequence[Result]) -> None:
        """Refuse a shard of which nothing could be read: it is this process that does not see the files.

        A worker that joins late, on a machine where a folder is not mounted, would turn good images into
        error rows. Of a single image nobody can tell.
        """
        if len(results) > 1 and all(map(self.is_unread, results)):
            places = " or ".join(filter(None, (self.workplace.gts, self.workplace.preds)))
            raise UnreadableSource(
                "no image of a shard can be read here",
                file=places,
                found=f"{len(results)} images in a row without their files on {socket.gethostname()}",
                fix="see that all workers see the same files, then go on with --resume",
            )

    def try_image(self, image: int) -> None:
        """Count one image and forget it: what it does to the process is the answer."""
        images = self.images(workplace.rows(self.workplace, image, image + 1))
        with workplace.at(self.workplace) as tools:
            self.count(images, tools)

    def isolate(self, shard: Shard) -> tuple[int, ...]:
        """The images of a shard that kill the process that scores them."""
        return find_poison(self.try_image, shard.first, shard.last, known=shard.poisoned)

    def is_done(self, shard: Shard) -> bool:
        """Whether an earlier run has committed the shard. Raises CorruptRun for a foreign part."""
        here = self.workplace
        return sharding.is_committed(here.folder, shard, self.part_tables, here.fingerprint)

    def recall(self, shard: Shard) -> Tally:
        """The tally of a shard that an earlier run has committed."""
        folder = self.workplace.folder
        return self.tally({name: sharding.read_parts(folder, name, [shard]) for name in self.told_by})
