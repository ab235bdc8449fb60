"""Examining predicted instances: the instance task's part of the drive."""

from __future__ import annotations

from dataclasses import replace

from gpu_eval.checkup import drive
from gpu_eval.checkup.examination import Asked, Examination, Looked, Problems, Side
from gpu_eval.checkup.list_files import look_at_lists
from gpu_eval.labels.instance_coding import FACTOR, check_factor
from gpu_eval.labels.instance_readings import choose_reading, load_readings
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.matching import AREA
from gpu_eval.tasks.instance import InstanceTask


def check(
    asked: Asked,
    labels: str,
    *,
    names: str | None = None,
    fix: str | None = None,
    threads: int | None = None,
) -> Examination:
    """What `gpu_eval.check` answers for instances of the table `labels`. Raises as `drive.check`."""
    space = load_instances(labels)
    options = asked.options
    readings = load_readings(labels, space)
    factor = int(options.get("gt_factor", FACTOR))
    check_factor(factor)
    task = InstanceTask(
        space,
        AREA,
        gt_suffix=options.get("gt_suffix"),
        list_suffix=options.get("list_suffix"),
        gt_factor=factor,
        reading=choose_reading(readings, options.get("pred_encoding")),
        readings=readings,
        void_on_error=False,
    )
    list_suffix = task.list_suffix or space.list_suffix

    def look(side: Side, problems: Problems) -> Looked:
        return look_at_lists(side, space, readings, task.reading, list_suffix, problems, threads)

    return drive.check(
        task,
        replace(asked, correctable=False),
        look,
        None,
        names=names,
        fix=fix,
        correctable=None,
        suffix_given=options.get("list_suffix"),
        preds_are_files=not asked.preds.lower().endswith(".json"),
        threads=threads,
    )
