"""A source of any size into a Parquet folder, of scores or (`fill`) of what follows from them: here, as one of several
processes, or on a cluster."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from aedr_jax.errors import RunError, SourceError
from aedr_jax.images.codec import MAX_PIXELS
from aedr_jax.inputs.containers import as_source
from aedr_jax.inputs.sources import Source
from aedr_jax.scoring.cluster import Cluster
from aedr_jax.scoring.job import Finished, Plan, Setup, Work, Worker, tally
from aedr_jax.scoring.made import Made
from aedr_jax.scoring.rows import Row
from aedr_jax.scoring.sharding import pod_share
from aedr_jax.scoring.store import Fresh, Parts
from aedr_jax.scoring.tables import check_apart
from aedr_jax.signal.measurement import SignalConfig

__all__ = ["Running", "check_workers", "fill", "score_dataset"]

LINE_SECONDS = 60.0
PART_IMAGES = 1000
PART_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Running:
    """How a run into a folder goes, whatever is done; what is written does not depend on it.

    Attributes:
      shard, part_images, part_seconds, engine, address, resources, progress, command: as for `score_dataset`.

    Raises:
      SourceError: for what cannot be.
    """

    shard: tuple[int, int] | str = (0, 1)
    part_images: int = PART_IMAGES
    part_seconds: float = PART_SECONDS
    engine: str = "local"
    address: str | None = None
    resources: Mapping[str, float] | None = None
    progress: bool = False
    command: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.shard, Sequence) or (isinstance(self.shard, str) and self.shard != "auto"):
            raise SourceError(f"shard {self.shard!r}: expected (I, N) or 'auto'")
        if not isinstance(self.shard, str) and not 0 <= self.shard[0] < self.shard[1]:
            raise SourceError(f"shard {self.shard[0]}/{self.shard[1]}: expected I/N with I from 0 to N - 1")
        if self.part_images < 1:
            raise SourceError(f"part_images {self.part_images}: expected 1 or more")
        if self.engine not in ("local", "ray"):
            raise SourceError(f"engine {self.engine!r}: expected local or ray")
        if self.engine == "ray" and self.shard != (0, 1):
            raise SourceError("engine ray divides the work itself: leave shard out")

    def share(self) -> tuple[int, int]:
        """Of this process: its number, and how many there are."""
        return pod_share() if isinstance(self.shard, str) else self.shard


def score_dataset(
    source: Any,
    models: Mapping[str, Any],
    out: str | os.PathLike[str],
    *,
    config: SignalConfig = SignalConfig(),
    batch_size: int | None = None,
    multiple: int | None = None,
    dtype: Any = None,
    precision: str = "highest",
    workers: int | None = None,
    most_pixels: int | None = None,
    most_decoded: int = MAX_PIXELS,
    shard: tuple[int, int] | str = (0, 1),
    part_images: int = PART_IMAGES,
    part_seconds: float = PART_SECONDS,
    engine: str = "local",
    address: str | None = None,
    resources: Mapping[str, float] | None = None,
    progress: bool = False,
    command: str | None = None,
) -> Finished:
    """Score every image of a source with every model into a folder of Parquet files; the same call resumes it.

    Args:
      source: a `Source`, or what `containers.open_source` reads: folders, patterns, image files, archives, tables,
        "hf:NAME:SPLIT", "tfds:NAME:SPLIT", one or a list of them.
      models: names in the rows -> what `load_autoencoder` takes, or an autoencoder, such as one of `from_functions`.
      out: the folder.
      config: what to measure. `SignalConfig.official()` also brings images to size as the authors' code does.
      batch_size, multiple: as for `scoring.scorer.Scorer`.
      dtype, precision: as for `load_autoencoder`.
      most_pixels, most_decoded: as for `scoring.scorer.Scorer`.
      workers: decoder processes (0: decode in this process; None: one a CPU, at most 16).
      shard: (I, N): this process does the I-th of N shares; the others' may run at the same time, anywhere. "auto": as
        `jax.distributed` says (`sharding.pod_share`).
      part_images: images in a part, at most.
      part_seconds: a part is written when so much time has passed: what a kill can cost.
      engine: "local", or "ray" for a cluster.
      address: the address of the Ray cluster; None: the running one, or else a new one on this machine.
      resources: what an actor needs, such as {"GPU": 1} or {"TPU": 4}; None: what the cluster has.
      progress: whether to draw a bar on the terminal.
      command: what was typed, for the parts to say.

    Returns:
      The numbers of images that this call scored, could not read, and skipped because they were finished before, and of
      those on which a model was not finite.

    Ctrl-C (`KeyboardInterrupt`) writes what is finished. SIGTERM ends Python at once and costs up to `part_seconds` of
    work, unless a handler turns it into an exception, as `aedr score` does:
    `signal.signal(signal.SIGTERM, signal.default_int_handler)`.

    Raises:
      SourceError: for a wrong call: there is nothing to read, or the rows in `out` were made with other settings.
      RunError: at the end, if part of the source could not be read, an id came twice, or the folder has rows of two
        images under one id; at once, if a part cannot be written. What was finished is kept.

    >>> from PIL import Image
    >>> Image.new("RGB", (64, 64)).save("black.png")
    >>> aedr.score_dataset("black.png", {"mini-kl4-a": "mini-kl4-a"}, "scores", batch_size=1, workers=0)
    Finished(scored=1, unreadable=0, skipped=0, not_finite=0)
    """
    if not isinstance(models, Mapping) or not models:
        raise SourceError(f"models {models!r}: expected names and what to load, such as {{'mini-vq': 'mini-vq'}}")
    check_workers(workers)
    running = Running(shard, part_images, part_seconds, engine, address, resources, progress, command)
    setup = Setup(config, batch_size, multiple, dtype, precision, most_pixels, most_decoded)
    return fill(Plan(dict(models), setup, workers), as_source(source), out, running)


def check_workers(workers: int | None) -> None:
    """Refuse a number of decoder processes that is none.

    Raises:
      SourceError: below 0.
    """
    if workers is not None and workers < 0:
        raise SourceError(f"workers {workers}: expected 0 or more")


def fill(work: Work, whole: Source, out: str | os.PathLike[str], running: Running = Running()) -> Finished:
    """Do a work on every image of a source, and write what is kept into a folder; the same call resumes it.

    Raises:
      SourceError, RunError: as `score_dataset`.
    """
    check_apart(whole, out)
    share = running.share()
    parts = Parts(Path(out), tag=f"{share[0]}-of-{share[1]}", layout=work.layout, command=running.command)
    if running.engine == "ray":
        with closing(Cluster(running.address, running.resources)) as cluster:
            settings, made = cluster.settings(work)
            about = _about(work, dataclasses.replace(made, command=running.command))
            with parts.going_on(settings, share, about) as done, progress_bar(whole, running.progress) as advance:
                return cluster.do(whole, work, parts, done, running.part_images, advance)
    worker, mine = work.worker(), whole.share(*share)
    about = _about(work, Made.now(running.command))
    with parts.going_on(worker.settings(), share, about) as done, progress_bar(mine, running.progress) as advance:
        return _fill_here(Fresh(mine, done, advance), worker, parts, running, advance)


def _about(work: Work, made: Made) -> dict[str, Any]:
    """What a folder's manifest says beside the settings."""
    return {"measuring": dataclasses.asdict(work.measuring), "made": dataclasses.asdict(made)}


def _fill_here(
    fresh: Fresh, worker: Worker, parts: Parts, running: Running, advance: Callable[[int], None]
) -> Finished:
    rows: list[Row] = []
    models = len(worker.models)
    done = Finished(0, 0, 0)
    written = time.monotonic()
    problems: list[str] = []
    try:
        for batch in worker.rows(fresh):
            rows += batch
            found = tally(batch, models)
            done = done.plus(found)
            advance(found.scored)
            if len(rows) >= running.part_images * models or time.monotonic() - written > running.part_seconds:
                parts.write(worker.kept(rows))
                rows, written = [], time.monotonic()
    except RunError as error:
        problems.append(str(error))
    finally:  # whatever stopped it, Ctrl-C too: what is finished is kept
        parts.write(worker.kept(rows))
    if fresh.doubles:
        problems.append(fresh.complaint())
    if problems:
        raise RunError("; ".join(problems))
    return done._replace(skipped=fresh.skipped)


@contextmanager
def progress_bar(source: Source, shown: bool) -> Iterator[Callable[[int], Any]]:
    """A bar with rate and time left on a terminal, a line now and then elsewhere; no time left where the source cannot
    be counted."""
    if not shown:
        yield lambda images: None
        return
    from tqdm import tqdm

    every = 0.1 if sys.stderr.isatty() else LINE_SECONDS
    line = "{l_bar}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]\n"
    ending = {} if sys.stderr.isatty() else {"bar_format": line}
    with tqdm(total=source.count(), unit="image", file=sys.stderr, mininterval=every, **ending) as bar:
        yield bar.update
