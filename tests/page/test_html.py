"""The HTML report and what notebooks show: the numbers, the escaping, the size, and a browser's view."""

from __future__ import annotations

import builtins
import io
import json
import math
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gpu_eval import api, thumbnails
from gpu_eval.errors import InputError, OptionError
from gpu_eval.labels import load_labels
from gpu_eval.page import charts as plots
from gpu_eval.page import findings, html
from gpu_eval.page import worst_images as gallery
from gpu_eval.results.semantic_run import Run
from gpu_eval.storage import write_table
from tests.support import browser
from tests.support.commands import gpu_eval_command
from tests.support.scoring import score
from tests.support.semantic_split import TinySplit, make_split

pytest.importorskip("altair", reason="Altair is not installed")
pytest.importorskip("vl_convert", reason="vl-convert-python is not installed")

HOSTILE = "<script>alert('x')</script>&\"'"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinySplit:
    return make_split(tmp_path_factory.mktemp("html"))


@pytest.fixture(scope="module")
def scored(tiny: TinySplit, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return score(tiny, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def run(scored: Run, tmp_path: Path) -> Run:
    """A copy that a test may change."""
    shutil.copytree(scored.folder, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture(scope="module")
def text(scored: Run) -> str:
    return api.write_html(scored).read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_page_holds_the_scores_of_every_level_and_protocol(scored: Run, text: str) -> None:
    for row in scored.levels.to_pylist():
        assert html.number(row["miou"]) in text
    for row in scored.classes.to_pylist():
        if not math.isnan(row["iou"]):
            assert f"{row['iou']:.4f}" in text


def test_page_holds_every_image_with_its_score(scored: Run, text: str) -> None:
    columns = {column["title"]: column["values"] for column in data_of(text)["images"]["columns"]}
    assert columns["image"] == scored.images["key"].to_pylist()
    assert columns["mIoU L3"] == [round(v, 4) for v in scored.images["miou_level3"].to_pylist()]


def test_page_loads_nothing_from_outside(text: str) -> None:
    for tag, attributes in Tags(text).found:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert not re.match(r"(https?:)?//", attributes.get(name) or ""), (tag, attributes)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "default-src 'none'" in text


def test_page_has_alternative_texts_and_one_title(text: str) -> None:
    tags = Tags(text).found
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert [tag for tag, _ in tags].count("h1") == 1


def test_hostile_names_keys_and_facts_stay_text(run: Run) -> None:
    facts = json.loads((run.folder / "run.json").read_text())
    facts |= {"notes": [HOSTILE], "warnings": [HOSTILE], "gts": HOSTILE, "warning_count": 1}
    facts["entry"] = {"team": HOSTILE, "method": HOSTILE, "link": None}
    for level in facts["labels"]["levels"]:
        level["names"][0] = HOSTILE
    (run.folder / "run.json").write_text(json.dumps(facts))
    classes = run.classes.to_pylist()
    for row in classes:
        row["class_name"] = HOSTILE
    write_table(run.folder / "classes.parquet", pa.Table.from_pylist(classes, run.classes.schema))
    images = run.images
    keys = pa.array([f"{HOSTILE}{i}" for i in range(images.num_rows)])
    images = images.set_column(images.column_names.index("key"), images.schema.field("key"), keys)
    [part] = (run.folder / "images").iterdir()
    pq.write_table(images, part)
    changed = Run(run.folder)
    blank = b"\x89PNG"
    pictures = gallery.Pictures((gallery.Thumbnail(0, 1, 1, blank, blank, blank),))
    page = html.page(changed, pictures)
    assert "<script>alert" not in page
    assert [tag for tag, _ in Tags(page).found].count("script") == 3
    assert HOSTILE in data_of(page)["images"]["columns"][0]["values"][0]
    assert "<script>" not in changed._repr_html_()


def test_incomplete_run_says_so_before_its_scores(tiny: TinySplit, tmp_path: Path) -> None:
    preds = tmp_path / "preds"
    shutil.copytree(tiny.preds, preds)
    (preds / tiny.names[0]).unlink()
    run = score(tiny, tmp_path / "run", preds=preds, on_error="skip")
    page = html.page(run)
    assert page.index("Incomplete") < page.index("Mean IoU")
    assert "Incomplete" in run._repr_html_()
    assert "MissingPrediction" in page


def test_run_without_intervals_still_makes_a_page(tiny: TinySplit, tmp_path: Path) -> None:
    bare = score(tiny, tmp_path / "bare", intervals=False)
    text = html.page(bare)
    assert "The run has no intervals: they were not asked for." in text
    assert "not asked for" in text.partition("Level 3")[2][:400]
    assert len(bare.plot_classes().layer) == 3  # bars, numbers, the mean


@pytest.mark.parametrize("labels", ["cityscapes", 5])
def test_flat_label_spaces_make_a_page(labels: str | int, tmp_path: Path) -> None:
    suffix = load_labels(labels).gt_suffix if isinstance(labels, str) else ".png"
    other = load_labels(labels).pred_suffix if isinstance(labels, str) else ".png"
    for side, ending in (("gt", suffix), ("pred", other)):
        (tmp_path / side / "a").mkdir(parents=True)
        values = np.full((8, 8), 4 if labels == 5 else 7, np.uint8)
        Image.fromarray(values).save(tmp_path / side / "a" / f"x{ending}")
    run = api.score(tmp_path / "gt", tmp_path / "pred", out=tmp_path / "run", labels=labels, res="native")
    page = api.write_html(run).read_text(encoding="utf-8")
    assert "coarsest level" in page
    assert "No mistakes." in page
    assert "data:image/png" in page


def test_page_of_4000_images_is_under_5_mb(run: Run) -> None:
    rows = run.images.to_pylist()
    many = [
        {**rows[i % len(rows)], "image_id": i, "key": f"drive{i // 40:04d}/frame{i:06d}_leftImg8bit",
         "miou_level3": (i * 7919 % 10007) / 10007}
        for i in range(4000)
    ]  # fmt: skip
    [part] = (run.folder / "images").iterdir()
    pq.write_table(pa.Table.from_pylist(many, run.images.schema), part)
    noise = io.BytesIO()  # no real map deflates as badly
    Image.fromarray(np.random.default_rng(0).integers(0, 26, (270, 480)).astype(np.uint8)).save(noise, "PNG")
    pictures = gallery.Pictures(
        tuple(
            gallery.Thumbnail(row["image_id"], 270, 480, *[noise.getvalue()] * 3)
            for row in gallery.worst_images(Run(run.folder), 8)
        )
    )
    assert len(html.page(Run(run.folder), pictures).encode()) < 5_000_000


def test_page_of_very_many_images_lists_the_worst(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MOST_ROWS", 2)
    page = html.page(run)
    assert "The table lists the worst 2." in page
    listed = data_of(page)["images"]["columns"][1]["values"]
    assert sorted(listed) == sorted(round(v, 4) for v in run.images["miou_level3"].to_pylist())[:2]


def test_thumbnails_show_the_classes_in_the_benchmarks_colours(tiny: TinySplit, scored: Run) -> None:
    pictures = thumbnails.of_worst(scored)
    assert pictures.note is None
    assert len(pictures.thumbnails) == len(tiny.names)
    first = pictures.thumbnails[0]
    gt, _ = tiny.maps[tiny.names[first.image_id]]
    shown = np.asarray(Image.open(io.BytesIO(first.gt)).convert("RGB"))
    colours = np.array([*scored.labels.colours, (0, 0, 0)])
    assert np.array_equal(shown, colours[np.minimum(gt, 26)])


def test_error_map_tells_near_misses_from_far_ones(scored: Run) -> None:
    labels = scored.labels
    parents = findings.parents(labels, 3)
    assert parents is not None
    sibling = next(c for c in range(1, 26) if parents[c] == parents[c - 1])
    far = next(c for c in range(26) if parents[c] != parents[sibling])
    gt = np.array([[sibling, 26, sibling, sibling, sibling]], np.uint16)
    pred = np.array([[sibling, 3, sibling - 1, far, 26]], np.uint16)
    assert thumbnails._errors(gt, pred, labels).tolist() == [[0, 1, 2, 3, 4]]


def test_missing_images_become_a_note_unless_asked_for(run: Run, tmp_path: Path) -> None:
    run.facts["gts"] = str(tmp_path / "gone")
    pictures = thumbnails.of_worst(run)
    assert pictures.thumbnails == ()
    assert "gone" in str(pictures.note)
    assert "gone" in html.page(run, pictures)
    with pytest.raises(InputError, match="nowhere"):
        thumbnails.of_worst(run, str(tmp_path / "nowhere"), run.facts["preds"])


def test_images_may_lie_elsewhere_by_now(tiny: TinySplit, run: Run, tmp_path: Path) -> None:
    shutil.copytree(tiny.gts, tmp_path / "moved")
    run.facts["gts"] = "/nowhere"
    pictures = thumbnails.of_worst(run, str(tmp_path / "moved"), str(tiny.preds))
    assert len(pictures.thumbnails) == len(tiny.names)


def test_top_mistakes_are_shares_of_the_gt_class() -> None:
    matrix = np.array([[80, 18, 2], [0, 10, 0], [5, 5, 5]])
    found = findings.top_mistakes(matrix, 5)
    assert [(m.gt, m.pred, m.pixels, m.share) for m in found] == [(0, 1, 18, 0.18), (0, 2, 2, 0.02)]


def test_reach_splits_every_mistake_once(scored: Run) -> None:
    parents = findings.parents(scored.labels, 3)
    assert parents is not None
    matrix = scored.confusion(3)
    found = findings.reach(matrix, parents)
    wrong = matrix[:-1].sum(axis=1) - np.diagonal(matrix)[:-1]
    assert np.array_equal(found.inside + found.outside + found.void, wrong)
    coarser = scored.confusion(2)
    stays = found.inside.sum()
    assert coarser[:-1].sum() - np.trace(coarser[:-1, :-1]) == wrong.sum() - stays


@pytest.mark.parametrize(
    ("share", "words"), [(0.18, "18 %"), (0.042, "4.2 %"), (0.0031, "0.31 %"), (1.0, "100 %"), (0.0, "0 %")]
)
def test_shares_are_told_with_two_digits(share: float, words: str) -> None:
    assert html.percent(share) == words.replace(" ", "\N{NO-BREAK SPACE}")


def test_notebook_figures_are_valid_vega_lite(scored: Run) -> None:
    for figure in (scored.plot_confusion(), scored.plot_confusion(1), scored.plot_classes(2, "autonue")):
        assert figure.to_dict()["description"]
    assert "0." in scored._repr_html_()
    with pytest.raises(OptionError, match="protocol"):
        scored.plot_classes(protocol="nonsense")


@pytest.mark.parametrize("module", ["altair", "vl_convert"])
def test_missing_library_is_told_with_its_remedy(
    module: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == module:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    answer = gpu_eval_command("report", run.folder)
    assert answer.exit_code == 2
    assert "gpu-eval[html]" in answer.output


def test_report_command_writes_and_names_the_page(run: Run, tmp_path: Path) -> None:
    answer = gpu_eval_command("report", run.folder, "-o", tmp_path / "page.html")
    assert answer.exit_code == 0, answer.output
    assert answer.output.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_score_html_writes_the_page_into_the_run(tiny: TinySplit, tmp_path: Path) -> None:
    words = ("score", tiny.gts, tiny.preds, "-o", tmp_path / "r", "--res", "native", "--html")
    answer = gpu_eval_command(*words)
    assert answer.exit_code == 0, answer.output
    assert "report.html" in answer.output
    assert (tmp_path / "r" / "report.html").exists()


def test_page_palette_is_left_to_the_style_sheet() -> None:
    style = (Path(html.__file__).parent / "assets" / "report.css").read_text()
    for colour in vars(plots.PAGE).values():
        name = colour.removeprefix("var(").removesuffix(")")
        assert f"{name}: #" in style


@pytest.fixture
def shown(text: str, tmp_path: Path) -> Iterator[Any]:
    why = browser.absent()
    if why:
        pytest.skip(why)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    driver = browser.open_page(tmp_path / "page.html", tmp_path / "profile")
    yield driver
    driver.quit()


def test_browser_sorts_filters_and_switches_without_a_console_error(shown: Any, scored: Run) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def column(n: int) -> list[str]:
        return [
            cell.text for cell in shown.find_elements(By.CSS_SELECTOR, f"#images tbody tr > :nth-child({n})")
        ]

    buttons = shown.find_elements(By.CSS_SELECTOR, "#images thead button")
    scores = [f"{v:.4f}" for v in scored.images["miou_level3"].to_pylist()]
    assert column(2) == sorted(scores)
    buttons[1].send_keys(Keys.ENTER)  # by keyboard: sorted by this already, so the other way round
    assert column(2) == sorted(scores, reverse=True)
    assert (
        shown.find_element(By.CSS_SELECTOR, "#images th[aria-sort]").get_attribute("aria-sort")
        == "descending"
    )
    buttons[0].click()
    assert column(1) == scored.images["key"].to_pylist()

    shown.find_element(By.ID, "filter").send_keys("frame0003")
    assert [key.endswith("frame0003") for key in column(1)] == [True]

    marks = len(shown.find_elements(By.CSS_SELECTOR, "[data-chart=confusion] path"))
    chosen = shown.find_element(By.CSS_SELECTOR, "input[name=level]:checked")
    chosen.send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(shown, 30).until(
        lambda d: d.execute_script("return document.documentElement.dataset.drawn") == "2 idd"
    )
    assert len(shown.find_elements(By.CSS_SELECTOR, "[data-chart=confusion] path")) < marks
    hidden = shown.find_elements(By.CSS_SELECTOR, "[data-level]:not([data-level='2'])")
    assert hidden
    assert not any(block.is_displayed() for block in hidden)
    assert [entry for entry in shown.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


@pytest.mark.parametrize("width", [390, 1280])
def test_browser_never_scrolls_the_page_sideways(text: str, tmp_path: Path, width: int) -> None:
    why = browser.absent()
    if why:
        pytest.skip(why)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    driver = browser.open_page(tmp_path / "page.html", tmp_path / "profile", width=width)
    try:
        widths = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    finally:
        driver.quit()
    assert widths[0] <= widths[1]
