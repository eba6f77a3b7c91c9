"""Every further family against diffusers 0.39.0, in float32, with every parameter and buffer random.

Qwen-Image 2.1's class came later: its reference is `AutoencoderKLWan`, which has its network, and what is loaded are
the last slices of that one's kernels in a file as the class' own.

Tiny networks by default, all that a config can ask for among them; at full width where tests marked `long` are run
(`.ci/long`). Sizes of latents are even and odd, height and width differ; `AutoencoderDC` adds up in another order for
at most 32 latent positions, so one size is below and one above.

Tolerance: 1e-4 of the largest value at full width, as in `test_autoencoders` and for the same reason; a tenth of it for
the tiny ones, which are less deep and add fewer numbers (measured 3e-7 to 4e-6).
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import aedr_jax

from .family_configs import FULL, TINY
from .family_references import VIDEO, random_network, reference_images, reference_latents, saved
from .references import assert_close, nchw, nhwc, random_images

TOLERANCE = {"tiny": 1e-5, "full": 1e-4}
SIZES = {"even": (4, 6), "odd": (7, 5)}

CASES = [("tiny", name) for name in TINY] + [pytest.param(("full", n), marks=pytest.mark.long) for n in FULL]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def pair(request):
    """A reference, what `load_autoencoder` makes of the folder it was saved to, and the tolerance."""
    width, name = request.param
    class_name, config = (TINY if width == "tiny" else FULL)[name]
    reference = random_network(class_name, config, seed=list(TINY).index(name))
    with tempfile.TemporaryDirectory() as folder:
        autoencoder = aedr_jax.load_autoencoder(saved(reference, class_name, Path(folder)))
    return reference, autoencoder, TOLERANCE[width]


encode = jax.jit(lambda autoencoder, images: autoencoder.encode(images))
decode = jax.jit(
    lambda autoencoder, latents, quantize=None: autoencoder.decode(latents, quantize=quantize), static_argnums=2
)


def random_latents(reference, size, seed=0):
    channels = getattr(reference.config, "z_dim", None) or reference.config.latent_channels
    return np.random.default_rng(seed).standard_normal((2, *size, channels)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_encode(pair, size):
    """Reference: `encode`, its mode or latent; tolerances at the top."""
    reference, autoencoder, tolerance = pair
    height, width = (autoencoder.factor * side for side in SIZES[size])
    images = random_images(8 * -(-height // 8), 8 * -(-width // 8))[:, :height, :width]
    assert_close(encode(autoencoder, images), reference_latents(reference, images), tolerance)


@pytest.mark.parametrize("size", SIZES)
def test_decode(pair, size):
    """Reference: `decode` by its own defaults, inside ±1 where it clips; tolerances at the top."""
    reference, autoencoder, tolerance = pair
    latents = random_latents(reference, SIZES[size])
    expected = reference_images(reference, latents)
    assert np.abs(expected).max() < 1 or not isinstance(reference, VIDEO)
    assert_close(decode(autoencoder, latents), expected, tolerance)


def loaded(reference, folder):
    reference.save_pretrained(folder)
    return aedr_jax.load_autoencoder(folder)


@pytest.mark.parametrize("name", TINY)
def test_layouts(name, tmp_path):
    """A folder, the same in shards with their index, and a file by its path are one autoencoder."""
    reference = random_network(*TINY[name], seed=8)
    reference.save_pretrained(tmp_path / "folder")
    reference.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*-of-*.safetensors"))) > 1
    places = [tmp_path / "folder", tmp_path / "shards", tmp_path / "folder" / "diffusion_pytorch_model.safetensors"]
    assert len({aedr_jax.weights_hash(aedr_jax.load_autoencoder(place)) for place in places}) == 1


@pytest.mark.parametrize("name", ["wan2.1", "wan2.2"])
def test_decode_clips(name, tmp_path):
    """Reference: `decode`, whose last step is a clip to ±1, after the squares are unfolded; 1e-5 (see the top)."""
    reference = random_network(*TINY[name], seed=3)
    with torch.no_grad():
        reference.decoder.conv_out.weight.mul_(20)
    latents = random_latents(reference, SIZES["odd"])
    expected = reference_images(reference, latents)
    assert 0.2 < (np.abs(expected) == 1).mean() < 0.95
    actual = decode(loaded(reference, tmp_path), latents)
    assert_close(actual, expected, TOLERANCE["tiny"])
    assert jnp.abs(actual).max() == 1


def test_paella_through_its_codebook(tmp_path):
    """Reference: `decode(force_not_quantize=False)`; 1e-5 (see the top). Its own default passes the codebook by."""
    reference = random_network(*TINY["paella"], seed=4)
    autoencoder = loaded(reference, tmp_path)
    assert not autoencoder.quantize_on_decode
    latents = random_latents(reference, SIZES["odd"])
    expected = reference_images(reference, latents, force_not_quantize=False)
    assert_close(decode(autoencoder, latents, True), expected, TOLERANCE["tiny"])
    assert not np.allclose(expected, reference_images(reference, latents), atol=1e-2)
    assert aedr_jax.load_autoencoder(tmp_path, quantize=True).quantize_on_decode


def test_samples_of_the_posterior_spread_as_the_reference_says(tmp_path):
    """Reference: `latent_dist.std` on one frame; 1e-5 (see the top)."""
    reference = random_network(*TINY["wan2.2"], seed=5)
    autoencoder = loaded(reference, tmp_path)
    images = random_images(32, 16)
    with torch.no_grad():
        expected = nhwc(reference.encode(nchw(images)[:, :, None]).latent_dist.std[:, :, 0])
    assert_close(autoencoder.posterior(jnp.asarray(images))[1], expected, TOLERANCE["tiny"])


@pytest.mark.parametrize("name", ["flux2", "wan2.2"])
@torch.no_grad()
def test_a_bfloat16_copy_is_of_the_family(name, tmp_path):
    """Reference: PyTorch's cast to bfloat16, exactly."""
    reference = random_network(*TINY[name], seed=6)
    whole, copy = loaded(reference, tmp_path / "whole"), loaded(reference.to(torch.bfloat16), tmp_path / "copy")
    hashes = [[aedr_jax.weights_hash(ae, rounded=r) for ae in (whole, copy)] for r in (False, True)]
    assert [len(set(of_both)) for of_both in hashes] == [2, 1]
