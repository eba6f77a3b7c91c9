"""`models`: what is on this machine. No network is loaded for it, and no JAX."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aedr_jax.autoencoders.registry import REGISTRY, Entry, calibration_file, local_folder, miniature_models
from aedr_jax.errors import SourceError

if TYPE_CHECKING:
    from aedr_jax.scoring.rows import Row

__all__ = ["MINIATURE_ONLY", "Inventory", "ModelRecord", "miniature_only", "models"]

MINIATURE_ONLY = "No real generator was checked: only the miniature models were candidates."

OF_ENTRY = (  # what a record and the registry's entry call alike
    *("gated", "native_size", "quantize", "latent_channels", "factor", "image_range", "image_channels", "licence"),
    *("same_as", "saved_apart"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """A model of the registry, or one that a calibration names.

    Attributes:
      model: its name.
      source: where its autoencoder comes from.
      gated: whether the download needs a licence click and a token; None where that is not known.
      native_size: the side in pixels at which it generates; None where that is not known.
      quantize: whether its images are decoded codebook entries; None without a codebook, or where that is not known.
      weights: the folder on this machine that holds them.
      family: their hash, as written beside them; equal for models that nothing here can tell apart.
      calibration: the first of `calibrations`.
      calibrations: files, first the one beside the weights.
      autoencoder: the class of its autoencoder, `_class_name` in `config.json`.
      latent_channels, factor: of the autoencoder; image size over latent size.
      image_range: what its network takes and gives, where its config does not say so.
      image_channels: 4 where the network has alpha too.
      licence: of the weights.
      same_as: the model whose autoencoder this is said to be.
      saved_apart: whether it is saved by hand out of a whole model, and is not downloaded.
      facts: what the registry's facts come from.
    """

    model: str
    source: str | None
    gated: bool | None = False
    native_size: int | None = None
    quantize: bool | None = None
    weights: str | None = None
    family: str | None = None
    calibration: str | None = None
    calibrations: tuple[str, ...] = ()
    autoencoder: str | None = None
    latent_channels: int | None = None
    factor: int | None = None
    image_range: tuple[float, float] | None = None
    image_channels: int | None = None
    licence: str | None = None
    same_as: str | None = None
    saved_apart: bool = False
    facts: str | None = None


class Inventory(NamedTuple):
    """The models, and the files among the calibrations that are none."""

    models: list[ModelRecord]
    no_calibrations: list[Path]


def models(calibrations: str | os.PathLike[str] | None = None) -> Inventory:
    """The models, and which weights and calibrations are on this machine.

    Args:
      calibrations: a folder of `calibrate`'s files; None: "calibrations", if there is one.

    Raises:
      SourceError: where a folder that was asked for does not exist.
    """
    made, broken = _calibrations_in(calibrations)
    found = []
    for name, entry in REGISTRY.items():
        folder, shipped = local_folder(name), calibration_file(name)
        beside = _read(shipped, broken) if shipped else None
        calibrated = [*([beside] if beside else []), *made.pop(name, [])]
        found.append(
            ModelRecord(
                model=name,
                source=_place(entry),
                weights=str(folder) if folder else None,
                family=_family(folder, calibrated),
                autoencoder=entry.family,
                facts=entry.source,
                **{name: getattr(entry, name) for name in OF_ENTRY},
                **_listed(calibrated),
            )
        )
    for name, calibrated in made.items():  # of models that are not in the registry: folders, hub paths
        _, _, family, source = calibrated[0]
        here = source if source and Path(source).is_dir() else None
        found.append(ModelRecord(model=name, source=source, weights=here, family=family, **_listed(calibrated)))
    return Inventory(found, broken)


def miniature_only(rows: Iterable[Row]) -> str:
    """`MINIATURE_ONLY`, where the weights of rows are those of the miniature models that ship, whatever they are
    called; else, and of no row, ""."""
    weights = {row.weights_hash for row in rows}
    files = [file for name in miniature_models() if (file := calibration_file(name))]
    shipped = {known.weights_hash for file in files if (known := _read(file, []))}
    return MINIATURE_ONLY if weights and weights <= shipped else ""


def _place(entry: Entry) -> str:
    if entry.repository is None:
        return "ships with the package"
    return f"{entry.repository}/{entry.subfolder}" if entry.subfolder else entry.repository


class _Calibrated(NamedTuple):
    """What a list needs of a calibration."""

    file: Path
    model: str | None
    weights_hash: str | None
    source: str | None


def _listed(calibrated: Sequence[_Calibrated]) -> dict[str, Any]:
    files = tuple(str(one.file) for one in calibrated)
    return {"calibration": files[0] if files else None, "calibrations": files}


def _calibrations_in(folder: str | os.PathLike[str] | None) -> tuple[dict[str, list[_Calibrated]], list[Path]]:
    where = Path(folder or "calibrations")
    if folder and not where.is_dir():
        raise SourceError(f"{where}: no such folder")
    found: dict[str, list[_Calibrated]] = {}
    broken: list[Path] = []
    for file in sorted(where.glob("*.json")):
        if known := _read(file, broken):
            found.setdefault(known.model or file.stem, []).append(known)
    return found, broken


def _read(file: Path, broken: list[Path]) -> _Calibrated | None:
    """A calibration, of which `Calibration.load`, which checks all of it, would bring JAX; None of a file that is none,
    which is then among the broken ones."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        values = json.loads(file.read_text(encoding="utf-8"))
        identity = values["protocol"]["identity"]
        known = identity["name"], identity["weights_hash"], values["provenance"]["source"]
        if all(isinstance(value, str | None) for value in known):
            return _Calibrated(file, *known)
    broken.append(file)
    return None


def _family(folder: Path | None, calibrated: Sequence[_Calibrated]) -> str | None:
    """The weights' hash as written beside them by `convert` or `calibrate`; None where neither can be read."""
    if calibrated:
        return calibrated[0].weights_hash
    if folder is None:
        return None
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["weights_hash"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None
