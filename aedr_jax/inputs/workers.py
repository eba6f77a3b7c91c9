"""Decoding in other processes, so that what an image does to its decoder costs one row and not the run.

A worker is a fresh Python (never a fork: JAX has threads) that reads items from its standard input and writes pixels to
its standard output, as JSON lines and raw bytes: nothing is pickled, and what a worker says is checked. It may hold
`MEMORY` bytes and think about one image for `SECONDS`. One that dies is replaced, and its image is tried once more,
since it may have been killed for another's sake.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from aedr_jax.errors import RunError
from aedr_jax.inputs.decoding import Decoded, Decoder, Refused
from aedr_jax.inputs.sources import Item
from aedr_jax.interruption import ENDING
from aedr_jax.typed import build

__all__ = ["decode_all", "main"]

ATTEMPTS = 2
MAX_LINE = 1 << 20
MEMORY = 3 << 30
SECONDS = 120.0
BOOTSTRAP = "from aedr_jax.inputs.workers import main; main()"
READY = b"ready\n"


def decode_all(decoder: Decoder, items: Iterable[Item], *, workers: int) -> Generator[Decoded | Refused, None, None]:
    """Decode items in worker processes; results come as they are ready: in the items' order from one worker, in another
    from several.

    At most four items a worker are between `items` and the caller, so memory stays flat. Closing the iterator ends the
    workers.

    Args:
      decoder: what is done to each.
      items: gone through in threads, one at a time. Whatever it raises is raised here, after all that came before.
      workers: how many processes; 0: decode here.

    Raises:
      RunError: when no worker can be started.
    """
    if workers == 0:
        yield from map(decoder, items)
        return
    pool = _Pool(decoder, items, workers)
    try:
        yield from pool.results()
    finally:
        pool.close()


class _Pool:
    """A thread for each worker takes the next item, has it decoded, and puts the result into one bounded queue."""

    def __init__(self, decoder: Decoder, items: Iterable[Item], workers: int) -> None:
        self.decoder, self.items = decoder, iter(items)
        self.taking = threading.Lock()
        self.out: queue.Queue[Any] = queue.Queue(maxsize=2 * workers)
        self.closed = False
        self.failure: BaseException | None = None
        self.workers: list[_Worker | None] = [None] * workers
        self.threads = [threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(workers)]
        for thread in self.threads:
            thread.start()

    def results(self) -> Iterator[Decoded | Refused]:
        running = len(self.threads)
        while running:
            for worker in self.workers:
                if worker and worker.overdue():
                    worker.stop(f"took more than {SECONDS:g} seconds")
            try:
                result = self.out.get(timeout=1.0)
            except queue.Empty:
                continue
            if result is None:
                running -= 1
            else:
                yield result
        if self.failure:
            raise self.failure

    def close(self) -> None:
        self.closed = True
        for worker in self.workers:
            if worker:
                worker.stop("the run ended")
        while any(thread.is_alive() for thread in self.threads):
            try:
                self.out.get(timeout=0.05)
            except queue.Empty:
                continue

    def _serve(self, index: int) -> None:
        try:
            while (item := self._take()) is not None:
                self.out.put(self._decode(index, item))
        except BaseException as error:  # carried to the caller's thread
            self.failure = self.failure or error
        finally:
            if worker := self.workers[index]:
                worker.end()
            self.out.put(None)

    def _take(self) -> Item | None:
        with self.taking:
            if self.closed or self.failure:
                return None
            try:
                return next(self.items, None)
            except BaseException as error:
                self.failure = error
                return None

    def _decode(self, index: int, item: Item) -> Decoded | Refused:
        reason = ""
        for _ in range(ATTEMPTS):
            worker = self.workers[index]
            if worker is None:
                worker = self.workers[index] = _Worker(self.decoder)
            if self.closed:
                worker.stop("the run ended")
            try:
                return worker.decode(item)
            except (OSError, EOFError):
                reason = worker.end() or "ended"
            except Exception as error:  # no answer that makes sense
                worker.end()
                reason = f"gave no sensible answer: {error}"
            self.workers[index] = None
            if self.closed:
                break
        return Refused(item.id, item.path, f"{item.path}: cannot be decoded: the decoder {reason}")


class _Worker:
    """One process and the two pipes to it."""

    def __init__(self, decoder: Decoder) -> None:
        here = str(Path(__file__).resolve().parents[2])
        search = os.pathsep.join([here, *(path for path in sys.path if path)])
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.most_pixels = decoder.most_given
        self.since: float | None = None
        self.reason = ""
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOTSTRAP, json.dumps(dataclasses.asdict(decoder))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search, **single},
            start_new_session=True,  # Ctrl-C is for the run, which ends its workers itself
        )
        assert self.process.stdin
        assert self.process.stdout
        self.to: IO[bytes] = self.process.stdin
        self.back: IO[bytes] = self.process.stdout
        if self.back.readline(len(READY)) != READY:
            code = self.process.wait()
            self.end()
            raise RunError(f"a decoder process could not be started (exit code {code}); what it printed is above")

    def decode(self, item: Item) -> Decoded | Refused:
        head: dict[str, Any] = {"id": item.id, "path": str(item.path), "error": item.error, "size": None}
        if item.data is not None:
            head["size"] = len(item.data)
        self.since = time.monotonic()
        self.to.write(json.dumps(head).encode() + b"\n")
        if item.data is not None:
            self.to.write(item.data)
        self.to.flush()
        result = _read_result(self.back, item, self.most_pixels)
        self.since = None
        return result

    def overdue(self) -> bool:
        since = self.since  # its own thread may set it to None at any time
        return since is not None and time.monotonic() - since > SECONDS

    def stop(self, reason: str) -> None:
        """Kill the process, from any thread; the one that waits for its answer then ends it."""
        self.reason = self.reason or reason
        self.process.kill()

    def end(self) -> str:
        """End the process, from its own thread; why it had ended, or "" if it had not."""
        for pipe in (self.to, self.back):  # which ends one that waits for work
            try:
                pipe.close()
            except OSError:  # bytes that it did not take
                continue
        try:
            code: int | None = self.process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            code = None
            self.process.kill()
            self.process.wait()
        if self.reason or code is None:
            return self.reason
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def _read_result(pipe: IO[bytes], item: Item, most_pixels: int) -> Decoded | Refused:
    """What a worker answered.

    Raises:
      EOFError: it ended before.
      ValueError, KeyError, TypeError: it is no answer: the worker is not to be trusted any more.
    """
    line = pipe.readline(MAX_LINE)
    if not line.endswith(b"\n"):
        raise EOFError("ended")
    head = json.loads(line)
    if "error" in head:
        return Refused(item.id, item.path, str(head["error"]))
    shapes = [tuple(map(int, shape)) for shape in head["shapes"]]
    for shape in shapes:
        flat = len(shape) == 2 or (len(shape) in (3, 4) and shape[-1] == 3)
        if not flat or min(shape) < 0 or math.prod(shape[: 3 if len(shape) == 4 else 2]) > most_pixels:
            raise ValueError(f"an impossible size, {shape}")
    gray, *images = (_read_array(pipe, shape) for shape in shapes)
    known = str(head["sha256"]), str(head["format"]), int(head["width"]), int(head["height"])
    used = tuple((int(height), int(width)) for height, width in head["used"])
    return Decoded(item.id, item.path, *known, gray, tuple(images), int(head["quality"]), used)


def _read_array(pipe: IO[bytes], shape: tuple[int, ...]) -> np.ndarray:
    data = _read_exactly(pipe, int(np.prod(shape)))
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) != size:
        raise EOFError("ended")
    return data


def main() -> None:
    """What a worker process runs, until its input ends."""
    back = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that prints can get between the answers
    for number in ENDING:  # which batch systems send to every process of a job: the run ends its workers itself
        signal.signal(number, signal.SIG_IGN)
    decoder = build(Decoder, json.loads(sys.argv[1]))
    _limit_memory()
    back.write(READY)
    back.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff has much to say
    take = sys.stdin.buffer
    while line := take.readline():
        head = json.loads(line)
        data = None if head["size"] is None else _read_exactly(take, head["size"])
        _limit_time(2 * SECONDS)  # the run ends it sooner, unless it was killed itself
        try:
            _answer(back, decoder(Item(head["id"], head["path"], data, head["error"])))
        except BrokenPipeError:  # the run is gone
            os._exit(0)
        _limit_time(0.0)


def _answer(back: IO[bytes], result: Decoded | Refused) -> None:
    head: dict[str, Any]
    if isinstance(result, Refused):
        head, arrays = {"error": result.error[: MAX_LINE // 16]}, []
    else:
        arrays = [result.gray, *result.images]
        head = {name: getattr(result, name) for name in ("sha256", "format", "width", "height", "quality", "used")}
        head["shapes"] = [array.shape for array in arrays]
    back.write(json.dumps(head).encode() + b"\n")
    for array in arrays:
        back.write(np.ascontiguousarray(array).data)
    back.flush()


def _limit_time(seconds: float) -> None:
    """Have the kernel end this process then, whatever it is doing; 0: never."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
