"""`load_autoencoder`: a registry name, a local folder or a hub path to an autoencoder; and `aedr convert`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from aedr_jax.autoencoders.blocks import Numerics
from aedr_jax.autoencoders.checkpoints import from_state_dict, to_flat_dict, weights_hash
from aedr_jax.autoencoders.config import parse_config
from aedr_jax.autoencoders.hub import WEIGHT_FILES, download, file_sha256, no_safetensors
from aedr_jax.autoencoders.models import AutoencoderKL, VQModel
from aedr_jax.autoencoders.registry import REGISTRY, local_folder
from aedr_jax.errors import AutoencoderError

__all__ = ["Source", "convert", "load_autoencoder", "resolve"]

CONVERTED_FILE = "flax_model.safetensors"
MAX_WEIGHT_BYTES = 4 << 30  # no autoencoder of this kind comes near: a larger file is not one
DTYPES = ("float32", "bfloat16", "float16")
PRECISIONS = ("highest", "high", "default", None)
FILE_DTYPES = ("F32", "BF16", "F16")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where an autoencoder was found: a folder with `config.json` and one safetensors file."""

    folder: Path
    origin: str
    quantize: bool | None


def resolve(model: str | os.PathLike[str], revision: str | None = None) -> Source:
    """Find an autoencoder, downloading it where it is not on this machine.

    Args:
      model: a registry name, a local folder, or `org/repo` with an optional `/subfolder`.
      revision: for hub paths and names that are downloaded: a commit, tag or branch.

    Raises:
      AutoencoderError: when nothing goes by that name.
    """
    name = os.fspath(model)
    if entry := REGISTRY.get(name):
        folder = local_folder(name) if revision is None else None
        if folder is not None:
            return Source(folder, name, entry.quantize)
        if entry.repository is None:
            raise AutoencoderError(f"{name} ships with the package, but its folder is missing: reinstall aedr-jax")
        folder = download(entry.repository, entry.subfolder or "", revision or entry.revision)
        return Source(folder, name, entry.quantize)
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            inside = [child.name for child in sorted(path.iterdir()) if (child / "config.json").is_file()]
            hint = f"; did you mean {', '.join(str(path / c) for c in inside)}?" if inside else ""
            raise AutoencoderError(f"{path}: holds no config.json{hint}")
        return Source(path, str(path), _manifest(path).get("quantize"))
    parts = name.split("/")
    if len(parts) < 2 or not all(parts) or path.is_absolute() or ".." in parts or parts[0] == ".":
        raise AutoencoderError(
            f"{name!r} is no model of the registry ({', '.join(REGISTRY)}), "
            "no local folder and no hub path (org/repo/subfolder)"
        )
    return Source(download("/".join(parts[:2]), "/".join(parts[2:]), revision), name, None)


def load_autoencoder(
    model: str | os.PathLike[str],
    *,
    dtype: Any = jnp.float32,
    precision: str | None = "highest",
    revision: str | None = None,
    quantize: bool | None = None,
) -> AutoencoderKL | VQModel:
    """An autoencoder with its weights.

    Args:
      model: a registry name ("sd1.5"), a local folder (diffusers' layout, or what `aedr convert` wrote), or a hub path
        ("org/repo/subfolder").
      dtype: what to compute in: float32, bfloat16 or float16. Parameters are kept in float32 as they were read.
      precision: of convolutions and matrix products: "highest", "high" or "default". Losses near 1e-5 (FLUX) need
        "highest": float32 products are cut to TF32 or bfloat16 on GPU and TPU otherwise.
      revision: commit, tag or branch of a download.
      quantize: whether `decode` goes through the codebook. None: as the model generates, by its registry entry; for
        a bare folder or hub path as diffusers does, which quantizes wherever there is a codebook.

    Raises:
      AutoencoderError: with the file at fault and what is wrong with it.
    """
    if precision not in PRECISIONS:
        raise AutoencoderError(f"precision {precision!r}: expected one of {', '.join(map(str, PRECISIONS))}")
    numerics = Numerics(dtype_of(dtype), precision)
    source = resolve(model, revision)
    config = parse_config(_read_json(source.folder / "config.json"), where=str(source.folder / "config.json"))
    path = weights_file(source.folder)
    quantize = source.quantize if quantize is None else quantize
    return from_state_dict(read_tensors(path), config, numerics=numerics, quantize=quantize, where=str(path))


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


def weights_file(folder: Path) -> Path:
    """The safetensors file of a folder; float32 before float16.

    Raises:
      AutoencoderError: where there is none.
    """
    for name in (CONVERTED_FILE, *WEIGHT_FILES):
        if (folder / name).is_file():
            return folder / name
    raise AutoencoderError(no_safetensors(str(folder)))


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file, floating ones only.

    Raises:
      AutoencoderError: when the file is too large, damaged, or holds other dtypes.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.flax import load_file

    if (size := path.stat().st_size) > MAX_WEIGHT_BYTES:
        raise AutoencoderError(f"{path}: {size} bytes, more than any autoencoder of this kind ({MAX_WEIGHT_BYTES})")
    try:
        with safe_open(path, "np") as file:  # JAX would cut 64-bit values to 32 and say nothing
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        tensors = {} if set(dtypes.values()) - set(FILE_DTYPES) else load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise AutoencoderError(f"{path}: not a readable safetensors file: {error}") from error
    wrong = [f"{name} ({dtype})" for name, dtype in dtypes.items() if dtype not in FILE_DTYPES]
    if wrong:
        raise AutoencoderError(f"{path}: tensors of other dtypes than {', '.join(DTYPES)}: {', '.join(wrong[:10])}")
    return {name: np.asarray(value) for name, value in tensors.items()}


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

    source = resolve(model, revision)
    autoencoder = load_autoencoder(source.folder, quantize=source.quantize)
    original = weights_file(source.folder)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    manifest = {
        "format": "aedr_jax autoencoder 1",
        "source": source.origin,
        "source_file": original.name,
        "source_sha256": file_sha256(original),
        "source_commit": _commit(source.folder),
        "quantize": source.quantize,
        "weights_hash": weights_hash(autoencoder),
        "aedr_jax": __version__,
    }
    # The manifest last: a folder that has one is complete.
    save_file(to_flat_dict(autoencoder), out / CONVERTED_FILE)
    (out / "config.json").write_bytes((source.folder / "config.json").read_bytes())
    manifest["sha256"] = file_sha256(out / CONVERTED_FILE)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _commit(folder: Path) -> str | None:
    """The commit below which a downloaded folder lies."""
    parents = itertools.pairwise(folder.parts)
    return next((name for above, name in parents if above == "snapshots" and re.fullmatch("[0-9a-f]{40}", name)), None)


def _manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise AutoencoderError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise AutoencoderError(f"{path}: expected a JSON object")
    return value
