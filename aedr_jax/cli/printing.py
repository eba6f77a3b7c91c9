"""What `aedr` prints: tables, counts, messages, bars. Names of files are a stranger's text, and command no terminal."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aedr_jax.errors import CalibrationWarning
from aedr_jax.scoring.tables import for_terminal

if TYPE_CHECKING:
    from aedr_jax.api import Counts, Run

__all__ = ["bar", "complain", "counted", "plain", "print_table", "said_warnings", "tell_passed_over", "tell_run"]

COMPILING = "compiling, once for each size"


def complain(text: str) -> None:
    """A message on the standard error. It may hold the name of a file, which is a stranger's text: that cannot begin a
    line. (Lists of several faults are indented by two.)"""
    with contextlib.suppress(OSError):  # the terminal is gone: no reason to lose rows
        print("\n  ".join(map(for_terminal, text.split("\n  "))), file=sys.stderr)


def plain(text: str) -> None:
    """A line in place of a progress bar, where there is no terminal to draw one on."""
    if not sys.stderr.isatty():
        complain(text)


@contextlib.contextmanager
def bar(total: int | None, what: str) -> Iterator[Callable[[int], Any]]:
    """`api.Progress`: a bar on a terminal, and a line elsewhere. Until the first image is done it says that programs
    are compiled, which a large model takes minutes for."""
    from tqdm import tqdm

    with tqdm(total=total, unit="image", desc=what, disable=None, file=sys.stderr) as shown:
        plain(f"{what} ({COMPILING})")
        shown.set_postfix_str(COMPILING)

        def advance(done: int) -> None:
            shown.set_postfix_str("", refresh=False)
            shown.update(done)

        yield advance


@contextlib.contextmanager
def said_warnings() -> Iterator[None]:
    """Within it a `CalibrationWarning` is a line, without the place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CalibrationWarning)
        other = warnings.showwarning

        def show(message: Any, category: type[Warning], *args: Any, **options: Any) -> None:
            if issubclass(category, CalibrationWarning):
                complain(f"warning: {message}")
            else:
                other(message, category, *args, **options)

        warnings.showwarning = show
        yield


def tell_run(run: Run) -> None:
    """What kept a run from scoring every image to its end."""
    tell_passed_over(run.passed_over)
    for problem in run.problems:
        complain(problem)
    if run.interrupted:
        wanted = "" if run.wanted is None else f" of {run.wanted}"
        complain(f"interrupted: {len(run.rows)}{wanted} rows are done and kept")
    elif run.nothing_scored:  # an error row is a row, but there is nothing else
        complain(f"none of the {run.counts.images} images could be scored; the first: {run.rows[0].error}")


def tell_passed_over(passed: Mapping[str, int]) -> None:
    """How many files were taken for no images, by kind."""
    from aedr_jax.inputs.sources import said_of_passed_over

    if said := said_of_passed_over(passed):
        complain(said)


def counted(counts: Counts) -> str:
    """ "7 images, 1 unreadable, 7 rows"."""
    words = {"not_finite": "on which a model is not finite"}
    return ", ".join(f"{n} {words.get(what, what)}" for what, n in counts._asdict().items() if n or what not in words)


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Columns side by side, as wide as their widest cell."""
    cells = [list(columns), *([for_terminal(str(row[column])) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
