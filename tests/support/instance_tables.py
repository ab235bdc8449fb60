"""The tables of an instance run as the tests compare them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.matching import PROTOCOLS, THRESHOLDS
from gpu_eval.results.instance_run import InstanceRun
from tests.reference import instances as reference
from tests.reference.instances import Image
from tests.support.instance_split import literal
from tests.support.numbers import close

IDD = load_instances("idd")


def matrix(run: InstanceRun, protocol: str, column: str = "ap") -> Any:
    """A column of the ap table, (classes, thresholds)."""
    rows = [row for row in run.average_precision.to_pylist() if row["protocol"] == protocol]
    assert [row["class_id"] for row in rows] == [raw for raw in IDD.ids for _ in THRESHOLDS]
    assert [row["threshold"] for row in rows] == [*THRESHOLDS] * len(IDD.ids)
    return np.array([row[column] for row in rows]).reshape(len(IDD.ids), len(THRESHOLDS))


def of_protocol(table: Any, protocol: str = "autonue") -> list[dict[str, Any]]:
    return [row for row in table.to_pylist() if row["protocol"] == protocol]


def assert_scores(run: InstanceRun, images: dict[str, Image], **options: Any) -> None:
    """The scores are those of the literal evaluator on these images."""
    for protocol in PROTOCOLS:
        rows = literal(images, protocol, **options)
        close(run.ap(protocol), reference.mean([one.ap for row in rows for one in row]))
        close(run.ap50(protocol), reference.mean([row[0].ap for row in rows]))
