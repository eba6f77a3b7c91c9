"""Score a source of any size into a Parquet folder, part by part, so that it can stop anywhere and go on.

- A part holds whole images: a row for each of the models. It is written under another name, flushed to the disk and
  renamed, so it is whole or absent; its name is a hash of the ids and models in it, so that writing it twice is writing
  it once.
- `FOLDER.run.json`, beside the folder, holds the settings. A run with others is refused: their rows do not mix.
- An id that is in a part is finished, whether scored or an error, and skipped by the next run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

import numpy as np

from aedr_jax import __version__
from aedr_jax.errors import RunError, SourceError
from aedr_jax.sources import Item, Source
from aedr_jax.tables import printable

if TYPE_CHECKING:
    from aedr_jax.scoring import Row, Scorer
    from aedr_jax.signal import SignalConfig

__all__ = ["Finished", "Ids", "Parts", "Plan", "score_dataset"]

LANE = 1_000_000
LINE_SECONDS = 60.0
PART_IMAGES = 1000
PART_SECONDS = 60.0
SCHEMA_VERSION_KEY = b"aedr_jax.schema_version"


class Finished(NamedTuple):
    """What a call of `score_dataset` did, in images: scored (of which unreadable), and skipped as finished before."""

    scored: int
    unreadable: int
    skipped: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to score, in a form that travels to other machines; the fields are `score_dataset`'s arguments."""

    models: Mapping[str, str]
    config: SignalConfig
    batch_size: int | None = None
    multiple: int | None = None
    dtype: str | None = None
    precision: str = "highest"
    workers: int | None = None

    def scorer(self) -> Scorer:
        """Load the models."""
        from aedr_jax.scoring import Scorer, load_candidate

        options: dict[str, Any] = {"preset": self.config.name, "dtype": self.dtype, "precision": self.precision}
        candidates = [
            dataclasses.replace(load_candidate(model, **options), name=name) for name, model in self.models.items()
        ]
        return Scorer(candidates, preset=self.config, batch_size=self.batch_size, multiple=self.multiple)

    def score(self, scorer: Scorer, items: Iterable[Item]) -> Iterator[list[Row]]:
        """Rows batch by batch, the rows of an image together; items are decoded in worker processes."""
        from aedr_jax.workers import decode_all

        workers = min(os.cpu_count() or 1, 16) if self.workers is None else self.workers
        failures: list[Exception] = []
        with closing(decode_all(scorer.decoder, items, workers=workers)) as decoded:
            yield from scorer.score_decoded(_until_failure(decoded, failures))
        if failures:  # of the source: what came before it has been scored
            raise failures[0]


def _until_failure(stream: Iterable[Any], failures: list[Exception]) -> Iterator[Any]:
    try:
        yield from stream
    except Exception as error:
        failures.append(error)


def score_dataset(
    source: Any,
    models: Mapping[str, str],
    out: str | os.PathLike[str],
    *,
    config: SignalConfig | None = None,
    batch_size: int | None = None,
    multiple: int | None = None,
    dtype: str | None = None,
    precision: str = "highest",
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
    part_images: int = PART_IMAGES,
    part_seconds: float = PART_SECONDS,
    engine: str = "local",
    address: str | None = None,
    resources: Mapping[str, float] | None = None,
    progress: bool = False,
) -> Finished:
    """Score every image of a source with every model into a folder of Parquet files; the same call again goes on.

    Args:
      source: a `Source`, or what `containers.open_source` reads: folders, patterns, image files, .tar, .csv, .parquet,
        "hf:NAME:SPLIT", "tfds:NAME:SPLIT", one or a list of them.
      models: names in the rows -> what `load_autoencoder` takes.
      out: the folder.
      config: what to measure; None: the default. Sizes are the authors' if it is `SignalConfig.official()`.
      batch_size, multiple: as for `scoring.Scorer`.
      dtype, precision: as for `load_autoencoder`.
      workers: decoder processes (0: decode in this process; None: one a CPU, at most 16).
      shard: (I, N): this process does the I-th of N shares; the others' may run at the same time, anywhere.
      part_images: images in a part, at most.
      part_seconds: a part is written when so much time has passed: what a kill can cost.
      engine: "local", or "ray" for a cluster.
      address: of the Ray cluster; None: the running one, or else one on this machine.
      resources: what an actor needs, such as {"GPU": 1} or {"TPU": 4}; None: what the cluster has.
      progress: whether to draw a bar on the terminal.

    Raises:
      SourceError: for a wrong call: nothing there to read, other settings than those of the rows in `out`.
      RunError: at the end, where part of the source could not be read or an id came twice; at once, where a part cannot
        be written. What was finished is kept.
    """
    from aedr_jax.containers import as_source
    from aedr_jax.signal import SignalConfig

    if not 0 <= shard[0] < shard[1]:
        raise SourceError(f"shard {shard[0]}/{shard[1]}: expected I/N with I from 0 to N - 1")
    if engine not in ("local", "ray"):
        raise SourceError(f"engine {engine!r}: expected local or ray")
    if engine == "ray" and shard[1] > 1:
        raise SourceError("engine ray divides the work itself: leave shard out")
    plan = Plan(dict(models), config or SignalConfig(), batch_size, multiple, dtype, precision, workers)
    whole = as_source(source)
    parts = Parts(Path(out), tag=f"{shard[0]}-of-{shard[1]}")
    if engine == "ray":
        from aedr_jax.cluster import Cluster

        cluster = Cluster(address, resources)
        with parts.going_on(cluster.settings(plan), shard) as done, progress_bar(whole, progress) as advance:
            finished = cluster.score(whole, plan, parts, done, part_images, advance)
            parts.check()
            return finished
    scorer, share = plan.scorer(), whole.share(*shard)
    with parts.going_on(settings(scorer, plan), shard) as done, progress_bar(share, progress) as advance:
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
    models = len(scorer.candidates)
    rows: list[Row] = []
    scored = unreadable = 0
    written = time.monotonic()
    try:
        for batch in plan.score(scorer, fresh):
            rows += batch
            scored += len(batch) // models
            unreadable += sum(row.status != "ok" for row in batch) // models
            advance(len(batch) // models)
            if len(rows) >= part_images * models or time.monotonic() - written > part_seconds:
                parts.write(rows)
                rows, written = [], time.monotonic()
    finally:  # whatever stopped it, Ctrl-C too: what is finished is kept
        parts.write(rows)
    if fresh.doubles:
        raise RunError(fresh.complaint())
    return Finished(scored, unreadable, fresh.skipped)


class Fresh:
    """The items of a source whose ids no part holds yet, each id once."""

    def __init__(self, source: Iterable[Item], done: Ids, on_skip: Callable[[int], Any] = lambda images: None) -> None:
        self.source, self.done, self.seen, self.on_skip = source, done, Ids(), on_skip
        self.skipped = self.doubles = 0
        self.example = ""

    def __iter__(self) -> Iterator[Item]:
        for item in self.source:
            name = printable(item.id)  # as it stands in the rows
            if not self.seen.add(name):
                self.doubles += 1
                self.example = self.example or f"{item.id} ({item.path})"
            elif name in self.done:
                self.skipped += 1
                self.on_skip(1)
            else:
                yield item

    def complaint(self) -> str:
        """That ids came twice: images under a taken name are not scored, and that is said."""
        return (
            f"{self.doubles} images have an id that another has too, such as {self.example}, and no row: score them "
            "into a folder of their own"
        )


class Ids:
    """A set of ids in 16 bytes each: a sorted array of hashes, and a small set of those that came since."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self.sorted = np.empty(0, "S16")
        self.recent: set[bytes] = set()
        for text in ids:
            self.add(text)

    def __contains__(self, text: str) -> bool:
        return self._holds(_digest(text))

    def __len__(self) -> int:
        return len(self.sorted) + len(self.recent)

    def add(self, text: str) -> bool:
        """Whether it was not there yet."""
        digest = _digest(text)
        if self._holds(digest):
            return False
        self.recent.add(digest)
        if len(self.recent) > 10_000 + len(self.sorted) // 8:
            self.sorted = np.sort(np.concatenate([self.sorted, np.array(list(self.recent), "S16")]))
            self.recent = set()
        return True

    def _holds(self, digest: bytes) -> bool:
        if digest in self.recent:
            return True
        place = int(np.searchsorted(self.sorted, np.array(digest, "S16")))
        return place < len(self.sorted) and bool(self.sorted[place] == np.array(digest, "S16"))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Parts:
    """The folder of parts, and the run's settings beside it."""

    def __init__(self, folder: Path, *, tag: str) -> None:
        self.folder, self.tag = folder, tag
        self.manifest = folder.with_name(folder.name + ".run.json")

    def open(self, wanted: Mapping[str, Any]) -> Path:
        """Begin a run, or check that this one goes on with the same settings; the manifest's path.

        Raises:
          SourceError: on other settings, on files in the folder that no run wrote.
        """
        if not self.folder.parent.is_dir():
            raise SourceError(f"{self.folder}: the folder {self.folder.parent} does not exist")
        if self.folder.exists() and not self.folder.is_dir():
            raise SourceError(f"{self.folder}: is a file; a name without an ending is a Parquet folder")
        if not self.manifest.exists():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise SourceError(
                    f"{self.folder}: holds files, but {self.manifest.name} is not beside it; name another"
                )
            about = {"version": __version__, "python": platform.python_version(), "started": time.strftime("%FT%TZ")}
            text = json.dumps({"settings": wanted, "about": about}, indent=1)
            write_whole(self.manifest, lambda path: path.write_text(text, encoding="utf-8"), tag=self.tag, keep=True)
        found = json.loads(self.manifest.read_text(encoding="utf-8"))["settings"]
        if different := [key for key in wanted if found.get(key) != wanted[key]]:
            raise SourceError(
                f"{self.folder}: holds rows of other settings ({', '.join(different)}, see {self.manifest.name}); "
                "name another folder"
            )
        self.folder.mkdir(exist_ok=True)
        return self.manifest

    @contextmanager
    def going_on(self, wanted: Mapping[str, Any], shard: tuple[int, int]) -> Iterator[Ids]:
        """Begin or go on with a run, alone in doing this share; the ids that have rows already."""
        with _locked(self.open(wanted), self.folder, shard):
            self.sweep(shard[1])
            yield self.ids()

    def sweep(self, shares: int) -> None:
        """Remove what killed processes left half-written: this share's, and that of runs with other shares, of which
        none is under way now."""
        for left in self.folder.glob(".*.partial"):
            tag = left.name.split(".")[1]
            if tag == self.tag or not tag.endswith(f"-of-{shares}"):
                left.unlink(missing_ok=True)

    def ids(self) -> Ids:
        """Of all images that have rows."""
        import pyarrow.parquet as pq

        found = Ids()
        for part in sorted(self.folder.glob("part-*.parquet")):
            try:
                for text in pq.read_table(part, columns=["id"]).column("id").to_pylist():
                    found.add(text)
            except Exception as error:  # pyarrow's and the file system's
                raise SourceError(
                    f"{part}: cannot be read ({error}); remove it, and its images are scored again"
                ) from None
        return found

    def check(self) -> None:
        """Raise a `RunError` if an id has its rows in two parts."""
        import pyarrow.parquet as pq

        images = sum(pq.read_metadata(part).num_rows for part in self.folder.glob("part-*.parquet"))
        images //= len(json.loads(self.manifest.read_text(encoding="utf-8"))["settings"]["models"])
        if doubles := images - len(self.ids()):
            raise RunError(f"{self.folder}: {doubles} images have an id that another has too; give each its own")

    def name(self, keys: Iterable[tuple[str, str]]) -> str:
        """Of the part that holds rows of these ids and models."""
        return f"part-{hashlib.sha256(json.dumps(sorted(keys)).encode()).hexdigest()[:32]}.parquet"

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows as a part; none is written for none."""
        import pyarrow.parquet as pq

        if not rows:
            return
        ordered = sorted(rows, key=lambda row: (row.id, row.model))
        path = self.folder / self.name((printable(row.id), row.model) for row in ordered)
        write_whole(path, lambda partial: pq.write_table(as_table(ordered), partial), tag=self.tag)


def as_table(rows: Sequence[Row]) -> Any:
    """Rows as an Arrow table, whose columns have the same types whatever is in them."""
    import pyarrow as pa

    from aedr_jax.scoring import SCHEMA_VERSION, Row

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool | None: pa.bool_()}
    fields = [(name, types[hint]) for name, hint in get_type_hints(Row).items()]
    schema = pa.schema(fields, metadata={SCHEMA_VERSION_KEY: str(SCHEMA_VERSION).encode()})
    columns = {name: [printable(getattr(row, name)) for row in rows] for name, _ in fields}
    return pa.Table.from_pydict(columns, schema=schema)


def write_whole(path: Path, write: Callable[[Path], Any], *, tag: str, keep: bool = False) -> None:
    """Write a file that is there whole or not at all, whenever the process or the machine stops.

    Args:
      path: of the file.
      write: writes it, under the name it is given.
      tag: who writes, part of the name until then.
      keep: leave a file that is there already.

    Raises:
      RunError: when it cannot be written.
    """
    partial = path.with_name(f".{tag}.{uuid.uuid4().hex}.partial")
    try:
        try:
            write(partial)
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
            if keep and path.exists():
                return
            os.replace(partial, path)
            _sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}. Every part before it is whole; make room and give "
            "the same command again"
        ) from error


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk too, not only the bytes under it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def settings(scorer: Scorer, plan: Plan) -> dict[str, Any]:
    """What rows depend on, as JSON: a run goes on only with the same."""
    from aedr_jax.scoring import SCHEMA_VERSION

    return {
        "schema_version": SCHEMA_VERSION,
        "models": {candidate.name: candidate.weights_hash for candidate in scorer.candidates},
        "preset": scorer.preset,
        "config": scorer.config.describe(),
        "size_rule": scorer.size_rule,
        "dtype": plan.dtype,
        "precision": plan.precision,
    }


@contextmanager
def _locked(manifest: Path, folder: Path, shard: tuple[int, int]) -> Iterator[None]:
    """Refuse to do what another process is doing: both would write rows of the same images. The lock is the kernel's
    and goes with the process, however that ends; file systems without locks go without.

    Byte N · LANE + I of the manifest stands for share I of N; its process holds it alone, and asks first whether anyone
    holds a byte of another N, whose shares overlap with its own."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    index, shares = shard
    others = ((0, shares * LANE), ((shares + 1) * LANE, 0))  # start and length; 0: to the end
    busy = f"{folder}: another process is scoring into it, share {{}}; two at once would double its rows"
    with open(manifest, "rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, shares * LANE + index)
        except BlockingIOError:
            raise SourceError(busy.format(f"{index}/{shares}")) from None
        except OSError:
            yield
            return
        try:
            for start, length in others:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
        except BlockingIOError:
            raise SourceError(busy.format("of another N")) from None
        for start, length in others:
            fcntl.lockf(file, fcntl.LOCK_UN, length, start)
        yield


@contextmanager
def progress_bar(source: Source, shown: bool) -> Iterator[Callable[[int], Any]]:
    """A bar with rate and time left on a terminal, a line now and then elsewhere; no time left where the source cannot
    be counted."""
    if not shown:
        yield lambda images: None
        return
    from tqdm import tqdm

    every = 0.1 if sys.stderr.isatty() else LINE_SECONDS
    ending = {} if sys.stderr.isatty() else {"bar_format": "{l_bar}{n_fmt}/{total_fmt} [{elapsed}<{remaining}]\n"}
    with tqdm(total=source.count(), unit="image", file=sys.stderr, mininterval=every, **ending) as bar:
        yield bar.update
