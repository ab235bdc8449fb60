"""A leaderboard for people: its cells as text, and the files of a board folder.

    leaderboard.parquet, .csv    every column, see `run_folder.schema.board`
    leaderboard.md, .html        the same as a page; the HTML loads nothing and follows light and dark

Names and links come from others: everything is escaped, and only web addresses become links.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa
import pyarrow.csv

from gpu_eval.results import interval_words
from gpu_eval.results.leaderboard import INTERVALS, SORTED_BY
from gpu_eval.storage import write, write_table

# Columns set flush left.
TEXTS = ("method", "doubts", "intervals", "provenance", "fingerprints")

# Hex digits of a fingerprint that people compare.
_SHORT = 8


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, a second line in small print, where it links to, and why a score has no interval."""

    text: str
    small: str = ""
    link: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row; `kind` is "ranked", "incomplete" or "published"."""

    kind: str
    cells: tuple[Cell, ...]


def lay_out(board: pa.Table, *, short: bool = False) -> tuple[tuple[str, ...], list[Row]]:
    """The headings and rows of a board as people see it; columns that nobody fills are left out.

    `short` leaves out published rows without the score that the board is sorted by, and of how intervals came
    about what `notes` say.
    """
    rows = board.to_pylist()
    if short:
        column = board.schema.metadata[SORTED_BY].decode()
        rows = [row for row in rows if _kind(row) != "published" or row[column] is not None]
    columns: list[tuple[str, Callable[[dict[str, Any]], Cell]]] = [
        ("rank", lambda row: _count(row["rank"])),
        ("range", _range),
        ("method", _method),
    ]
    if any(row["doubts"] for row in rows):  # beside the name: nobody scrolls to it
        columns.append(("doubts", _doubts))
    for field in board.schema:
        title = field.metadata.get(b"title", b"").decode()
        filled = f"{field.name}_low" in board.column_names or any(row[field.name] is not None for row in rows)
        if title and filled:
            columns.append((title, _score(field.name)))
    columns += [] if short else [("intervals", _intervals)]
    columns += [("classes", _classes)]
    if any(row["sizes"] for row in rows):
        columns.append(("sizes", lambda row: Cell((row["sizes"] or "").replace(", ", "\n"))))
    columns += [("images", _images), ("provenance", _provenance), ("fingerprints", _fingerprints)]
    laid = [Row(_kind(row), tuple(cell(row) for _, cell in columns)) for row in rows]
    return tuple(title for title, _ in columns), laid


def sorted_title(board: pa.Table) -> str:
    """The heading of the column that the board is sorted by."""
    metadata = board.schema.field(board.schema.metadata[SORTED_BY].decode()).metadata
    return str(metadata[b"title"].decode())


def notes(board: pa.Table) -> list[str]:
    """What a reader must know; only what applies to this board."""
    rows = board.to_pylist()
    kinds = {_kind(row) for row in rows}
    sources = dict.fromkeys(row["run"] for row in rows if _kind(row) == "published")
    protocol = next((row["protocol"] for row in rows if row["protocol"]), None)
    how = json.loads(board.schema.metadata[INTERVALS])
    told = [f"Protocol {protocol}."]
    if how["runs"]:
        reasons = [
            row[name]
            for row in rows
            if row["units"]
            for name in board.column_names
            if name.endswith("_reason")
        ]
        words = interval_words.of_board(how["runs"], reasons)
        told[0] += f" No {words.removeprefix('no ')}." if all(reasons) else f" Brackets: {words}."
    if sum(row["rank"] is not None for row in rows) > 1:
        kind, confidence = how["runs"][0]["unit_kind"], how["runs"][0]["confidence"]
        told.append(
            f"Range: the ranks that a run may have on very many other {kind} of the same kind, with "
            f"{confidence:.0%} confidence for all runs of the board together. Runs whose ranges do not "
            "overlap are told apart by this split; others may or may not be: `gpu-eval compare` says."
        )
    if how["detectable"] is not None:
        told.append(
            f"Two runs in the middle of this board must differ by {how['detectable']:.4f} for it to be found "
            "in 80 of 100 such splits."
        )
    if "incomplete" in kinds:
        told.append(
            "Runs with images missing are not ranked; --on-error void makes a run complete by counting them "
            "as missed."
        )
    if "published" in kinds:
        told.append(
            f"Published rows are copied from the {_and(sources)} and were not scored here: other images, "
            "no intervals, no rank among these runs."
        )
    return told


def _and(names: Iterable[str]) -> str:
    return " and the ".join(names)


def _kind(row: dict[str, Any]) -> str:
    if row["source"] == "published":
        return "published"
    return "incomplete" if row["images_scored"] < row["images"] else "ranked"


def _count(value: int | None) -> Cell:
    return Cell("" if value is None else str(value))


def _range(row: dict[str, Any]) -> Cell:
    first, last = row["rank_first"], row["rank_last"]
    if first is None:
        return Cell("")
    return Cell(str(first) if first == last else f"{first}-{last}")


def _method(row: dict[str, Any]) -> Cell:
    link = row["link"] if str(row["link"]).startswith(("https://", "http://")) else None
    if row["method"] is None and row["team"] is None:
        return Cell(row["run"], link=link)
    return Cell(row["method"] or row["run"], row["team"] or "", link)


def _score(name: str) -> Callable[[dict[str, Any]], Cell]:
    def cell(row: dict[str, Any]) -> Cell:
        low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
        between = "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
        text = "" if row[name] is None else f"{row[name]:.4f}"
        return Cell(text, between, reason=row.get(f"{name}_reason") or "")

    return cell


def _intervals(row: dict[str, Any]) -> Cell:
    return Cell(row["units"] or "", row["interval_method"] or "")


def _doubts(row: dict[str, Any]) -> Cell:
    return Cell("DOUBT", reason=row["doubts"]) if row["doubts"] else Cell("")


def _classes(row: dict[str, Any]) -> Cell:
    """Over how many classes the mean is: a mean over fewer is another score."""
    if row["classes"] is None:
        return Cell("")
    absent = row["classes"] - row["classes_in_mean"]
    return Cell(str(row["classes_in_mean"]), f"{absent} absent" if absent else "")


def _images(row: dict[str, Any]) -> Cell:
    if row["images"] is None:
        return Cell("published")  # where a narrow terminal has no provenance
    if row["images_scored"] < row["images"]:
        return Cell(
            f"{row['images_scored']:,} of {row['images']:,}", f"{row['completeness']:.2%}: not ranked"
        )
    void = f"{row['images_void']:,} as void" if row["images_void"] else ""
    return Cell(f"{row['images']:,}", void)


def _provenance(row: dict[str, Any]) -> Cell:
    if row["source"] == "published":
        rank = f"rank {row['published_rank']}" if row["published_rank"] else "baseline"
        return Cell(f"published, {rank}", "not scored here")
    return Cell(row["run"], f"gpu-eval {row['version']}, {row['engine']}")


def _fingerprints(row: dict[str, Any]) -> Cell:
    if row["gt_fingerprint"] is None:
        return Cell("")
    return Cell(f"gt {row['gt_fingerprint'][:_SHORT]}", f"pred {row['pred_fingerprint'][:_SHORT]}")


def write_board(folder: Path, board: pa.Table) -> list[Path]:
    """Write the four files into `folder`, replacing older ones, and return their paths.

    Raises ReportError where that fails.
    """
    texts = {"leaderboard.md": _markdown(board), "leaderboard.html": _html(board)}
    write_table(folder / "leaderboard.parquet", board)
    write(folder / "leaderboard.csv", lambda file: pyarrow.csv.write_csv(board, file))
    for name, text in texts.items():
        data = text.encode("utf-8", "replace")
        write(folder / name, lambda file, data=data: file.write(data))  # type: ignore[misc]
    return [folder / name for name in ("leaderboard.parquet", "leaderboard.csv", *texts)]


def _markdown(board: pa.Table) -> str:
    head, rows = lay_out(board)
    lines = ["# Leaderboard", "", *(f"{note}\n" for note in notes(board))]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = []
        for cell in row.cells:
            text = _plain(cell.text)
            if cell.link:
                text = f"[{text}](<{escape(cell.link).replace(' ', '%20').replace('|', '%7C')}>)"
            small = cell.small or cell.reason
            cells.append(text + (f"<br>{_plain(small)}" if small else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#~" else c for c in text)


def _html(board: pa.Table) -> str:
    head, rows = lay_out(board)
    body = []
    for row in rows:
        cells = []
        for title, cell in zip(head, row.cells, strict=True):
            text = escape(cell.text)
            if cell.link:
                text = f'<a href="{escape(cell.link)}" rel="noopener noreferrer">{text}</a>'
            if cell.small or cell.reason:
                text += f"<small>{escape(cell.small or cell.reason)}</small>"
            kind = ' class="text"' if title in TEXTS else _NUMBER
            cells.append(f'<th scope="row">{text}</th>' if title == "method" else f"<td{kind}>{text}</td>")
        body.append(f'<tr class="{row.kind}">{"".join(cells)}</tr>')
    frame = importlib.resources.files("gpu_eval.results").joinpath("leaderboard.html").read_text("utf-8")
    return Template(frame).substitute(
        head="".join(f'<th scope="col"{"" if t in TEXTS else _NUMBER}>{escape(t)}</th>' for t in head),
        rows="\n".join(body),
        notes="\n".join(f"<p>{escape(note)}</p>" for note in notes(board)),
    )


_NUMBER = ' class="number"'
