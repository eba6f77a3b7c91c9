"""The fenced blocks of README.md and docs/, each with the marker in the comment above it, for `test_pages.py` here and
in `parity/`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

BY_CI = ("install", "install-prints", "test")  # .ci/run runs these and compares what is printed
RUN = ("run", "needs a hub", "needs a GPU")  # parity/test_pages.py runs these, the latter two on stand-ins
READ = ("needs data", "needs a cluster")  # what cannot be run: arguments, names and files are checked, no more
SHOWN = ("shows", "install again")  # lines that were printed, with any figures; the installation, as README has it
MARKERS = (*BY_CI, *RUN, *READ, *SHOWN)


class Block(NamedTuple):
    """A fenced block: its page and line, its marker (None without), its language and text."""

    page: Path
    line: int
    marker: str | None
    language: str
    text: str

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Of a shell block: its lines, continued ones joined."""
        return [line.strip() for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks(page: Path) -> list[Block]:
    """All of a page, but for Sphinx's directives.

    Raises:
      ValueError: where a fence is not closed.
    """
    found, opened, marker = [], None, None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if opened is None:
            if fence := re.fullmatch(r"```(\S*)", line):
                opened = (number, marker, fence[1], [])
            comment = re.fullmatch(r"<!-- ([^>]+) -->", line)
            marker = comment[1] if comment else None
        elif line == "```":
            number, above, language, lines = opened
            if not language.startswith("{"):
                found.append(Block(page, number, above, language, "\n".join(lines) + "\n"))
            opened = None
        else:
            opened[3].append(line)
    if opened is not None:
        raise ValueError(f"{page}:{opened[0]}: the block is not closed")
    return found


ALL = [block for page in PAGES for block in blocks(page)]
