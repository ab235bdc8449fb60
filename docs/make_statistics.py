"""Writes the tables of docs/statistics.md from bench/results/statistics.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "statistics.md"
RESULTS = ROOT / "bench" / "results" / "statistics.json"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->"


def tables(results: list[dict[str, Any]]) -> str:
    """A table per kind of row: a line per population and score, a column per number of units."""
    lines: list[str] = []
    kinds = dict.fromkeys(
        (row["row"], row["units"].split()[1], row["after"]["repetitions"]) for row in results
    )
    for title, unit, repetitions in kinds:
        rows = [
            row
            for row in results
            if (row["row"], row["units"].split()[1], row["after"]["repetitions"])
            == (title, unit, repetitions)
        ]
        counts = sorted({int(row["units"].split()[0]) for row in rows})
        error = max(row["after"]["error"] for row in rows if not hardly(row["after"]))
        lines += [
            f"**{title}**, before → after, {repetitions:,} repetitions, error {error:.3f} or less:",
            "",
            f"| population, score, goal | {' | '.join(f'{count} {unit}' for count in counts)} |",
            "|---" * (len(counts) + 1) + "|",
        ]
        for key in dict.fromkeys((row["population"], row["score"]) for row in rows):
            of_key = {
                int(row["units"].split()[0]): row for row in rows if (row["population"], row["score"]) == key
            }
            low, high = next(reversed(of_key.values()))["goal"]
            cells = [cell(of_key.get(count)) for count in counts]
            lines.append(f"| {key[0]}: {key[1]}, {low:g}-{high:g} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, ""])


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    verdict = "" if row["within"] else " *outside*" if row["reached"] else " **missed**"
    return f"{share(row['before'])} → {share(row['after'])}{verdict}"


def share(told: dict[str, Any]) -> str:
    return "none" if hardly(told) else f"{told['share']:.3f}"


def hardly(told: dict[str, Any]) -> bool:
    """Whether the method spoke in less than one repetition of a hundred."""
    return bool(told["repetitions"] - told["without_interval"] < told["repetitions"] / 100)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    results = json.loads(RESULTS.read_text(encoding="utf-8"))["results"]
    PAGE.write_text(before + BEGIN + tables(results) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
