"""Files looked at one by one on the CPU: are they whole, and which values do they hold?

Every byte is checked as strictly as scoring does: chunks and CRCs, the size of the pixel data, its Adler-32
and its filters. What the kernels do not take is given to a readable look that the caller brings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import png_kernels
from gpu_eval.engines.cpu import values_kernels as kernels
from gpu_eval.engines.cpu.threads import Threads
from gpu_eval.engines.cpu.workspace import HUGE_PAGES, Files, Workspace, grown
from gpu_eval.errors import InputError
from gpu_eval.inputs.source import Entry, Source

# Files that a thread takes at a time, and that are held at once.
FILES_PER_TURN, FILES_PER_BLOCK = 8, 1024

# A turn ends sooner where files are large.
BYTES_PER_TURN = 1 << 23

_MODES = {png_kernels.GREY_8: "8-bit grey", png_kernels.PALETTE_8: "8-bit palette"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one file.

    `size` is (height, width) and `mode` as people say it; None where the file does not say. `values` are the
    raw values that occur, ascending, and `pixels` how often, int64; both None where the pixels are no single
    values. `error` says why the file is refused, and `form` names what the pixels are instead of labels, for
    those that can be turned into labels.
    """

    size: tuple[int, int] | None = None
    mode: str | None = None
    values: npt.NDArray[np.int64] | None = None
    pixels: npt.NDArray[np.int64] | None = None
    error: InputError | None = None
    form: str | None = None


Slowly = Callable[[memoryview, str, int], Seen]


def look(
    threads: Threads,
    source: Source,
    entries: Sequence[Entry],
    slowly: Slowly,
    forms: Collection[int] = (png_kernels.GREY_8, png_kernels.PALETTE_8),
) -> Iterator[tuple[Entry, Seen]]:
    """Each file with what was seen of it, in order.

    `slowly(data, file, index)` looks at files that the kernels leave; `index` is that of the entry. `forms`
    are those of which the kernels may count the bytes: of a mask the colours count, not a palette's indices.
    """
    for first in range(0, len(entries), FILES_PER_BLOCK):
        block = entries[first : first + FILES_PER_BLOCK]
        turns = list(_turns(block, first))

        def run(ws: Workspace, turn: tuple[int, Sequence[Entry]]) -> list[Seen]:
            return _look(ws, source, turn[1], turn[0], slowly, forms)

        seen = threads.map(run, turns)
        yield from zip(block, (one for some in seen for one in some), strict=True)


def _turns(entries: Sequence[Entry], first: int) -> Iterator[tuple[int, Sequence[Entry]]]:
    """The entries cut into turns, each with the number of its first entry."""
    begin = size = 0
    for at, entry in enumerate(entries):
        if at > begin and (at - begin == FILES_PER_TURN or size + entry.size > BYTES_PER_TURN):
            yield first + begin, entries[begin:at]
            begin, size = at, 0
        size += entry.size
    if entries:
        yield first + begin, entries[begin:]


def _look(
    ws: Workspace,
    source: Source,
    entries: Sequence[Entry],
    first: int,
    slowly: Slowly,
    forms: Collection[int],
) -> list[Seen]:
    ws.fit_slabs(0, sum(entry.size for entry in entries))
    files = Files(ws, source, entries, ws.pred_slab)
    counts = np.zeros((len(entries), 256), np.int64)
    statuses = np.zeros(len(entries), np.int64)
    others = ~np.isin(files.scans[:, png_kernels.FORM], list(forms))
    files.scans[others, png_kernels.FORM] = png_kernels.OTHER
    known = files.scans[:, png_kernels.FORM] != png_kernels.OTHER
    if known.any():
        scans = files.scans[known]
        heights, widths = scans[:, png_kernels.HEIGHT], scans[:, png_kernels.WIDTH]
        ws.pred_raw = grown(ws.pred_raw, max(int((heights * (widths + 1)).max()), HUGE_PAGES))
        ws.payload = grown(ws.payload, int(scans[:, png_kernels.PAYLOAD].max()))
        ws.rows = grown(ws.rows, kernels.rows_size(int(widths.max())))
        kernels.count_files(
            files.slab, files.offsets, files.scans, ws.payload, ws.pred_raw, ws.rows,
            ws.decompressor, ws.libdeflate.decompress, counts, statuses,
        )  # fmt: skip
    seen = []
    for at, status in enumerate(statuses.tolist()):
        if at in files.errors:
            seen.append(Seen(error=files.errors[at]))
        elif status == kernels.OK:
            values = np.flatnonzero(counts[at])
            seen.append(Seen(files.size(at), _MODES[files.form(at)], values, counts[at][values]))
        else:
            seen.append(slowly(files.data(at), files.name(at), first + at))
    return seen
