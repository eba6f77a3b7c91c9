"""When, by what command, with which versions and on which device rows were made: what files of a run say of that."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import platform
from collections.abc import Iterable

import jax

from aedr_jax.versions import versions

__all__ = ["MADE_KEY", "Made", "images_hash"]

MADE_KEY = b"aedr_jax.made"  # in Parquet's metadata


@dataclasses.dataclass(frozen=True)
class Made:
    """How rows came to be.

    Attributes:
      created: UTC date and time.
      command: what was typed; None for a call in Python.
      versions: of the packages that take part in a score, and of Python.
      backend: what JAX ran on, such as "cpu", and the kind of device.
    """

    created: str
    command: str | None
    versions: dict[str, str]
    backend: str

    @classmethod
    def now(cls, command: str | None = None) -> Made:
        """In this process, which asks JAX for its devices."""
        return cls(
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=command,
            versions={**versions(), "python": platform.python_version()},
            backend=f"{jax.default_backend()} ({jax.devices()[0].device_kind})",
        )

    def in_parquet(self) -> dict[bytes, bytes]:
        """Itself as metadata of a Parquet schema."""
        return {MADE_KEY: json.dumps(dataclasses.asdict(self)).encode()}


def images_hash(files: Iterable[str]) -> str:
    """sha256 over the sorted sha256 of images' files."""
    return hashlib.sha256("\n".join(sorted(files)).encode()).hexdigest()
