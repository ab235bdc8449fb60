"""Make docs/report.png, the picture of the README: parts of a demo run's HTML report.

    python docs/make_picture.py

Needs `pip install -e '.[test]'`, and chromium and chromedriver on PATH.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gpu_eval import api, synthetic  # noqa: E402
from tests.support import browser  # noqa: E402

TARGET = ROOT / "docs" / "report.png"
PAIRS = 48
WIDTH, HEIGHT = 1200, 1900
# The picture shows the scores, the confusion and the worst images; the rest would make it a long one.
HIDE = (
    "for (const id of ['h-classes', 'h-table']) document.getElementById(id).closest('main > *').hidden = true"
)
LIMIT = 300_000


def few_colours(image: Image.Image) -> Image.Image:
    """The image in its 256 commonest colours; the rest, edges of letters, take the nearest of them."""
    counted = sorted(image.getcolors(image.width * image.height) or [], reverse=True)[:256]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for _, colour in counted for value in colour])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def main() -> None:
    why = browser.absent()
    if why:
        raise SystemExit(why)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "demo"
        synthetic.write_split(folder / "split", PAIRS)
        run = api.score(folder / "split" / "gt", folder / "split" / "pred", out=folder / "run")
        driver = browser.open_page(api.write_html(run), Path(name) / "profile", width=WIDTH, height=HEIGHT)
        try:
            driver.execute_script(HIDE)
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        finally:
            driver.quit()
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    few_colours(image).save(TARGET, optimize=True)
    size = TARGET.stat().st_size
    if size >= LIMIT:
        raise SystemExit(f"{TARGET} has {size} bytes, more than {LIMIT}")
    print(f"{TARGET}: {image.width}x{image.height}, {size:,} bytes")


if __name__ == "__main__":
    main()
