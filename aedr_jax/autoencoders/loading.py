"""`load_autoencoder`: a registry name, a local folder or a hub path to an autoencoder; and `aedr convert`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from aedr_jax.autoencoders.blocks import Numerics
from aedr_jax.autoencoders.checkpoints import from_state_dict, is_ignored, to_flat_dict, weights_hash
from aedr_jax.autoencoders.config import parse_config
from aedr_jax.autoencoders.family import Network
from aedr_jax.autoencoders.hub import WHOLE, download, file_sha256
from aedr_jax.autoencoders.names import locate
from aedr_jax.autoencoders.originals import Original, recognize
from aedr_jax.autoencoders.registry import REGISTRY, Entry, entry_of, local_folder
from aedr_jax.autoencoders.tensors import (
    CONVERTED_FILE,
    PICKLED,
    files_of,
    is_index,
    no_safetensors,
    read_header,
    read_object,
    read_renamed,
    read_shards,
    weights_file,
)
from aedr_jax.errors import AutoencoderError
from aedr_jax.files import whole_file

__all__ = ["Found", "convert", "load_autoencoder", "resolve"]

DTYPES = ("float32", "bfloat16", "float16")
PRECISIONS = ("highest", "high", "default", None)
MANIFEST = "manifest.json"  # beside what `convert` writes


@dataclasses.dataclass(frozen=True)
class Found:
    """Where an autoencoder was found: the safetensors file or the index of its shards, with `config.json` beside it but
    for single files of the original code."""

    weights: Path
    origin: str
    quantize: bool | None = None
    image_range: tuple[float, float] | None = None  # None: the family's

    @property
    def config(self) -> Path:
        """The file that describes the architecture."""
        return self.weights.parent / "config.json"


def resolve(model: str | os.PathLike[str], revision: str | None = None) -> Found:
    """Find an autoencoder, downloading it where it is not on this machine.

    A hub path that is that of an entry of the registry is its model: images and codebook are as by its name.

    Args:
      model: a registry name, a local folder, a safetensors file (or an index of shards) with `config.json` beside it,
        a safetensors file of the original code, or `org/repo` with an optional `/subfolder`.
      revision: for hub paths and names that are downloaded: a commit, tag or branch.

    Raises:
      AutoencoderError: when nothing goes by that name.
    """
    kind, name = locate(model)
    if kind == "registry":
        entry: Entry | None = REGISTRY[name]
        weights = _of_registry(name, revision)
    elif kind == "hub":
        parts = name.split("/")
        repository, subfolder = "/".join(parts[:2]), "/".join(parts[2:])
        entry, weights = entry_of(repository, subfolder), download(repository, subfolder, revision)
    else:
        path = Path(name)
        if revision is not None:
            raise AutoencoderError(f"{path}: revision {revision!r} is of a download; what lies here has none")
        weights = _with_config(path) if path.is_dir() else _single_file(path)
        return Found(weights, str(path), *_recorded(weights.parent / MANIFEST))
    return Found(weights, name, entry.quantize, entry.image_range) if entry else Found(weights, name)


def _of_registry(name: str, revision: str | None) -> Path:
    entry = REGISTRY[name]
    folder = local_folder(name) if revision is None else None
    if folder is not None:
        return weights_file(folder)
    if entry.repository is None:
        raise AutoencoderError(f"{name} ships with the package, but its folder is missing: reinstall aedr-jax")
    if entry.saved_apart:
        raise AutoencoderError(f"{name}: {entry.repository} is {WHOLE}")
    return download(entry.repository, entry.subfolder or "", revision or entry.revision)


def _with_config(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        inside = [child.name for child in sorted(folder.iterdir()) if (child / "config.json").is_file()]
        hint = f"; did you mean {', '.join(str(folder / c) for c in inside)}?" if inside else ""
        raise AutoencoderError(f"{folder}: holds no config.json{hint}")
    return weights_file(folder)


def _single_file(path: Path) -> Path:
    if path.suffix == ".safetensors":  # without config.json it is read as a file of the original code
        return path
    if is_index(path):
        if (path.parent / "config.json").is_file():
            return path
        raise AutoencoderError(f"{path}: no config.json beside it; pass the autoencoder's whole folder")
    if path.suffix in PICKLED:
        raise AutoencoderError(no_safetensors(str(path.parent), [path.name]))
    raise AutoencoderError(f"{path}: no safetensors file; pass the folder that holds the autoencoder's config.json")


def load_autoencoder(
    model: str | os.PathLike[str],
    *,
    dtype: Any = jnp.float32,
    precision: str | None = "highest",
    revision: str | None = None,
    quantize: bool | None = None,
    image_range: Sequence[float | int] | None = None,
) -> Network:
    """An autoencoder with its weights.

    Args:
      model: a registry name ("sd1.5"), a local folder (diffusers' layout, or what `aedr convert` wrote), or a hub path
        ("org/repo/subfolder"). Of several files of weights in a folder the first in `tensors.WEIGHT_FILES` is read. To
        read another one pass its own path, with `config.json` beside it. A file without one is read as the original
        code's, such as `ae.safetensors`, or a whole checkpoint with the autoencoder in it (`originals`).
      dtype: what to compute in: float32, bfloat16 or float16. Parameters are kept in float32 as they were read.
      precision: of every convolution and matrix product in float32: "highest", "high" or "default". Losses near 1e-5
        (FLUX) need "highest". "default" is what the backend does unasked: TF32 on a GPU since Ampere (10 bits of
        mantissa, sums in float32), one pass in bfloat16 on a TPU (7 bits); "high" is TF32 there, and three passes in
        bfloat16. On a CPU all three are float32. Norms and softmax are float32 always, in half precision too.
      revision: commit, tag or branch of a download.
      quantize: whether `decode` goes through the codebook. None: as the model generates, by its registry entry, by
        whose name or hub path it is given; for a bare folder or another hub path as diffusers does, which quantizes
        wherever there is a codebook but Paella's.
      image_range: what the network takes and gives, such as (0, 1) for aMUSEd's, whose config does not say so. Images
        here are in [-1, 1] all the same. None: as the registry (by name or hub path) or the family says.

    Returns:
      The autoencoder: a pytree with `encode`, `decode`, `factor`, and `quantize` where there is a codebook.

    Raises:
      AutoencoderError: with the file at fault and what is wrong with it; also for a file that `aedr convert` wrote and
        that is no longer what it was.

    Warns:
      CheckpointWarning: where the preferred weights cannot be downloaded and others are in the cache.

    >>> ae = aedr.load_autoencoder("mini-vq")
    >>> ae.factor, ae.quantize_on_decode
    (8, True)
    """
    if precision not in PRECISIONS:
        raise AutoencoderError(f"precision {precision!r}: expected one of {', '.join(map(str, PRECISIONS))}")
    numerics = Numerics(dtype_of(dtype), precision)
    found = resolve(model, revision)
    if quantize is not None:
        found = dataclasses.replace(found, quantize=quantize)
    if image_range is not None:
        found = dataclasses.replace(found, image_range=_checked_range(image_range, "image_range"))
    return _load(found, numerics)


def _load(found: Found, numerics: Numerics) -> Network:
    fields, original = _described(found)
    config = parse_config(fields, where=str(found.weights if original else found.config))
    if found.image_range is not None:
        config = dataclasses.replace(config, image_range=found.image_range)
    ignore = partial(is_ignored, family=config.family)
    if original is None:
        tensors = read_shards(found.weights, ignore=ignore)
        _check_digest(found.weights)
    else:
        tensors = read_renamed(found.weights, original.rename, ignore=ignore)
    return from_state_dict(tensors, config, numerics=numerics, quantize=found.quantize, where=str(found.weights))


def _check_digest(weights: Path) -> None:
    """Of a file that `convert` wrote: that the manifest beside it was written with it."""
    manifest = weights.parent / MANIFEST
    if weights.name != CONVERTED_FILE or not manifest.is_file():
        return
    digest = read_object(manifest).get("sha256")
    if digest is not None and digest != file_sha256(weights):
        raise AutoencoderError(f"{weights}: not the file that {MANIFEST} beside it was written for: convert it again")


def _described(found: Found) -> tuple[dict[str, Any], Original | None]:
    """What the config says, or what stands for it where a single file of the original code has none."""
    if found.config.is_file():
        return read_object(found.config), None
    shapes = {name: shape for name, (_, shape) in read_header(found.weights, part=True).items()}
    original = recognize(shapes, where=str(found.weights))
    return original.config, original


def dtype_of(dtype: Any) -> Any:
    """One of the dtypes to compute in, as a hashable NumPy dtype.

    Raises:
      AutoencoderError: on any other.
    """
    try:
        known = jnp.dtype(dtype)
    except TypeError:
        known = None
    if known is None or known.name not in DTYPES:
        raise AutoencoderError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    return known


def convert(model: str | os.PathLike[str], out: str | os.PathLike[str], *, revision: str | None = None) -> dict:
    """Write an autoencoder as Flax-ready safetensors with its config and a manifest; it loads offline from then on.

    Args:
      model: as for `load_autoencoder`.
      out: the folder to write, such as `weights/sd1.5`.

    Returns:
      The manifest that was written.

    Raises:
      AutoencoderError: as `load_autoencoder` does.
    """
    from safetensors.numpy import save_file

    from aedr_jax import __version__

    found = resolve(model, revision)
    autoencoder = _load(found, Numerics())
    shards = {file.name: file_sha256(file) for file in files_of(found.weights)} if is_index(found.weights) else None
    fields, original = _described(found)
    config = found.config.read_bytes() if original is None else json.dumps(fields, indent=2).encode()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    manifest = {
        "format": "aedr_jax autoencoder 1",
        "source": found.origin,
        "source_file": found.weights.name,
        "source_sha256": file_sha256(found.weights),
        "source_shards": shards,
        "source_commit": _commit(found.weights.parent),
        "quantize": found.quantize,
        "image_range": found.image_range,
        "weights_hash": weights_hash(autoencoder),
        "rounded_hash": weights_hash(autoencoder, rounded=True),
        "aedr_jax": __version__,
    }
    # The weights take their name last, when the manifest has their digest: whenever this stops, a folder loads as what
    # it was or as what it becomes, or not at all.
    with (
        whole_file(out / CONVERTED_FILE) as weights,
        whole_file(out / "config.json") as described,
        whole_file(out / MANIFEST) as recorded,
    ):
        save_file(to_flat_dict(autoencoder), weights)
        described.write_bytes(config)
        manifest["sha256"] = file_sha256(weights)
        recorded.write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _commit(folder: Path) -> str | None:
    """The commit below which a downloaded folder lies."""
    parents = itertools.pairwise(folder.parts)
    return next((name for above, name in parents if above == "snapshots" and re.fullmatch("[0-9a-f]{40}", name)), None)


def _recorded(manifest: Path) -> tuple[bool | None, tuple[float, float] | None]:
    """What `convert` wrote down of how a model generates: quantize and image range; None where it is not known."""
    values = read_object(manifest) if manifest.is_file() else {}
    quantize, image_range = values.get("quantize"), values.get("image_range")
    if quantize not in (None, True, False):
        raise AutoencoderError(f"{manifest}: quantize is {quantize!r}; expected true, false or null")
    return quantize, None if image_range is None else _checked_range(image_range, f"{manifest}: image_range")


def _checked_range(value: Any, what: str) -> tuple[float, float]:
    pair = isinstance(value, list | tuple) and len(value) == 2
    if not pair or not all(type(end) in (int, float) for end in value) or not -1e6 < value[0] < value[1] < 1e6:
        raise AutoencoderError(f"{what} is {value!r}; expected two numbers, the lower one first, such as (0, 1)")
    return float(value[0]), float(value[1])
