"""What a notebook shows of a run of any task: scores, what is incomplete or doubted, the weakest classes."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from gpu_eval.results import interval_words

if TYPE_CHECKING:
    from gpu_eval.results.run import Score, ScoredRun

WEAKEST = 5


def summary(run: ScoredRun) -> str:
    """An HTML fragment without scripts or style sheets; colours suit light and dark notebooks."""
    facts = run.facts
    head = "".join(f"<th>{escape(column.title)}</th>" for column in run.board_columns.values())
    body = "".join(
        f"<tr><th>{escape(protocol)}</th>"
        + "".join(
            f"<td>{_cell(run.score_of(column.scored, protocol))}</td>"
            for column in run.board_columns.values()
        )
        + "</tr>"
        for protocol in run.protocols
    )
    told = ""
    if facts["images_failed"] or facts["images_void"]:
        told = _block(
            "#d33f4c",
            f"<b>Incomplete:</b> {facts['images_failed']:,} images are not in these scores, "
            f"{facts['images_void']:,} are {run.void_means}",
        )
    for doubt in run.doubts:
        told += _block("#d33f4c", f"<b>Doubt:</b> {escape(doubt)}")
    if run.warnings:
        told += _block("#d99a2b", "<br>".join(map(escape, run.warnings)))
    return (
        f"<div><b>{escape(str(run.folder))}</b> · {facts['images_scored']:,} of {facts['images']:,} images · "
        f"labels {escape(facts['labels']['name'])}</div>{told}"
        f"<table><thead><tr><th>protocol</th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table><div><small>{escape(interval_words.of_run(run))}</small></div>"
        f"{_weakest(run)}"
    )


def _block(colour: str, text: str) -> str:
    return f'<div style="border-left:4px solid {colour};padding-left:8px">{text}</div>'


def _cell(score: Score) -> str:
    text = "NaN" if math.isnan(score.value) else f"{score.value:.4f}"
    if score.reason is not None:
        return f"<b>{text}</b><br><small>{escape(score.reason)}</small>"
    return f"<b>{text}</b><br><small>{score.low:.4f} \N{EN DASH} {score.high:.4f}</small>"


def _weakest(run: ScoredRun) -> str:
    main = next(iter(run.board_columns.values()))
    classes = [one for one in run.class_scores(main.scored, run.protocols[0]) if not math.isnan(one.value)]
    classes = sorted(classes, key=lambda one: one.value)[:WEAKEST]
    names = " · ".join(f"{_swatch(one.colour)}{escape(one.name)} {one.value:.3f}" for one in classes)
    return f"<div>weakest: {names}</div>" if names else ""


def _swatch(colour: str | None) -> str:
    if colour is None:
        return ""
    return (
        '<span style="display:inline-block;width:10px;height:10px;border:1px solid #8888;'
        f'background:{colour}"></span> '
    )
