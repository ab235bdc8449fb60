"""The report of a run for eyes: one HTML file that opens offline.

Computed from the run's tables; pictures come finished from outside. The page's frame, style and behaviour
lie in `page/`. Names and keys come from files of others: everything is escaped, and a content security
policy forbids the page to load anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape
from string import Template
from typing import Any

import numpy as np
import pyarrow as pa

from gpu_eval.errors import OptionError
from gpu_eval.metrics.confusion import Counts
from gpu_eval.metrics.semantic import PROTOCOLS
from gpu_eval.page import charts as plots
from gpu_eval.page import findings
from gpu_eval.page import worst_images as gallery
from gpu_eval.page.blocks import alerts, asset, subtitle, table
from gpu_eval.page.words import DASH, SCORE_DIGITS, class_name, millions, number, percent
from gpu_eval.page.worst_images import Pictures
from gpu_eval.results.interval_words import worth
from gpu_eval.results.semantic_run import Run
from gpu_eval.results.units import sentence

TOP_MISTAKES = 12
REACH_KEY = (
    '<p class="muted">A class\'s mistaken pixels were called '
    '<span class="key"><i class="near"></i>a sibling</span> '
    '<span class="key"><i class="bad"></i>a class of another parent</span> '
    '<span class="key"><i class="quiet"></i>void</span>. Beside the bars: the parent.</p>'
)
# More would make the page slow to open; SQL has them all.
MOST_ROWS = 20_000
# A class with less of the ground truth than this is no top mistake, however often it is missed.
LEAST_SHARE = 1e-5


def load_bundler() -> Any:
    """The vl_convert module. Raises OptionError where it, or Altair, is not installed."""
    plots.load()
    try:
        import vl_convert
    except ImportError as error:
        raise OptionError(
            "the report needs vl-convert-python, which is not installed", fix=plots.INSTALL
        ) from error
    return vl_convert


def page(run: Run, pictures: Pictures | None = None) -> str:
    """The text of the page. Raises OptionError where the plotting libraries are not installed."""
    vl_convert = load_bundler()

    facts = run.facts
    finest = run.labels.levels[0].number
    name = "/".join(run.folder.resolve().parts[-2:]).lstrip("/")
    return Template(asset("report.html")).substitute(
        title=escape(f"{name}: mIoU {number(run.miou(finest, run.labels.protocols[0]))}"),
        heading=escape(name),
        subtitle=subtitle(facts),
        style=asset("report.css"),
        alerts=_alerts(run),
        switches=_switches(run),
        cards=_cards(run),
        protocols=_protocols(run),
        class_tables=_class_tables(run),
        mistakes=_mistakes(run),
        reach=_reach(run),
        images_count=f"{facts['images']:,}",
        listed=f"The table lists the worst {MOST_ROWS:,}." if facts["images"] > MOST_ROWS else "",
        worst=gallery.section(run, pictures),
        provenance=_provenance(run),
        data=_json(_data(run)),
        vega=vl_convert.javascript_bundle().replace("</script", "<\\/script"),
        script=asset("report.js"),
    )


def _json(value: object) -> str:
    """JSON that may stand in a script element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _interval(row: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """The interval of a column, where the run has one."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return None
    return low, high


def _alerts(run: Run) -> str:
    """Doubts and incompleteness first, then warnings and notes; empty where there is nothing to tell."""
    facts = run.facts
    warnings = list(run.warnings)
    if facts["warning_count"] > len(warnings):
        warnings.append(f"{facts['warning_count']:,} images have warnings; the table of images names them.")
    for side, word in (("gt", "ground-truth"), ("pred", "predicted")):
        if facts[f"{side}_outside"]:
            warnings.append(f"{facts[f'{side}_outside']:,} {word} pixels are outside the encoding: void.")
    notes = list(facts["notes"])
    if facts["decoders"].get("pillow"):
        notes.append(
            f"{facts['decoders']['pillow']:,} images were decoded by Pillow (16-bit, interlaced, ...)"
        )
    return alerts(run, warnings, notes)


def _switches(run: Run) -> str:
    groups = [("level", "Level", [(str(v.number), f"L{v.number}", f"{len(v.names)} classes")
                                  for v in run.labels.levels])]  # fmt: skip
    groups.append(("protocol", "Protocol", [(name, name, "") for name in run.labels.protocols]))
    html = []
    for group, title, options in groups:
        radios = "".join(
            f'<label><input type="radio" name="{group}" value="{escape(value)}"'
            f"{' checked' if i == 0 else ''}><span>{escape(text)}"
            f"{f' <small>{escape(hint)}</small>' if hint else ''}</span></label>"
            for i, (value, text, hint) in enumerate(options)
        )
        html.append(f"<fieldset><legend>{title}</legend><div>{radios}</div></fieldset>")
    return "".join(html)


def _cards(run: Run) -> str:
    rows = run.levels.to_pylist()
    cards = []
    for level in run.labels.levels:
        of_level = {row["protocol"]: row for row in rows if row["level"] == level.number}
        first, *others = [of_level[name] for name in run.labels.protocols]
        span = _interval(first, "miou")
        lines = "".join(
            f"<p><span>{escape(row['protocol'])}</span> <b>{number(row['miou'])}</b>"
            f"<small>{_span(_interval(row, 'miou')) or ''}</small></p>"
            for row in others
        )
        cards.append(
            f'<article class="card"><h3>Level {level.number} <small>{len(level.names)} classes</small></h3>'
            f'<p class="big">{number(first["miou"])}</p>'
            f'<p class="span">{_span(span) or escape(first["miou_reason"])}{_absent(first)}</p>'
            f"{_scale(first['miou'], span)}"
            f'<div class="others">{lines}</div></article>'
        )
    return "".join(cards)


def _span(span: tuple[float, float] | None) -> str:
    return f"{span[0]:.4f} {DASH} {span[1]:.4f}" if span else ""


def _absent(row: Mapping[str, Any]) -> str:
    absent = row["classes"] - row["classes_in_mean"]
    return f" · {absent} absent" if absent else ""


def _scale(miou: float, span: tuple[float, float] | None) -> str:
    """A line from 0 to 1 with the interval and the mIoU on it; for eyes only, the numbers stand beside."""
    if math.isnan(miou):
        return ""
    low, high = span or (miou, miou)
    return (
        '<div class="scale" aria-hidden="true">'
        f'<i style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>'
        f'<b style="left:{100 * miou:.2f}%"></b></div>'
    )


def _protocols(run: Run) -> str:
    meanings = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(PROTOCOLS[name])}.</dd></div>"
        for name in run.labels.protocols
    )
    head = ("protocol", "level", "mIoU", "95 % interval", "classes in mean", "pixel accuracy",
            "mean accuracy", "frequency-weighted IoU")  # fmt: skip
    rows = [
        [
            row["protocol"],
            str(row["level"]),
            number(row["miou"]),
            _span(_interval(row, "miou")) or row["miou_reason"],
            f"{row['classes_in_mean']} of {row['classes']}",
            *(number(row[name]) for name in ("pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")),
        ]
        for row in run.levels.to_pylist()
    ]
    how = _how_intervals(run)
    return (
        f'<dl class="protocols">{meanings}</dl><p class="muted">{escape(how)}</p>'
        f"<details><summary>All levels and accuracies</summary>{table(head, rows, text=1)}</details>"
    )


def _how_intervals(run: Run) -> str:
    told = run.intervals
    if told is None:
        return "The run has no intervals: they were not asked for."
    missing = [row["miou_reason"] for row in run.levels.to_pylist()]
    if all(missing):
        return f"The run has no intervals: {missing[0]}."
    others = f"other {told['unit_kind']} of the same kind"
    return f"{sentence(told)}{worth(run)}. They say how far a score would move with {others}."


def _per_level(blocks: Mapping[int, str]) -> str:
    """Blocks of which the switch shows one; without scripts, the finest."""
    return "".join(
        f'<div data-level="{number}"{"" if i == 0 else " hidden"}>{block}</div>'
        for i, (number, block) in enumerate(blocks.items())
    )


def _class_tables(run: Run) -> str:
    head = (
        "class",
        *(f"IoU {name}" for name in run.labels.protocols),
        *("95 % interval", "precision", "recall", "TP px", "FP px"),
        *("FN px", "most often called"),
    )
    blocks = {}
    for level in run.labels.levels:
        of_protocol = {
            name: {row["class_id"]: row for row in plots.class_rows(run, level.number, name)}
            for name in run.labels.protocols
        }
        matrix = run.confusion(level.number)
        names = [*level.names, "void"]
        rows = []
        for c, name in enumerate(level.names):
            first = of_protocol[run.labels.protocols[0]][c]
            called = findings.top_mistakes(_only_row(matrix, c), 1)
            rows.append(
                [
                    name,
                    *(number(of_protocol[protocol][c]["iou"]) for protocol in run.labels.protocols),
                    _span(_interval(first, "iou")) or first["iou_reason"],
                    number(first["precision"]),
                    number(first["recall"]),
                    *(f"{first[count]:,}" for count in ("tp", "fp", "fn")),
                    f"{names[called[0].pred]} ({percent(called[0].share)})" if called else DASH,
                ]
            )
        blocks[level.number] = table(head, rows, text=1)
    return _per_level(blocks)


def _only_row(matrix: Counts, row: int) -> Counts:
    only = np.zeros_like(matrix)
    only[row] = matrix[row]
    return only


def _mistakes(run: Run) -> str:
    blocks = {}
    for level in run.labels.levels:
        names, colours = [*level.names, "void"], [*findings.colours(run.labels, level.number), "#000000"]
        matrix = run.confusion(level.number)
        lines = [
            f"<li><b>{percent(found.share)}</b> of {class_name(names, colours, found.gt)} pixels were "
            f"{'left as ' if found.pred == len(names) - 1 else 'called '}"
            f"{class_name(names, colours, found.pred)} <small>{millions(found.pixels)} px</small></li>"
            for found in findings.top_mistakes(matrix, TOP_MISTAKES, LEAST_SHARE)
        ]
        blocks[level.number] = (
            f'<ol class="mistakes">{"".join(lines)}</ol>' if lines else "<p>No mistakes.</p>"
        )
    return _per_level(blocks)


def _reach(run: Run) -> str:
    blocks = {}
    for level in run.labels.levels:
        parents = findings.parents(run.labels, level.number)
        if parents is None:
            blocks[level.number] = "<p>This is the coarsest level: its classes have no parents.</p>"
            continue
        found = findings.reach(run.confusion(level.number), parents)
        inside, outside, void = (int(part.sum()) for part in (found.inside, found.outside, found.void))
        total = inside + outside + void
        if not total:
            blocks[level.number] = "<p>No mistakes.</p>"
            continue
        alone = [name for name, only in zip(level.names, found.only_child, strict=True) if only]
        text = (
            f"<p><b>{percent(inside / total)}</b> of the mistaken pixels are near misses: they got another "
            f"class of the same level-{level.number - 1} parent. <b>{percent(outside / total)}</b> went to "
            f"another parent, <b>{percent(void / total)}</b> to void.</p>"
        )
        if alone:
            text += (
                f'<p class="muted">No near miss is possible for {escape(", ".join(alone))}: '
                "alone in the parent class.</p>"
            )
        text += REACH_KEY
        blocks[level.number] = text
    return _per_level(blocks)


def _provenance(run: Run) -> str:
    facts = run.facts
    decides = facts["decides"]
    size = decides["resolution"]
    lines = [
        ("ground truth", facts["gts"]),
        ("predictions", facts["preds"]),
        ("labels", f"{facts['labels']['name']} ({str(facts['labels']['digest'])[:12]})"),
        ("encodings", f"ground truth {decides['gt_encoding']}, predictions {decides['pred_encoding']}"),
        ("resolution", size if isinstance(size, str) else f"{size[1]}x{size[0]}, nearest"),
        ("engine", f"{facts['engine']['name']}: {facts['engine']['device']}"),
        ("gpu-eval", decides["version"]),
        ("scored", facts["created"]),
        ("fingerprint", facts["fingerprint"]),
        ("run folder", str(run.folder)),
    ]
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in lines)
    return f'<dl class="facts">{cells}</dl>'


def _data(run: Run) -> dict[str, Any]:
    """What the scripts need: chart specs, and the table of images as columns."""
    charts: dict[str, Any] = {"classes": {}, "confusion": {}, "reach": {}, "histogram": {}}
    for level in run.labels.levels:
        number = level.number
        for protocol in run.labels.protocols:
            chart = plots.classes(run, number, protocol, plots.PAGE)
            charts["classes"][f"{number} {protocol}"] = plots.page_spec(chart)
        charts["confusion"][number] = plots.page_spec(plots.confusion(run, number, plots.PAGE), fill=False)
        charts["histogram"][number] = plots.page_spec(plots.histogram(run, number, plots.PAGE))
        reach = plots.reach(run, number, plots.PAGE)
        charts["reach"][number] = plots.page_spec(reach) if reach is not None else None
    return {"charts": charts, "images": _image_columns(run)}


def _table_rows(run: Run) -> pa.Table:
    """The images the page lists: all, or of very many those that failed and then the worst."""
    images = run.images
    if images.num_rows <= MOST_ROWS:
        return images
    scores = images[f"miou_level{run.labels.levels[0].number}"].to_numpy(zero_copy_only=False)
    order = np.argsort(np.nan_to_num(scores.astype(np.float64), nan=-1.0), kind="stable")
    return images.take(pa.array(np.sort(order[:MOST_ROWS])))


def _image_columns(run: Run) -> dict[str, Any]:
    images = _table_rows(run)
    named = [(f"miou_level{v.number}", f"mIoU L{v.number}") for v in run.labels.levels]
    named += [("pixel_accuracy", "accuracy"), ("gt_void_share", "gt void"), ("pred_void_share", "pred. void")]
    columns: list[dict[str, Any]] = [{"title": "image", "values": images["key"].to_pylist()}]
    for name, title in named:
        values = images[name].to_numpy(zero_copy_only=False).astype(np.float64)
        rounded = [None if math.isnan(value) else round(value, SCORE_DIGITS) for value in values.tolist()]
        columns.append({"title": title, "digits": SCORE_DIGITS, "values": rounded})
    remarks = []
    for status, errors, warning in zip(
        *(images[name].to_pylist() for name in ("status", "errors", "warning")), strict=True
    ):
        kinds = [error["kind"] for error in errors]
        words = [word for word in (None if status == "ok" else status, *kinds, warning) if word]
        remarks.append(": ".join(words))
    if any(remarks):
        columns.append({"title": "remark", "values": remarks})
    return {"columns": columns, "sort": 1}
