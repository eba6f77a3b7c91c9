"""The paper's experiments on a folder of folders: each method's score of each image by each model, to one Parquet.

One folder for each model, one `real`, and any others, whose images are of no candidate. Every method sees the same
pixels: the middle of each image, one side for all, cut where a decoder's grid has its lines. Methods that need a
few passes only are one program, in which equal passes are computed once; each is timed alone on a batch. The scores of
one such group, model and source are one file, so an interrupted run goes on where it stopped, and a changed option
or version computes again what it changes. `comparison` makes the tables from the Parquet alone, `plots` the pictures.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from aedr_jax import __version__
from aedr_jax.autoencoders.names import name_models
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.errors import ImageError, SourceError
from aedr_jax.files import whole_file
from aedr_jax.images.codec import Photo, read_photo
from aedr_jax.images.pixels import content_seed, fit_crop, gray_of
from aedr_jax.images.processing import GRID, Processing
from aedr_jax.inputs.sources import Item, find_images
from aedr_jax.rivals.registry import DEFAULT, PAPER, Method, Scored
from aedr_jax.scoring.scorer import Candidate, load_candidate
from aedr_jax.scoring.tables import for_terminal, write_rows
from aedr_jax.signal import texture
from aedr_jax.signal.measurement import OFFICIAL_SEED
from aedr_jax.signal.protocol import Protocol, told_apart
from aedr_jax.study.comparison import HALVES, REAL

__all__ = ["ScoreRow", "Sources", "evaluate", "find_sources"]

SIDE = 128  # where no model says another
LAYOUT = 2  # of the rows: parts of another are not taken up
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
    quantized: bool
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
    seconds: float
    compile_seconds: float


class Sources(NamedTuple):
    """Images by source, in the order in which they are taken, and what was left out, with the reason."""

    images: dict[str, list[Item]]
    left_out: list[str]


def find_sources(
    folder: str | os.PathLike[str], models: Sequence[str], out: Path, *, count: int, side: int, seed: int = 0
) -> Sources:
    """The images of each model, of `real` and of every other folder, shuffled by a seed and cut to `count`.

    A miniature model's folder that is missing is made, `OUT/images/MODEL`: nothing is written beside the user's images.
    Images that cannot be read or are too small are left out, and so are other folders with fewer than two that can be
    taken. Every image is read once, whole, so that none stops the long work after this.

    Raises:
      SourceError: without a folder `real` (in any case of letters), without one of a model that cannot be sampled
        here, or where one of these has fewer than two images of at least `side` pixels.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; expected one folder for each model and one named {REAL}")
    folders = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    real = next((name for name in folders if name.lower() == REAL), None)
    if real is None:
        raise SourceError(f"{folder}: no folder {REAL} in it, of photographs; there are {', '.join(folders) or 'none'}")
    for model in models:
        if model not in folders:
            folders[model] = _sampled(model, folder, out / "images" / model, count)
    names = {model: model for model in models} | {REAL: real}
    # Results may lie beside the images, and sampled images in them.
    others = [name for name, path in folders.items() if not out.resolve().is_relative_to(path.resolve())]
    names |= {name: name for name in others if name not in (*models, real)}
    images: dict[str, list[Item]] = {}
    left_out: list[str] = []
    for source, name in names.items():
        try:
            images[source] = _taken(folders[name], left_out, count=count, side=side, seed=seed)
        except SourceError as error:
            if source in (*models, REAL):
                raise
            left_out.append(str(error))
    return Sources(images, left_out)


def _taken(folder: Path, left_out: list[str], *, count: int, side: int, seed: int) -> list[Item]:
    chosen: list[Item] = []
    items = find_images([folder])
    for i in np.random.default_rng(seed).permutation(len(items)):
        if len(chosen) == count:
            break
        try:
            height, width = read_photo(items[i].path).gray.shape
            if min(height, width) < side:
                raise ImageError(f"{items[i].path}: {width}×{height}; {side} pixels are compared")
            chosen.append(items[i])
        except ImageError as error:
            left_out.append(str(error))
    if len(chosen) < 2:
        raise SourceError(f"{folder}: {len(chosen)} images of at least {side} pixels; expected two or more")
    return chosen


def _sampled(model: str, folder: Path, out: Path, count: int) -> Path:
    from tqdm import tqdm

    from aedr_jax.generate.folder import generate, plan_images
    from aedr_jax.generate.pipelines import choose_settings

    entry = REGISTRY.get(model)
    if entry is None or entry.repository is not None:
        raise SourceError(
            f"{folder}: no folder {model} in it; make its images with aedr generate, or name the model "
            "after the folder that holds them: NAME=SOURCE"
        )
    settings = choose_settings(model)
    with tqdm(total=count, unit="image", desc=f"sample {model}", disable=None) as bar:
        generate(settings, plan_images(settings, n=count), out, on_progress=bar.update)
    return out


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
    say: Callable[[str], object] = lambda text: None,
) -> Sources:
    """Score everything, and write `OUT/scores.parquet`. What was scored before is kept.

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
      say: told of each part that is scored, for a run without a terminal.

    Returns:
      The images that were taken, and what was left out: images, and scores that are not finite.

    Raises:
      AutoencoderError: on models of one name, or that cannot be loaded.
      SourceError: as `find_sources`; and on a side that is no multiple of every model's factor.
    """
    from tqdm import tqdm

    out = Path(out)
    candidates = [load_candidate(source, name=name) for name, source in name_models(models).items()]
    names = [candidate.name for candidate in candidates]
    if side is None:
        side = min((REGISTRY[name].native_size for name in names if name in REGISTRY), default=SIDE)
    factor = math.lcm(*(candidate.autoencoder.factor for candidate in candidates))
    if side % factor:
        raise SourceError(f"side {side}: no multiple of the autoencoders' factor, {factor}")
    out.mkdir(parents=True, exist_ok=True)
    sources = find_sources(folder, names, out, count=count, side=side, seed=seed)
    tasks = [
        _Task(group, candidate, NONE, source, _split(items, limit), side, factor, batch_size)
        for candidate in candidates
        for group in _groups({n: m for n, m in methods.items() if m.models is None or candidate.name in m.models})
        for source, items in sources.images.items()
        for limit in (_least(count, *(method.count for method in group.values())),)
    ]
    robust = {name: methods[name] for name in ROBUST if name in methods}
    if robustness and robust:
        tasks += [
            _Task(robust, candidate, processing, source, tested[:robustness], side, factor, batch_size)
            for candidate in candidates
            for processing in GRID
            if processing != NONE
            for source, items in sources.images.items()
            for tested in ([(half, item) for half, item in _split(items, count) if half == "test"],)
        ]
    programs: dict[Any, tuple[Any, float]] = {}
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
            write_rows(task.rows(programs, bar.update), file)
    _join(files, out / "scores.parquet")
    sources.left_out.extend(_not_finite(out / "scores.parquet"))
    return sources


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
                hashes[item.path] = hashlib.sha256(Path(item.path).read_bytes()).hexdigest()
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

    def rows(self, programs: dict[Any, tuple[Any, float]], on_progress: Callable[[int], object]) -> list[ScoreRow]:
        found: list[ScoreRow] = []
        batches = math.ceil(len(self.items) / self.batch_size)
        size = math.ceil(len(self.items) / batches)  # twenty images are three batches of seven, not of eight
        for start in range(0, len(self.items), size):
            chosen = self.items[start : start + size]
            found += self._batch(chosen, size, programs)
            on_progress(len(chosen) * self.passes)
        return found

    def _batch(
        self, chosen: Sequence[tuple[str, Item]], size: int, programs: dict[Any, tuple[Any, float]]
    ) -> list[ScoreRow]:
        photos, sizes = zip(*(self._read(item) for _, item in chosen), strict=True)
        filled = photos + photos[-1:] * (size - len(photos))
        gray = jnp.asarray(np.stack([photo.gray for photo in filled]), jnp.int32)
        images = jnp.asarray(self._inputs([photo.image for photo in filled]))
        seeds = jnp.asarray([content_seed(photo.sha256) for photo in filled], jnp.uint32)
        autoencoder = self.candidate.autoencoder
        scored, seconds, compiling = self._run(programs, tuple(self.methods), images, gray, seeds)
        smooth = np.asarray(_homogeneity(gray), np.float64)
        rows = []
        for name, of_method in scored.items():
            if len(self.methods) > 1:
                key = "alone", name, self.candidate.name, images.shape
                if key not in programs:
                    self._run(programs, (name,), images, gray, seeds)  # the first run is slower
                    programs[key] = self._run(programs, (name,), images, gray, seeds)[1:]
                seconds, compiling = programs[key]
            columns = {
                key: np.full(size, np.nan) if values is None else np.asarray(values, np.float64)
                for key, values in of_method._asdict().items()
            }
            if of_method.homogeneity is None:
                columns["homogeneity"] = smooth
            rows += [
                ScoreRow(
                    processing=str(self.processing),
                    method=name,
                    model=self.candidate.name,
                    autoencoder=_design(autoencoder),
                    quantized=bool(getattr(autoencoder, "quantize_on_decode", False)),
                    source=self.source,
                    half=half,
                    image=item.id,
                    format=photo.format,
                    bytes=Path(item.path).stat().st_size,
                    width=width,
                    height=height,
                    seconds=seconds / size,
                    compile_seconds=compiling,
                    **{key: float(values[i]) for key, values in columns.items()},
                )
                for i, ((half, item), photo, (height, width)) in enumerate(zip(chosen, photos, sizes, strict=True))
            ]
        return rows

    def _read(self, item: Item) -> tuple[Photo, tuple[int, int]]:
        """The image as every method sees it, cropped and then processed, and its size before."""
        photo = read_photo(item.path)
        top, left = ((length - self.side) // 2 // self.grid * self.grid for length in photo.gray.shape)
        middle = slice(top, top + self.side), slice(left, left + self.side)
        image, gray = photo.image[middle].copy(), photo.gray[middle].copy()  # the whole may be large, and is let go
        if self.processing != NONE:
            image = self.processing.apply(image, seed=content_seed(photo.sha256))
            image = fit_crop(image[: self.side, : self.side], self.candidate.autoencoder.factor)
            gray = gray_of(image)
        return photo._replace(image=image, gray=gray), (photo.image.shape[0], photo.image.shape[1])

    def _inputs(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> np.ndarray:
        for method in self.methods.values():
            if method.resize is not None:
                return method.resize(images, self.candidate.name)  # such a method is alone (`_groups`)
        return np.stack(images).astype(np.float32) / 127.5 - 1.0

    def _run(
        self, programs: dict[Any, tuple[Any, float]], names: tuple[str, ...], *batch: Array
    ) -> tuple[dict[str, Scored], float, float]:
        """The scores by some of the methods, the seconds that took, and those it took to compile.

        Models of one architecture share a program.
        """
        autoencoder = self.candidate.autoencoder
        clamped = {name: self.candidate.name not in self.methods[name].unclamped for name in names}
        key = (names, *clamped.values(), jax.tree.structure(autoencoder), *(x.shape for x in batch))
        key += tuple(leaf.shape for leaf in jax.tree.leaves(autoencoder))
        if key not in programs:
            started = time.perf_counter()

            def score(autoencoder: Any, images: Array, gray: Array, seeds: Array) -> dict[str, Scored]:
                # Keyed by the file's content: noise depends on the image alone.
                keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(OFFICIAL_SEED), seed))(seeds)
                batch = autoencoder, images, gray, keys
                return {name: self.methods[name].score(*batch, clamp=clamped[name]) for name in names}

            program = jax.jit(score).lower(autoencoder, *batch).compile()
            programs[key] = program, time.perf_counter() - started
        program, compiling = programs[key]
        started = time.perf_counter()
        scored = jax.block_until_ready(program(autoencoder, *batch))
        return scored, time.perf_counter() - started, compiling


_homogeneity = jax.jit(texture.homogeneity)  # the paper's, of every image, for the rows ×H


def _split(items: Sequence[Item], limit: int) -> list[tuple[str, Item]]:
    """The first half to calibrate, the other to test, at most 500 each."""
    items = items[:limit]
    half = min(AT_MOST, len(items) // 2)
    return [(HALVES[0], item) for item in items[:half]] + [(HALVES[1], item) for item in items[half : half + AT_MOST]]


def _least(*limits: int | None) -> int:
    return min(limit for limit in limits if limit is not None)


def _design(autoencoder: Any) -> str:
    architecture = getattr(autoencoder, "architecture", None)
    return type(autoencoder).__name__ if architecture is None else architecture.label


def _join(files: Sequence[Path], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with whole_file(out) as partial:
        pq.write_table(pa.concat_tables([pq.read_table(file) for file in files]), partial)


def _not_finite(scores: Path) -> list[str]:
    """How many scores the tables leave out, though the second loss was not 0: the model overflows, or its weights are
    broken."""
    import pyarrow.parquet as pq

    table = pq.read_table(scores, columns=["model", "method", "score", "second_loss"])
    score, second = (table.column(name).to_numpy() for name in ("score", "second_loss"))
    found = Counter[tuple[str, str]]()
    for i in np.flatnonzero(~np.isfinite(score) & (second != 0)):
        found[table.column("model")[int(i)].as_py(), table.column("method")[int(i)].as_py()] += 1
    return [
        f"{model}: {count} scores by {method} are not finite: broken weights, or too large for float32"
        for (model, method), count in found.items()
    ]
