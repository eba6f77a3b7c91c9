"""The one place that unpickles, and only when asked to: tensors that were published as pickles, to safetensors.

Unpickling runs code. Here PyTorch's own reader is restricted to tensors (`weights_only=True`), in a version whose
restriction is known to hold; use it on files whose origin you trust all the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aedr_jax.autoencoders.tensors import read_object
from aedr_jax.errors import AutoencoderError
from aedr_jax.files import whole_file

__all__ = ["convert_pickle", "convert_pickles"]

EXTRA = 'pip install "aedr-jax[convert]"'
SAFE = (2, 6)  # before it, `weights_only=True` could be made to run code (CVE-2025-32434)


def convert_pickle(
    source: str | os.PathLike[str], out: str | os.PathLike[str], *, leave_out: Sequence[str] = ()
) -> tuple[Path, list[str]]:
    """Write pickled tensors as safetensors, values and dtypes as they are.

    Args:
      source: a file that `torch.save` wrote of a dictionary of tensors (.bin, .pth, .pt, .ckpt).
      out: the folder to write to; the file keeps its name, with the ending .safetensors. The source's own is fine.
      leave_out: beginnings of names of tensors that are not written.

    Returns:
      The file that was written, and the names of its tensors.

    Raises:
      AutoencoderError: without PyTorch 2.6 or later, and with the file that is missing, damaged, holds anything but
        tensors, or nothing.
    """
    source, out = Path(source), Path(out)
    if not source.is_file():
        raise AutoencoderError(f"{source}: no such file; expected one of pickled tensors, such as FOLDER/NAME.bin")
    torch = _torch()
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # its reader raises whatever it meets in a damaged or hostile file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AutoencoderError(
            f"{source}: not a file of pickled tensors alone; nothing was written: {reason}"
        ) from error
    if not isinstance(state, dict):
        raise AutoencoderError(f"{source}: holds one {type(state).__name__}; expected tensors by name")
    if wrong := [str(name) for name, value in state.items() if not (isinstance(name, str) and torch.is_tensor(value))]:
        raise AutoencoderError(f"{source}: {', '.join(wrong[:10])}: no tensors; expected tensors by name")
    kept = {name: value for name, value in state.items() if not name.startswith(tuple(leave_out))}
    if not kept:
        raise AutoencoderError(f"{source}: no tensors to write in it")
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{source.stem}.safetensors"
    from safetensors.torch import save_file

    with whole_file(file) as partial:
        save_file(_apart(kept), partial)
    return file, list(kept)


def convert_pickles(
    source: str | os.PathLike[str], out: str | os.PathLike[str], *, leave_out: Sequence[str] = ()
) -> list[tuple[Path, list[str]]]:
    """`convert_pickle` of one file, or of every one that diffusers reads in a folder, with the indices of shards.

    Args:
      source: a file, or a folder that holds `diffusion_pytorch_model.bin`, of any variant, or shards of it.
      out, leave_out: as for `convert_pickle`.

    Returns:
      Each file that was written, and the names of its tensors.

    Raises:
      AutoencoderError: as `convert_pickle`; where a folder holds none.
    """
    folder = Path(source)
    if not folder.is_dir():
        return [convert_pickle(source, out, leave_out=leave_out)]
    files = sorted(folder.glob("diffusion_pytorch_model*.bin"))
    if not files:
        raise AutoencoderError(f"{folder}: no diffusion_pytorch_model.bin in it; name the file itself")
    written = [convert_pickle(file, out, leave_out=leave_out) for file in files]
    for index in sorted(folder.glob("diffusion_pytorch_model*.bin.index*.json")):
        values = read_object(index)
        names = values.get("weight_map")
        if not isinstance(names, dict):
            raise AutoencoderError(f"{index}: no weight_map in it")
        values["weight_map"] = {key: str(name).replace(".bin", ".safetensors") for key, name in names.items()}
        with whole_file(Path(out) / index.name.replace(".bin.", ".safetensors.")) as partial:
            partial.write_text(json.dumps(values, indent=2) + "\n")
    return written


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise AutoencoderError(f"pickled tensors are read with PyTorch: {EXTRA} ({error})") from error
    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE:
        raise AutoencoderError(
            f"PyTorch {torch.__version__} does not read pickles safely; expected 2.6 or later: {EXTRA}"
        )
    return torch


def _apart(tensors: dict[str, Any]) -> dict[str, Any]:
    """Tensors that share no memory, which safetensors does not hold."""
    seen: set[int] = set()
    found = {}
    for name, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone().contiguous() if place in seen else value.contiguous()
        seen.add(place)
    return found
