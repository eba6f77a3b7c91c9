"""The page itself: what a template shows, as plain values, and the text that comes of it.

All text that is shown may be a stranger's: the names of files, what decoders say of broken ones, the names of models.
The template escapes every value, control characters become visible escapes, and the page's own policy forbids scripts,
network, frames and forms: it holds one style sheet, known by its hash, and pictures as data.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from aedr_jax.errors import AedrError
from aedr_jax.pages.charts import Histogram
from aedr_jax.pages.facts import Facts
from aedr_jax.pages.pictures import MOST_DEVIATIONS, MOST_LEVELS, Picture, legend_colours
from aedr_jax.pages.words import NOT_MEANT
from aedr_jax.scoring.tables import for_terminal

__all__ = ["Line", "Page", "Shown", "Views", "check_template_engine", "render"]

FOLDER = Path(__file__).parent


class Line(NamedTuple):
    """One candidate's figures on an image, as texts."""

    model: str
    accepted: bool
    score: str
    error: str
    foreign_p: str
    own_p: str


class Views(NamedTuple):
    """What one model makes of an image.

    Attributes:
      model: its name.
      region: which pixels of the image are shown, in words; "" for all.
      pictures: image, reconstructions, residuals.
      map: the alignment map over the image; None where settings have none, or too small.
      null: where the image stands among foreign images; None where nothing can be said.
      own: where it stands among the calibration's own images; None without a calibration.
    """

    model: str
    region: str
    pictures: tuple[Picture, ...]
    map: Picture | None
    null: Histogram | None
    own: Histogram | None


class Shown(NamedTuple):
    """One image's part of the page.

    Attributes:
      name: what it is called.
      kind: of the verdict, as the style sheet has it.
      verdict: as in the table of a run.
      heading, words: the same in plain words.
      short_p: the p-value of the line in the page's table, with its model.
      lines: every candidate's figures.
      whole: the image in small, where `views` shows a part of it.
      views: None for an image that is not pictured.
      facts: of the file; None where it could not be read.
    """

    name: str
    kind: str
    verdict: str
    heading: str
    words: tuple[str, ...]
    short_p: str
    lines: tuple[Line, ...]
    whole: Picture | None
    views: Views | None
    facts: Facts | None


class Page(NamedTuple):
    """All of a page.

    Attributes:
      created: UTC date and time.
      first: what has to be said before anything else, or "".
      counts: of the run, in words.
      problems: what of the inputs could not be read.
      images: in the order of the run.
      most: how many of them are pictured at most.
      false_names: the rate that was asked for.
      settings, versions: pairs of a name and a value.
      models: name, weights hash and fingerprint of each candidate.
      record: the run's record, as `Record.text` gives it.
    """

    created: str
    first: str
    counts: str
    problems: tuple[str, ...]
    images: tuple[Shown, ...]
    most: int
    false_names: float
    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    models: tuple[tuple[str, str, str], ...]
    record: str


def check_template_engine() -> Any:
    """Jinja2, which is an extra: asked before images are measured, not after.

    Raises:
      AedrError: without it, naming the extra.
    """
    try:
        import jinja2
    except ImportError as error:
        raise AedrError('a report needs Jinja2: pip install "aedr-jax[report]"') from error
    return jinja2


def render(page: Page) -> str:
    """The page as HTML: one file, which loads nothing and runs nothing.

    Raises:
      AedrError: without Jinja2.
    """
    jinja2 = check_template_engine()
    from markupsafe import Markup, escape

    def visible(value: Any) -> Any:
        return value if isinstance(value, Markup) or not isinstance(value, str) else for_terminal(value)

    environment = jinja2.Environment(
        autoescape=True,
        finalize=visible,
        loader=jinja2.FileSystemLoader(FOLDER),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    text: str = environment.get_template("page.html").render(
        page=page,
        record=escape(page.record),  # its lines stay lines
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        colours=legend_colours(),
        deviations=MOST_DEVIATIONS,
        levels=MOST_LEVELS,
        not_meant=NOT_MEANT,
    )
    return text
