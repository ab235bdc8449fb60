"""What a notebook shows of a run: its scores, what is incomplete, the weakest classes."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from gpu_eval.page import findings

if TYPE_CHECKING:
    from gpu_eval.results.semantic_run import Run

WEAKEST = 5


def summary(run: Run) -> str:
    """An HTML fragment without scripts or style sheets; colours suit light and dark notebooks."""
    facts = run.facts
    rows = {(row["protocol"], row["level"]): row for row in run.levels.to_pylist()}
    head = "".join(
        f"<th>level {level.number}<br><small>{len(level.names)} classes</small></th>"
        for level in run.labels.levels
    )
    body = "".join(
        f"<tr><th>{escape(protocol)}</th>"
        + "".join(f"<td>{_cell(rows[protocol, level.number])}</td>" for level in run.labels.levels)
        + "</tr>"
        for protocol in run.labels.protocols
    )
    told = ""
    if facts["images_failed"] or facts["images_void"]:
        told = (
            '<div style="border-left:4px solid #d33f4c;padding-left:8px"><b>Incomplete:</b> '
            f"{facts['images_failed']:,} images are not in these scores, {facts['images_void']:,} are "
            "counted as predicted void</div>"
        )
    return (
        f"<div><b>{escape(str(run.folder))}</b> · {facts['images_scored']:,} of {facts['images']:,} images · "
        f"labels {escape(facts['labels']['name'])}</div>{told}"
        f"<table><thead><tr><th>mIoU</th>{head}</tr></thead><tbody>{body}</tbody></table>{_weakest(run)}"
    )


def _cell(row: dict[str, float]) -> str:
    text = f"<b>{row['miou']:.4f}</b>"
    low, high = row.get("miou_low", math.nan), row.get("miou_high", math.nan)
    if low is not None and high is not None and not math.isnan(low + high):
        text += f"<br><small>{low:.4f} \N{EN DASH} {high:.4f}</small>"
    return text


def _weakest(run: Run) -> str:
    level, protocol = run.labels.levels[0].number, run.labels.protocols[0]
    classes = [
        row
        for row in run.classes.to_pylist()
        if row["level"] == level and row["protocol"] == protocol and not math.isnan(row["iou"])
    ]
    colours = findings.colours(run.labels, level)
    names = " · ".join(
        f'<span style="display:inline-block;width:10px;height:10px;border:1px solid #8888;'
        f'background:{colours[row["class_id"]]}"></span> {escape(row["class_name"])} {row["iou"]:.3f}'
        for row in sorted(classes, key=lambda row: row["iou"])[:WEAKEST]
    )
    return f"<div>weakest: {names}</div>" if names else ""
