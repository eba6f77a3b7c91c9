"""Weights on disk: which files of a folder are preferred, and their tensors.

diffusers writes `diffusion_pytorch_model[.VARIANT].safetensors`, or shards and an index that says which tensor lies in
which. What `aedr convert` wrote comes first, then diffusers' float32 file, then averaged and plain training weights
(`.ema`, `.non_ema`), then half precision: float16 keeps more of a weight's digits than bfloat16. Of a file and an
index of one variant the file. Another file than the preferred one is loaded where its own path is given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from aedr_jax.errors import AutoencoderError

__all__ = [
    "CONVERTED_FILE",
    "PICKLED",
    "WEIGHT_FILES",
    "files_of",
    "is_index",
    "no_safetensors",
    "read_header",
    "read_object",
    "read_renamed",
    "read_shards",
    "read_tensors",
    "shards_of",
    "weights_file",
]

CONVERTED_FILE = "flax_model.safetensors"
VARIANTS = ("ema", "non_ema", "fp16", "bf16")
_STEM = "diffusion_pytorch_model"
WEIGHT_FILES = (
    f"{_STEM}.safetensors",
    f"{_STEM}.safetensors.index.json",
    *(
        name
        for variant in VARIANTS
        for name in (
            f"{_STEM}.{variant}.safetensors",
            f"{_STEM}.safetensors.index.{variant}.json",
            f"{_STEM}.safetensors.{variant}.index.json",  # diffusers before 0.32
        )
    ),
)
MAX_WEIGHT_BYTES = 4 << 30  # no autoencoder of this kind comes near: a larger file is not one
DTYPES = {"F64": "np", "F32": "np", "F16": "np", "BF16": "flax"}  # safetensors' names -> what reads them exactly
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
POINTERS = {
    b"version https://git-lfs": "Git LFS: run `git lfs pull`",
    b"/annex/objects/": "git-annex: run `git annex get`",
}


def weights_file(folder: Path) -> Path:
    """The safetensors file of a folder, or the index of its shards: the first of `WEIGHT_FILES` that is there.

    Raises:
      AutoencoderError: where there is none, with what is there instead.
    """
    for name in (CONVERTED_FILE, *WEIGHT_FILES):
        if (folder / name).is_file():
            return folder / name
        if (folder / name).is_symlink():
            raise AutoencoderError(f"{folder / name}: a link to nothing; download the file again")
    there = sorted(path.name for path in folder.iterdir() if path.is_file())
    if others := [name for name in there if name.endswith(".safetensors")]:
        raise AutoencoderError(
            f"{folder}: none of the names that diffusers gives to weights, but {', '.join(others)}: "
            f"pass that file's path, such as {folder / others[0]}"
        )
    raise AutoencoderError(no_safetensors(str(folder), [name for name in there if name.endswith(PICKLED)]))


def no_safetensors(where: str, pickled: list[str] | None = None) -> str:
    """What to say where there is a config but no weights that may be loaded.

    Args:
      where: the folder or hub path.
      pickled: the pickled weights that are there; None: it is not known.
    """
    expected = f"{where}: no {WEIGHT_FILES[0]}, of any variant ({', '.join(VARIANTS)}), nor an index of shards"
    if pickled == []:
        return f"{expected}; download the weights too"
    if pickled is not None and not any(name.startswith(_STEM) for name in pickled):
        return (
            f"{expected}, but {', '.join(pickled)}. Pickled weights are never loaded here, since unpickling runs code, "
            "and this is no file of diffusers': take the model's diffusers folder"
        )
    found = f", but {', '.join(pickled)}" if pickled else ""
    return (
        f"{expected}{found}. Pickled weights ({', '.join(PICKLED)}) are never loaded here, since "
        "unpickling runs code; convert them in an environment with PyTorch, if you trust them:\n"
        "  aedr convert --pickle FOLDER FOLDER   (extra convert; reads tensors alone, writes .safetensors beside .bin)"
    )


def is_index(path: Path) -> bool:
    """Whether a file is an index of shards by its name."""
    return path.suffix == ".json" and ".safetensors." in path.name


def files_of(path: Path) -> tuple[Path, ...]:
    """The safetensors files that `weights_file`'s answer stands for: itself, or the shards of an index in order."""
    return tuple(path.parent / name for name in shards_of(path)) if is_index(path) else (path,)


def shards_of(index: Path) -> dict[str, set[str]]:
    """File name -> the tensors in it, as an index says.

    Raises:
      AutoencoderError: where it is no such index, or names a file anywhere but beside itself.
    """
    mapping = read_object(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise AutoencoderError(f"{index}: no weight_map (tensor -> file) in it; download it again")
    shards: dict[str, set[str]] = {}
    for key, name in sorted(mapping.items(), key=lambda item: (str(item[1]), item[0])):
        plain = isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\:\0")
        if not plain or name.startswith("."):
            raise AutoencoderError(f"{index}: {key} is in {name!r}, which is no safetensors file beside the index")
        shards.setdefault(name, set()).add(key)
    return shards


def read_shards(path: Path, *, ignore: Callable[[str], bool] = lambda name: False) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file, or of all the shards of an index; otherwise as `read_tensors`.

    Raises:
      AutoencoderError: also where a shard is missing, or holds other tensors than the index says.
    """
    if not is_index(path):
        return read_tensors(path, ignore=ignore)
    shards = shards_of(path)
    if missing := [name for name in shards if not (path.parent / name).is_file()]:
        raise AutoencoderError(
            f"{path}: {len(missing)} of {len(shards)} shards are not beside it: {', '.join(missing[:10])}; "
            "download them too"
        )
    _check_size(path, sum((path.parent / name).stat().st_size for name in shards))
    tensors: dict[str, np.ndarray] = {}
    for name, keys in shards.items():
        file = path.parent / name
        found = read_header(file).keys()
        if wrong := sorted(keys ^ found):
            raise AutoencoderError(
                f"{file}: not the tensors that {path.name} says ({', '.join(wrong[:10])}): the files are of different "
                "downloads"
            )
        tensors |= read_tensors(file, ignore=ignore)
    return tensors


def read_tensors(
    path: Path, *, ignore: Callable[[str], bool] = lambda name: False, part: bool = False
) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file: their values as float32.

    Args:
      path: of one file.
      ignore: tensors that are passed over by their names, whatever they hold; they are not read.
      part: whether the file holds more than an autoencoder, and may be larger than one.

    Raises:
      AutoencoderError: when the file, or what is read of it, is too large; when it is damaged, or holds other dtypes
        than float64, 32, 16 and bfloat16, or values that are not finite in float32.
    """
    from safetensors import SafetensorError, safe_open

    wanted = {name: found for name, found in read_header(path, part=part).items() if not ignore(name)}
    _check_size(path, 4 * sum(math.prod(shape) for _, shape in wanted.values()) if part else 0)
    dtypes = {name: dtype for name, (dtype, _) in wanted.items()}
    if wrong := [f"{name} ({dtype})" for name, dtype in dtypes.items() if dtype not in DTYPES]:
        raise AutoencoderError(
            f"{path}: tensors of other dtypes than {', '.join(DTYPES)}: {', '.join(wrong[:10])}. Quantized weights are "
            "not those that the model generates with: take its float32, float16 or bfloat16 file"
        )
    tensors: dict[str, np.ndarray] = {}
    try:
        for framework in sorted(set(DTYPES.values())):
            with safe_open(path, framework) as file:
                for name, dtype in dtypes.items():
                    if DTYPES[dtype] == framework:
                        with np.errstate(over="ignore"):  # of float64: reported below
                            tensors[name] = np.asarray(file.get_tensor(name)).astype(np.float32, copy=False)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise AutoencoderError(f"{path}: not a readable safetensors file: {error}") from error
    if bad := _not_finite(tensors):
        raise AutoencoderError(
            f"{path}: values that are not finite in float32: {', '.join(bad[:10])}. The file is damaged or its "
            "training failed: download it again, or take another variant"
        )
    return tensors


def read_renamed(
    path: Path, rename: Callable[[str], str | None], *, ignore: Callable[[str], bool] = lambda name: False
) -> dict[str, np.ndarray]:
    """The tensors of a file that holds others too, under other names: those that `rename` gives a name.

    Args:
      path: of one file.
      rename: a tensor's name in the file -> its new one; None for one that is not read.
      ignore: tensors that are passed over by their new names.

    Raises:
      AutoencoderError: as `read_tensors`.
    """

    def passed_over(name: str) -> bool:
        new = rename(name)
        return new is None or ignore(new)

    found = read_tensors(path, ignore=passed_over, part=True)
    return {new: value for name, value in found.items() if (new := rename(name)) is not None}


def read_object(path: Path) -> dict:
    """A JSON object.

    Raises:
      AutoencoderError: with the file, where it is none.
    """
    try:
        data = path.read_bytes()
        _refuse_pointer(path, data)
        value = json.loads(data.decode("utf-8"))
    except AutoencoderError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise AutoencoderError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise AutoencoderError(f"{path}: expected a JSON object")
    return value


def read_header(path: Path, *, part: bool = False) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor -> dtype (safetensors' name) and shape, without reading a value; otherwise as `read_tensors`."""
    from safetensors import SafetensorError, safe_open

    try:
        if not part:
            _check_size(path, path.stat().st_size)
        with open(path, "rb") as file:
            _refuse_pointer(path, file.read(200))
        with safe_open(path, "np") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            return {name: (found.get_dtype(), tuple(found.get_shape())) for name, found in slices.items()}
    except AutoencoderError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise AutoencoderError(f"{path}: not a readable safetensors file: {error}") from error


def _refuse_pointer(path: Path, data: bytes) -> None:
    for start, remedy in POINTERS.items():
        if data.startswith(start):
            raise AutoencoderError(f"{path}: a pointer to the file, not the file itself. It is kept in {remedy} there")


def _check_size(path: Path, size: int) -> None:
    if size > MAX_WEIGHT_BYTES:
        raise AutoencoderError(f"{path}: {size} bytes, more than any autoencoder of this kind ({MAX_WEIGHT_BYTES})")


def _not_finite(tensors: Mapping[str, np.ndarray]) -> list[str]:
    counts = {name: int(value.size - np.isfinite(value).sum()) for name, value in sorted(tensors.items())}
    return [f"{name} ({count} of {tensors[name].size})" for name, count in counts.items() if count]
