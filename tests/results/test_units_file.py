"""Lists of units, as files and as mappings: what is wrong with them, and what they say beyond the split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpu_eval
from gpu_eval.errors import OptionError
from gpu_eval.results.semantic_run import Run
from gpu_eval.results.units import check_units
from gpu_eval.results.units_file import read_units
from tests.support.commands import gpu_eval_command
from tests.support.scoring import score
from tests.support.semantic_runs import random_matrices, write_run
from tests.support.semantic_split import TinySplit


@pytest.fixture
def keys(split: TinySplit) -> list[str]:
    return [name.removesuffix("_gtFine_labellevel3Ids.png") for name in split.names]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("runs") / "run", random_matrices(12, drives=4))


def listed(path: Path, lines: list[str], header: str = "key,city") -> str:
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


class TestBadLists:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "not a list of units.*an empty file"),
            ("key\na\n", "not a list of units.*found key"),
            ("name,city\na,b\n", "not a list of units.*found name,city"),
            ("key,city\n", "a header only"),
            ("key,city\na/1\n", "line 2: not a key and its city.*found a/1"),
            ("key,city\na/1,\n", "line 2: not a key and its city"),
            ("key,city\na/1,p\n\na/1,q\n", "line 4: an image that line 2 has already.*a/1: p and q"),
            ("key,city\na/1,p\na/2,p\na/1,p\n", "line 4: an image that line 2 has already.*a/1: p and p"),
            ("key;city\na/1;p\n", "not a list of units.*found key;city,.*use commas"),
            ("key\tcity\na/1\tp\n", "not a list of units.*use commas"),
            ("key,city\na/1;p\n", "line 2: not a key and its city.*found a/1;p,.*use commas"),
            ("key,city\na/1," + "p" * 200_000 + "\n", "line 2: not a list of units.*field larger"),
            ('key,city\na/1,"p\na/2,p\n', "not a list of units.*unexpected end of data"),
            ("key,city\na/1,p\na/2,p\0\n", r"line 3: not a list of units.*character '\\x00'.*UTF-8"),
            ("key,city\n\x01a/1,p\n", r"line 2: not a list of units.*character '\\x01'"),
            ("key,images\na/1,p\n", "cannot be called that.*the column images,.*rename the column"),
            ("key,Image\na/1,p\n", "cannot be called that.*the column Image"),
            ("key,drives\na/1,p\n", "cannot be called that.*the column drives"),
        ],
    )
    def test_each_is_told_with_line_found_and_expected(self, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "u.csv").write_text(text)
        with pytest.raises(OptionError, match=words):
            check_units(str(tmp_path / "u.csv"))

    def test_a_file_that_is_not_there_or_no_text_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "u.csv").write_bytes(b"\xff\xfe\x00")
        for name in ("u.csv", "nowhere.csv", "", "no\0where.csv"):
            with pytest.raises(OptionError, match=r"cannot be read.*expected drives, images, or a CSV"):
                read_units(str(tmp_path / name))

    def test_images_without_a_unit_are_counted_and_one_is_named(
        self, split: TinySplit, keys: list[str], tmp_path: Path
    ) -> None:
        path = listed(tmp_path / "u.csv", [f"{key},p" for key in keys[:4]])
        with pytest.raises(OptionError, match=f"{path}: images without a unit.*{keys[4]} and 1 more"):
            score(split, tmp_path / "run", units=path)
        assert not (tmp_path / "run").exists()

    def test_a_wrong_list_is_told_before_anything_is_scored(self, split: TinySplit, tmp_path: Path) -> None:
        with pytest.raises(OptionError):
            score(split, tmp_path / "run", units="nowhere.csv")
        assert not (tmp_path / "run").exists()


class TestListsOfMore:
    """A list of a whole data set fits a part of it; that it names others is said wherever intervals are."""

    def test_what_is_not_of_the_split_is_counted_and_one_is_named(
        self, split: TinySplit, keys: list[str], tmp_path: Path
    ) -> None:
        lines = [f"{key},{'pqr'[i % 3]}" for i, key in enumerate(keys)]
        path = listed(tmp_path / "u.csv", [*lines, "other/1,p", "other/2,z"])
        said = f"2 of {len(keys) + 2} keys in {path} are none of these images, other/1 for one"
        told = gpu_eval_command("score", split.gts, split.preds, "-o", tmp_path / "run", "--units", path)
        assert told.exit_code == 0, told.output
        assert said in " ".join(told.stdout.split()) or said in told.stdout.replace("\n", "")
        run = gpu_eval.open_run(tmp_path / "run", "semantic")
        assert run.intervals is not None
        assert run.intervals["units"] == "3 cities"
        assert run.intervals["remark"] == f"only 3 cities: bounds are a rough guess; {said}"

    def test_a_list_of_the_split_has_no_such_remark(
        self, split: TinySplit, keys: list[str], tmp_path: Path
    ) -> None:
        path = listed(tmp_path / "u.csv", [f"{key},{'pqr'[i % 3]}" for i, key in enumerate(keys)])
        told = score(split, tmp_path / "run", units=path).intervals["remark"]
        assert told == "only 3 cities: bounds are a rough guess"

    def test_a_list_of_other_images_alone_is_refused(
        self, split: TinySplit, keys: list[str], tmp_path: Path
    ) -> None:
        path = listed(tmp_path / "u.csv", ["other/1,p", "other/2,q"])
        with pytest.raises(OptionError, match=f"not one image of the split.*the key other/1,.*{keys[0]} say"):
            score(split, tmp_path / "run", units=path)
        assert not (tmp_path / "run").exists()


class TestInPython:
    """`score`, `compare` and `leaderboard` take mappings, and say so of what they do not take."""

    def test_a_mapping_is_what_its_file_is(self, run: Run, tmp_path: Path) -> None:
        cities = {key: i % 5 for i, key in enumerate(run.images["key"].to_pylist())}
        path = listed(tmp_path / "u.csv", [f"{key},{unit}" for key, unit in cities.items()])
        columns = ["miou_level1_low", "miou_level1_high"]
        boards = [gpu_eval.leaderboard([run], units=units).select(columns) for units in (path, cities)]
        assert boards[0].equals(boards[1])
        assert gpu_eval.compare(run, run, units=cities).intervals["units"] == "5 units"
        assert gpu_eval.compare(run, run, units=Path(path)).intervals["units"] == "5 cities"

    def test_scoring_takes_one(self, split: TinySplit, keys: list[str], tmp_path: Path) -> None:
        units = {key: "pqr"[i % 3] for i, key in enumerate(keys)}
        assert score(split, tmp_path / "run", units=units).intervals["units"] == "3 units"

    @pytest.mark.parametrize(
        "bad", [None, ["a"] * 12, 3, ("a",), np.array(["a"] * 12), b"drives", {"a"}], ids=repr
    )
    def test_other_kinds_are_refused(self, run: Run, split: TinySplit, tmp_path: Path, bad: Any) -> None:
        for call in (
            lambda: gpu_eval.compare(run, run, units=bad),
            lambda: gpu_eval.leaderboard([run], units=bad),
            lambda: score(split, tmp_path / "run", units=bad),
        ):
            with pytest.raises(OptionError, match=r"cannot be given like that.*found .*a mapping from"):
                call()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"unit": None}, "has no unit.*found None"),
            ({"unit": float("nan")}, "has no unit.*found nan"),
            ({"unit": " "}, "has no unit"),
            ({"unit": ["p"]}, "has no unit"),
            ({"unit": 1}, "some units are strings and some integers"),
            ({"key": 5}, "a key of units is no image's.*found 5"),
            ({"key": "other"}, "units: images without a unit"),
        ],
    )
    def test_mappings_that_say_no_unit_are_refused(
        self, run: Run, change: dict[str, Any], words: str
    ) -> None:
        units: dict[Any, Any] = dict.fromkeys(run.images["key"].to_pylist(), "p")
        key = list(units)[-1]
        del units[key]
        units[change.get("key", key)] = change.get("unit", "p")
        with pytest.raises(OptionError, match=words):
            gpu_eval.compare(run, run, units=units)

    def test_an_empty_mapping_lists_not_one_image(self, run: Run) -> None:
        with pytest.raises(OptionError, match=r"units: not one image of the split is listed.*nothing"):
            gpu_eval.compare(run, run, units={})

    @pytest.mark.parametrize("confidence", [None, "0.95", True, float("nan")])
    def test_what_is_no_confidence_is_refused(self, run: Run, confidence: Any) -> None:
        with pytest.raises(OptionError, match="no such confidence"):
            gpu_eval.compare(run, run, confidence=confidence)
