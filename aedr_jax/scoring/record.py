"""The record of a run: what was said of each image, and all that it depended on, so that anybody can compute it again.

A record names models and holds hashes; it holds no place that weights, calibrations or images could be loaded from. Its
digest notices a file that was damaged or edited by hand. It does not prove who wrote it: whoever forges a record can
write a fitting digest, and is found out by measuring the images again (`api.verify`).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from aedr_jax.decision.calibration import VERSIONED, Calibration, pasts_of
from aedr_jax.decision.null import Null
from aedr_jax.errors import SourceError
from aedr_jax.files import whole_file
from aedr_jax.images.codec import MAX_PIXELS
from aedr_jax.scoring.job import Setup
from aedr_jax.scoring.rows import Row
from aedr_jax.scoring.tables import printable
from aedr_jax.scoring.verdicts import Verdict
from aedr_jax.signal.measurement import PRESETS, SignalConfig
from aedr_jax.signal.protocol import Identity, Protocol, told_apart
from aedr_jax.typed import build

__all__ = ["Measuring", "Record", "RecordedImage", "RecordedModel", "protocols_of"]

FORMAT = "aedr_jax record 1"
MOST_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class Measuring:
    """How images were measured (`Setup`), of which `preset` names the settings; "custom" ones are in the protocols."""

    preset: str
    multiple: int | None
    dtype: str | None
    precision: str
    most_pixels: int | None
    most_decoded: int

    @classmethod
    def of(cls, setup: Setup) -> Measuring:
        """What of a setup a row depends on."""
        own = [field.name for field in dataclasses.fields(cls) if field.name != "preset"]
        return cls(setup.config.name, **{name: getattr(setup, name) for name in own})

    def setup(self) -> Setup:
        """The setup that it was.

        Raises:
          SourceError: for settings that are no preset, and for images larger than are decoded by default: no file says
            how much memory this machine may be asked for.
        """
        if self.preset not in PRESETS:
            raise SourceError(f"a record of settings {self.preset!r}, which no file can bring: pass them (setup=)")
        if self.most_decoded > MAX_PIXELS:
            raise SourceError(
                f"a record of images up to {self.most_decoded} pixels, above the {MAX_PIXELS} that are decoded "
                "on a file's word: pass the setup (setup=)"
            )
        values = dataclasses.asdict(self)
        return Setup(SignalConfig.preset(values.pop("preset")), **values)


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
        calibrations: Mapping[str, Calibration | Sequence[Calibration]],
        false_names: float,
        search: bool,
        command: str | None = None,
    ) -> Record:
        """The record of verdicts and of the rows that they were made from."""
        device = jax.devices()[0]
        protocols = protocols_of(rows, setup)
        by_image: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            by_image.setdefault((row.id, row.path), []).append(row)
        return cls(
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=command,
            versions={**{name: metadata.version(name) for name in VERSIONED}, "python": platform.python_version()},
            backend=f"{jax.default_backend()} ({device.device_kind})",
            measuring=Measuring.of(setup),
            false_names=false_names,
            search=search,
            null=Null.shipped().digest(),
            models={name: RecordedModel(protocol, protocol.fingerprint()) for name, protocol in protocols.items()},
            calibrations={name: tuple(past.digest() for past in pasts_of(made)) for name, made in calibrations.items()},
            images=tuple(_recorded(verdict, by_image[verdict.id, verdict.path]) for verdict in verdicts),
        )

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


def protocols_of(rows: Sequence[Row], setup: Setup) -> dict[str, Protocol]:
    """For each model of rows, in their order, how they were measured."""
    first: dict[str, Row] = {}
    for row in rows:
        if row.model not in first or first[row.model].status != "ok":
            first[row.model] = row
    settings = setup.config.describe()
    return {name: _protocol(row, settings) for name, row in first.items()}


def _protocol(row: Row, settings: Mapping[str, Any]) -> Protocol:
    identity = Identity(row.model, row.weights_hash, row.quantize, row.dtype or None, row.precision or None)
    return Protocol(identity, settings=settings, size_rule=row.size_rule.split(",")[0])  # without an image's own cut


def _recorded(verdict: Verdict, rows: Sequence[Row]) -> RecordedImage:
    def defined(values: Mapping[str, Any]) -> dict[str, float]:
        return {name: float(value) for name, value in values.items() if math.isfinite(value)}

    return RecordedImage(
        id=verdict.id,
        sha256=verdict.sha256,
        verdict=verdict.verdict,
        status=verdict.status,
        reason=verdict.reason,
        found=verdict.found,
        scores=defined(verdict.scores),
        alignments=defined({row.model: row.measured.alignment for row in rows}),
        alignment_errors=defined({row.model: row.measured.alignment_error for row in rows}),
        foreign_p_values=defined(verdict.foreign_p_values),
        p_values=defined(verdict.p_values),
    )


def _inside(page: str) -> str:
    """The record in a page of `aedr report`: the text of its one element with the id "record"."""
    import html

    _, found, rest = page.partition('<pre id="record"')
    if not found:
        raise ValueError("a page without a record")
    return html.unescape(rest.partition(">")[2].partition("<")[0])
