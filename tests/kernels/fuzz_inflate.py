"""Mutated and random zlib streams for `kernels/inflate.cu`, compared with zlib.

    python -m tests.kernels.fuzz_inflate --streams 1000000

The test suite takes the first 20,000 of seed 0. The kernel must accept exactly what zlib accepts, give the
same bytes, and touch nothing outside its slots, whatever the stream.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from gpu_eval.engines.cuda import kernels
from gpu_eval.engines.cuda.kernels import InflateStatus
from tests.support import deflate_builder as deflate
from tests.support.host_cuda.build import SCHEDULES
from tests.support.host_cuda.targets import HostTarget, Target

CANARY = 0xA5
PER_LAUNCH = 500

Streams = list[tuple[bytes, int]]  # a zlib stream and the size of its slot


def by_zlib(stream: bytes, size: int) -> tuple[InflateStatus, bytes]:
    """What zlib makes of a stream whose slot has `size` bytes, in the way of `inputs/png.py`."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(stream, size + 1)
    except zlib.error:
        return InflateStatus.CORRUPT, b""
    if len(data) > size:
        return InflateStatus.TOO_LONG, b""
    if not inflater.eof:
        return InflateStatus.TRUNCATED, data
    return (InflateStatus.OK if len(data) == size else InflateStatus.SHORT), data


def is_truncated(stream: bytes) -> bool:
    """Whether the input ends too early, however much it gives."""
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(stream)
    except zlib.error:
        return False
    return not inflater.eof


def by_kernel(
    target: Target, streams: Streams, *, first_byte: int = 0
) -> tuple[list[InflateStatus], list[bytes]]:
    """Status and slot of each stream, all in one launch; what lies around the slots must be untouched."""
    module = target.load(kernels.INFLATE_CU)
    offsets, at = [], first_byte
    slab = bytearray(first_byte)
    for stream, _ in streams:
        offsets.append(at)
        slab += stream
        at += len(stream)
    slab += bytes(-len(slab) % 4)
    pitches = [-(-size // kernels.SLOT_ALIGNMENT + -1) * kernels.SLOT_ALIGNMENT for _, size in streams]
    targets = np.cumsum([kernels.SLOT_ALIGNMENT, *pitches], dtype=np.int64)
    output = target.put(np.full(int(targets[-1]), CANARY, np.uint8))
    statuses = target.put(np.full(len(streams), -9, np.int32))
    kernels.inflate(
        module,
        target.put(np.frombuffer(bytes(slab), np.uint8)),
        target.put(np.array(offsets, np.int64)),
        target.put(np.array([len(stream) for stream, _ in streams], np.int32)),
        output,
        target.put(targets[:-1]),
        target.put(np.array([size for _, size in streams], np.int32)),
        statuses,
    )
    bytes_out = target.get(output)
    around = np.ones(bytes_out.size, bool)
    slots = []
    for begin, (_, size) in zip(targets[:-1].tolist(), streams, strict=True):
        slots.append(bytes_out[begin : begin + size].tobytes())
        around[begin : begin + size] = False
    assert (bytes_out[around] == CANARY).all(), "a byte outside the slots was written"
    return [InflateStatus(status) for status in target.get(statuses).tolist()], slots


def check(target: Target, streams: Streams, *, first_byte: int = 0) -> Counter[InflateStatus]:
    """Hold one launch against zlib; how many streams ended in which way."""
    statuses, slots = by_kernel(target, streams, first_byte=first_byte)
    for (stream, size), status, slot in zip(streams, statuses, slots, strict=True):
        wanted, data = by_zlib(stream, size)
        reproducer = f"stream {stream.hex()} in {size} bytes on {target.name}: {status!r}, zlib {wanted!r}"
        assert (status == InflateStatus.OK) == (wanted == InflateStatus.OK), reproducer
        assert status != InflateStatus.REFUSED, reproducer
        if wanted in (InflateStatus.OK, InflateStatus.SHORT, InflateStatus.TOO_LONG):
            both = status == InflateStatus.TRUNCATED and is_truncated(stream)
            assert status == wanted or both, reproducer
        if wanted in (InflateStatus.OK, InflateStatus.SHORT):
            assert slot[: len(data)] == data, reproducer
    return Counter(statuses)


def street_rows(rng: np.random.Generator, size: int) -> bytes:
    """Bytes like the filtered rows of a label map: zeros, repeated rows, few edges, and sometimes noise."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.integers(0, 256, size, dtype=np.uint8).tobytes()
    if kind == 1:
        return bytes(rng.integers(0, 256, 1, dtype=np.uint8)) * size
    row = np.zeros(int(rng.integers(2, 200)), np.uint8)
    rows = []
    for _ in range(size // row.size + 1):
        for _ in range(int(rng.integers(0, 3))):
            row[rng.integers(row.size)] = rng.integers(0, 256) if kind == 2 else rng.integers(0, 4)
        rows.append(row.copy())
    return np.concatenate(rows)[:size].tobytes()


def compressed(rng: np.random.Generator, data: bytes) -> bytes:
    """Some zlib's way to write `data`; several blocks at times."""
    strategies = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)
    writer = zlib.compressobj(
        int(rng.integers(0, 10)),
        zlib.DEFLATED,
        int(rng.integers(9, 16)),
        int(rng.integers(1, 10)),
        strategies[rng.integers(len(strategies))],
    )
    if rng.random() < 0.3:
        cut = int(rng.integers(0, len(data) + 1))
        flush = (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH)[rng.integers(3)]
        return (
            writer.compress(data[:cut]) + writer.flush(flush) + writer.compress(data[cut:]) + writer.flush()
        )
    return writer.compress(data) + writer.flush()


def random_tokens(rng: np.random.Generator, *, wrong: bool) -> list[deflate.Token]:
    """Literals and matches at random; with `wrong`, now and then a distance to before the beginning."""
    alphabet = rng.integers(0, 256, int(rng.integers(1, 60)))
    tokens: list[deflate.Token] = [int(rng.choice(alphabet))]
    have = 1
    for _ in range(int(rng.integers(0, 60))):
        if rng.random() < 0.5:
            tokens.append(int(rng.choice(alphabet)))
            have += 1
            continue
        length = 258 if rng.random() < 0.2 else int(rng.integers(3, 259))
        reach = have + 3 if wrong and rng.random() < 0.02 else have
        distance = int(rng.integers(1, min(reach, int(rng.choice([1, 2, 5, 33, 300, 32768]))) + 1))
        tokens.append((length, distance))
        have += length
    return tokens


def written_by_hand(rng: np.random.Generator) -> tuple[bytes, int]:
    """Blocks with random Huffman codes, up to 15 bits long, which no compressor would choose."""
    bits, data = deflate.Bits(), b""
    blocks = int(rng.integers(1, 4))
    for number in range(blocks):
        last = number == blocks - 1
        kind = rng.integers(4)
        if kind == 0:
            stored = bytes(rng.integers(0, 256, int(rng.integers(0, 80)), dtype=np.uint8))
            deflate.stored_block(stored, bits=bits, last=last)
            data += stored
            continue
        wrong = bool(rng.random() < 0.2)
        tokens = random_tokens(rng, wrong=wrong)
        if not wrong:
            data += deflate.expand(tokens)
        if kind == 1:
            deflate.fixed_block(tokens, bits=bits, last=last)
            continue
        used = {deflate.END_OF_BLOCK, *(token for token in tokens if isinstance(token, int))}
        used |= {257 + deflate.length_symbol(token[0]) for token in tokens if isinstance(token, tuple)}
        far = {deflate.distance_symbol(token[1]) for token in tokens if isinstance(token, tuple)}
        if rng.random() < 0.3:
            used |= set(rng.integers(0, 286, int(rng.integers(0, 100))).tolist())
            far |= set(rng.integers(0, 30, int(rng.integers(0, 30))).tolist())
        literals = deflate.random_lengths(rng, max(used) + 1, rng.permutation(sorted(used)).tolist())
        literals += [0] * (257 - len(literals))
        distances = deflate.random_lengths(
            rng, max(far, default=0) + 1, rng.permutation(sorted(far)).tolist()
        )
        deflate.dynamic_block(tokens, literals, distances, bits=bits, last=last)
    return deflate.wrap(bits, data), len(data)


def mutated(rng: np.random.Generator, stream: bytes) -> bytes:
    """The stream with bits flipped, bytes replaced, cut, doubled or swapped, or as it is."""
    changed = bytearray(stream)
    for _ in range(int(rng.choice([0, 0, 1, 2, 3]))):
        if not changed:
            break
        at = int(rng.integers(len(changed)))
        match int(rng.integers(6)):
            case 0 | 1 | 2:
                changed[at] ^= 1 << int(rng.integers(8))
            case 3:
                changed[at] = int(rng.integers(256))
            case 4:
                del changed[at : at + int(rng.integers(1, 9))]
            case _:
                changed[at:at] = changed[at : at + int(rng.integers(1, 9))]
    if rng.random() < 0.1:
        changed = changed[: int(rng.integers(len(changed) + 1))]
    return bytes(changed)


def make_streams(rng: np.random.Generator, count: int) -> Streams:
    """Streams of a few kinds with the sizes of their slots, mostly the right ones."""
    streams: Streams = []
    while len(streams) < count:
        kind = rng.random()
        if kind < 0.1:
            noise = bytes(rng.integers(0, 256, int(rng.integers(0, 200)), dtype=np.uint8))
            streams.append((b"\x78\x9c" + noise, int(rng.integers(0, 600))))
            continue
        if kind < 0.5:
            stream, size = written_by_hand(rng)
        else:
            data = street_rows(rng, int(rng.integers(0, 1500)))
            stream, size = compressed(rng, data), len(data)
        for _ in range(int(rng.integers(1, 12))):  # neighbours of one stream are cheap to make
            off_by = int(rng.choice([0, 0, 0, 0, 0, 1, -1, 16, -100]))
            streams.append((mutated(rng, stream), max(0, size + off_by)))
    return streams[:count]


def fuzz(target: Target, seed: int, count: int) -> Counter[InflateStatus]:
    """Check `count` streams of this seed; how many ended in which way."""
    seen: Counter[InflateStatus] = Counter()
    for batch in range(-(-count // PER_LAUNCH)):
        rng = np.random.default_rng([seed, batch])
        streams = make_streams(rng, min(PER_LAUNCH, count - batch * PER_LAUNCH))
        seen += check(target, streams, first_byte=int(rng.integers(4)))
    return seen


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schedule", choices=SCHEDULES, default="random")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    seen = fuzz(HostTarget(options.schedule), options.seed, options.streams)
    counts = ", ".join(f"{status.name} {number}" for status, number in sorted(seen.items()))
    seconds = time.monotonic() - started
    sys.stdout.write(f"{sum(seen.values())} streams agree with zlib in {seconds:.0f} s: {counts}\n")


if __name__ == "__main__":
    main()
