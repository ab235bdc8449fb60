"""The manifest: what is scored, one row per image in order. A task names a run, a first and a last row.

Workers read it instead of listing the inputs again, which a million files would make them pay for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from gpu_eval.inputs.instance_split import InstanceImage, Prediction, Rle
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.source import Entry
from gpu_eval.storage import STORAGE_ERRORS, Place, opened, unreadable

# Rows that are read at once: few enough to be quick, many enough for a small footer at a million images.
ROWS_PER_GROUP = 4096

_ENTRY = {"name": pa.string(), "size": pa.int64(), "stamp": pa.string(), "offset": pa.int64()}
_PREDICTIONS = pa.list_(
    pa.struct(
        [
            *(pa.field(name, kind) for name, kind in _ENTRY.items()),
            pa.field("rle_height", pa.int32()),
            pa.field("rle_width", pa.int32()),
            pa.field("rle_counts", pa.binary()),
            pa.field("label", pa.int32()),
            pa.field("confidence", pa.float64()),
            pa.field("line", pa.int64()),
        ]
    )
)


def of_pairs(pairs: Sequence[Pair]) -> pa.Table:
    """The manifest of a semantic run."""
    columns = {
        "key": pa.array([pair.key for pair in pairs], pa.string()),
        "drive": pa.array([pair.drive for pair in pairs], pa.string()),
    }
    columns |= _entry_columns("gt", [pair.gt for pair in pairs])
    return pa.table(columns | _entry_columns("pred", [pair.pred for pair in pairs]))


def to_pairs(rows: pa.Table) -> list[Pair]:
    """The pairs of some rows of a manifest."""
    columns = (
        rows["key"].to_pylist(),
        rows["drive"].to_pylist(),
        _entries(rows, "gt"),
        _entries(rows, "pred"),
    )
    return [
        Pair(key, drive, gt, pred)
        for key, drive, gt, pred in zip(*columns, strict=True)
        if gt is not None  # always: for the type checker
    ]


def of_images(images: Sequence[InstanceImage]) -> pa.Table:
    """The manifest of an instance run."""
    columns = {
        "key": pa.array([image.key for image in images], pa.string()),
        "drive": pa.array([image.drive for image in images], pa.string()),
    }
    columns |= _entry_columns("gt", [image.gt for image in images])
    columns["list_file"] = pa.array([image.list_file for image in images], pa.string())
    predictions = [
        None if image.predictions is None else [_prediction_row(p) for p in image.predictions]
        for image in images
    ]
    return pa.table(columns | {"predictions": pa.array(predictions, _PREDICTIONS)})


def to_images(rows: pa.Table) -> list[InstanceImage]:
    """The images of some rows of an instance run's manifest."""
    names = ("key", "drive", "list_file", "predictions")
    columns = [rows[name].to_pylist() for name in names]
    return [
        InstanceImage(
            key, drive, gt, None if listed is None else tuple(_prediction(one) for one in listed), list_file
        )
        for key, drive, list_file, listed, gt in zip(*columns, _entries(rows, "gt"), strict=True)
        if gt is not None  # always: for the type checker
    ]


def read(path: Place, first: int, last: int) -> pa.Table:
    """Rows first..last - 1 of a manifest. Raises CorruptRun where it cannot be read."""
    try:
        with opened(path) as file:
            groups = range(first // ROWS_PER_GROUP, -(-last // ROWS_PER_GROUP))
            return file.read_row_groups(list(groups)).slice(
                first - groups.start * ROWS_PER_GROUP, last - first
            )
    except STORAGE_ERRORS as error:
        raise unreadable(path, error) from error


def _entry_columns(side: str, entries: Sequence[Entry | None]) -> dict[str, pa.Array]:
    return {
        f"{side}_{name}": pa.array([None if e is None else getattr(e, name) for e in entries], kind)
        for name, kind in _ENTRY.items()
    }


def _entries(rows: pa.Table, side: str) -> list[Entry | None]:
    """The files of one side; None where there is none. By columns: rows as objects would take as long again
    as reading the files."""
    columns = [rows[f"{side}_{name}"].to_pylist() for name in _ENTRY]
    return [
        None if name is None else Entry(name, size, stamp, offset)
        for name, size, stamp, offset in zip(*columns, strict=True)
    ]


def _prediction_row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {
        "label": prediction.label, "confidence": prediction.confidence, "line": prediction.line
    }  # fmt: skip
    mask = prediction.mask
    if isinstance(mask, Rle):
        return row | {"rle_height": mask.height, "rle_width": mask.width, "rle_counts": mask.counts}
    return row | {name: getattr(mask, name) for name in _ENTRY}


def _prediction(row: dict[str, Any]) -> Prediction:
    mask: Entry | Rle
    if row["rle_counts"] is not None:
        mask = Rle(row["rle_height"], row["rle_width"], row["rle_counts"])
    else:
        mask = Entry(*(row[name] for name in _ENTRY))
    return Prediction(mask, row["label"], row["confidence"], row["line"])
