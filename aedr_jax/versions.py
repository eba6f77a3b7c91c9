"""Versions of packages, for what says how it was made."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from aedr_jax import __version__

__all__ = ["SCORING", "version", "versions"]

SCORING = ("aedr-jax", "jax", "jaxlib", "flax", "numpy", "dm-pix", "pillow")  # what takes part in a score


def versions(names: Iterable[str] = SCORING) -> dict[str, str]:
    """Name -> version; "unknown" for a package that lies on the path without having been installed.

    >>> from aedr_jax.versions import versions
    >>> versions(["aedr-jax", "no-such-package"]) == {"aedr-jax": aedr.__version__, "no-such-package": "unknown"}
    True
    """
    return {name: version(name) or "unknown" for name in names}


def version(name: str) -> str | None:
    """Of a package; None where none of that name is installed."""
    if name == "aedr-jax":  # which may be a checkout, installed or not
        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
