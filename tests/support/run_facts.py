"""What stands in run.json of runs that are made without images, whatever their task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpu_eval.run_folder import folder as run_folder
from gpu_eval.run_folder import schema


def described(
    kind: str, labels: object, images: Mapping[str, object], decides: Mapping[str, object], **facts: Any
) -> dict[str, Any]:
    """The facts of a run that was begun; an image that is None could not be scored."""
    scored = sum(image is not None for image in images.values())
    return {
        "format_version": schema.FORMAT_VERSION,
        "kind": kind,
        "complete": False,
        "fingerprint": "f",
        "decides": {"version": "0", **decides},
        "entry": run_folder.make_entry({}),
        "labels": labels,
        "engine": {"name": "cpu", "why": "", "device": ""},
        "notes": [],
        "warning_count": 0,
        "warnings": [],
        "images": len(images),
        "images_scored": scored,
        "images_void": 0,
        "images_failed": len(images) - scored,
        **facts,
    }


def frame_key(image: int, images: int, drives: int) -> str:
    """The key of one of so many images in so many drives of equal length; 0: all lie in one folder."""
    name = f"frame{image:04d}"
    return f"drive{image * drives // images:02d}/{name}" if drives else name


def image_row(image_id: int, key: str, scored: bool) -> dict[str, Any]:
    """What the images table of every task says of an image, whose key is "drive/name"."""
    return {
        "image_id": image_id,
        "key": key,
        "drive": key.rpartition("/")[0],
        "gt_file": f"{key}.png",
        "status": "ok" if scored else "error",
    }
