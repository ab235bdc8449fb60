"""The figures of a run, as Altair charts: of notebooks (`Run.plot_*`) and of the HTML report.

The only file that imports Altair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_eval.errors import OptionError
from gpu_eval.page import findings

if TYPE_CHECKING:
    from altair import LayerChart

    from gpu_eval.results.semantic_run import Run

INSTALL = "pip install 'gpu-eval[html]'"
HISTOGRAM_BINS = 32
# Numbers are written into the cells of matrices of at most this many classes.
WRITTEN_CELLS = 18


@dataclass(frozen=True)
class Palette:
    """The colours that do not come from the classes: text, lines, right, wrong and near misses."""

    text: str
    muted: str
    good: str
    bad: str
    near: str
    edge: str
    on_strong: str


NOTEBOOK = Palette("#333333", "#777777", "#15857a", "#d64550", "#d99a2b", "#88888866", "#ffffff")
# CSS decides, so that light, dark and print need no second drawing.
PAGE = Palette(
    "var(--fg)", "var(--muted)", "var(--good)", "var(--bad)", "var(--near)", "var(--edge)", "var(--on)"
)


def load() -> Any:
    """The altair module. Raises OptionError where it is not installed."""
    try:
        import altair
    except ImportError as error:
        raise OptionError("figures need Altair, which is not installed", fix=INSTALL) from error
    return altair


def classes(run: Run, level: int, protocol: str, palette: Palette = NOTEBOOK) -> LayerChart:
    """Bars of IoU per class in the benchmark's colours, best first, with intervals where the run has them."""
    alt = load()
    rows = class_rows(run, level, protocol)
    if not rows:
        raise OptionError(
            "the run has no such protocol", found=protocol, expected=" or ".join(run.labels.protocols)
        )
    colours = findings.colours(run.labels, run.labels.level(level).number)
    drawn = sorted(rows, key=lambda row: (row["iou"] is None, -(row["iou"] or 0), row["class_id"]))
    values = [
        {
            "class": row["class_name"],
            "iou": row["iou"],
            "label": "absent" if row["iou"] is None else f"{row['iou']:.3f}",
            "low": row["iou_low"],
            "high": row["iou_high"],
            "interval": row["iou_reason"]
            if row["iou_low"] is None
            else f"{row['iou_low']:.4f} to {row['iou_high']:.4f}",
            "precision": row["precision"],
            "recall": row["recall"],
            "colour": colours[row["class_id"]],
        }
        for row in drawn
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("class:N", sort=None, title=None, axis=alt.Axis(labelLimit=150, domain=False, ticks=False))
    )
    x = alt.X("iou:Q", title="IoU", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5, format=".1f"))
    tooltip = [
        alt.Tooltip("class:N"),
        alt.Tooltip("iou:Q", title="IoU", format=".4f"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("precision:Q", format=".4f"),
        alt.Tooltip("recall:Q", format=".4f"),
    ]
    bars = base.mark_bar(height=13, stroke=palette.edge, cornerRadiusEnd=2).encode(
        x=x, color=alt.Color("colour:N", scale=None), tooltip=tooltip
    )
    text = base.mark_text(align="left", dx=8, fontSize=11.5, color=palette.text).encode(
        x=alt.value("width"), text="label:N"
    )
    layers = [bars, text]
    if any(value["low"] is not None for value in values):
        span = base.transform_filter("isValid(datum.low)").encode(
            x=alt.X("low:Q", title="IoU"), x2="high:Q", tooltip=tooltip
        )
        layers += [
            span.mark_rule(strokeWidth=4, color="#ffffff", opacity=0.75),
            span.mark_rule(strokeWidth=1.75, color="#101418"),
        ]
    mean = run.miou(level, protocol)
    if not np.isnan(mean):
        line = alt.Chart(alt.Data(values=[{"miou": round(mean, 4)}]))
        layers.append(
            line.mark_rule(strokeDash=[4, 3], color=palette.muted).encode(
                x="miou:Q", tooltip=[alt.Tooltip("miou:Q", title="mIoU", format=".4f")]
            )
        )
    figure: LayerChart = _finished(
        alt.layer(*layers),
        f"IoU of the {len(values)} classes of level {level} under the {protocol} protocol, best first",
        height=20 * len(values),
        width=460,
    )
    return figure


def class_rows(run: Run, level: int, protocol: str) -> list[dict[str, Any]]:
    """The rows of the classes table of one level, with None for NaN and for columns the run lacks."""
    rows = []
    for row in run.classes.to_pylist():
        if row["level"] == level and row["protocol"] == protocol:
            rows.append({key: none_for_nan(value) for key, value in row.items()})
    return rows


def none_for_nan(value: Any) -> Any:
    """JSON has no NaN; floats are rounded to six digits, more than anyone reads."""
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 6)
    return value


def confusion(run: Run, level: int, palette: Palette = NOTEBOOK) -> LayerChart:
    """The confusion matrix as a heat map of shares of each gt row; rows gt, columns prediction.

    What is right has one hue and mistakes another; strength is the share to the power of 0.4, so that
    small mistakes are seen.
    """
    alt = load()
    matrix = run.confusion(level)
    names = _distinct([*run.labels.level(level).names, "void"])
    share = findings.shares(matrix)
    n = len(names) - 1
    values = [
        {
            "gt": names[i],
            "pred": names[j],
            "pixels": int(matrix[i, j]),
            "share": round(float(share[i, j]), 6),
            "right": bool(i == j),
        }
        for i, j in zip(*np.nonzero(matrix[:n]), strict=True)
    ]
    written = len(names) <= WRITTEN_CELLS
    step = 21 if not written else 34 if n > 9 else 58
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(
            "pred:N", sort=None, scale=alt.Scale(domain=names, paddingInner=0.08), title="prediction",
            axis=alt.Axis(labelAngle=-45, labelLimit=150, orient="top", domain=False, ticks=False),
        ),
        y=alt.Y(
            "gt:N", sort=None, scale=alt.Scale(domain=names[:n], paddingInner=0.08), title="ground truth",
            axis=alt.Axis(labelLimit=150, domain=False, ticks=False),
        ),
    )  # fmt: skip
    cells = base.mark_rect(cornerRadius=2).encode(
        color=alt.condition("datum.right", alt.value(palette.good), alt.value(palette.bad)),
        fillOpacity=alt.FillOpacity(
            "share:Q", scale=alt.Scale(type="pow", exponent=0.4, domain=[0, 1], range=[0, 1]), legend=None
        ),
        tooltip=[
            alt.Tooltip("gt:N", title="ground truth"),
            alt.Tooltip("pred:N", title="prediction"),
            alt.Tooltip("share:Q", title="share of the row", format=".2%"),
            alt.Tooltip("pixels:Q", format=","),
        ],
    )
    layers = [cells]
    if written:
        layers.append(
            base.transform_filter("datum.share >= 0.005")
            .mark_text(fontSize=11)
            .encode(
                text=alt.Text("share:Q", format=".0%"),
                color=alt.condition(
                    "datum.share > 0.5", alt.value(palette.on_strong), alt.value(palette.text)
                ),
            )
        )
    figure: LayerChart = _finished(
        alt.layer(*layers),
        f"Confusion matrix of level {level}: each row is a ground-truth class, shares of the row",
        height=alt.Step(step - 2),
        width=alt.Step(step),
    )
    return figure


def reach(run: Run, level: int, palette: Palette = NOTEBOOK) -> LayerChart | None:
    """Of each class's mistakes, which share stays inside the parent class; None at the coarsest level."""
    alt = load()
    parents = findings.parents(run.labels, level)
    if parents is None:
        return None
    found = findings.reach(run.confusion(level), parents)
    names = _distinct(run.labels.level(level).names)
    position = [v.number for v in run.labels.levels].index(level)
    above = run.labels.levels[position + 1].names
    kinds = ("same parent", "another parent", "void")
    values = []
    order = sorted(range(len(names)), key=lambda c: (parents[c], c))
    for c in order:
        pixels = (int(found.inside[c]), int(found.outside[c]), int(found.void[c]))
        for rank, (kind, count) in enumerate(zip(kinds, pixels, strict=True)):
            if count:
                values.append(
                    {
                        "class": names[c],
                        "parent": above[parents[c]] if parents[c] >= 0 else "",
                        "mistakes": kind,
                        "rank": rank,
                        "pixels": count,
                        "share": round(count / sum(pixels), 6),
                    }
                )
    y = alt.Y(
        "class:N",
        sort=None,
        scale=alt.Scale(domain=[names[c] for c in order]),
        title=None,
        axis=alt.Axis(labelLimit=150, domain=False, ticks=False),
    )
    bars = (
        alt.Chart(alt.Data(values=values))
        .mark_bar(height=13)
        .encode(
            y=y,
            x=alt.X(
                "share:Q",
                stack="zero",
                title="share of the class's mistaken pixels",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", tickCount=5),
            ),
            color=alt.Color(
                "mistakes:N",
                scale=alt.Scale(domain=list(kinds), range=[palette.near, palette.bad, palette.muted]),
                legend=alt.Legend(title=None, orient="top") if palette is not PAGE else None,
            ),
            order="rank:Q",
            tooltip=[
                alt.Tooltip("class:N"),
                alt.Tooltip("parent:N", title="parent class"),
                alt.Tooltip("mistakes:N", title="called a class of"),
                alt.Tooltip("share:Q", format=".1%"),
                alt.Tooltip("pixels:Q", format=","),
            ],
        )
    )
    # A parent stands once, beside the first of its children; an only child needs none.
    firsts = [c for i, c in enumerate(order) if i == 0 or parents[order[i - 1]] != parents[c]]
    beside = [{"class": names[c], "parent": above[parents[c]]} for c in firsts if not found.only_child[c]]
    text = (
        alt.Chart(alt.Data(values=beside))
        .mark_text(align="left", dx=8, fontSize=11, color=palette.muted, limit=130)
        .encode(y=y, x=alt.value("width"), text="parent:N")
        .properties(name="beside")
    )
    figure: LayerChart = _finished(
        alt.layer(bars, text),
        f"Mistakes of each level-{level} class: inside its parent class, outside of it, or void",
        height=20 * len(names),
        width=460,
    )
    return figure


def histogram(run: Run, level: int, palette: Palette = NOTEBOOK) -> LayerChart:
    """How the mIoU of single images is distributed, over the images that were scored."""
    alt = load()
    scores = run.images[f"miou_level{level}"].drop_null().to_numpy()
    scores = scores[~np.isnan(scores)]
    low, high = (0.0, 1.0) if scores.size == 0 else (float(scores.min()), float(scores.max()))
    low, high = np.floor(low * 20) / 20, max(np.ceil(high * 20) / 20, np.floor(low * 20) / 20 + 0.05)
    bins = min(HISTOGRAM_BINS, max(6, int(np.sqrt(scores.size)) * 2))
    counts, edges = np.histogram(scores, bins=bins, range=(low, high))
    values = [
        {"from": round(float(a), 5), "to": round(float(b), 5), "images": int(count)}
        for a, b, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    bars = (
        alt.Chart(alt.Data(values=values))
        .mark_bar(color=palette.good, binSpacing=1)
        .encode(
            x=alt.X(
                "from:Q", bin="binned", title="mIoU of the image", scale=alt.Scale(zero=False, nice=False),
                axis=alt.Axis(format=".2f", tickCount=6),
            ),
            x2="to:Q",
            y=alt.Y("images:Q", axis=alt.Axis(tickMinStep=1, tickCount=5, format="d")),
            tooltip=[
                alt.Tooltip("from:Q", format=".3f"),
                alt.Tooltip("to:Q", format=".3f"),
                alt.Tooltip("images:Q"),
            ],
        )
    )  # fmt: skip
    layers = [bars]
    if scores.size:
        median = alt.Chart(alt.Data(values=[{"median": round(float(np.median(scores)), 5)}]))
        layers.append(
            median.mark_rule(strokeDash=[4, 3], strokeWidth=1.5, color=palette.text).encode(
                x="median:Q", tooltip=[alt.Tooltip("median:Q", format=".4f")]
            )
        )
    figure: LayerChart = _finished(
        alt.layer(*layers), f"Distribution of mIoU per image at level {level}", height=210, width=460
    )
    return figure


def _finished(chart: Any, description: str, **size: Any) -> Any:
    return chart.properties(description=description, **size)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names for the axis of a chart, on which two classes of one name would become one."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct


def page_spec(chart: Any, *, fill: bool = True) -> Mapping[str, Any]:
    """The Vega-Lite of a chart for the page: no theme of its own, and `fill`ing its container's width."""
    spec: dict[str, Any] = chart.to_dict()
    for key in ("$schema", "config"):
        spec.pop(key, None)
    if fill:
        spec["width"] = "container"
    return spec
