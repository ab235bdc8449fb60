"""A leaderboard as it is read back: the names of its rows, and the cells of its page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [Path(row["run"]).name for row in rows]


def ranges(rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """The ranks that the data allow each run."""
    return {name: (row["rank_first"], row["rank_last"]) for name, row in zip(names(rows), rows, strict=True)}


class Cells(HTMLParser):
    """The texts of the cells of each row, all links, and tags that never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str | None] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
