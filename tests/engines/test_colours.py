"""Colour-coded maps: counted where every colour is a label's, refused with what the colours say elsewhere."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import gpu_eval
from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.engines.engine import Engine
from gpu_eval.engines.semantic import SemanticJob, make_job
from gpu_eval.errors import InputError, OptionError, UnknownColour, WrongImageMode
from gpu_eval.labels import LabelSpace, load_labels, numbered_labels
from tests.engines.semantic_contract import score

Map = npt.NDArray[np.uint8]

SPACES = {name: load_labels(name) for name in ("idd", "idd-lite", "cityscapes")}
CITYSCAPES = SPACES["cityscapes"]
POLE = CITYSCAPES.names.index("pole")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = CpuEngine(threads=1)
    yield made
    made.close()


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def grey(values: Map) -> bytes:
    return encoded(Image.fromarray(values))


def rgb(space: LabelSpace, classes: Map) -> Map:
    """Void, 255, is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: space.n_classes] = space.colours
    return table[classes]


def as_rgb(space: LabelSpace, classes: Map) -> bytes:
    return encoded(Image.fromarray(rgb(space, classes)))


def as_rgba(space: LabelSpace, classes: Map) -> bytes:
    opaque = np.full((*classes.shape, 1), 255, np.uint8)
    return encoded(Image.fromarray(np.concatenate([rgb(space, classes), opaque], axis=-1)))


def as_palette(space: LabelSpace, classes: Map) -> bytes:
    """Indices that are no labels: only the palette's colours tell."""
    image = Image.fromarray(rgb(space, classes)).quantize(256, dither=Image.Dither.NONE)
    assert not np.array_equal(np.asarray(image), classes)
    return encoded(image)


FORMS: dict[str, Callable[[LabelSpace, Map], bytes]] = {"rgb": as_rgb, "rgba": as_rgba, "palette": as_palette}


def maps(space: LabelSpace, without: set[int] | None = None, shape: tuple[int, int] = (24, 36)) -> Map:
    """Blocks of classes and void."""
    classes = [c for c in range(space.n_classes) if c not in (without or set())]
    rng = np.random.default_rng(3)
    return np.kron(rng.choice([*classes, 255], shape), np.ones((3, 3), int)).astype(np.uint8)


def shared_classes(space: LabelSpace, *, is_gt: bool) -> set[int]:
    """Classes whose colours have no meaning on that side."""
    assert space.palette is not None
    meant = space.palette.classes(is_gt=is_gt)
    return set(range(space.n_classes)) - set(meant.values())


def identity(space: LabelSpace) -> str:
    return next(iter(space.encodings))


# --- what is counted ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("resolution", [None, (50, 70)])
def test_colours_count_as_their_classes(
    engine: Engine, name: str, form: str, resolution: tuple[int, int] | None
) -> None:
    space = SPACES[name]
    gt = maps(space, shared_classes(space, is_gt=True))
    pred = np.roll(maps(space, shared_classes(space, is_gt=False)), 2, axis=1)
    own = identity(space)
    wanted = make_job(space, gt_encoding=own, pred_encoding=own, resolution=resolution)
    (expected,) = score(engine, [(grey(gt), grey(pred))], wanted)
    for sides in (("colour", own), (own, "colour"), ("colour", "colour")):
        job = make_job(space, gt_encoding=sides[0], pred_encoding=sides[1], resolution=resolution)
        files = [
            FORMS[form](space, side) if encoding == "colour" else grey(side)
            for side, encoding in zip((gt, pred), sides, strict=True)
        ]
        (result,) = score(engine, [(files[0], files[1])], job)
        assert result.error is None
        assert expected.confusion is not None
        assert result.confusion is not None
        assert result.confusion.tolist() == expected.confusion.tolist()
        assert result.decoder == "pillow"
        assert (result.gt_outside, result.pred_outside) == (0, 0)


@pytest.mark.parametrize(
    ("name", "gt", "pred"),
    [
        ("idd", {"car", "obs-str-bar-fallback", "fallback background"}, {"obs-str-bar-fallback"}),
        ("cityscapes", {"pole"}, set()),
    ],
)
def test_colours_of_several_labels_are_known_of_the_bundled_tables(
    name: str, gt: set[str], pred: set[str]
) -> None:
    palette = SPACES[name].palette
    assert palette is not None
    for is_gt, wanted in ((True, gt), (False, pred)):
        meant = palette.classes(is_gt=is_gt)
        without = {label.name for label in palette.labels if label.rgb not in map(rgb_of, meant)}
        assert wanted <= without
        assert bool(wanted) == bool(without)


def rgb_of(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def test_a_colour_of_a_class_and_void_is_the_class_in_predictions_only(engine: Engine) -> None:
    classes = np.full((8, 8), POLE, np.uint8)
    coloured = as_rgb(CITYSCAPES, classes)
    job = make_job(CITYSCAPES, gt_encoding="train", pred_encoding="colour")
    (result,) = score(engine, [(grey(classes), coloured)], job)
    assert result.confusion is not None
    assert result.confusion[POLE, POLE] == 64
    job = make_job(CITYSCAPES, gt_encoding="colour", pred_encoding="train")
    (result,) = score(engine, [(coloured, grey(classes))], job)
    assert isinstance(result.error, UnknownColour)
    assert "(153, 153, 153) on 64 pixels: pole or polegroup (void)" in str(result.error)


def test_a_colour_of_two_classes_is_refused_with_both(engine: Engine) -> None:
    space = SPACES["idd"]
    classes = np.full((8, 8), space.names.index("obs-str-bar-fallback"), np.uint8)
    job = make_job(space, pred_encoding="colour")
    (result,) = score(engine, [(grey(classes), as_rgb(space, classes))], job)
    assert isinstance(result.error, UnknownColour)
    assert "obs-str-bar-fallback or fallback background" in str(result.error)
    (result,) = score(engine, [(grey(classes), grey(classes))], make_job(space))  # as the message says
    assert result.error is None


def test_spaces_without_colours_have_no_such_encoding(tmp_path: Path) -> None:
    table = tmp_path / "plain.csv"
    table.write_text("name,id\na,0\nb,1\n")
    for space in (load_labels(table), numbered_labels(19)):
        with pytest.raises(OptionError, match=r"no colours to read a map by.*`red`, `green` and `blue`"):
            space.encoding("colour")


# --- what is refused ------------------------------------------------------------------------------


def refused(engine: Engine, pred: bytes, job: SemanticJob, gt: bytes | None = None) -> InputError:
    own = grey(np.zeros((72, 108), np.uint8))
    (result,) = score(engine, [(gt or own, pred)], job)
    assert result.confusion is None
    assert result.error is not None
    return result.error


COLOUR_JOB = make_job(CITYSCAPES, gt_encoding="train", pred_encoding="colour")
IDS_JOB = make_job(CITYSCAPES, gt_encoding="train", pred_encoding="train")


def test_a_foreign_colour_is_named_counted_and_its_neighbour_told(engine: Engine) -> None:
    pixels = rgb(CITYSCAPES, maps(CITYSCAPES))
    pixels[:2, :5] = (0, 0, 143)
    error = refused(engine, encoded(Image.fromarray(pixels)), COLOUR_JOB)
    assert isinstance(error, UnknownColour)
    assert "(0, 0, 143) on 10 pixels, nearest to (0, 0, 142) of car" in str(error)


def test_many_foreign_colours_are_called_noise(engine: Engine) -> None:
    file = io.BytesIO()
    Image.fromarray(rgb(CITYSCAPES, maps(CITYSCAPES))).save(file, "JPEG")
    noisy = encoded(Image.open(file))
    error = refused(engine, noisy, COLOUR_JOB)
    assert isinstance(error, UnknownColour)
    assert "JPEG noise or smoothed edges" in str(error)
    assert "such colours on" in str(error)


def test_transparent_pixels_are_refused(engine: Engine) -> None:
    pixels = np.zeros((72, 108, 4), np.uint8)
    pixels[1:, :, 3] = 255
    error = refused(engine, encoded(Image.fromarray(pixels)), COLOUR_JOB)
    assert isinstance(error, WrongImageMode)
    assert "108 pixels" in str(error)


def test_ids_given_as_colours_are_told_apart(engine: Engine) -> None:
    ids = maps(CITYSCAPES)
    error = refused(engine, grey(ids), COLOUR_JOB)
    assert "leave the encoding `colour` away" in str(error)
    error = refused(engine, encoded(Image.fromarray(ids).convert("RGB")), COLOUR_JOB)
    assert "leave the encoding `colour` away" in str(error)


def test_a_broken_colour_map_counts_as_void_where_asked(engine: Engine) -> None:
    gt = maps(CITYSCAPES, {POLE})
    job = make_job(CITYSCAPES, gt_encoding="colour", pred_encoding="train", void_on_error=True)
    (result,) = score(engine, [(as_rgb(CITYSCAPES, gt), None)], job)
    assert result.confusion is not None
    assert result.confusion[:-1, -1].sum() == (gt != 255).sum()


# --- what is said of colours without the option -----------------------------------------------------


def test_greys_saved_as_colours_are_told_how_to_keep_their_values(engine: Engine, tmp_path: Path) -> None:
    ids = maps(CITYSCAPES)
    for mode in ("RGB", "RGBA", "LA"):
        f = tmp_path / f"{mode}.png"
        Image.fromarray(ids).convert(mode).save(f)
        error = refused(engine, f.read_bytes(), IDS_JOB)
        assert isinstance(error, WrongImageMode)
        assert error.fix is not None
        assert error.fix.startswith("Image.open(f).convert('L').save(f)")
        Image.open(f).convert("L").save(f)
        (result,) = score(engine, [(grey(ids), f.read_bytes())], IDS_JOB)
        assert result.confusion is not None
        assert result.confusion.trace() == ids.size


@pytest.mark.parametrize("side", ["gt", "pred"])
@pytest.mark.parametrize("form", ["rgb", "rgba"])
def test_colours_of_the_table_are_told_the_option_that_reads_them(
    engine: Engine, side: str, form: str
) -> None:
    ids = maps(CITYSCAPES, {POLE})
    coloured, plain = FORMS[form](CITYSCAPES, ids), grey(ids)
    files = (coloured, plain) if side == "gt" else (plain, coloured)
    (result,) = score(engine, [files], IDS_JOB)
    assert result.error is not None
    assert result.error.fix == f"--{side}-encoding colour reads them"
    given: dict[str, Any] = {"gt_encoding": "train", "pred_encoding": "train", f"{side}_encoding": "colour"}
    (result,) = score(engine, [files], make_job(CITYSCAPES, **given))
    assert result.confusion is not None
    assert result.confusion.trace() == ids.size


def test_black_and_white_of_the_table_are_colours(engine: Engine, tmp_path: Path) -> None:
    table = tmp_path / "binary.csv"
    table.write_text("name,id,red,green,blue\nno,0,0,0,0\nyes,1,255,255,255\n")
    image = np.zeros((72, 108, 3), np.uint8)
    image[:10] = 255
    error = refused(engine, encoded(Image.fromarray(image)), make_job(load_labels(table)))
    assert error.fix == "--pred-encoding colour reads them"


def test_a_photograph_is_not_told_to_be_read_as_colours(engine: Engine) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (72, 108, 3), np.uint8)
    error = refused(engine, encoded(Image.fromarray(noise)), IDS_JOB)
    assert "a photograph, of JPEG noise or of smoothed edges" in str(error)
    assert "colour reads" not in str(error)


def test_colours_with_two_meanings_are_not_told_to_be_read(engine: Engine) -> None:
    ids = maps(CITYSCAPES)
    error = refused(engine, grey(ids), IDS_JOB, gt=as_rgb(CITYSCAPES, ids))
    assert "pole or polegroup (void)" in str(error)
    assert "colour reads" not in str(error)


# --- a whole run --------------------------------------------------------------------------------------


def test_a_run_of_colours_has_the_score_of_its_ids(tmp_path: Path) -> None:
    ids = maps(CITYSCAPES, {POLE})
    for folder, data in (("ids", grey(ids)), ("colours", as_rgb(CITYSCAPES, ids))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a_gtFine_labelIds.png").write_bytes(data)
    run = gpu_eval.score(
        tmp_path / "ids", tmp_path / "colours", labels="Cityscapes", gt_encoding="trainIds",
        pred_encoding="Color", out=tmp_path / "run", threads=1,
    )  # fmt: skip
    assert run.miou() == 1.0
    assert run.facts["decides"]["gt_encoding"] == "train"
    assert run.facts["decides"]["pred_encoding"] == "colour"
    assert len(run.facts["decides"]["label_colours"]) == len(CITYSCAPES.label_colours)


def test_a_full_hd_map_of_colours_is_read_in_well_under_a_second() -> None:
    from gpu_eval.engines import colours

    data = as_rgb(CITYSCAPES, maps(CITYSCAPES, shape=(360, 640)))
    side = COLOUR_JOB.sides[1]
    colours.decode(data, "a.png", side)
    begun = time.perf_counter()
    assert colours.decode(data, "a.png", side).shape == (1080, 1920)
    assert time.perf_counter() - begun < 0.5  # 32 ms on a free core
