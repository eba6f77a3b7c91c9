"""Records to check against: a file of `Record.save`, a page that holds one, or the folder of a run.

A folder is its own record. Settings lie beside it, verdicts in its parts, each with a digest and with how it was made;
so one that was resumed, shared out or killed is the record of whatever is finished, and of any number of images only
those that are asked for come into memory.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from aedr_jax.errors import SourceError
from aedr_jax.scoring.job import Measuring
from aedr_jax.scoring.made import MADE_KEY, Made
from aedr_jax.scoring.record import MOST_BYTES, Record, RecordedImage, RecordedModel, defined
from aedr_jax.scoring.store import DIGEST_KEY, digest_of, manifest_of
from aedr_jax.signal.measurement import PRESETS
from aedr_jax.signal.protocol import Identity, Protocol, told_apart
from aedr_jax.typed import build

__all__ = ["MOST_NAMED", "Looked", "Recorded", "keys_of"]

MOST_NAMED = 10  # images that were not asked for: of a folder no more are kept, of a file no more are shown


class Looked(NamedTuple):
    """What a record says of images.

    Attributes:
      images: the recorded ones that they may be: of their bytes, their ids or their files' names.
      others: ids of the first few that they are not.
      left: how many they are not.
      edited: parts that were changed after they were written.
      made: how the parts of `images` were made, each once.
    """

    images: tuple[RecordedImage, ...]
    others: tuple[str, ...] = ()
    left: int = 0
    edited: tuple[str, ...] = ()
    made: tuple[Made, ...] = ()


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A record.

    Attributes:
      record: all of it; of a folder all but the images.
      intact: whether its digest is that of its content; of a folder that of the settings.
      parts: the folder, or None.
    """

    record: Record
    intact: bool
    parts: Path | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recorded:
        """A file, a page, a folder, or the settings beside it.

        Raises:
          SourceError: where there is no record.
        """
        folder = _folder_of(Path(path))
        if folder is None:
            return cls(*Record.load(path))
        return cls(*_load_head(manifest_of(folder)), folder)

    def look_up(self, images: Sequence[RecordedImage]) -> Looked:
        """What it says of these images. Of a folder only parts that say something of them are compared with their
        digests.

        Raises:
          SourceError: for a part that cannot be read.
        """
        if self.parts is None:
            return Looked(self.record.images, made=(self.record.made,))
        return _look_up(self.parts, images)


def _folder_of(path: Path) -> Path | None:
    """The folder of a run, by its own name or that of the settings beside it; None for other names."""
    if path.is_dir():
        return path
    folder = path.with_name(path.name.removesuffix(".run.json"))
    return folder if folder != path and folder.is_dir() else None


def _load_head(manifest: Path) -> tuple[Record, bool]:
    try:
        if manifest.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        values = json.loads(manifest.read_text(encoding="utf-8"))
        settings = dict(values["settings"])
        if settings.get("kind") != "verdicts":
            raise ValueError("it is of scores; of verdicts there is one")
        intact = told_apart({name: value for name, value in values.items() if name != "digest"}) == values["digest"]
        models = {str(name): _protocol(name, kept) for name, kept in settings["models"].items()}
        head = Record(
            **vars(build(Made, values["made"], "made")),
            measuring=build(Measuring, values["measuring"], "measuring"),
            false_names=build(float, settings["false_names"], "false_names"),
            search=build(bool, settings["search"], "search"),
            null=build(str, settings["null"], "null"),
            models={name: RecordedModel(protocol, protocol.fingerprint()) for name, protocol in models.items()},
            calibrations=build(dict[str, tuple[str, ...]], settings["calibrations"], "calibrations"),
            images=(),
        )
    except KeyError as error:
        raise SourceError(f"{manifest}: no record that can be read: {error} is missing") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"{manifest}: no record that can be read: {error}") from error
    return head, intact


def _protocol(name: str, values: Mapping[str, Any]) -> Protocol:
    """Of a model as a run's settings have it: all of it, or what rows of scores say."""
    if "identity" in values:
        return build(Protocol, values, name)
    known = {what: values[what] or None for what in ("weights_hash", "dtype", "precision")}
    preset = PRESETS.get(str(values["preset"]))
    settings = {"preset": values["preset"]} if preset is None else preset.describe()
    identity = Identity(name, quantize=values["quantize"], **known)
    return Protocol(identity, settings=settings, size_rule=values["size_rule"])


def _look_up(folder: Path, images: Sequence[RecordedImage]) -> Looked:
    import pyarrow.parquet as pq

    wanted = {key for image in images for key in keys_of(image.id, image.sha256) if key[1]}
    found: list[RecordedImage] = []
    others: list[str] = []
    edited: list[str] = []
    made: dict[str, Made] = {}
    left = 0
    for part in sorted(folder.glob("part-*.parquet")):
        try:
            with pq.ParquetFile(part) as file:
                told = file.read(columns=["id", "sha256"]).to_pylist()
                mine = [not wanted.isdisjoint(keys_of(row["id"], row["sha256"])) for row in told]
                rest = [row["id"] for row, one in zip(told, mine, strict=True) if not one]
                others += rest[: MOST_NAMED - len(others)]
                left += len(rest)
                if not any(mine):
                    continue
                groups = range(file.metadata.num_row_groups)
                if (size := sum(file.metadata.row_group(i).total_byte_size for i in groups)) > MOST_BYTES:
                    raise ValueError(f"{size} bytes, more than {MOST_BYTES}")
                table = file.read()
            said = table.schema.metadata or {}
            if said.get(DIGEST_KEY, b"").decode() != digest_of(table):
                edited.append(part.name)
            if MADE_KEY in said:
                made[said[MADE_KEY].decode()] = build(Made, json.loads(said[MADE_KEY]), "made")
            found += [_image(row) for row, one in zip(table.to_pylist(), mine, strict=True) if one]
        except Exception as error:  # pyarrow's, the file system's, and what a forged part may hold
            raise SourceError(f"{part}: cannot be read as verdicts: {error}") from error
    return Looked(tuple(found), tuple(others), left, tuple(edited), tuple(made.values()))


def keys_of(image: str, sha256: str) -> tuple[tuple[str, str], ...]:
    """What an image is found by, of its id and bytes: these, else the id, else its file's name."""
    return ("bytes", sha256), ("id", image), ("name", PurePosixPath(image).name)


def _image(row: Mapping[str, Any]) -> RecordedImage:
    values = {field.name: defined(row[field.name]) for field in dataclasses.fields(RecordedImage)}
    return build(RecordedImage, values, str(row["id"]))
