#!/usr/bin/env python3
"""The notebooks: each a pair of files that say the same, executed from a copy in an empty folder, two at a time.

    .ci/notebooks.py            checks the pairs and executes them: fails on a stale pair, an error, above four minutes
    .ci/notebooks.py --write    executes them, and writes the pairs with what was printed; NAMES: these only
    .ci/notebooks.py --heads    writes the install line and the badge that follow from the address, and does no more

The address is `Repository` in `[project.urls]` of pyproject.toml. While it is absent the notebooks have no badge, and
are installed from a checkout.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 240  # for all of them together
BYTES = 600_000  # of one executed notebook
AT_ONCE = 2
EXTRAS = {"04_sharded": "notebook,tfds"}
HEAD = 1  # the cell that this file writes, below the title


def head(name: str, address: str | None) -> str:
    """The text of a notebook's second cell: how to install what it needs, and a badge where it can be opened from."""
    extras = EXTRAS.get(name, "notebook")
    if address is None:
        return f'`pip install ".[{extras}]"` in a checkout; this notebook then runs in any folder.'
    repository = address.removeprefix("https://github.com/").strip("/")
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    target = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb"
    return f'[![Open in Colab]({badge})]({target}) `pip install "aedr-jax[{extras}] @ git+{address.rstrip("/")}"`'


def configured_address() -> str | None:
    """`Repository` of pyproject.toml, or None.

    Raises:
      ValueError: where it is no address on GitHub, which a badge needs.
    """
    address = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"].get("Repository")
    if address is not None and not address.startswith("https://github.com/"):
        raise ValueError(f"[project.urls] Repository = {address!r}: expected https://github.com/OWNER/NAME")
    return address


def wrong_with(text: Path, address: str | None) -> list[str]:
    """What is wrong with the pair of a .py file, without executing it: the two differ, the head is another, or the
    notebook was not executed whole, in its order."""
    cells, pair = jupytext.read(text).cells, text.with_suffix(".ipynb")
    if not pair.is_file():
        return [f"{pair.name} is absent"]
    executed = nbformat.read(pair, as_version=4).cells
    problems = []
    if [(cell.cell_type, cell.source) for cell in cells] != [(cell.cell_type, cell.source) for cell in executed]:
        problems.append(f"{text.name} and {pair.name} differ")
    if len(cells) <= HEAD or cells[HEAD].source != head(text.stem, address):
        problems.append(f"{text.name}: its second cell is not the install line of this address (--heads)")
    code = [cell for cell in executed if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        problems.append(f"{pair.name} was not executed from its first cell to its last")
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        problems.append(f"{pair.name} holds an error")
    if pair.stat().st_size > BYTES:
        problems.append(f"{pair.name}: {pair.stat().st_size} bytes, more than {BYTES}")
    return problems


def write_head(text: Path, address: str | None) -> None:
    """The head into both files of a pair; all else, what was printed too, stays as it is."""
    is_, to_be = jupytext.read(text).cells[HEAD].source, head(text.stem, address)
    source = text.read_text(encoding="utf-8")
    text.write_text(source.replace(f"# %% [markdown]\n# {is_}\n", f"# %% [markdown]\n# {to_be}\n", 1), encoding="utf-8")
    pair = text.with_suffix(".ipynb")
    if pair.is_file():
        notebook = nbformat.read(pair, as_version=4)
        notebook.cells[HEAD].source = to_be
        nbformat.write(notebook, pair)


def execute(text: Path) -> None:
    """Execute a notebook in its folder, and write it with what it printed beside it."""
    notebook: Any = jupytext.read(text)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # not drawn anew at each execution
    resources = {"metadata": {"path": str(text.parent)}}
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", record_timing=False, resources=resources).execute()
    notebook.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    notebook.metadata["language_info"] = {"name": "python"}  # not the version of who executed it last
    nbformat.write(notebook, text.with_suffix(".ipynb"))


def execute_copy(text: Path, folder: Path) -> tuple[bool, str]:
    """Execute a copy of a notebook in a process of its own; whether it went well, and a line of what it took."""
    copy = Path(shutil.copy(text, folder / text.name))
    start = time.monotonic()
    done = subprocess.run([sys.executable, __file__, "--execute", copy], cwd=folder, capture_output=True, text=True)
    took = f"{text.stem}: {time.monotonic() - start:.0f} seconds"
    return not done.returncode, f"{took}, {done.stdout.strip()}" if not done.returncode else f"{took}\n{done.stderr}"


def execute_all(texts: Sequence[Path], *, write: bool) -> list[bool]:
    """Execute copies of notebooks, each in a folder of its own; which went well. `write`: those beside their texts."""
    went = []
    with tempfile.TemporaryDirectory(prefix="aedr-notebooks-") as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        homes = [Path(folder, text.stem) for text in texts]
        for home in homes:
            home.mkdir()
        for text, home, (well, line) in zip(texts, homes, pool.map(execute_copy, texts, homes), strict=True):
            print(line, flush=True)
            went.append(well)
            if well and write:
                shutil.copy(home / f"{text.stem}.ipynb", text.with_suffix(".ipynb"))
    return went


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="such as 01_quickstart; none: all")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--heads", action="store_true")
    parser.add_argument("--execute", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(given)
    if asked.execute:
        execute(asked.execute)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{used.ru_utime + used.ru_stime:.0f} of a processor")
        return 0
    texts = [t for t in sorted((ROOT / "notebooks").glob("[0-9]*.py")) if not asked.names or t.stem in asked.names]
    if not texts:
        sys.exit(f"no notebook among {', '.join(asked.names) or 'notebooks/'}")
    address = configured_address()
    if asked.write or asked.heads:
        for text in texts:
            write_head(text, address)
    if asked.heads:
        return 0
    problems = [] if asked.write else [problem for text in texts for problem in wrong_with(text, address)]
    if problems:
        sys.exit("\n".join([*problems, "renew the pairs: .ci/notebooks.py --write NAMES"]))
    start = time.monotonic()
    went = execute_all(texts, write=asked.write)
    took = time.monotonic() - start
    print(f"{sum(went)} of {len(went)} notebooks in {took:.0f} seconds")
    if asked.write:
        problems = [problem for text in texts for problem in wrong_with(text, address)]
        for problem in problems:
            print(problem)
    elif took > SECONDS:
        print(f"above {SECONDS} seconds")
        return 1
    return 0 if all(went) and not problems else 1


if __name__ == "__main__":
    sys.exit(main())
