"""The paper's experiments on a folder of folders: each method's score of each image by each model, to one Parquet.

One folder for each model, one `real`, and any others, whose images are of no candidate. Every method sees the same
pixels: the middle of each image, one side for all, cut where a decoder's grid has its lines (`Decoder`). Methods that
need a few passes only are one program of the `Engine`, in which equal passes are computed once; each is timed alone on
a batch. The scores of one such group, model and source are one file, so an interrupted run goes on where it stopped,
and a changed option or version computes again what it changes. `comparison` makes the tables from the Parquet alone,
`plots` the pictures.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from aedr_jax import __version__
from aedr_jax.autoencoders.names import name_models
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.errors import SourceError
from aedr_jax.images.arrays import prepare
from aedr_jax.images.processing import GRID, Processing
from aedr_jax.inputs.decoding import Decoded, Decoder
from aedr_jax.inputs.sources import Item
from aedr_jax.rivals.registry import DEFAULT, PAPER, Method, Scored
from aedr_jax.scoring.engine import Batch, Engine, Measured
from aedr_jax.scoring.made import Made
from aedr_jax.scoring.scorer import Candidate, load_candidate
from aedr_jax.scoring.tables import for_terminal, write_rows
from aedr_jax.signal import texture
from aedr_jax.signal.protocol import Protocol, told_apart
from aedr_jax.study.clock import Clock
from aedr_jax.study.comparison import HALVES
from aedr_jax.study.folders import Sources, find_sources
from aedr_jax.study.run import join_parts, not_finite, write_run

__all__ = ["ScoreRow", "evaluate"]

SIDE = 128  # where no model says another
LAYOUT = 4  # of the rows: parts of another are not taken up
AT_MOST = 500  # images in each half, as in the paper
NONE = Processing("none")
ROBUST = (PAPER, DEFAULT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One image scored by one method and model; a row of the Parquet. Width, height and bytes are the file's; seconds
    are those of a batch by this method alone, shared out."""

    processing: str
    method: str
    model: str
    autoencoder: str
    source: str
    half: str
    image: str
    format: str
    bytes: int
    width: int
    height: int
    score: float
    first_loss: float
    second_loss: float
    homogeneity: float
    alignment: float
    alignment_error: float
    seconds: float
    compile_seconds: float


def evaluate(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    models: Sequence[str],
    *,
    methods: Mapping[str, Method],
    count: int = 2 * AT_MOST,
    side: int | None = None,
    seed: int = 0,
    robustness: int = 0,
    batch_size: int = 8,
    command: str | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Sources:
    """Score everything, and write `OUT/scores.parquet`, and `OUT/run.json` with what it depends on. What was scored
    before is kept.

    Args:
      folder: of folders, see `find_sources`.
      out: where parts, sampled images and the Parquet go.
      models: registry names, folders or hub paths, or `NAME=SOURCE` (`autoencoders.names.name_models`).
      methods: from `registry.make_methods`, or some of them.
      count: at most so many images of each source: the first half calibrates, the other tests.
      side: to which every image is cropped; None: the smallest native size of the models.
      seed: of the images' order, and so of the halves.
      robustness: on so many test images of each source AEDR is measured after each processing of `processing.GRID`
        too. Thresholds come from images that are not processed.
      batch_size: images at once, at most: batches of a source are of one size, and the last is filled up.
      command: what was typed, for `run.json`.
      say: told of each part that is scored, for a run without a terminal.

    Returns:
      The images that were taken, and what was left out: images, and scores that are not finite.

    Raises:
      AutoencoderError: on models of one name, or that cannot be loaded.
      SourceError: as `find_sources`; on a `count` below 2, a `batch_size` below 1, a negative `robustness`, and a
        side that is no multiple of every model's factor.
    """
    from tqdm import tqdm

    for what, number, least in (("count", count, 2), ("batch_size", batch_size, 1), ("robustness", robustness, 0)):
        if number < least:
            raise SourceError(f"{what} {number}: expected {least} or more")
    out = Path(out)
    candidates = [load_candidate(source, name=name) for name, source in name_models(models).items()]
    names = [candidate.name for candidate in candidates]
    if side is None:
        sides = [REGISTRY[name].native_size for name in names if name in REGISTRY]
        side = min((known for known in sides if known is not None), default=SIDE)
    factor = math.lcm(*(candidate.autoencoder.factor for candidate in candidates))
    if side % factor:
        raise SourceError(f"side {side}: no multiple of the autoencoders' factor, {factor}")
    out.mkdir(parents=True, exist_ok=True)
    sources = find_sources(folder, names, out, count=count, side=side, seed=seed)
    sizes = {"side": side, "grid": factor, "batch_size": batch_size}
    tasks = [*_compared(methods, candidates, sources, count, **sizes)]
    robust = {name: methods[name] for name in ROBUST if name in methods}
    if robustness and robust:
        tasks += _processed(robust, candidates, sources, count, robustness, **sizes)
    programs = _Programs()
    hashes: dict[str | Path, str] = {}
    files = [task.file(out / "parts", hashes) for task in tasks]
    # The bar counts what is still to do: parts that are there would make the time left look short.
    missing = [(task, file) for task, file in zip(tasks, files, strict=True) if not file.exists()]
    with tqdm(total=sum(len(task.items) * task.passes for task, _ in missing), unit="pass", disable=None) as bar:
        for i, (task, file) in enumerate(missing, 1):
            text = f"{task.label} by {task.candidate.name} on {task.source}"
            bar.set_postfix_str(for_terminal(text), refresh=False)
            say(f"{i}/{len(missing)} {text}, {task.processing}, {len(task.items)} images")
            file.parent.mkdir(parents=True, exist_ok=True)
            write_rows(task.rows(programs, bar.update), file, about=Made.now(command).in_parquet())
    join_parts(files, out / "scores.parquet")
    known = {source: [hashes.get(item.path) for item in items] for source, items in sources.images.items()}
    asked = {"count": count, "side": side, "seed": seed, "robustness": robustness, "batch_size": batch_size}
    write_run(
        out,
        Made.now(command),
        settings={**asked, "methods": {name: dict(method.settings) for name, method in methods.items()}},
        candidates=candidates,
        images={source: list(filter(None, files)) for source, files in known.items()},
        parts=files,
    )
    sources.left_out.extend(not_finite(out / "scores.parquet"))
    return sources


def _compared(
    methods: Mapping[str, Method], candidates: Sequence[Candidate], sources: Sources, count: int, **sizes: int
) -> Iterator[_Task]:
    """What compares the methods: all of them, on images as they are."""
    for candidate in candidates:
        asked = {n: m for n, m in methods.items() if m.models is None or candidate.name in m.models}
        for group in _groups(asked):
            limit = min(count, *(count if method.count is None else method.count for method in group.values()))
            for source, items in sources.images.items():
                yield _Task(group, candidate, NONE, source, _split(items, limit), **sizes)


def _processed(
    methods: Mapping[str, Method],
    candidates: Sequence[Candidate],
    sources: Sources,
    count: int,
    robustness: int,
    **sizes: int,
) -> Iterator[_Task]:
    """The same methods on test images, so many of each source, after each processing."""
    for candidate in candidates:
        for processing in GRID:
            if processing == NONE:
                continue
            for source, items in sources.images.items():
                tested = [(half, item) for half, item in _split(items, count) if half == HALVES[1]]
                yield _Task(methods, candidate, processing, source, tested[:robustness], **sizes)


def _groups(methods: Mapping[str, Method]) -> list[dict[str, Method]]:
    """Methods that look at every image as it is share a program; the others go one by one."""
    together = {n: m for n, m in methods.items() if m.count is None and m.resize is None}
    alone = [{name: method} for name, method in methods.items() if name not in together]
    return [together, *alone] if together else alone


@dataclasses.dataclass(frozen=True)
class _Task:
    """Some methods, one model, processing and source: what one file holds."""

    methods: Mapping[str, Method]
    candidate: Candidate
    processing: Processing
    source: str
    items: list[tuple[str, Item]]
    side: int
    grid: int
    batch_size: int

    @property
    def label(self) -> str:
        return next(iter(self.methods)) if len(self.methods) == 1 else f"{len(self.methods)} methods"

    @property
    def passes(self) -> int:
        return sum(method.passes for method in self.methods.values())

    def file(self, folder: Path, hashes: dict[str | Path, str]) -> Path:
        """Its name holds everything that the rows depend on."""
        for _, item in self.items:
            if item.path not in hashes:
                hashes[item.path] = item.sha256()
        images = [(half, item.id, hashes[item.path]) for half, item in self.items]
        protocol = Protocol(
            self.candidate.identity,
            method=",".join(self.methods),
            settings={name: dict(method.settings) for name, method in self.methods.items()},
            size_rule=f"middle{self.side} on {self.grid}",
            processing=str(self.processing),
        )
        name = told_apart([__version__, LAYOUT, protocol.fingerprint(), images])[:16]
        return folder / self.candidate.name / f"{self.source}-{self.processing}-{name}.parquet"

    def rows(self, programs: _Programs, on_progress: Callable[[int], object]) -> list[ScoreRow]:
        batches = math.ceil(len(self.items) / self.batch_size)
        size = math.ceil(len(self.items) / batches)  # twenty images are three batches of seven, not of eight
        model = self.candidate
        decoder = Decoder(model.autoencoder.factor, processing=str(self.processing), side=self.side, grid=self.grid)
        program = programs.of(self.methods, model)
        engine = Engine(program, [model.autoencoder], batch_size=size, extra=self._seen)
        found: list[ScoreRow] = []
        for measured in engine.measured(map(decoder, (item for _, item in self.items))):
            times = dict.fromkeys(self.methods, program.times.popleft())
            if len(self.methods) > 1:
                given = model, engine, measured.photos
                times = {name: programs.alone(name, method, *given) for name, method in self.methods.items()}
            found += self._rows(measured, times, size)
            on_progress(len(measured.photos) * self.passes)
        return found

    def _seen(self, photo: Decoded) -> _Seen:
        gray, pixels = photo.gray.astype(np.int32), photo.images[:1]
        resize = next(iter(self.methods.values())).resize  # such a method is alone (`_groups`)
        images = resize(pixels, self.candidate.name) if resize else np.asarray(prepare(pixels))
        return _Seen(images[0], gray, _homogeneity(gray[None])[0])

    def _rows(self, measured: Measured, times: Mapping[str, tuple[float, float]], size: int) -> list[ScoreRow]:
        autoencoder = self.candidate.autoencoder
        halves = {item.id: half for half, item in self.items}
        return [
            ScoreRow(
                processing=str(self.processing),
                method=name,
                model=self.candidate.name,
                autoencoder=_design(autoencoder),
                source=self.source,
                half=halves[photo.id],
                image=photo.id,
                format=photo.format,
                bytes=Path(photo.path).stat().st_size,
                width=photo.width,
                height=photo.height,
                seconds=seconds / size,
                compile_seconds=compiling,
                **{key: math.nan if value is None else float(value) for key, value in scored[name]._asdict().items()},
            )
            for name, (seconds, compiling) in times.items()
            for photo, scored in measured.images()
        ]


class _Seen(NamedTuple):
    """What methods are given: the engine's `extra`, of one image [...] or of a batch [n, ...].

    Attributes:
      images: in [-1, 1], by a method's own resizing where it has one. They are made on the host: XLA's division differs
        in the last bit, and some methods round to grey levels.
      gray: int32, of the same pixels.
      homogeneity: the paper's, of every image, for the rows ×H.
    """

    images: Float[np.ndarray, "*n h w 3"]
    gray: Int[np.ndarray, "*n h w"]
    homogeneity: Float[Array, "*n"]


class _Programs:
    """Every program of a run, by its methods; models of one architecture share it."""

    def __init__(self) -> None:
        self._clocks: dict[Any, Clock] = {}
        self._alone: dict[Any, tuple[float, float]] = {}

    def of(self, methods: Mapping[str, Method], candidate: Candidate) -> Clock:
        clamp = {name: candidate.name not in method.unclamped for name, method in methods.items()}

        def score(autoencoder: Any, batch: Batch) -> dict[str, Scored]:
            seen: _Seen = batch.extra
            given = autoencoder, seen.images, seen.gray, batch.keys
            scored = {name: method.score(*given, clamp=clamp[name]) for name, method in methods.items()}
            return {
                n: s._replace(homogeneity=seen.homogeneity) if s.homogeneity is None else s for n, s in scored.items()
            }

        key = tuple(clamp.items())
        if key not in self._clocks:
            self._clocks[key] = Clock(score)
        return self._clocks[key]

    def alone(
        self, name: str, method: Method, candidate: Candidate, engine: Engine, photos: Sequence[Decoded]
    ) -> tuple[float, float]:
        """The seconds of a batch by one method alone, and those to compile it; taken once for each model and shape."""
        key = name, candidate.name, engine.batch_size, photos[0].shapes
        if key not in self._alone:
            program, batch = self.of({name: method}, candidate), engine.batch(photos)
            for _ in range(2):  # the first run is slower
                program(candidate.autoencoder, batch)
            self._alone[key] = program.times.pop()
            program.times.clear()
        return self._alone[key]


_homogeneity = jax.jit(texture.homogeneity)


def _split(items: Sequence[Item], limit: int) -> list[tuple[str, Item]]:
    """The first half to calibrate, the other to test, at most 500 each."""
    items = items[:limit]
    half = min(AT_MOST, len(items) // 2)
    return [(HALVES[0], item) for item in items[:half]] + [(HALVES[1], item) for item in items[half : half + AT_MOST]]


def _design(autoencoder: Any) -> str:
    architecture = getattr(autoencoder, "architecture", None)
    return type(autoencoder).__name__ if architecture is None else architecture.label
