"""The semantic task: label maps, scored by mIoU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from gpu_eval.doctor import semantic as doctor
from gpu_eval.doctor.doubt import Doubt, Sight
from gpu_eval.engines.semantic import SemanticJob, SemanticResult, make_job
from gpu_eval.errors import EmptySplit, FatalImage, MissingPrediction, UnreadableFile
from gpu_eval.inputs.naming.suffixes import GT_MAPS, PRED_MAPS, encoding_named, in_order
from gpu_eval.inputs.pairs import Pair, Split, pair_up
from gpu_eval.inputs.source import Source
from gpu_eval.labels import LabelSpace
from gpu_eval.run_folder import manifest, semantic_tables
from gpu_eval.run_folder import semantic_schema as schema
from gpu_eval.run_folder.schema import RunTables
from gpu_eval.run_folder.semantic_tables import ImageRow
from gpu_eval.tasks.summary import WARNINGS_KEPT, Summary, error_facts, summary_of
from gpu_eval.tasks.task import Listing, Task


@dataclass(frozen=True)
class SemanticTask(Task[Pair, SemanticResult]):
    """Scoring label maps of `space`.

    The encodings are names of the space's, whose own spelling they are kept in; `resolution` is
    (height, width), or None for the gt's own size.
    With `void_on_error` an image whose prediction is missing or broken is counted as predicted void
    everywhere; with `as_is` maps whose values are mostly no labels are counted too. A suffix is None where
    the user gave none. Raises OptionError for an encoding that the label space does not have.
    """

    word = "semantic"
    suffix_option = "--pred-suffix"
    decoders = ("simd", "cuda", "pillow")
    summarized = ("images",)

    space: LabelSpace
    gt_encoding: str
    pred_encoding: str
    resolution: tuple[int, int] | None
    gt_suffix: str | None
    pred_suffix: str | None
    void_on_error: bool
    as_is: bool = False

    def __post_init__(self) -> None:
        for side in ("gt_encoding", "pred_encoding"):
            object.__setattr__(self, side, self.space.encoding(getattr(self, side)).name)

    def list_split(self, gts: str, preds: str, open_source: Callable[[str], Source]) -> Listing:
        gt_source, pred_source = open_source(gts), open_source(preds)
        split = pair_up(
            gt_source.entries(),
            pred_source.entries(),
            gt_suffix=self.gt_suffix,
            pred_suffix=self.pred_suffix,
            gt_location=gts,
            pred_location=preds,
            gt_usual=self._usual(self.space.gt_suffix, GT_MAPS, self.gt_encoding),
            pred_usual=self._usual(self.space.pred_suffix, PRED_MAPS, self.pred_encoding),
            exclude=self.space.exclude,
        )
        notes = [*split.notes, *self._encodings_named(split, gts, preds)]
        return Listing(to_manifest(split.pairs), split.problems, notes, hint=split.hint)

    def _usual(self, own: str, others: Sequence[str], encoding: str) -> tuple[str, ...]:
        return in_order(own, others, encoding, self.space.default_encoding)

    def _encodings_named(self, split: Split, gts: str, preds: str) -> list[str]:
        """Notes on files, found by other suffixes than the benchmark's, whose names say another encoding.

        Raises EmptySplit for such ground truth, where the user did not say that it is meant.
        """
        notes = []
        for side, suffix, given, own, encoding, location in (
            ("gt", split.gt_suffix, self.gt_suffix, self.space.gt_suffix, self.gt_encoding, gts),
            ("pred", split.pred_suffix, self.pred_suffix, self.space.pred_suffix, self.pred_encoding, preds),
        ):
            named = encoding_named(suffix)
            if suffix == own or named == encoding or named not in self.space.encodings:
                continue
            if side == "gt" and given is None:
                raise EmptySplit(
                    f"no ground truth in the encoding {encoding}",
                    file=location,
                    found=f"files that end with {suffix}, which names the encoding {named}",
                    expected=f"*{own}",
                    fix=f"give --gt-encoding {named} --gt-suffix {suffix}, if they are what is meant",
                )
            notes.append(
                f"{location}: names that end with {suffix} say the encoding {named}; the files were read as "
                f"{encoding}, --{side}-encoding {named} reads them so"
            )
        return notes

    def examine(self, listing: Listing, sight: Sight) -> Sequence[Doubt]:
        if self.job.in_colour:  # whose pixels are not ids, and are told one by one where they are no label's
            return ()
        picked = doctor.sampled(listing.images)
        pairs = to_pairs(listing.manifest.take(picked))
        return doctor.examine(
            pairs,
            self.space,
            self.gt_encoding,
            self.pred_encoding,
            sight,
            whole=len(picked) == listing.images,
        )

    def decides(self) -> Mapping[str, Any]:
        # Colours are in no digest of the labels, since most runs do not look at them.
        palette = [asdict(label) for label in self.space.label_colours] if self.job.in_colour else None
        return {
            "labels": self.space.digest(),
            "gt_encoding": self.gt_encoding,
            "pred_encoding": self.pred_encoding,
            "resolution": list(self.resolution) if self.resolution else "native",
            "void_on_error": self.void_on_error,
            **({"as_is": True} if self.as_is else {}),
            **({} if palette is None else {"label_colours": palette}),
        }

    def labels(self) -> Mapping[str, Any]:
        return schema.describe_labels(self.space)

    @property
    def tables(self) -> RunTables:
        return schema.tables([level.number for level in self.space.levels])

    def images(self, rows: pa.Table) -> list[Pair]:
        return to_pairs(rows)

    @property
    def job(self) -> SemanticJob:
        return make_job(
            self.space,
            gt_encoding=self.gt_encoding,
            pred_encoding=self.pred_encoding,
            resolution=self.resolution,
            void_on_error=self.void_on_error,
            as_is=self.as_is,
        )

    def is_unread(self, result: SemanticResult) -> bool:
        return isinstance(result.error, UnreadableFile)

    def given_up(self, error: FatalImage) -> SemanticResult:
        return SemanticResult(error=error)

    def part(
        self,
        first: int,
        images: Sequence[Pair],
        results: Sequence[SemanticResult],
        preds: str | None,  # noqa: ARG002
    ) -> dict[str, pa.Table]:
        rows = [_row(first + i, pair, results[i]) for i, pair in enumerate(images)]
        return semantic_tables.part(rows, [result.confusion for result in results], self.space)

    def summary(self, part: Mapping[str, pa.Table]) -> Summary:
        images = part["images"]
        summary = summary_of(images, told=(MissingPrediction,))
        summary.count_values("decoder", images["decoder"].drop_null().value_counts().to_pylist())
        for name in ("gt_outside", "pred_outside"):
            summary.counts[name] += int(images[name].drop_null().to_numpy().sum())
        summary.counts["warnings"] += images.num_rows - images["warning"].null_count
        summary.warnings = [
            f"{key}: {warning}"
            for key, warning in zip(images["key"].to_pylist(), images["warning"].to_pylist(), strict=True)
            if warning is not None
        ][:WARNINGS_KEPT]
        return summary

    def told(self, summary: Summary) -> Mapping[str, Any]:
        outside = {name: summary.counts[name] for name in ("gt_outside", "pred_outside")}
        return {**super().told(summary), **outside}


def to_manifest(pairs: Sequence[Pair]) -> pa.Table:
    """The manifest of these pairs; `to_pairs` reads it back."""
    columns = {
        "key": pa.array([pair.key for pair in pairs], pa.string()),
        "drive": pa.array([pair.drive for pair in pairs], pa.string()),
    }
    columns |= manifest.entry_columns("gt", [pair.gt for pair in pairs])
    columns |= manifest.entry_columns("pred", [pair.pred for pair in pairs])
    return pa.table(columns, schema=schema.MANIFEST)


def to_pairs(rows: pa.Table) -> list[Pair]:
    """The pairs of some rows of a manifest."""
    columns = (
        rows["key"].to_pylist(),
        rows["drive"].to_pylist(),
        manifest.entries(rows, "gt"),
        manifest.entries(rows, "pred"),
    )
    return [
        Pair(key, drive, gt, pred)
        for key, drive, gt, pred in zip(*columns, strict=True)
        if gt is not None  # always: for the type checker
    ]


def _row(image_id: int, pair: Pair, result: SemanticResult) -> ImageRow:
    gt_height, gt_width = result.gt_size or (None, None)
    pred_height, pred_width = result.pred_size or (None, None)
    counted = result.confusion is not None
    status = "error" if not counted else "ok" if result.error is None else "void"
    return ImageRow(
        image_id=image_id,
        key=pair.key,
        drive=pair.drive,
        gt_file=pair.gt.name,
        pred_file=pair.pred.name if pair.pred else None,
        gt_height=gt_height,
        gt_width=gt_width,
        pred_height=pred_height,
        pred_width=pred_width,
        decoder=result.decoder,
        status=status,
        errors=[] if result.error is None else [error_facts(result.error)],
        warning=result.warning,
        gt_outside=result.gt_outside if counted else None,
        pred_outside=result.pred_outside if counted else None,
    )
