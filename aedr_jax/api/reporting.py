"""`report`: verdicts on images as one page to show, with pictures, charts, facts and the record."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from aedr_jax.api.decisions import VERDICTS, Calibrations, attribute, candidates_of
from aedr_jax.api.inventory import miniature_only
from aedr_jax.api.scores import Progress, Run, taken_again, unseen
from aedr_jax.compilation import jit_network
from aedr_jax.decision.calibration import Calibration
from aedr_jax.decision.null import Null
from aedr_jax.errors import ImageError, SourceError
from aedr_jax.files import whole_file
from aedr_jax.images.arrays import prepare
from aedr_jax.images.codec import decode_photo
from aedr_jax.images.pixels import fit_centre, fit_crop
from aedr_jax.images.tiles import Grid
from aedr_jax.inputs.containers import as_source
from aedr_jax.inputs.decoding import Refused
from aedr_jax.inputs.sources import Item
from aedr_jax.pages import words
from aedr_jax.pages.charts import Histogram, histogram
from aedr_jax.pages.facts import facts_of
from aedr_jax.pages.page import Line, Page, Shown, Views, check_template_engine, render
from aedr_jax.pages.pictures import overlay, picture, residual
from aedr_jax.scoring.job import Setup
from aedr_jax.scoring.judging import Judging
from aedr_jax.scoring.record import Record
from aedr_jax.scoring.rows import Row, by_image, rows_to_measurement
from aedr_jax.scoring.tables import check_apart, check_file
from aedr_jax.scoring.verdicts import Verdict, families_of, is_least
from aedr_jax.signal.alignment import alignment_map
from aedr_jax.signal.reconstruction import double_reconstruct

__all__ = ["Reported", "report"]

ENDINGS = (".html", ".htm")
VIEW = 384  # pixels: the side of the square that is shown pixel by pixel of a larger image
CHANGED = "The file was changed after it was measured: it is not shown."
VIEW_FACTORS = 8  # and at least so many of the autoencoder's, so that the map has blocks


class Reported(NamedTuple):
    """The page's file, the verdicts and the run that it shows, and how many images are pictured in it."""

    out: Path
    verdicts: list[Verdict]
    run: Run
    pictured: int


def report(
    inputs: Any,
    out: str | os.PathLike[str],
    *,
    models: Sequence[str] | None = None,
    calibrations: str | os.PathLike[str] | Calibrations | None = None,
    false_names: float = 0.05,
    search: bool = False,
    most_images: int = 20,
    setup: Setup = VERDICTS,
    command: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    progress: Progress = unseen,
    on_run: Callable[[Run], Any] = lambda run: None,
) -> Reported:
    """Verdicts as `attribute` gives them, written as one HTML file that loads nothing and runs nothing.

    Of each image it shows what the named model makes of it, or the nearest: both reconstructions, what they changed,
    the alignment map, and where the image stands among foreign images and, with a calibration, among the model's own.

    Args:
      inputs, models, calibrations, false_names, search, setup, image_column, id_column, on_run: as for `attribute`.
      out: the file, .html or .htm, which is written whole or not at all.
      most_images: how many images are pictured; the page's table and its record hold all.
      command: what was typed, for the record.
      progress: shown while images are measured, and again while they are pictured.

    Raises:
      AedrError: without Jinja2 (extra `report`).
      SourceError: where `out` cannot be written or has another ending, for a `most_images` below 1, and as `attribute`.
      KeyboardInterrupt: where the run is interrupted: no page is made of a part.
    """
    check_template_engine()
    out = check_file(out, endings=ENDINGS)
    if most_images < 1:
        raise SourceError(f"most_images {most_images}: expected 1 or more")
    places, chosen = candidates_of(models, calibrations, setup)
    source = as_source(inputs, image_column=image_column, id_column=id_column)
    check_apart(source, out)
    verdicts, run = attribute(
        source,
        models=models,
        calibrations=calibrations,
        false_names=false_names,
        search=search,
        setup=setup,
        progress=progress,
        on_run=on_run,
    )
    if run.interrupted:
        raise KeyboardInterrupt
    judging = Judging(chosen, false_names, search)
    record = Record.of(verdicts, run.rows, setup=setup, judging=judging, command=command)
    shown = {(verdict.id, verdict.path): i for i, verdict in enumerate(verdicts[:most_images])}
    rows = by_image(run.rows)
    families = len(set(families_of(run.rows).values()))
    viewer = _Viewer(places, chosen, setup, judging.rate / max(families, 1))
    images = [_listed(verdict, rows[verdict.id, verdict.path]) for verdict in verdicts]
    with progress(len(shown), f"picturing {len(shown)} images") as advance:
        for i, item in taken_again(source, shown, []):  # what failed is among the run's problems
            images[i] = viewer.pictured(item, verdicts[i], rows[verdicts[i].id, verdicts[i].path], images[i])
            advance(1)
    page = _page(record, run, images, most_images)
    with whole_file(out) as partial:
        partial.write_text(render(page), encoding="utf-8")
    return Reported(out, verdicts, run, sum(image.views is not None for image in images))


def _listed(verdict: Verdict, rows: Mapping[str, Row]) -> Shown:
    """An image as the page's table has it, with its figures."""
    nearest = None if verdict.unsaid else verdict.nearest
    p = verdict.foreign_p_values.get(nearest or "")
    lines = () if verdict.unsaid else tuple(_line(verdict, name, rows.get(name)) for name in verdict.accepted)
    return Shown(
        name=verdict.id,
        kind=verdict.kind.replace(" ", "-"),
        verdict=verdict.verdict,
        heading=words.heading(verdict),
        words=words.in_words(verdict),
        short_p="" if p is None else f"{nearest} {_p(p, verdict.foreign)}",
        lines=lines,
        whole=None,
        views=None,
        facts=None,
    )


def _line(verdict: Verdict, model: str, row: Row | None) -> Line:
    score, error = verdict.scores.get(model), math.nan if row is None else float(row.measured.alignment_error)
    foreign, own = verdict.foreign_p_values.get(model), verdict.p_values.get(model)
    return Line(
        model=model,
        accepted=verdict.accepted[model],
        score="" if score is None else f"{score:.4f}",
        error=f"± {error:.4f}" if math.isfinite(error) and not verdict.found else "",
        foreign_p="" if foreign is None else _p(foreign, verdict.foreign),
        own_p="" if own is None else _p(own, verdict.belonging[model]),
    )


def _p(p: float, n: int) -> str:
    """Four decimals; "<" where p is the least that so many images can tell."""
    return f"< {math.ceil(1e4 / (n + 1)) / 1e4:.4f}" if is_least(p, n) else f"{p:.4f}"


class _Viewer:
    """Pictures of images by the models of a run, each loaded when an image first needs it."""

    def __init__(
        self, places: Mapping[str, str], calibrations: Mapping[str, Sequence[Calibration]], setup: Setup, rate: float
    ) -> None:
        self._places, self._calibrations, self._setup, self._rate = places, calibrations, setup, rate
        self._scorers: dict[str, Any] = {}
        config = setup.config.alignment

        def views(autoencoder: Any, images: Any) -> Any:
            first, second = double_reconstruct(autoencoder, images)
            blocks = None if config is None else alignment_map(autoencoder, images, config=config, standardized=True)
            return first, second, blocks

        self._views = jit_network(views)

    def pictured(self, item: Item, verdict: Verdict, rows: Mapping[str, Row], listed: Shown) -> Shown:
        """An image's part of the page, with facts, and pictures where a model has something to say."""
        try:
            data = item.read()
            if verdict.status != "ok":  # what the decoder's own process refused is not decoded in this one
                return listed._replace(facts=facts_of(data, None))
            photo = decode_photo(data, name=item.path, most_pixels=self._setup.most_decoded)
        except ImageError:
            return listed  # it cannot be read, which its verdict says, or no longer
        if photo.sha256 != verdict.sha256:
            return listed._replace(words=(*listed.words, CHANGED))
        quality = next((row.jpeg_quality for row in rows.values()), 0)
        listed = listed._replace(facts=facts_of(data, photo, quality=quality))
        nearest = verdict.nearest
        if nearest is None:
            return listed._replace(whole=picture(photo.image, f"The image {verdict.id}"))
        if nearest not in self._scorers:
            self._scorers[nearest] = self._setup.scorer({nearest: self._places[nearest]})
        scorer = self._scorers[nearest]
        decoded = scorer.decoder.whole(item)
        if isinstance(decoded, Refused):
            return listed
        pixels, region = _window(decoded.images[0], scorer.candidates[0].autoencoder.factor)
        views = self._seen(nearest, scorer.candidates[0].autoencoder, pixels, verdict, rows[nearest])
        part = pixels.shape[:2] != photo.image.shape[:2]
        whole = picture(photo.image, f"The whole image {verdict.id}") if part else None
        return listed._replace(whole=whole, views=views._replace(region=region if part else ""))

    def _seen(
        self, model: str, autoencoder: Any, pixels: UInt8[np.ndarray, "h w 3"], verdict: Verdict, row: Row
    ) -> Views:
        images = prepare(pixels)
        first, second, blocks = jax.device_get(self._views(autoencoder, images))
        image = np.asarray(images)[0]
        seen = (
            picture(pixels, "The image"),
            picture(_levels(first[0]), f"The reconstruction by {model}"),
            picture(residual(image, first[0]), "What the reconstruction changed"),
            picture(_levels(second[0]), "The second reconstruction"),
            picture(residual(first[0], second[0]), "What the second reconstruction changed"),
        )
        config = self._setup.config.alignment
        over = None
        grid = None if config is None else Grid.of(config, autoencoder.factor, min(pixels.shape[:2]))
        if grid is not None:
            own = np.nanmean(blocks[0] < -1) if np.isfinite(blocks[0]).any() else 0.0
            alt = f"The alignment map: {own:.0%} of its blocks are over one deviation below 0, as most of {model} are"
            over = picture(overlay(pixels, blocks[0], margin=grid.margin, block=grid.block), alt)
        return Views(model, "", seen, over, self._among_foreign(verdict, row), self._among_own(model, verdict))

    def _among_foreign(self, verdict: Verdict, row: Row) -> Histogram | None:
        standing = float(np.asarray(rows_to_measurement([row]).standing)[0])
        if not math.isfinite(standing) or verdict.unsaid or verdict.found:
            return None
        null = Null.shipped()
        every = [value for group in null.groups.values() for value in group]
        return histogram(every, standing, null.threshold(self._rate))

    def _among_own(self, model: str, verdict: Verdict) -> Histogram | None:
        made, score = self._calibrations.get(model), verdict.scores.get(model)
        if not made or score is None or verdict.unsaid or verdict.found:
            return None
        highest = max(made, key=lambda one: float(one.p_value(np.array([score]))[0]))
        return histogram(highest.scores, score, highest.threshold)


def _window(pixels: UInt8[np.ndarray, "h w 3"], factor: int) -> tuple[UInt8[np.ndarray, "hh ww 3"], str]:
    """The middle of an image, on the decoder's grid, and where it lies."""
    side, grid = max(VIEW, VIEW_FACTORS * factor), math.lcm(64, factor)
    height, width = pixels.shape[:2]
    rows, columns = fit_centre(height, width, most_pixels=side * side, grid=grid)
    part = fit_crop(pixels[rows, columns], factor)
    size = f"{part.shape[1]} × {part.shape[0]} pixels"
    return part, f"{size} from the middle, of the {width} × {height} that were measured"


def _levels(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Of an image in [-1, 1] its grey levels, clipped."""
    return np.nan_to_num((np.asarray(image, np.float64) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


def _page(record: Record, run: Run, images: Sequence[Shown], most: int) -> Page:
    counts = run.counts
    unread = f", {counts.unreadable} unreadable" if counts.unreadable else ""
    measuring = record.measuring
    settings = {
        "Command": record.command or "a call in Python",
        "Settings": measuring.preset,
        "False names": f"{record.false_names:g}",
        "Search for moved images": "yes" if record.search else "no",
        "Computed in": f"{measuring.dtype or 'float32'}, products {measuring.precision}",
        "Crop to a multiple of": f"{measuring.multiple} pixels" if measuring.multiple else "the autoencoder's factor",
        "Reference of foreign images": record.null,
        **{f"Calibration of {name}": ", ".join(made) for name, made in record.calibrations.items()},
    }
    return Page(
        created=record.created[:16].replace("T", " ") + " UTC",
        first=miniature_only(run.rows),
        counts=f"{counts.images} image{'' if counts.images == 1 else 's'}{unread}",
        problems=run.problems,
        images=tuple(images),
        most=most,
        false_names=record.false_names,
        settings=tuple(settings.items()),
        versions=(*record.versions.items(), ("device", record.backend)),
        models=tuple(
            (name, model.protocol.identity.weights_hash or "not known", model.fingerprint)
            for name, model in record.models.items()
        ),
        record=record.text(),
    )
