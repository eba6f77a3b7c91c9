"""The weights that ship against diffusers' own classes, loaded from the same folders, on an image that ships.

Tolerance 1e-4 of the largest value: float32 sums in another order, over some twenty layers. Latents are given to both
decoders alike, and codebook entries chosen apart, since a near tie may fall either way.
"""

from pathlib import Path

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import aedr_jax as aedr
from aedr_jax.autoencoders.registry import REGISTRY

from .family_references import reference_images, reference_latents
from .references import nchw, nhwc

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [name for name, entry in REGISTRY.items() if entry.repository is None]


@pytest.mark.parametrize("name", SHIPPED)
def test_diffusers_loads_and_agrees(name):
    vq = REGISTRY[name].quantize is not None
    cls = getattr(diffusers, REGISTRY[name].family)
    reference = cls.from_pretrained(ROOT / "weights" / name, torch_dtype=torch.float32)
    pixels = aedr.read_image(ROOT / "examples" / "photographs" / "chelsea.png")
    images = pixels[None].astype(np.float32) / 127.5 - 1
    ae = aedr.load_autoencoder(name, quantize=False if vq else None)
    with torch.no_grad():
        if vq:
            latents = nhwc(reference.encode(nchw(images)).latents)
            decoded = nhwc(reference.decode(nchw(latents), force_not_quantize=True).sample)
        else:
            latents = reference_latents(reference, images)
            decoded = reference_images(reference, latents)
    found = jax.jit(lambda ae, x: ae.encode(x))(ae, jnp.asarray(images))
    np.testing.assert_allclose(found, latents, atol=1e-4 * np.abs(latents).max())
    found = jax.jit(lambda ae, z: ae.decode(z))(ae, jnp.asarray(latents))
    np.testing.assert_allclose(found, decoded, atol=1e-4 * np.abs(decoded).max())
    if vq:
        with torch.no_grad():
            entries = nhwc(reference.quantize(nchw(latents))[0])
        differs = (np.abs(np.asarray(ae.quantize(jnp.asarray(latents))) - entries) > 1e-5).any(-1)
        assert differs.mean() <= 0.01
