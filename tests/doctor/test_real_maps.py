"""Nothing is doubted of the golden splits, of real streets, and at any resolution."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpu_eval
from tests.support.shared import SHARED, needs_shared

pytestmark = needs_shared


@pytest.mark.parametrize("res", ["1080", "720", "480", "240", "native", "512x512"])
def test_golden_split_of_label_maps_is_not_doubted(res: str, tmp_path: Path) -> None:
    golden = SHARED / "golden" / "semantic"
    run = gpu_eval.score(golden / "gt", golden / "pred", out=tmp_path / "run", res=res)
    assert run.doubts == ()


def test_golden_idd_lite_is_not_doubted(tmp_path: Path) -> None:
    golden = SHARED / "golden" / "lite"
    run = gpu_eval.score(golden / "gt", golden / "pred", out=tmp_path / "run", labels="idd-lite")
    assert run.doubts == ()


@pytest.mark.parametrize("res", ["1080", "240", "native"])
def test_camvid_is_not_doubted(res: str, tmp_path: Path) -> None:
    run = gpu_eval.score(SHARED / "camvid" / "gt", SHARED / "camvid" / "pred", out=tmp_path / "run", res=res)
    assert run.doubts == ()


def test_a_map_against_itself_is_not_doubted(tmp_path: Path) -> None:
    for name in ("semantic", "boundary", "finegrained", "safe"):
        gts = SHARED / "golden" / name / "gt"
        if any(gts.rglob("*_gtFine_labellevel3Ids.png")):
            assert gpu_eval.score(gts, gts, out=tmp_path / name).doubts == ()
