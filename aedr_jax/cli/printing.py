"""What `aedr` prints: tables, counts, messages, bars. Names of files are a stranger's text, and command no terminal."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aedr_jax.errors import CalibrationWarning
from aedr_jax.scoring.tables import for_terminal, to_json

if TYPE_CHECKING:
    from aedr_jax.api import Counts, Run
    from aedr_jax.scoring.verdicts import Verdict

__all__ = [
    "bar",
    "complain",
    "counted",
    "least",
    "plain",
    "print_table",
    "print_verdicts",
    "report",
    "report_passed_over",
    "said_warnings",
    "three",
]


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
    """`api.Progress`: a bar on a terminal, and a line elsewhere."""
    from tqdm import tqdm

    with tqdm(total=total, unit="image", desc=what, disable=None, file=sys.stderr) as shown:
        plain(what)
        yield shown.update


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


def report(run: Run) -> None:
    """What kept a run from scoring every image to its end."""
    report_passed_over(run.passed_over)
    for problem in run.problems:
        complain(problem)
    if run.interrupted:
        wanted = "" if run.wanted is None else f" of {run.wanted}"
        complain(f"interrupted: {len(run.rows)}{wanted} rows are done and kept")
    elif run.nothing_scored:  # an error row is a row, but there is nothing else
        complain(f"none of the {run.counts.images} images could be scored; the first: {run.rows[0].error}")


def report_passed_over(passed: Mapping[str, int]) -> None:
    """How many files were taken for no images, by kind."""
    from aedr_jax.inputs.sources import said_of_passed_over

    if said := said_of_passed_over(passed):
        complain(said)


def counted(counts: Counts) -> str:
    """ "7 images, 1 unreadable, 7 rows"."""
    words = {"not_finite": "on which a model is not finite"}
    return ", ".join(f"{n} {words.get(what, what)}" for what, n in counts._asdict().items() if n or what not in words)


def three(p: float, n: int) -> str:
    """Three decimals; "<" where p is the least that so many images can tell, 1 / (n + 1)."""
    if p <= (1 + 1e-6) / (n + 1):
        return f"<{-(-1000 // (n + 1)) / 1000:.3f}"
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def least(verdicts: Sequence[Verdict]) -> str:
    """The lines that say what the p-values are, or nothing where there is none."""
    lines = []
    if foreign := max((v.foreign for v in verdicts), default=0):
        lines.append(
            f"foreign p: of {foreign} and more images that have nothing to do with the model, the share that stand as "
            "firmly on its grid; small speaks for the model"
        )
    belonging = {name: n for v in verdicts for name, n in v.belonging.items()}
    if belonging:
        alike = len(set(belonging.values())) == 1
        counts = str(next(iter(belonging.values()))) if alike else ", ".join(f"{n} ({m})" for m, n in belonging.items())
        lines.append(f"own p: of the model's {counts} calibration images, the share that score so high; small speaks")
        lines[-1] += " against the model"
    if lines:
        lines.append('"<" before a p-value: the least that n images can tell, 1/(n + 1)')
    return "".join(f"{line}\n" for line in lines)


def _why_not(verdict: Verdict) -> str:
    """Why there is no verdict, or "" where there is one: p-values beside "not assessable" would mean nothing."""
    from aedr_jax.decision.attribution import NOT_ASSESSABLE

    why = verdict.error or verdict.reason
    return why or ("a model gives it no defined score" if verdict.verdict == NOT_ASSESSABLE else "")


def print_verdicts(verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    """A table, or a line of JSON each."""
    if as_json:
        for verdict in verdicts:
            print(to_json(vars(verdict)))
        return

    def listed(p_values: Mapping[str, float], of: Callable[[str], int]) -> str:
        return ", ".join(f"{name} {three(p, of(name))}" for name, p in p_values.items())

    columns = {
        "image": lambda v: v.id,
        "verdict": lambda v: f"{v.verdict} ({v.found})" if v.found else v.verdict,
        "foreign p": lambda v: _why_not(v) or listed(v.foreign_p_values, lambda name: v.foreign),
    }
    if any(v.p_values for v in verdicts):
        columns["own p"] = lambda v: "" if _why_not(v) else listed(v.p_values, lambda name: v.belonging[name])
    print_table([{name: cell(v) for name, cell in columns.items()} for v in verdicts], tuple(columns))


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Columns side by side, as wide as their widest cell."""
    cells = [list(columns), *([for_terminal(str(row[column])) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
