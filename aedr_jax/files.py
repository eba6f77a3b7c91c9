"""Files that are there whole or not at all, folders that come with the package, and the user's cache."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["cache_folder", "shipped", "whole_file"]


def shipped(name: str) -> Path:
    """A folder that comes with the package, the wheel's own or the checkout's: "examples", images of the miniature
    models and photographs, or "docs", where the measured figures are.

    Raises:
      FileNotFoundError: where there is none of that name.

    >>> from aedr_jax.files import shipped
    >>> len(list(shipped("examples").glob("photographs/*.png")))
    6
    """
    package = Path(__file__).resolve().parent
    for root in (package, package.parent):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"no folder {name!r} came with {package}")


def cache_folder() -> Path:
    """Where what can be made or fetched again lies: `aedr_jax` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aedr_jax"


@contextmanager
def whole_file(path: Path, *, tag: str | None = None, keep: bool = False) -> Iterator[Path]:
    """A name to write under. At the end the file is flushed to the disk and takes its own name, whenever the process or
    the machine stops: `path` is what it was before, or whole.

    Args:
      path: of the file.
      tag: who writes, part of the name until then; None: the file's name.
      keep: leave a file that is there by then.
    """
    partial = path.with_name(f".{path.name if tag is None else tag}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        if keep:
            _take_free_name(partial, path)
        else:
            os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _take_free_name(partial: Path, path: Path) -> None:
    """Of several processes that do this at once, one wins: the others' files would be replaced under its feet."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            os.replace(partial, path)


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk too, not only the bytes under it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
