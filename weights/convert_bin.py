"""Pickled PyTorch weights to safetensors, for a model whose repository holds nothing else.

    python weights/convert_bin.py FOLDER

`FOLDER` holds `diffusion_pytorch_model.bin`, of any variant, or shards of it with their index; the same names with
`.safetensors` are written beside them. Loading is restricted to tensors (`weights_only=True`). The package itself never
unpickles: run this where PyTorch is, on files whose origin you trust.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    sources = sorted(folder.glob("diffusion_pytorch_model*.bin"))
    if not sources:
        parser.error(f"{folder}: no diffusion_pytorch_model.bin in it")
    for source in sources:
        state = torch.load(source, map_location="cpu", weights_only=True)
        out = source.with_suffix(".safetensors")
        save_file({name: value.contiguous() for name, value in state.items()}, out)
        print(f"{out}: {len(state)} tensors")
    for source in sorted(folder.glob("diffusion_pytorch_model*.bin.index*.json")):
        index = json.loads(source.read_text())
        index["weight_map"] = {key: name.replace(".bin", ".safetensors") for key, name in index["weight_map"].items()}
        out = source.with_name(source.name.replace(".bin.", ".safetensors."))
        out.write_text(json.dumps(index, indent=2))
        print(f"{out}: {len(index['weight_map'])} tensors")


if __name__ == "__main__":
    main()
