"""Finding the images that kill the process that scores them, without dying of them.

A child process scores the images of a shard one by one and names each before it begins. The image at which
it dies or hangs is fatal; a new child goes on behind it. The child is this file, run with `python -m`: a
pickled callable comes in on its standard input, lines go out on its standard output.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO

from gpu_eval.errors import DeviceFailed, EngineError

# If more images of one shard than this kill their process, it is not the images.
MOST_FATAL = 16

_READY = "ready"
_END = "end"


class _NotStartedError(Exception):
    """The child died or hung before its first image."""


def find_fatal_images(
    run_one: Callable[[int], object],
    first: int,
    last: int,
    *,
    timeout: float = 300.0,
    start_timeout: float = 300.0,
    known: Collection[int] = (),
) -> tuple[int, ...]:
    """The images from `first` up to but not including `last` at which `run_one(image)` ends its process.

    `run_one` is pickled. An image that takes longer than `timeout` seconds is fatal too, and a child may
    take `start_timeout` to begin. `known` images are left out. An image at which `run_one` raises is not
    fatal, since who scores it for good meets the exception; one at which a device fails is.

    Raises EngineError if the child does not start, or if more than MOST_FATAL images kill it.
    """
    payload = pickle.dumps(run_one)
    images = [image for image in range(first, last) if image not in known]
    fatal: list[int] = []
    while images and (image := _deadly(payload, images, timeout, start_timeout)) is not None:
        fatal.append(image)
        images = images[images.index(image) + 1 :]
        if len(fatal) > MOST_FATAL:
            raise EngineError(
                "image after image kills the process that scores it",
                found=f"{len(fatal)} of images {first} to {last - 1}",
                fix="it is the engine or the machine rather than the images: try --engine cpu or more memory",
            )
    return tuple(fatal)


def _deadly(payload: bytes, images: Sequence[int], timeout: float, start_timeout: float) -> int | None:
    """The first image at which a child dies or hangs; None if it gets through all of them."""
    told: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [sys.executable, "-m", "gpu_eval.scheduling.fatal_images"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            # What is importable here must be there, however this process came by its path.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert child.stdin is not None
        assert child.stdout is not None
        reader = threading.Thread(target=_pass_on, args=(child.stdout, told), daemon=True)
        reader.start()
        try:
            # Not closed before the end: it is how the child knows that this process is still there.
            _send(child.stdin, payload, images)
            return _follow(told, timeout, start_timeout)
        except _NotStartedError as error:
            with suppress(subprocess.TimeoutExpired):
                child.wait(5)  # it says why after it has let go of its pipe
            complaints.seek(0)
            tail = complaints.read().decode(errors="replace").strip().splitlines()[-1:]
            raise EngineError(
                "the process that looks for deadly images did not start",
                found=tail[0] if tail else f"no word from it in {start_timeout:g} s, or a silent death",
            ) from error
        finally:
            child.kill()
            child.wait()
            reader.join()
            child.stdout.close()
            _close(child.stdin)


def _send(pipe: IO[bytes], payload: bytes, images: Sequence[int]) -> None:
    try:
        pickle.dump(list(images), pipe)
        pipe.write(payload)
        pipe.flush()
    except BrokenPipeError:
        return  # the child is dead already; what it told says why


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return  # what was not sent to a dead child is lost


def _pass_on(pipe: IO[bytes], told: queue.SimpleQueue[str | None]) -> None:
    for line in pipe:
        told.put(line.decode().strip())
    told.put(None)


def _follow(told: queue.SimpleQueue[str | None], timeout: float, start_timeout: float) -> int | None:
    at = None
    while True:
        try:
            line = told.get(timeout=start_timeout if at is None else timeout)
        except queue.Empty:
            line = None
        if line == _END:
            return None
        if line is None and at is None:
            raise _NotStartedError
        if line is None:
            return at
        if line != _READY:
            at = int(line)


def _child() -> None:
    """Score images one by one, naming each before it begins; end with the parent."""
    # Whatever prints while scoring goes to standard error; lines to the parent are only ours.
    with os.fdopen(os.dup(1), "w", buffering=1) as parent:
        os.dup2(2, 1)
        images = pickle.load(sys.stdin.buffer)
        run_one = pickle.load(sys.stdin.buffer)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        parent.write(f"{_READY}\n")
        with ThreadPoolExecutor(1) as pool:
            for image in images:
                parent.write(f"{image}\n")
                # Waits. An exception is no death, but that of a device is one.
                if isinstance(pool.submit(run_one, image).exception(), DeviceFailed):
                    signal.raise_signal(signal.SIGKILL)
        parent.write(f"{_END}\n")


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    _child()
