"""Verdicts on a terminal: one line an image and a legend within 80 columns; `--json` and `--out` hold everything."""

from __future__ import annotations

import collections
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aedr_jax.scoring.tables import for_terminal, to_json

if TYPE_CHECKING:
    from aedr_jax.scoring.verdicts import Verdict

__all__ = ["WIDTH", "legend", "print_verdicts", "three", "wrapped"]

WIDTH = 80
LEAST_NAME = 24  # columns that an image's name has where others need room
BEHIND = "  | "  # no name of a file can look like a row behind it
COLOURS = {"named": "32", "ambiguous": "33", "not assessable": "35", "error": "31"}


def three(p: float, n: int) -> str:
    """Three decimals; "<" where p is the least that so many images can tell."""
    from aedr_jax.scoring.verdicts import is_least

    if is_least(p, n):
        return f"<{-(-1000 // (n + 1)) / 1000:.3f}"
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def legend(verdicts: Sequence[Verdict]) -> str:
    """A line for each kind of p-value that is shown: what it is, and for whom it speaks."""
    lines = []
    if foreign := max((v.foreign for v in verdicts), default=0):
        lines.append(f"foreign p: share of {foreign}+ foreign images that fit so well; small: its own")
    if belonging := [n for v in verdicts for n in v.belonging.values()]:
        least = f"{min(belonging)}{'+' if max(belonging) > min(belonging) else ''}"
        lines.append(f"own p: share of {least} own images that fit so badly; small: not its own")
    return "".join(f"{line}\n" for line in lines)


def wrapped(text: str, indent: str = "") -> str:
    """A text in lines of at most `WIDTH` columns; what follows the first is indented."""
    return textwrap.fill(for_terminal(text), WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def print_verdicts(verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    """A table, or a line of JSON each.

    The table has the p-values of one model an image, the named one or the nearest, and how many more there are. Behind
    a row stands why there is no verdict, and what of it has no room.
    """
    if as_json:
        for verdict in verdicts:
            print(to_json(vars(verdict)))
        return
    columns: dict[str, Callable[[Verdict], str]] = {"verdict": _short_verdict, "foreign p (+others)": _foreign}
    if any(v.p_values for v in verdicts):
        columns["own p"] = _own
    cells = [list(columns), *([for_terminal(cell(v)) for cell in columns.values()] for v in verdicts)]
    labels = _labels(verdicts)
    widths = [max(map(_width, column)) for column in (["image", *labels], *zip(*cells, strict=True))]
    widths = _fitted(widths)
    names = ["image", *_told_apart(labels, widths[0])]
    paint = _painter()
    for name, line, of in zip(names, cells, [None, *verdicts], strict=True):
        texts = [name, *(_cut(cell, width) for cell, width in zip(line, widths[1:], strict=True))]
        padded = [text + " " * (width - _width(text)) for text, width in zip(texts, widths, strict=True)]
        padded[1] = paint(padded[1], of.kind if of else "")
        print("  ".join(padded).rstrip())
        for note in _notes(of) if of else ():
            print(textwrap.fill(note, WIDTH, initial_indent=BEHIND, subsequent_indent=BEHIND, break_on_hyphens=False))


def _short_verdict(verdict: Verdict) -> str:
    return verdict.kind if verdict.kind == "ambiguous" else verdict.verdict


def _foreign(verdict: Verdict) -> str:
    shown = None if verdict.unsaid else verdict.nearest
    if shown not in verdict.foreign_p_values:
        return ""
    others = len(verdict.foreign_p_values) - 1
    return f"{shown} {three(verdict.foreign_p_values[shown], verdict.foreign)}{f' (+{others})' if others else ''}"


def _own(verdict: Verdict) -> str:
    shown = None if verdict.unsaid else verdict.nearest
    if shown not in verdict.p_values:
        return ""
    p = three(verdict.p_values[shown], verdict.belonging[shown])
    return p if shown in verdict.foreign_p_values else f"{shown} {p}"


def _notes(verdict: Verdict) -> list[str]:
    """What stands behind a row: why nothing is said, all names of an ambiguous verdict, where a grid was found."""
    notes = [verdict.unsaid, verdict.verdict if _short_verdict(verdict) != verdict.verdict else ""]
    notes.append(f"found {verdict.found}" if verdict.found else "")
    return [for_terminal(note) for note in notes if note]


def _painter() -> Callable[[str, str], str]:
    """Colours, where the output is a terminal that nobody asked to be without (no-color.org)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return lambda text, kind: text
    return lambda text, kind: f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if kind in COLOURS else text


def _labels(verdicts: Sequence[Verdict]) -> list[str]:
    """An image's id, or its path where others have its id."""
    counts = collections.Counter(v.id for v in verdicts)
    return [for_terminal(v.id if counts[v.id] == 1 else v.path) for v in verdicts]


def _told_apart(labels: Sequence[str], width: int) -> list[str]:
    """The labels within a width, no two equal: where what is left of their ends is, with the number of the row."""
    found = [_cut_front(label, width) for label in labels]
    for every in (False, True):  # a name may look like a numbered one
        twice = collections.Counter(found)
        if len(twice) == len(found):
            break
        suffixes = [f" #{i}" if every or twice[name] > 1 else "" for i, name in enumerate(found, 1)]
        pairs = zip(labels, suffixes, strict=True)
        found = [_cut_front(label, width - len(suffix)) + suffix for label, suffix in pairs]
    return found


def _fitted(widths: Sequence[int]) -> list[int]:
    """Widths of columns that fit into `WIDTH`: what is too much is taken from the image's name, of which the end tells,
    then from the widest."""
    found = list(widths)
    room = WIDTH - 2 * (len(found) - 1)
    found[0] = min(found[0], max(room - sum(found[1:]), LEAST_NAME))
    while sum(found) > room:
        found[found.index(max(found))] -= 1
    return found


def _width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _cut(text: str, width: int) -> str:
    """The beginning of a text, and behind an ellipsis the p-value at its end."""
    if _width(text) <= width:
        return text
    end = match[0] if (match := re.search(r" <?[0-9.]+( \(\+[0-9]+\))?$", text)) else ""
    head = text[: len(text) - len(end)]
    while head and _width(head) + 1 + len(end) > width:
        head = head[:-1]
    return f"{head}…{end}"


def _cut_front(text: str, width: int) -> str:
    """The end of a text: of a path what tells files apart."""
    if _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[1:]
    return f"…{text}"
