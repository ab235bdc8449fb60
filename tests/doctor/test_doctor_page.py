"""The page of the doctor says what its script measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_table_of_the_page_is_that_of_the_results() -> None:
    spec = importlib.util.spec_from_file_location("make_doctor", ROOT / "docs" / "make_doctor.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    results = json.loads((ROOT / "bench" / "results" / "doctor.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert maker.filled(page, results) == page


def test_both_goals_are_met_in_every_row() -> None:
    results = json.loads((ROOT / "bench" / "results" / "doctor.json").read_text(encoding="utf-8"))
    assert {row["group"] for row in results["rows"]} == {"mix-up", "honest"}
    for row in results["rows"]:
        assert row["splits"] >= 60
        if row["group"] == "mix-up":
            assert row["named"] >= 0.98 * row["splits"], row
        else:
            assert row["doubted"] == 0, row
