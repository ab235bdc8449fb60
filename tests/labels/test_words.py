"""Spellings of names: which are known, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gpu_eval
from gpu_eval.errors import LabelTableError, OptionError
from gpu_eval.labels import LabelSpace, as_labels, load_labels
from gpu_eval.labels.instance_readings import choose_reading, load_readings
from gpu_eval.labels.instance_space import load_instances
from tests.labels.conftest import Write

SPACES = {name: load_labels(name) for name in ("idd", "idd-lite", "cityscapes")}


@pytest.mark.parametrize(
    ("labels", "canonical", "spellings"),
    [
        ("cityscapes", "train", "train Train trainId trainIds train_id train-ids labelTrainIds trains"),
        ("cityscapes", "id", "id ID ids labelIds label_ids LabelId"),
        ("idd", "cs_train", "cs_train csTrain csTrainIds labelcsTrainIds cs-train-id"),
        ("idd", "level3", "level3 Level3 level3Ids level3Id labellevel3Ids level-3 level_3_ids"),
        ("idd", "cs", "cs CS csId csIds cs_ids labelcsIds"),
        ("idd", "submission", "submission Submissions SUBMISSION"),
        ("idd", "colour", "colour color Colors labelColors"),
        ("idd-lite", "level1", "level1 level1Ids level-1"),
        ("idd", "id-1", "id-1 ids-1 labelIds-1"),
        ("cityscapes", "train+1", "train+1 trainIds+1 train_id+1"),
    ],
)
def test_spellings_of_an_encoding_are_that_encoding(labels: str, canonical: str, spellings: str) -> None:
    space = SPACES[labels]
    for spelling in spellings.split():
        assert space.encoding(spelling).name == canonical
        assert space.encoding(spelling) == space.encoding(canonical)


@pytest.mark.parametrize(
    ("labels", "given", "meant"),
    [
        ("idd", "trainIds", "cs_train"),
        ("idd", "train", "cs_train"),
        ("cityscapes", "tarin", "train"),
        ("idd", "levle3", "level3"),
        ("idd", "submision", "submission"),
        ("idd", "collour", "colour"),
    ],
)
def test_other_words_are_answered_with_what_may_be_meant(labels: str, given: str, meant: str) -> None:
    with pytest.raises(OptionError, match=f"did you mean {meant}\\?") as caught:
        SPACES[labels].encoding(given)
    assert caught.value.found == given
    SPACES[labels].encoding(meant)


def test_a_coarser_level_is_told_to_be_too_coarse() -> None:
    for name in ("level1", "level2Ids"):
        with pytest.raises(OptionError, match="do not say which class of level 3"):
            SPACES["idd"].encoding(name)


def test_a_word_like_no_other_is_answered_with_all_names() -> None:
    with pytest.raises(OptionError, match="one of level3, id, cs, cs_train, submission, colour") as caught:
        SPACES["idd"].encoding("palette")
    assert caught.value.fix is None


def test_a_column_of_the_table_wins_over_a_spelling(write: Write) -> None:
    space = load_labels(write("name,id,Train_id,train_id,colour_id,x-1_id\na,0,1,2,3,4\nb,1,2,1,4,3\n"))
    for name, value in (("Train", 1), ("train", 2), ("colour", 3), ("x-1", 4)):
        assert space.encoding(name).name == name
        assert space.encoding(name).table[value] == 0
        assert not space.encoding(name).in_colour
    with pytest.raises(OptionError, match="did you mean Train or train"):
        space.encoding("TRAIN")


@pytest.mark.parametrize(
    ("given", "name"),
    [(word, "idd") for word in ("IDD", "Idd")]
    + [(word, "idd-lite") for word in ("IDD-Lite", "idd_lite", "iddlite", "IDD Lite")]
    + [(word, "cityscapes") for word in ("Cityscapes", "CityScapes", "CITYSCAPES")],
)
def test_spellings_of_a_benchmark_are_that_benchmark(given: str, name: str) -> None:
    assert as_labels(given) == SPACES[name]
    if name != "idd-lite":
        assert gpu_eval.labels.instance_space.load_instances(given).name == name


def test_a_misspelt_benchmark_is_answered_with_its_name() -> None:
    with pytest.raises(LabelTableError, match="did you mean cityscapes"):
        load_labels("cityscape-labels")


@pytest.mark.parametrize("name", ["", " ", "x" * 10000, "\0", "a\nb"])
def test_names_that_no_file_can_have_are_refused(name: str) -> None:
    with pytest.raises(LabelTableError, match="label table"):
        load_labels(name)
    with pytest.raises(OptionError, match="no such encoding"):
        SPACES["idd"].encoding(name)


def test_a_file_wins_over_a_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Cityscapes").write_text("name,id\na,0\nb,1\n")
    assert load_labels("Cityscapes").names == ("a", "b")
    Path("Cityscapes").unlink()
    Path("Cityscapes").mkdir()
    assert load_labels("Cityscapes") == SPACES["cityscapes"]


# --- offsets --------------------------------------------------------------------------------------


def means(space: LabelSpace, encoding: str, values: np.ndarray) -> list[int]:
    return space.encoding(encoding).table[values].tolist()


@pytest.mark.parametrize("base", ["level3", "id", "cs", "cs_train"])
def test_data_shifted_by_one_mean_what_they_meant(base: str) -> None:
    space = SPACES["idd"]
    values = np.arange(256, dtype=np.uint8)
    shifted = (values.astype(int) + 1).astype(np.uint8)  # 255 wraps to 0
    kept = np.arange(254)
    assert means(space, f"{base}+1", shifted[kept]) == means(space, base, values[kept])
    assert means(space, f"{base}+1", np.array([0, 255])) == [space.void] * 2
    lowered = (values.astype(int) - 1).astype(np.uint8)  # 0 wraps to 255
    assert means(space, f"{base}-1", lowered) == means(space, base, values)


def test_an_offset_keeps_a_class_at_255_a_class(write: Write) -> None:
    space = load_labels(write("name,id\nno,0\nyes,255\n"))
    assert means(space, "id+1", np.array([0, 1, 255])) == [1, 0, 3]
    assert means(space, "id-1", np.array([254, 255])) == [1, 0]


def test_offsets_are_in_no_digest() -> None:
    before = SPACES["idd"].digest()
    SPACES["idd"].encoding("level3+1")
    assert SPACES["idd"].digest() == before


def test_an_offset_needs_an_encoding() -> None:
    for name in ("+1", "-1", "nothing+1", "level3+2", "colour+1"):
        with pytest.raises(OptionError):
            SPACES["idd"].encoding(name)


def test_offsets_count_in_meters() -> None:
    gt = np.array([[0, 5, 25, 255]], np.uint8)
    for encoding, pred in (("level3+1", gt + 1), ("level3-1", gt - 1)):
        matrix = gpu_eval.confusion_matrix(gt, pred, pred_encoding=encoding)
        assert matrix.trace() == 4


@pytest.mark.parametrize(
    ("given", "name"),
    [("level3Ids", "level3"), ("csTrainIds", "cs_train"), ("ID+1", "id+1"), ("from 0", "from0")],
)
def test_labels_of_instances_have_the_same_spellings(given: str, name: str) -> None:
    readings = load_readings("idd", load_instances("idd"))
    assert choose_reading(readings, given).name == name
