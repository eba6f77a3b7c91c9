"""Pickled PyTorch weights to safetensors, for a model whose repository holds nothing else.

    python weights/convert_bin.py FOLDER

`FOLDER` holds `diffusion_pytorch_model.bin`; `diffusion_pytorch_model.safetensors` is written beside it. Loading is
restricted to tensors (`weights_only=True`). The package itself never unpickles: run this where PyTorch is, on files
whose origin you trust.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    source = folder / "diffusion_pytorch_model.bin"
    if not source.is_file():
        parser.error(f"{source}: no such file")
    state = torch.load(source, map_location="cpu", weights_only=True)
    out = source.with_suffix(".safetensors")
    save_file({name: value.contiguous() for name, value in state.items()}, out)
    print(f"{out}: {len(state)} tensors")


if __name__ == "__main__":
    main()
