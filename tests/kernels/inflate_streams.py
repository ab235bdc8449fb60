"""Streams by the inflate kernel: what the suites of good and of bad streams share."""

from __future__ import annotations

import zlib

from gpu_eval.engines.cuda.kernels import InflateStatus
from tests.kernels.fuzz_inflate import by_kernel
from tests.support.host_cuda.targets import Target

OK, CORRUPT, SHORT = InflateStatus.OK, InflateStatus.CORRUPT, InflateStatus.SHORT
TOO_LONG, TRUNCATED, REFUSED = InflateStatus.TOO_LONG, InflateStatus.TRUNCATED, InflateStatus.REFUSED

HELLO = b"hello hello hello, said the row above to the row below"
STREAM = zlib.compress(HELLO)


def statuses(target: Target, streams: list[tuple[bytes, int]]) -> list[InflateStatus]:
    return by_kernel(target, streams)[0]


def assert_inflates(target: Target, streams: list[bytes]) -> None:
    """Each stream gives zlib's bytes."""
    expected = [zlib.decompress(stream) for stream in streams]
    found, slots = by_kernel(target, [(s, len(e)) for s, e in zip(streams, expected, strict=True)])
    assert found == [OK] * len(streams)
    assert slots == expected
