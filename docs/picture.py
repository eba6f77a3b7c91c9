"""docs/picture.png: x, r1, the residual and the alignment map, of a model's own image and of a photograph.

python docs/picture.py [OUT.png]        # extra `plots`
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import aedr_jax as aedr
from aedr_jax.images.tiles import Grid

ROOT = Path(__file__).resolve().parents[1]
MODEL = "mini-kl4-a"
ROWS = {f"{MODEL}/7000000.png": "made by the model", "photographs/coffee.png": "a photograph"}
TITLES = ("x", "r1 = D(E(x))", "|r1 − x|", "alignment, block by block")
MOST_RESIDUAL, MOST_ALIGNMENT = 0.25, 1.5  # one scale for both rows


def draw(out: Path) -> None:
    """Write the picture."""
    autoencoder = aedr.load_autoencoder(MODEL)
    images = aedr.prepare([aedr.read_image(ROOT / "examples" / name) for name in ROWS])
    first, _ = jax.jit(aedr.double_reconstruct)(autoencoder, images)
    blocks = np.asarray(jax.jit(aedr.alignment_map)(autoencoder, images))
    x, r1 = (np.clip((np.asarray(batch) + 1) / 2, 0, 1) for batch in (images, first))
    residual = np.abs(r1 - x).mean(-1)
    side = x.shape[1]
    grid = Grid.of(aedr.AlignmentConfig(), autoencoder.factor, side)
    assert grid is not None  # the examples have room for more than four blocks
    low, high = grid.margin - 0.5, grid.margin + grid.inner - 0.5

    figure, axes = plt.subplots(len(ROWS), len(TITLES), figsize=(8.4, 4.4), layout="constrained")
    for row, label in enumerate(ROWS.values()):
        axes[row, 0].imshow(x[row])
        axes[row, 1].imshow(r1[row])
        shown = axes[row, 2].imshow(residual[row], cmap="magma", vmin=0, vmax=MOST_RESIDUAL)
        where = axes[row, 3]
        extent = (low, high, high, low)
        mapped = where.imshow(
            blocks[row], cmap="RdBu", vmin=-MOST_ALIGNMENT, vmax=MOST_ALIGNMENT, extent=extent, interpolation="none"
        )
        where.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
        axes[row, 0].set_ylabel(label)
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes[:, 2], shrink=0.6, location="bottom", pad=0.02)
    figure.colorbar(mapped, ax=axes[:, 3], shrink=0.6, location="bottom", pad=0.02)
    figure.savefig(out, dpi=72, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("picture.png"))
