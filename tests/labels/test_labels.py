"""The bundled label tables, the encodings of pixel values, and what a user's CSV may not be."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest

from gpu_eval.errors import LabelTableError, OptionError
from gpu_eval.labels import LabelSpace, load_labels
from tests.labels.conftest import Write
from tests.support.shared import SHARED, needs_shared

IDD = load_labels("idd")
LITE = load_labels("idd-lite")
CITYSCAPES = load_labels("cityscapes")


def idd_class(raw: int) -> str:
    return (*IDD.names, "void", "outside")[int(IDD.encoding("id").table[raw])]


# The hierarchy


def test_idd_has_26_16_and_7_classes_finest_first() -> None:
    assert [(level.number, len(level.names)) for level in IDD.levels] == [(3, 26), (2, 16), (1, 7)]
    assert IDD.n_classes == IDD.void == 26


@pytest.mark.parametrize("labels", [IDD, LITE, CITYSCAPES], ids=lambda labels: labels.name)
def test_every_level_is_a_partition_of_the_finest_classes(labels: LabelSpace) -> None:
    for level in labels.levels:
        members = sorted(member for group in level.groups for member in group)
        assert members == list(range(labels.n_classes))
        assert len(level.groups) == len(level.children) == len(level.names)
    for finer, level in zip(labels.levels, labels.levels[1:], strict=False):
        assert sorted(c for group in level.children for c in group) == list(range(len(finer.names)))
        for group, own in zip(level.groups, level.children, strict=True):
            assert sorted(g for child in own for g in finer.groups[child]) == list(group)
    assert (
        labels.levels[0].groups == labels.levels[0].children == tuple((c,) for c in range(labels.n_classes))
    )


def test_idd_groups_are_those_of_the_public_script() -> None:
    level2, level1 = IDD.level(2), IDD.level(1)
    assert level2.groups[6:9] == ((6, 7), (8, 9), (10, 11, 12))
    assert level1.names[3] == "vehicles"
    assert level1.children[3] == (6, 7, 8)
    assert level1.groups[3] == (6, 7, 8, 9, 10, 11, 12)
    assert level1.children == ((0, 1), (2, 3), (4, 5), (6, 7, 8), (9, 10, 11, 12), (13, 14), (15,))


def test_idd_has_its_surprising_members() -> None:
    assert [idd_class(raw) for raw in (1, 4, 7)] == ["drivable fallback", "non-drivable fallback", "person"]
    assert [idd_class(raw) for raw in (15, 16, 17)] == ["vehicle fallback"] * 3
    assert [idd_class(raw) for raw in (31, 34, 39)] == ["bridge", "sky", "void"]


def test_idd_lite_is_the_seven_level_1_classes_of_idd() -> None:
    assert [level.number for level in LITE.levels] == [1]
    assert LITE.names == IDD.level(1).names


def test_cityscapes_is_19_classes_in_7_categories() -> None:
    assert [(level.number, len(level.names)) for level in CITYSCAPES.levels] == [(2, 19), (1, 7)]
    categories = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
    assert CITYSCAPES.level(1).names == categories
    assert CITYSCAPES.level(1).groups[0] == (0, 1)
    assert CITYSCAPES.level(1).groups[6] == tuple(range(13, 19))


def test_benchmarks_have_their_file_conventions() -> None:
    assert IDD.gt_suffix == IDD.pred_suffix == "_gtFine_labellevel3Ids.png"
    assert (IDD.resolution, IDD.protocols, IDD.exclude) == ("1080", ("idd", "autonue"), ())
    assert (LITE.gt_suffix, LITE.exclude) == ("_label.png", ("_inst_label.png",))
    assert (LITE.resolution, LITE.protocols) == ("256x128", ("idd", "autonue"))
    assert CITYSCAPES.gt_suffix == "_gtFine_labelIds.png"
    assert (CITYSCAPES.resolution, CITYSCAPES.protocols) == ("native", ("idd",))


def test_colour_is_that_of_the_first_label_of_a_class() -> None:
    assert IDD.colours[0] == (128, 64, 128)
    assert IDD.colours[IDD.names.index("drivable fallback")] == (250, 170, 160)  # parking
    assert [len(labels.colours) for labels in (IDD, LITE, CITYSCAPES)] == [26, 7, 19]


@needs_shared
def test_idd_table_holds_every_cell_of_the_shared_one() -> None:
    def rows(path: Path) -> list[list[str]]:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    bundled = Path(__file__).parents[2] / "gpu_eval" / "labels" / "idd.csv"
    assert rows(bundled) == rows(SHARED / "idd_labels.csv")


# Encodings


def test_level3_is_the_identity_with_26_and_255_void_and_the_rest_outside() -> None:
    table = IDD.encoding("level3").table
    assert table.dtype == np.uint16
    assert table.shape == (256,)
    assert table[:27].tolist() == list(range(27))
    assert set(table[27:255].tolist()) == {27}
    assert table[255] == 26
    assert IDD.default_encoding == "level3"


def test_idd_lite_has_7_and_255_void() -> None:
    table = LITE.encoding(LITE.default_encoding).table
    assert LITE.default_encoding == "level1"
    assert table[:10].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert table[255] == 7


def test_submission_is_shifted_by_one_with_27_void_and_0_outside() -> None:
    table = IDD.encoding("submission").table
    assert table[:29].tolist() == [27, *range(26), 26, 27]
    assert table[255] == 26


def test_id_encodes_40_labels_and_nothing_more() -> None:
    table = IDD.encoding("id").table
    assert (table[:35] < 26).all()
    assert (table[35:40] == 26).all()
    assert (table[40:255] == 27).all()


def test_cityscapes_ids_reach_idd_classes() -> None:
    cs, train = IDD.encoding("cs").table, IDD.encoding("cs_train").table
    assert IDD.names[cs[24]] == IDD.names[train[11]] == "person"
    assert (cs[0], cs[255], train[255]) == (26, 26, 26)
    assert (cs[5], train[19]) == (27, 27)


def test_column_that_stands_for_two_classes_is_no_encoding() -> None:
    assert list(IDD.encodings) == ["level3", "id", "cs", "cs_train", "submission"]
    # level4Id 3 is both sidewalk and rail track: two classes of level 3, one of level 1
    assert {"level4", "level3", "level2"} <= set(LITE.encodings)


def test_cityscapes_takes_raw_ids_by_default_and_train_ids_on_request() -> None:
    assert CITYSCAPES.default_encoding == "id"
    ids, train = CITYSCAPES.encoding("id").table, CITYSCAPES.encoding("train").table
    assert (ids[7], ids[33], ids[9], ids[255], ids[34]) == (0, 18, 19, 19, 20)
    assert train[:20].tolist() == [*range(19), 20]
    assert train[255] == 19


@pytest.mark.parametrize("labels", [IDD, LITE, CITYSCAPES], ids=lambda labels: labels.name)
def test_255_is_void_in_every_encoding(labels: LabelSpace) -> None:
    for encoding in labels.encodings.values():
        assert encoding.table[255] == labels.void
        assert encoding.table.max() <= labels.void + 1


def test_unknown_encoding_is_an_option_error_that_lists_them() -> None:
    with pytest.raises(OptionError, match=r"found rgb.*level3, id, cs, cs_train, submission"):
        IDD.encoding("rgb")


def test_unknown_level_is_an_option_error_that_lists_them() -> None:
    with pytest.raises(OptionError, match=r"found 4.*3, 2, 1"):
        IDD.level(4)


# Value semantics


def test_encoding_tables_are_read_only_and_stay_so_when_pickled() -> None:
    again = pickle.loads(pickle.dumps(IDD))
    assert again == IDD
    assert hash(again) == hash(IDD)
    for labels in (IDD, again):
        with pytest.raises(ValueError, match="read-only"):
            labels.encoding("id").table[0] = 1


def test_encodings_are_equal_by_value() -> None:
    assert IDD.encoding("id") == load_labels("idd").encoding("id")
    assert IDD.encoding("id") != IDD.encoding("cs")
    assert len({IDD.encoding("id"), load_labels("idd").encoding("id")}) == 1
    assert IDD.encoding("id") != "id"


def test_digest_changes_with_what_decides_numbers_and_only_then(write: Write) -> None:
    first = load_labels(write("name,id,red,green,blue\na,0,1,2,3\nb,1,4,5,6\n")).digest()
    colours = load_labels(write("name,id,red,green,blue\na,0,9,9,9\nb,1,4,5,6\n")).digest()
    ids = load_labels(write("name,id,red,green,blue\na,0,1,2,3\nb,2,4,5,6\n")).digest()
    assert first == colours
    assert first != ids
    assert len({IDD.digest(), LITE.digest(), CITYSCAPES.digest()}) == 3
    assert len(IDD.digest()) == 64


# A user's own table


def test_table_without_levels_is_one_level_in_file_order(write: Write) -> None:
    text = "name,id,ignore_in_eval,train_id\nsky,9,0,1\negg,4,1,255\nroad,2,0,0\nnone,-1,0,255\n"
    labels = load_labels(write(text))
    assert [(level.number, level.names) for level in labels.levels] == [(1, ("sky", "road"))]
    assert (labels.name, labels.default_encoding, labels.gt_suffix) == ("mine", "id", ".png")
    assert (labels.resolution, labels.protocols) == ("native", ("idd",))
    ids = labels.encoding("id").table
    assert (ids[9], ids[2], ids[4], ids[0], ids[255]) == (0, 1, 2, 3, 2)
    assert labels.encoding("train").table[:3].tolist() == [1, 0, 3]
    assert labels.encoding("level1").table[:4].tolist() == [0, 1, 2, 3]


def test_table_with_levels_takes_its_finest_ids_by_default(write: Write) -> None:
    header = "name,id,level5_id,level5_name,level2_id,level2_name\n"
    labels = load_labels(write(header + "a,10,0,a,0,x\nb,11,1,b,1,y\nc,12,2,c,0,x\nv,13,255,void,255,void\n"))
    assert labels.default_encoding == "level5"
    assert labels.level(2).groups == labels.level(2).children == ((0, 2), (1,))
    assert labels.encoding("id").table[10:15].tolist() == [0, 1, 2, 3, 4]


def test_class_may_be_void_at_a_coarser_level(write: Write) -> None:
    header = "name,id,level2_id,level2_name,level1_id,level1_name\n"
    labels = load_labels(write(header + "a,0,0,a,0,x\nb,1,1,b,255,void\n"))
    assert labels.level(1).groups == ((0,),)


def test_classes_without_colours_get_distinct_ones(write: Write) -> None:
    labels = load_labels(write("name,id\n" + "".join(f"c{i},{i}\n" for i in range(255))))
    assert len(set(labels.colours)) == 255
    assert labels.colours[:2] == ((128, 0, 0), (0, 128, 0))


def test_255_classes_leave_no_room_for_the_submission_encoding(write: Write) -> None:
    labels = load_labels(write("name,id\n" + "".join(f"c{i},{i}\n" for i in range(255))))
    assert labels.n_classes == 255
    assert set(labels.encodings) == {"level1", "id"}
    fewer = load_labels(write("name,id\n" + "".join(f"c{i},{i}\n" for i in range(254))))
    assert fewer.encoding("submission").table[253:].tolist() == [252, 253, 254]


def test_byte_order_mark_crlf_spaces_and_blank_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbfname, id\r\n\r\nroad, 0\r\n,\r\nsky,1\r\n")
    assert load_labels(path).names == ("road", "sky")


LEVELS = "name,id,level2_id,level2_name,level1_id,level1_name\n"

BAD = {
    "empty file": ("", "empty"),
    "header only": ("name,id\n", "empty.*header only"),
    "no header": ("road,0\nsky,1\n", "line 1: the header lacks `name` and `id`"),
    "no id column": ("name,red\nroad,0\n", "line 1: the header lacks `id`"),
    "column twice": ("name,id,id\nroad,0,0\n", "line 1: a column stands twice.*found id"),
    "row too short": ("name,id\nroad\n", "line 2: the row does not fit.*found 1 cells, expected 2"),
    "row too long": ("name,id\nroad,0,1\n", "line 2: the row does not fit.*found 3 cells"),
    "open quote": ('name,id\n"road,0\n', "line 2: not CSV"),
    "no integer": ("name,id\nroad,zero\n", "line 2: `id` is not an integer.*found 'zero'"),
    "float id": ("name,id\nroad,0.0\n", "line 2: `id` is not an integer.*found '0.0'"),
    "no name": ("name,id\n,0\n", "line 2: the label has no name"),
    "id 256": ("name,id\nroad,256\n", "line 2: `id` is out of range.*found 256"),
    "id -2": ("name,id\nroad,-2\n", "line 2: `id` is out of range.*found -2"),
    "flag 2": ("name,id,ignore_in_eval\nroad,0,2\n", "line 2: `ignore_in_eval` is not a flag"),
    "colour 256": ("name,id,red,green,blue\nroad,0,0,256,0\n", "line 2: `green` is out of range"),
    "id twice": ("name,id\nroad,0\nsky,0\n", "line 3: one id for two classes.*0 as in line 2"),
    "name twice": ("name,id\nroad,0\nroad,1\n", "line 3: two classes with one name.*line 2"),
    "only void": ("name,id\nvoid,255\n", "no class"),
    "level id twice": (LEVELS + "a,0,0,a,0,x\nb,0,1,b,0,x\n", "line 3: one id for two classes"),
    "gap": (
        LEVELS + "a,0,0,a,0,x\nb,1,2,b,0,x\n",
        "line 3: the ids of level 2 have gaps.*no class 1 below 2",
    ),
    "coarse gap": (LEVELS + "a,0,0,a,0,x\nb,1,1,b,3,y\n", "line 3: the ids of level 1 have gaps"),
    "level id 300": (LEVELS + "a,0,300,a,0,x\n", "line 2: `level2_id` is out of range"),
    "two names": (LEVELS + "a,0,0,a,0,x\nb,1,1,b,0,y\n", "line 3: class 0 of level 1 has two names.*'y'"),
    "one name": (LEVELS + "a,0,0,a,0,x\nb,1,1,b,1,x\n", "line 3: two classes of level 1 with one name"),
    "nameless": (LEVELS + "a,0,0,,0,x\n", "line 2: class 0 of level 2 has no name"),
    "two parents": (
        LEVELS + "a,0,0,a,0,x\nb,1,0,a,1,y\n",
        "line 3: class 0 of level 2 has two parents at level 1.*found 1, expected 0 as in line 2",
    ),
    "void or parent": (LEVELS + "a,0,0,a,0,x\nb,1,0,a,255,void\n", "line 3: .*two parents.*found void"),
    "class above void": (LEVELS + "a,0,0,a,0,x\nb,1,255,v,0,x\n", "line 3: void at level 2 but a class"),
    "class at 255": (LEVELS + "a,255,0,a,0,x\n", "line 2: 255 and -1 are always void"),
    "taken name": ("name,id,submission_id\na,0,0\n", "line 1: the encoding name of column `submission_id`"),
    "taken level": ("name,id,level1_id\na,0,3\n", "line 1: the encoding name of column `level1_id`"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_bad_table_is_told_with_its_line(write: Write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(LabelTableError, match=message) as caught:
        load_labels(path)
    error = caught.value
    assert error.file == str(path)
    assert error.found
    assert error.expected
    assert error.fix


def test_more_than_256_classes_are_refused(write: Write) -> None:
    with pytest.raises(LabelTableError, match=r"too many classes.*257"):
        load_labels(write("name,id\n" + "".join(f"c{i},{i % 255}\n" for i in range(257))))


def test_all_problems_are_told_in_one_pass_in_the_order_of_lines(write: Write) -> None:
    with pytest.raises(LabelTableError) as caught:
        load_labels(write("name,id,red,green,blue\nroad,x,0,0,0\n,1,0,0,0\nsky,999,0,y,0\n"))
    lines = [line.split(":")[0].strip() for line in str(caught.value).splitlines() if "line " in line]
    assert lines == ["line 2", "line 3", "line 4", "line 4"]
    assert caught.value.found == "4 problems"


def test_long_list_of_problems_is_cut(write: Write) -> None:
    with pytest.raises(LabelTableError, match="and 80 more"):
        load_labels(write("name,id\n" + "c,x\n" * 100))


def test_missing_file_is_told_with_the_bundled_names() -> None:
    with pytest.raises(LabelTableError, match="idd, idd-lite, cityscapes") as caught:
        load_labels("nowhere.csv")
    assert caught.value.file == "nowhere.csv"


def test_folder_is_no_label_table(tmp_path: Path) -> None:
    with pytest.raises(LabelTableError, match="cannot be read"):
        load_labels(tmp_path)


def test_table_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("name,id\nstraße,0\n".encode("latin-1"))
    with pytest.raises(LabelTableError, match=r"not UTF-8 text.*byte 0xdf at 12"):
        load_labels(path)


def test_image_given_as_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    with pytest.raises(LabelTableError):
        load_labels(path)


def test_256_classes_fit_where_255_is_said_to_be_a_class(tmp_path: Path) -> None:
    table = tmp_path / "many.csv"
    table.write_text("name,id,ignore_in_eval\n" + "".join(f"class {i},{i},0\n" for i in range(256)))
    labels = load_labels(table)
    assert labels.n_classes == 256
    for name in ("id", "level1"):
        assert labels.encoding(name).table.tolist() == list(range(256))


@pytest.mark.parametrize(
    "rows", ["name,id\na,0\nvoid,255\n", "name,id,ignore_in_eval\na,0,0\nvoid,255,1\nx,-1,1\n"]
)
def test_255_is_void_unless_the_table_says_it_is_a_class(tmp_path: Path, rows: str) -> None:
    table = tmp_path / "few.csv"
    table.write_text(rows)
    labels = load_labels(table)
    assert labels.names == ("a",)
    assert labels.encoding("id").table[255] == labels.void
