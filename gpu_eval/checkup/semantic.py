"""Examining label maps: the semantic task's part of the drive."""

from __future__ import annotations

from collections.abc import Collection

from gpu_eval.checkup import drive
from gpu_eval.checkup.examination import Asked, Examination, Looked, Problems, Side
from gpu_eval.checkup.label_files import look_through
from gpu_eval.checkup.label_values import look_at_maps
from gpu_eval.engines.resize import parse_resolution
from gpu_eval.inputs.source import Source
from gpu_eval.labels import LabelSpace
from gpu_eval.tasks.semantic import SemanticTask


def check(
    asked: Asked,
    space: LabelSpace,
    *,
    names: str | None = None,
    fix: str | None = None,
    threads: int | None = None,
) -> Examination:
    """What `gpu_eval.check` answers for label maps of `space`. Raises as `drive.check`."""
    options = asked.options
    task = SemanticTask(
        space,
        gt_encoding=space.encoding(options.get("gt_encoding", space.default_encoding)).name,
        pred_encoding=space.encoding(options.get("pred_encoding", space.default_encoding)).name,
        resolution=parse_resolution(space.resolution),
        gt_suffix=options.get("gt_suffix"),
        pred_suffix=options.get("pred_suffix"),
        void_on_error=False,
    )
    pred_suffix = task.pred_suffix or space.pred_suffix

    def look(side: Side, problems: Problems) -> Looked:
        return look_at_maps(side, space, task.pred_encoding, pred_suffix, task.resolution, problems, threads)

    def look_at_gts(source: Source, names: Collection[str], problems: Problems) -> None:
        maps = [entry for entry in source.entries() if entry.name in names]
        look_through(source, maps, space, task.gt_encoding, problems, threads, is_gt=True)

    return drive.check(
        task,
        asked,
        look,
        look_at_gts,
        names=names,
        fix=fix,
        correctable=drive.Correctable(space, task.gt_suffix, pred_suffix, task.pred_encoding),
        suffix_given=options.get("pred_suffix"),
        preds_are_files=True,
        threads=threads,
    )
