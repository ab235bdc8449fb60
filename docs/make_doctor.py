"""Writes the table of docs/doctor.md from bench/results/doctor.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "doctor.md"
RESULTS = ROOT / "bench" / "results" / "doctor.json"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->"


def table(rows: list[dict[str, Any]]) -> str:
    """Mix-ups with how many were named right, then honest models with how many were doubted."""
    lines = []
    for group, title, told in (
        ("mix-up", "mix-up", "named right"),
        ("honest", "bad model, right ids", "doubted"),
    ):
        of_group = [row for row in rows if row["group"] == group]
        splits = sum(row["splits"] for row in of_group)
        right = sum(row["named"] for row in of_group)
        said = f"{right} of {splits} mix-ups are named right" if group == "mix-up" else (
            f"{splits - right} of {splits} honest splits are doubted"
        )  # fmt: skip
        lines += [f"**{said}.**", "", f"| {title} | splits | {told} | refused |", "|---|---|---|---|"]
        for row in of_group:
            count = row["named"] if group == "mix-up" else row["doubted"]
            lines.append(f"| {row['kind']} | {row['splits']} | {count} | {row['refused']} |")
        lines.append("")
    return "\n".join(lines)


def filled(page: str, results: dict[str, Any]) -> str:
    """The page with its table."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return before + BEGIN + table(results["rows"]) + END + after


if __name__ == "__main__":
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
