"""Names: lists of what must be there, twins, and which file is meant by which key."""

from __future__ import annotations

import unicodedata
import warnings
import zipfile
from pathlib import Path

import pytest

import gpu_eval
from gpu_eval.checkup import names
from gpu_eval.errors import OptionError
from tests.support.semantic_split import SUFFIX, TinySplit


def keys(split: TinySplit) -> list[str]:
    return [name.removesuffix(SUFFIX) for name in split.names]


def listed(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "names.txt"
    path.write_bytes(text.encode(encoding))
    return path


class TestList:
    @pytest.mark.parametrize(
        "write",
        [
            lambda key: key,
            lambda key: f"{key}{SUFFIX}",
            lambda key: f"{key}_leftImg8bit.png",
            lambda key: f"{key}.jpg",
            lambda key: f"./leftImg8bit/test/{key}_leftImg8bit.jpg",
            lambda key: f"/home/me/idd/gtFine/test/{key}{SUFFIX}",
            lambda key: f"C:\\idd\\gtFine\\{key}{SUFFIX}".replace("/", "\\"),
            lambda key: f"  {key}\r\n\r\n",
        ],
    )
    def test_a_name_may_have_folders_endings_and_blanks(
        self, split: TinySplit, tmp_path: Path, write: object
    ) -> None:
        assert callable(write)
        path = listed(tmp_path, "\ufeff" + "\n".join(write(key) for key in keys(split)) + "\n\n")
        found = gpu_eval.check(split.preds, names=path)
        assert found.ok, found.to_dict()
        assert "6 of 6 listed images have a prediction" in found.notes

    def test_a_csv_has_a_column_key(self, split: TinySplit, tmp_path: Path) -> None:
        lines = ["city, key", *(f'"A, B",{key}' for key in keys(split))]
        assert gpu_eval.check(split.preds, names=listed(tmp_path, "\r\n".join(lines))).ok

    def test_predictions_below_a_top_folder_are_found(self, split: TinySplit, tmp_path: Path) -> None:
        (tmp_path / "outer").mkdir()
        split.preds.rename(tmp_path / "outer" / "results")
        path = listed(tmp_path, "\n".join(keys(split)))
        assert gpu_eval.check(tmp_path / "outer", names=path).ok

    def test_missing_extra_and_repeated_names_are_told(self, split: TinySplit, tmp_path: Path) -> None:
        text = "\n".join([*keys(split)[1:], "b/never0001", "b/never0002", keys(split)[1]])
        found = gpu_eval.check(split.preds, names=listed(tmp_path, text))
        assert {kind.first[0].kind: kind.count for kind in found.problems} == {
            "MissingPrediction": 2,
            "ExtraPrediction": 1,
        }
        assert "b/never0001" in str(found.problems[0].first[0].file)
        assert any("1 names stand in the list more than once: a/frame0001" in note for note in found.notes)

    def test_a_list_counts_beside_ground_truth(self, split: TinySplit, tmp_path: Path) -> None:
        found = gpu_eval.check(
            split.preds, split.gts, names=listed(tmp_path, "\n".join([*keys(split), "b/more"]))
        )
        (kind,) = found.problems
        assert "b/more" in str(kind.first[0].file)

    def test_without_a_list_completeness_is_said_to_be_unknown(self, split: TinySplit) -> None:
        assert any("completeness was not checked" in note for note in gpu_eval.check(split.preds).notes)

    @pytest.mark.parametrize(
        ("data", "told"),
        [(b"", "empty"), (b"\n \r\n", "empty"), (b"\xff\xfe\0a", "not UTF-8"), (b"key\n", "empty")],
    )
    def test_a_list_that_names_nothing_is_refused(
        self, split: TinySplit, tmp_path: Path, data: bytes, told: str
    ) -> None:
        (tmp_path / "names").write_bytes(data)
        with pytest.raises(OptionError, match=told):
            gpu_eval.check(split.preds, names=tmp_path / "names")

    def test_a_list_that_is_not_there_is_refused(self, split: TinySplit, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="cannot be read"):
            gpu_eval.check(split.preds, names=tmp_path / "none")


class TestMatch:
    def test_the_very_key_comes_first(self) -> None:
        found = names.match(["a/1", "A/1"], {"a/1": "x", "A/1": "y"})
        assert found.pairs == {"a/1": "x", "A/1": "y"}
        assert found.moved == ()

    def test_case_and_unicode_form_do_not_matter_where_one_file_is_meant(self) -> None:
        composed, split_up = unicodedata.normalize("NFC", "é/1"), unicodedata.normalize("NFD", "é/1")
        found = names.match(["B/1", composed], {"b/1": "x", split_up: "y"})
        assert found.pairs == {"B/1": "x", composed: "y"}
        assert set(found.moved) == {"B/1", composed}

    def test_two_that_could_be_meant_are_left(self) -> None:
        found = names.match(["B/x"], {"b/x": "x", "b/X": "y"})
        assert (found.pairs, found.missing) == ({}, ("B/x",))
        found = names.match(["a/1", "b/1"], {"1": "x"})
        assert (found.pairs, found.missing, found.extra) == ({}, ("a/1", "b/1"), ("x",))

    def test_base_names_pair_where_they_are_unique(self) -> None:
        found = names.match(["a/1", "b/2"], {"1": "x", "2": "y"})
        assert found.pairs == {"a/1": "x", "b/2": "y"}

    def test_a_base_name_that_another_key_has_is_not_taken(self) -> None:
        """Frame 1 of drive b must not become frame 1 of drive a."""
        found = names.match(["a/1", "b/1"], {"b/1": "x", "1": "y"})
        assert found.pairs == {"b/1": "x"}
        assert found.extra == ("y",)


class TestTwins:
    def test_names_that_differ_in_case_or_form_are_doubted(self, split: TinySplit, tmp_path: Path) -> None:
        path = tmp_path / "preds.zip"
        one = (split.preds / split.names[0]).read_bytes()
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("a/é", "a/e\u0301", "b/x", "B/X"):
                archive.writestr(f"{name}{SUFFIX}", one)
        (doubt,) = gpu_eval.check(path).doubts
        assert doubt.kind == "names"
        assert "2 such groups" in doubt.evidence
        assert not doubt.certain

    def test_one_name_twice_in_an_archive_is_refused(self, split: TinySplit, tmp_path: Path) -> None:
        path = tmp_path / "preds.zip"
        one = (split.preds / split.names[0]).read_bytes()
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the name is there already
            for _ in range(3):
                archive.writestr(f"a/x{SUFFIX}", one)
        (kind,) = gpu_eval.check(path).problems
        assert kind.first[0].kind == "DuplicateFile"
        assert kind.first[0].found == "3 files"

    def test_names_that_are_not_the_benchmarks_are_doubted(self, split: TinySplit) -> None:
        for name in split.names:
            (split.preds / name).rename(split.preds / name.replace("/", "_"))
        (doubt,) = gpu_eval.check(split.preds).doubts
        assert "<drive>/<image>" in doubt.evidence

    def test_names_of_a_table_of_ones_own_are_free(self, split: TinySplit) -> None:
        for name in split.names:
            (split.preds / name).rename(split.preds / name.replace("/", "_"))
        assert gpu_eval.check(split.preds, labels=26).ok
