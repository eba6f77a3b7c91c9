"""The record of a run: what was said of each image, and all that it depended on, so that anybody can compute it again.

A record names models and holds hashes; it holds no place that weights, calibrations or images could be loaded from. Its
digest notices a file that was damaged or edited by hand. It does not prove who wrote it: whoever forges a record can
write a fitting digest, and is found out by measuring the images again (`api.verify`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aedr_jax.decision.null import Null
from aedr_jax.errors import SourceError
from aedr_jax.files import whole_file
from aedr_jax.scoring.job import Measuring, Setup
from aedr_jax.scoring.judging import Judging
from aedr_jax.scoring.made import Made
from aedr_jax.scoring.rows import Row
from aedr_jax.scoring.tables import printable
from aedr_jax.scoring.verdicts import Verdict
from aedr_jax.signal.protocol import Protocol, told_apart
from aedr_jax.typed import build

__all__ = ["Record", "RecordedImage", "RecordedModel", "defined", "protocols_of"]

FORMAT = "aedr_jax record 1"
MOST_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class RecordedModel:
    """A candidate: how images were measured with it, and the fingerprint of that."""

    protocol: Protocol
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class RecordedImage:
    """An image's verdict and figures, as in `Verdict`; `alignments` and `alignment_errors` as in `Measurement`, of the
    image as it is. What is not defined is left out. Its path stays on the machine that it was on."""

    id: str
    sha256: str
    verdict: str
    status: str
    reason: str
    found: str
    scores: dict[str, float]
    alignments: dict[str, float]
    alignment_errors: dict[str, float]
    foreign_p_values: dict[str, float]
    p_values: dict[str, float]

    @classmethod
    def of(cls, verdict: Verdict) -> RecordedImage:
        """What is recorded of a verdict."""
        return cls(**{field.name: defined(getattr(verdict, field.name)) for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class Record:
    """All of a run.

    Attributes:
      created: UTC date and time.
      command: what was typed; None for a call in Python.
      versions: of the packages that take part, and of Python.
      backend: what JAX ran on, such as "cpu", and the kind of device.
      measuring: how images were measured.
      false_names, search: as for `api.attribute`.
      null: the hash of the reference of foreign images (`Null.digest`).
      models: the candidates by name.
      calibrations: for each model the digests of its calibrations (`Calibration.digest`).
      images: in the order of the run.
    """

    created: str
    command: str | None
    versions: dict[str, str]
    backend: str
    measuring: Measuring
    false_names: float
    search: bool
    null: str
    models: dict[str, RecordedModel]
    calibrations: dict[str, tuple[str, ...]]
    images: tuple[RecordedImage, ...]

    @classmethod
    def of(
        cls,
        verdicts: Sequence[Verdict],
        rows: Sequence[Row],
        *,
        setup: Setup,
        judging: Judging,
        command: str | None = None,
    ) -> Record:
        """The record of verdicts and of the rows that they were made from, and how."""
        protocols = protocols_of(rows, setup)
        return cls(
            **vars(Made.now(command)),
            measuring=Measuring.of(setup),
            false_names=judging.false_names,
            search=judging.search,
            null=Null.shipped().digest(),
            models={name: RecordedModel(protocol, protocol.fingerprint()) for name, protocol in protocols.items()},
            calibrations={name: tuple(c.digest() for c in made) for name, made in judging.calibrations.items()},
            images=tuple(map(RecordedImage.of, verdicts)),
        )

    @property
    def made(self) -> Made:
        """How it came to be."""
        return Made(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Made)})

    def text(self) -> str:
        """The record as JSON, with its digest.

        Raises:
          AedrError: if the loss has no name of its own (`Protocol.record`).
        """
        values = {"format": FORMAT, **printable(dataclasses.asdict(self))}
        for name, model in self.models.items():
            values["models"][printable(name)]["protocol"] = printable(model.protocol.record())
        return json.dumps({**values, "digest": told_apart(values)}, indent=1, allow_nan=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `text`, whole or not at all."""
        with whole_file(Path(path)) as partial:
            partial.write_text(self.text() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> tuple[Record, bool]:
        """What `save` wrote, or what a page of `aedr report` holds, and whether the digest is that of its content.

        Raises:
          SourceError: with the file, if it holds no record of this format.
        """
        file = Path(path)
        try:
            if file.stat().st_size > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
            text = file.read_text(encoding="utf-8")
            values = json.loads(_inside(text) if text.lstrip().startswith("<") else text)
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                raise ValueError(f"not of the format {FORMAT!r}, which aedr attribute --record writes")
            digest = values.pop("digest", None)
            intact = told_apart(values) == digest
            del values["format"]
            return build(cls, values), intact
        except (OSError, ValueError, RecursionError) as error:
            raise SourceError(f"{file}: no record that can be read: {error}") from error


def defined(value: Any) -> Any:
    """A text, or the numbers that are defined."""
    if not isinstance(value, Mapping):
        return value
    return {name: number for name, number in value.items() if number is not None and math.isfinite(number)}


def protocols_of(rows: Sequence[Row], setup: Setup) -> dict[str, Protocol]:
    """For each model of rows, in their order, how they were measured."""
    first: dict[str, Row] = {}
    for row in rows:
        if row.model not in first or first[row.model].status != "ok":
            first[row.model] = row
    settings = setup.config.describe()
    return {name: Protocol(row.identity, settings=settings, size_rule=row.rule_of_run) for name, row in first.items()}


def _inside(page: str) -> str:
    """The record in a page of `aedr report`: the text of its one element with the id "record"."""
    import html

    _, found, rest = page.partition('<pre id="record"')
    if not found:
        raise ValueError("a page without a record")
    return html.unescape(rest.partition(">")[2].partition("<")[0])
