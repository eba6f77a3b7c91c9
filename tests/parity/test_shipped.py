"""The weights that ship against `diffusers.AutoencoderKL.from_pretrained` on an image that ships.

Tolerance 1e-4 of the largest value: float32 sums in another order, over some twenty layers.
"""

from pathlib import Path

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch

import aedr_jax as aedr

ROOT = Path(__file__).resolve().parents[2]


def test_diffusers_loads_and_agrees():
    reference = diffusers.AutoencoderKL.from_pretrained(ROOT / "weights" / "mini-kl4-a", torch_dtype=torch.float32)
    pixels = aedr.read_image(ROOT / "examples" / "photographs" / "chelsea.png")
    images = pixels[None].astype(np.float32) / 127.5 - 1
    with torch.no_grad():
        latents = reference.encode(torch.tensor(images.transpose(0, 3, 1, 2))).latent_dist.mean
        decoded = reference.decode(latents).sample.numpy().transpose(0, 2, 3, 1)
    latents = latents.numpy().transpose(0, 2, 3, 1)
    ae = aedr.load_autoencoder("mini-kl4-a")
    found = jax.jit(lambda ae, x: ae.encode(x))(ae, jnp.asarray(images))
    np.testing.assert_allclose(found, latents, atol=1e-4 * np.abs(latents).max())
    found = jax.jit(lambda ae, z: ae.decode(z))(ae, jnp.asarray(latents))
    np.testing.assert_allclose(found, decoded, atol=1e-4 * np.abs(decoded).max())
