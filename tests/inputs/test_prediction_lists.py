"""What a line of a list of predicted instances may say, and what is told of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.errors import InputError, MalformedPredictions, UnsafePath
from gpu_eval.inputs.prediction_lists import MAX_LINE, SHOWN, Findings, parse_list
from gpu_eval.labels.instance_space import load_instances

IDD = load_instances("idd")


def lines_of(text: str | bytes) -> list[tuple[int, str, int, float]]:
    """What the lines of a sound list say."""
    findings = Findings("list.txt")
    lines = parse_list(text.encode() if isinstance(text, str) else text, IDD, findings)
    assert findings.told() == []
    return [(line.number, line.mask, line.label, line.confidence) for line in lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A.png 12 0.9\n", [(1, "A.png", 12, 0.9)]),
        ("A.png 12 0.9", [(1, "A.png", 12, 0.9)]),
        ("A.png 12 0.9\nB.png 6 .5\n", [(1, "A.png", 12, 0.9), (2, "B.png", 6, 0.5)]),
        ("A.png 12 0.9\r\nB.png 6 1\r\n", [(1, "A.png", 12, 0.9), (2, "B.png", 6, 1.0)]),
        ("A.png 12 0.9\rB.png 6 1\r", [(1, "A.png", 12, 0.9), (2, "B.png", 6, 1.0)]),
        ("\ufeffA.png 12 0.9", [(1, "A.png", 12, 0.9)]),
        ("A.png  12   0.9", [(1, "A.png", 12, 0.9)]),
        ("A.png\t12\t0.9", [(1, "A.png", 12, 0.9)]),
        ("  A.png 12 0.9  \t", [(1, "A.png", 12, 0.9)]),
        ("\n\n \nA.png 12 0.9\n\n", [(4, "A.png", 12, 0.9)]),
        ("# mask label confidence\n#\n#x\nA.png 12 0.9", [(4, "A.png", 12, 0.9)]),
        ("# A.png 12 0.9\n", []),
        ("#A.png 12 0.9\n", [(1, "#A.png", 12, 0.9)]),  # the reference's way to name a mask "#A.png"
        ("a b.png 12 0.9", [(1, "a b.png", 12, 0.9)]),
        ("a  b c.png\t12 0.9", [(1, "a  b c.png", 12, 0.9)]),
        ("17/ä.png 12 0.9", [(1, "17/ä.png", 12, 0.9)]),
        ("A.png 12.0 0.9\nB.png 1.2e1 0.9", [(1, "A.png", 12, 0.9), (2, "B.png", 12, 0.9)]),
        ("A.png +012 -0.25", [(1, "A.png", 12, -0.25)]),
        ("A.png 12 1e-400", [(1, "A.png", 12, 0.0)]),
        ("A.png 12 57", [(1, "A.png", 12, 57.0)]),
        ("A.png 0.0 1.0", [(1, "A.png", 0, 1.0)]),  # a known label that is not evaluated
        ("", []),
        ("\ufeff", []),
        ("\n", []),
    ],
)
def test_line_is_understood(text: str, expected: list[tuple[int, str, int, float]]) -> None:
    assert lines_of(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("A.png", "line 1: less than three fields"),
        ("A.png 12", "line 1: less than three fields"),
        ("A.png 12 0.9\nA.png12 0.9", "line 2: less than three fields"),
        ("A.png,12,0.9", "line 1: less than three fields"),
        ("A.png car 0.9", "line 1: the label id is not a number"),
        ("A.png 0.9 0.9 car", "line 1: the confidence is not a finite number"),
        ("A.png 12 high", "line 1: the confidence is not a finite number"),
        ("A.png 12 0,9", "line 1: the confidence is not a finite number"),
        ("A.png 12 nan", "line 1: the confidence is not a finite number"),
        ("A.png 12 inf", "line 1: the confidence is not a finite number"),
        ("A.png 12 -1e999", "line 1: the confidence is not a finite number"),
        ("A.png nan 0.9", "line 1: the label id is not finite"),
        ("A.png inf 0.9", "line 1: the label id is not finite"),
        ("A.png 40.9 0.9", "line 1: no label of idd has this id"),
        ("A.png 40 0.9", "line 1: no label of idd has this id"),
        ("A.png -1 0.9", "line 1: no label of idd has this id"),
        ("A.png 255 0.9", "line 1: no label of idd has this id"),
        ("A.png 1e300 0.9", "line 1: no label of idd has this id"),
        ("A.png 12 0.9\n\n# x\nB.png 40 0.9", "line 4: no label of idd has this id"),
        (f"{'a' * MAX_LINE}.png 12 0.9", "line 1: too long"),
        (b"\xff\xfeA\0", "line 1: not UTF-8 text"),
        (b"A.png 12 0.9\n\nB\xe4.png 12 0.9", "line 3: not UTF-8 text"),
    ],
)
def test_line_is_refused(text: str | bytes, told: str) -> None:
    findings = Findings("list.txt")
    parse_list(text.encode() if isinstance(text, str) else text, IDD, findings)
    (error,) = findings.told()
    assert isinstance(error, MalformedPredictions)
    assert error.file == "list.txt"
    assert error.message == told
    assert error.found
    assert len(error.found) <= 80
    assert error.expected


@pytest.mark.parametrize(
    "mask",
    [
        "../B.png",
        "../../other/B.png",
        "a/../B.png",
        "a/..",
        "..",
        "/etc/B.png",
        "//x/B.png",
        "C:/B.png",
        "c:B.png",
        "a\\B.png",
        "\\B.png",
        "..\\B.png",
        "a\0b.png",
    ],
)
def test_mask_outside_the_folder_of_the_list_is_unsafe(mask: str) -> None:
    for label in (12, 1):  # the reference passes over label 1 unread; the path is refused all the same
        findings = Findings("list.txt")
        assert parse_list(f"{mask} {label} 0.9".encode(), IDD, findings) == []
        (error,) = findings.told()
        assert isinstance(error, UnsafePath)


@pytest.mark.parametrize("mask", ["a..b.png", "..a.png", "a../b.png", "...", "ab:c.png"])
def test_dots_and_colons_in_a_name_are_no_way_out(mask: str) -> None:
    assert lines_of(f"{mask} 12 0.9") == [(1, mask, 12, 0.9)]


def test_problems_of_one_kind_are_counted_after_the_first_ones() -> None:
    findings = Findings("list.txt")
    parse_list(b"x\n" * 1000 + b"A.png 40 1\n", IDD, findings)
    told = findings.told()
    assert len(told) == SHOWN + 2
    assert told[-2].message == "line 1001: no label of idd has this id"
    assert told[-1].message == f"{1000 - SHOWN} more: less than three fields"


@given(st.binary(max_size=300) | st.text("aA. 0129#\t\r\n/\\:-e\0", max_size=80).map(str.encode))
def test_no_bytes_raise(data: bytes) -> None:
    findings = Findings("list.txt")
    lines = parse_list(data, IDD, findings)
    assert all(isinstance(error, InputError) and str(error) for error in findings.told())
    assert all(line.label in IDD.known_ids and line.mask for line in lines)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z]([a-z ]{0,6}[a-z])?\.png", fullmatch=True),
            st.sampled_from(sorted(IDD.known_ids)),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
        max_size=8,
    )
)
def test_what_is_written_is_read(rows: list[tuple[str, int, float]]) -> None:
    text = "".join(f"{mask} {label} {confidence!r}\n" for mask, label, confidence in rows)
    assert lines_of(text) == [(at, *row) for at, row in enumerate(rows, start=1)]
