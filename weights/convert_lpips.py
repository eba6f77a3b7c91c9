"""The weights of LPIPS, published as pickles, to safetensors.

    python weights/convert_lpips.py vgg16-397923af.pth vgg.pth

A `.safetensors` file is written beside each: the first is a torchvision backbone (its classifier, nine tenths of the
file, is left out), the second the linear layers of the `lpips` package. Loading is restricted to tensors
(`weights_only=True`). The package itself never unpickles: run this where PyTorch is, on files whose origin you trust.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.pth")
    for source in parser.parse_args().files:
        if not source.is_file():
            parser.error(f"{source}: no such file")
        state = torch.load(source, map_location="cpu", weights_only=True)
        kept = {name: value.contiguous() for name, value in state.items() if not name.startswith("classifier.")}
        out = source.with_suffix(".safetensors")
        save_file(kept, out)
        print(f"{out}: {len(kept)} tensors")


if __name__ == "__main__":
    main()
