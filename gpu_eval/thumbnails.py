"""Small pictures of a run's worst images: gt, prediction and where they differ, as palette PNGs.

The report itself never touches pixels: this file reads them and hands finished bytes over.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from gpu_eval.engines import colours
from gpu_eval.engines.colours import Side
from gpu_eval.engines.resize import index_table
from gpu_eval.engines.semantic import make_job, to_classes
from gpu_eval.errors import GpuEvalError, InputError, OptionError
from gpu_eval.inputs.sources import Entry, Source, open_source
from gpu_eval.labels import Labels, LabelSpace, as_labels
from gpu_eval.page import findings
from gpu_eval.page.worst_images import ERROR_COLOURS, Pictures, Thumbnail, worst_images
from gpu_eval.results.semantic_run import Run
from gpu_eval.run_folder import manifest
from gpu_eval.run_folder.schema import ENTRY
from gpu_eval.storage import read_table

WORST = 8
WIDTH = 480

# A label space may have 256 classes, and void besides.
Map = npt.NDArray[np.uint16]


def of_worst(
    run: Run,
    gts: str | None = None,
    preds: str | None = None,
    labels: Labels | None = None,
    count: int = WORST,
) -> Pictures:
    """Pictures of the `count` images with the lowest mIoU, worst first.

    `gts` and `preds` default to what the run was scored from; then whatever cannot be read any more is told
    in `Pictures.note`. `labels` is needed where the run was scored with a label CSV of the user.

    Raises
        InputError: `gts` or `preds` are given and cannot be read.
    """
    worst = worst_images(run, count)
    if not worst:
        return Pictures((), "No image of the run has a score of its own.")
    asked = gts is not None or preds is not None
    try:
        space = _label_space(run, labels)
        sides = [
            _read(run, side, location, [row[f"{side}_file"] for row in worst])
            for side, location in (("gt", gts), ("pred", preds))
        ]
        decides = run.facts["decides"]
        job = make_job(space, gt_encoding=decides["gt_encoding"], pred_encoding=decides["pred_encoding"])
        found = []
        for i, row in enumerate(worst):
            gt, pred = (
                _classes(sides[s][i], row[f"{side}_file"], job.sides[s])
                for s, side in enumerate(("gt", "pred"))
            )
            found.append(_thumbnail(int(row["image_id"]), gt, pred, run.labels))
    except (GpuEvalError, KeyError) as error:
        if asked and isinstance(error, InputError):
            raise
        return Pictures((), f"The images could not be read: {error}")
    return Pictures(tuple(found))


def _label_space(run: Run, labels: Labels | None) -> LabelSpace:
    """The run's label space with its encodings, which run.json does not hold."""
    name = str(run.facts["labels"]["name"])
    if labels is None:
        words = name.split()
        labels = int(words[0]) if len(words) == 2 and words[1] == "classes" and words[0].isdigit() else name
    space = as_labels(labels)
    if space.digest() != run.facts["labels"]["digest"]:
        raise OptionError(
            "these are not the labels the run was scored with", found=space.name, expected=name,
            fix="give the label CSV of the run with --labels",
        )  # fmt: skip
    return space


def _read(run: Run, side: str, location: str | None, names: Sequence[str]) -> list[bytes]:
    """The encoded files. Where the place is the run's own, the manifest says where in it they lie."""
    source = open_source(location or run.facts[f"{side}s"])
    try:
        entries = _entries(run, side, names) if location is None else _listed(source, names)
        size = max(1, sum(entry.size for entry in entries))
        buffer = np.zeros(size, np.uint8)
        offsets, problems = source.read_into(entries, buffer)
        for problem in problems.values():
            raise problem
        return [buffer[offsets[i] : offsets[i + 1]].tobytes() for i in range(len(entries))]
    finally:
        source.close()


def _entries(run: Run, side: str, names: Sequence[str]) -> list[Entry]:
    rows = read_table(run.folder / manifest.FILE, [f"{side}_{name}" for name in ENTRY])
    rows = rows.filter(pc.is_in(rows[f"{side}_name"], pa.array(names, pa.string())))
    found = {entry.name: entry for entry in manifest.entries(rows, side) if entry is not None}
    return [found[name] for name in names]


def _listed(source: Source, names: Sequence[str]) -> list[Entry]:
    listed = {entry.name: entry for entry in source.entries()}
    for name in names:
        if name not in listed:
            raise InputError(
                "an image of the run is not there", file=f"{source.location}/{name}",
                fix="give the folders or archives that the run was scored from",
            )  # fmt: skip
    return [listed[name] for name in names]


def _classes(data: bytes, file: str, side: Side) -> Map:
    """The classes of a label map; void, and what is outside the encoding, is the number of classes."""
    classes = to_classes(colours.decode(data, file, side), side.table, side.n_classes)
    return np.minimum(classes, np.uint16(side.n_classes))


def _thumbnail(image_id: int, gt: Map, pred: Map, labels: LabelSpace) -> Thumbnail:
    width = min(WIDTH, gt.shape[1])
    height = max(1, round(gt.shape[0] * width / gt.shape[1]))
    small = [_resized(side, height, width) for side in (gt, pred)]
    palette = [*labels.colours, (0, 0, 0)]
    return Thumbnail(
        image_id,
        height,
        width,
        _png(small[0], palette),
        _png(small[1], palette),
        _png(_errors(small[0], small[1], labels), list(ERROR_COLOURS.values())),
    )


def _resized(classes: Map, height: int, width: int) -> Map:
    rows, columns = index_table(classes.shape[0], height), index_table(classes.shape[1], width)
    return classes[np.ix_(rows, columns)]


def _errors(gt: Map, pred: Map, labels: LabelSpace) -> Map:
    """Indices of ERROR_COLOURS: right, gt void, same parent, another parent, predicted void."""
    void = labels.void
    parents = findings.parents(labels, labels.levels[0].number)
    parent = np.array([*(parents or range(-labels.n_classes - 1, -1)), -1])
    same = (parent[gt] == parent[pred]) & (parent[gt] >= 0)
    wrong = np.where(pred == void, 4, np.where(same, 2, 3))
    return np.where(gt == void, 1, np.where(gt == pred, 0, wrong)).astype(np.uint16)


def _png(indices: Map, palette: Sequence[tuple[int, int, int]]) -> bytes:
    height, width = indices.shape
    coloured = Image.frombytes("P", (width, height), np.minimum(indices, 255).astype(np.uint8).tobytes())
    coloured.putpalette([value for colour in palette[:256] for value in colour])
    file = io.BytesIO()
    coloured.save(file, "PNG", optimize=True)
    return file.getvalue()
