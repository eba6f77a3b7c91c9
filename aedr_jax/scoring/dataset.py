"""Score a source of any size into a Parquet folder: here, as one of several processes, or on a cluster."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from aedr_jax.errors import RunError, SourceError
from aedr_jax.images.codec import MAX_PIXELS
from aedr_jax.inputs.containers import as_source
from aedr_jax.inputs.sources import Source
from aedr_jax.scoring.cluster import Cluster
from aedr_jax.scoring.job import Finished, Plan, Setup, settings, tally
from aedr_jax.scoring.rows import Row
from aedr_jax.scoring.scorer import Scorer
from aedr_jax.scoring.sharding import pod_share
from aedr_jax.scoring.store import Fresh, Parts
from aedr_jax.signal.measurement import SignalConfig

__all__ = ["score_dataset"]

LINE_SECONDS = 60.0
PART_IMAGES = 1000
PART_SECONDS = 60.0


def score_dataset(
    source: Any,
    models: Mapping[str, str],
    out: str | os.PathLike[str],
    *,
    config: SignalConfig = SignalConfig(),
    batch_size: int | None = None,
    multiple: int | None = None,
    dtype: str | None = None,
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
) -> Finished:
    """Score every image of a source with every model into a folder of Parquet files; the same call resumes it.

    Args:
      source: a `Source`, or what `containers.open_source` reads: folders, patterns, image files, archives, tables,
        "hf:NAME:SPLIT", "tfds:NAME:SPLIT", one or a list of them.
      models: names in the rows -> what `load_autoencoder` takes.
      out: the folder.
      config: what to measure. `SignalConfig.official()` also brings images to size as the authors' code does.
      batch_size, multiple: as for `scoring.Scorer`.
      dtype, precision: as for `load_autoencoder`.
      most_pixels, most_decoded: as for `scoring.Scorer`.
      workers: decoder processes (0: decode in this process; None: one a CPU, at most 16).
      shard: (I, N): this process does the I-th of N shares; the others' may run at the same time, anywhere. "auto": as
        `jax.distributed` says (`sharding.pod_share`).
      part_images: images in a part, at most.
      part_seconds: a part is written when so much time has passed: what a kill can cost.
      engine: "local", or "ray" for a cluster.
      address: the address of the Ray cluster; None: the running one, or else a new one on this machine.
      resources: what an actor needs, such as {"GPU": 1} or {"TPU": 4}; None: what the cluster has.
      progress: whether to draw a bar on the terminal.

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
    if not isinstance(config, SignalConfig):
        raise SourceError(f"config {config!r}: expected a SignalConfig, such as SignalConfig.paper()")
    if isinstance(shard, str):
        if shard != "auto":
            raise SourceError(f"shard {shard!r}: expected (I, N) or 'auto'")
        shard = pod_share()
    if not 0 <= shard[0] < shard[1]:
        raise SourceError(f"shard {shard[0]}/{shard[1]}: expected I/N with I from 0 to N - 1")
    for what, number, least in (("workers", workers, 0), ("part_images", part_images, 1)):
        if number is not None and number < least:
            raise SourceError(f"{what} {number}: expected {least} or more")
    if engine not in ("local", "ray"):
        raise SourceError(f"engine {engine!r}: expected local or ray")
    if engine == "ray" and shard[1] > 1:
        raise SourceError("engine ray divides the work itself: leave shard out")
    setup = Setup(config, batch_size, multiple, dtype, precision, most_pixels, most_decoded)
    plan = Plan(dict(models), setup, workers)
    whole = as_source(source)
    parts = Parts(Path(out), tag=f"{shard[0]}-of-{shard[1]}")
    if engine == "ray":
        with (
            closing(Cluster(address, resources)) as cluster,
            parts.going_on(cluster.settings(plan), shard) as done,
            progress_bar(whole, progress) as advance,
        ):
            return cluster.score(whole, plan, parts, done, part_images, advance)
    scorer, share = plan.scorer(), whole.share(*shard)
    with parts.going_on(settings(scorer), shard) as done, progress_bar(share, progress) as advance:
        return _score_here(Fresh(share, done, advance), plan, scorer, parts, part_images, part_seconds, advance)


def _score_here(
    fresh: Fresh,
    plan: Plan,
    scorer: Scorer,
    parts: Parts,
    part_images: int,
    part_seconds: float,
    advance: Callable[[int], None],
) -> Finished:
    rows: list[Row] = []
    scored = unreadable = not_finite = 0
    written = time.monotonic()
    problems: list[str] = []
    try:
        for batch in plan.score(scorer, fresh):
            rows += batch
            images, refused, failed = tally(batch, scorer)
            scored += images
            unreadable += refused
            not_finite += failed
            advance(images)
            if len(rows) >= part_images * len(scorer.candidates) or time.monotonic() - written > part_seconds:
                parts.write(rows)
                rows, written = [], time.monotonic()
    except RunError as error:
        problems.append(str(error))
    finally:  # whatever stopped it, Ctrl-C too: what is finished is kept
        parts.write(rows)
    if fresh.doubles:
        problems.append(fresh.complaint())
    if problems:
        raise RunError("; ".join(problems))
    return Finished(scored, unreadable, fresh.skipped, not_finite)


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
