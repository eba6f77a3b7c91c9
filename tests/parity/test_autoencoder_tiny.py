"""`AutoencoderTiny` against PyTorch diffusers 0.39.0, and its group-normalised middle blocks against ours over it.

Narrow, and at diffusers' own width where tests marked `long` are run. Every parameter is random: kernels of He's scale,
so that the latents vary, biases and norm affines far from what they start as.

Tolerance: 1e-4 of the largest value. Both sides compute in float32 and add in another order, some 35 convolutions deep;
measured 2e-7 to 1e-6 in the narrow ones, up to 2e-6 at full width.
"""

import sys
from pathlib import Path

import diffusers
import jax
import numpy as np
import pytest
import torch

import aedr_jax

from .references import assert_close, nchw, nhwc, random_images

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "weights"))

from autoencoder_tiny import AutoencoderTiny

TOLERANCE = 1e-4
SIZES = {"even": (4, 6), "odd": (5, 3)}  # of the latents
NARROW = {
    "encoder_block_out_channels": (8,) * 4,
    "decoder_block_out_channels": (12,) * 4,
    "num_encoder_blocks": (0, 1, 2, 1),
    "num_decoder_blocks": (2, 1, 0, 1),
}
CONFIGS = {
    "taesd-narrow": (diffusers.AutoencoderTiny, NARROW),
    "taef2-narrow": (AutoencoderTiny, NARROW | {"latent_channels": 6, "midblock_group_norm": True}),
    "taesd": (diffusers.AutoencoderTiny, {}),
    "taef1": (diffusers.AutoencoderTiny, {"latent_channels": 16}),
    "taef2": (AutoencoderTiny, {"latent_channels": 32, "midblock_group_norm": True}),
}
PARAMETERS = {"taesd": 2_445_063, "taef1": 2_458_899}  # as counted of diffusers' own


@torch.no_grad()
def random_tiny(cls, config, seed):
    torch.manual_seed(seed)
    model = cls(**config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            module.weight.mul_(0.8)  # residual sums grow by themselves
        elif isinstance(module, torch.nn.GroupNorm):
            module.weight.normal_(1.0, 0.3)
        if getattr(module, "bias", None) is not None:
            module.bias.normal_(0.0, 0.2)
    return model


@pytest.fixture(
    scope="module",
    params=[name if "narrow" in name else pytest.param(name, marks=pytest.mark.long) for name in CONFIGS],
)
def pair(request, tmp_path_factory):
    """A model's name, its reference, and what `load_autoencoder` makes of the folder it was saved to."""
    cls, config = CONFIGS[request.param]
    reference = random_tiny(cls, config, seed=list(CONFIGS).index(request.param))
    folder = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder)
    return request.param, reference, aedr_jax.load_autoencoder(folder)


encode, decode = jax.jit(lambda ae, x: ae.encode(x)), jax.jit(lambda ae, z: ae.decode(z))


def random_latents(reference, size):
    """N(0, 3²): many lie where the decoder's tanh bends."""
    shape = (2, *SIZES[size], reference.config.latent_channels)
    return 3 * np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_encode(pair, size):
    """Reference: `AutoencoderTiny.encode().latents`; 1e-4 (see the top)."""
    _, reference, autoencoder = pair
    height, width = SIZES[size]
    images = random_images(8 * height, 8 * width, count=2)
    expected = nhwc(reference.encode(nchw(images)).latents)
    assert expected.std((1, 2)).min() > 0.05, "latents that do not vary compare nothing but biases"
    assert_close(encode(autoencoder, images), expected, TOLERANCE)
    with_key = jax.jit(lambda ae, x: ae.encode(x, jax.random.key(0)))
    np.testing.assert_array_equal(with_key(autoencoder, images), encode(autoencoder, images))


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_decode(pair, size):
    """Reference: `AutoencoderTiny.decode`; 1e-4 (see the top). Nothing is clipped: some of the values lie beyond 1."""
    _, reference, autoencoder = pair
    latents = random_latents(reference, size)
    expected = nhwc(reference.decode(nchw(latents)).sample)
    assert np.abs(expected).max() > 1
    assert expected.std() > 0.1
    assert_close(decode(autoencoder, latents), expected, TOLERANCE)


@torch.no_grad()
def test_forward_of_diffusers_is_another_function(pair):
    """It rounds latents to 8 bits between encoder and decoder; `encode` and `decode` do not."""
    _, reference, autoencoder = pair
    images = random_images(32, 40)
    rounded = nhwc(reference(nchw(images)).sample)
    passed = np.asarray(decode(autoencoder, encode(autoencoder, images)))
    assert np.abs(passed - rounded).max() > 1e-3 * np.abs(passed).max()


def test_size(pair):
    """Reference: the parameters as counted of diffusers' own class."""
    name, reference, autoencoder = pair
    count = sum(leaf.size for leaf in jax.tree.leaves(jax.tree.map(np.asarray, autoencoder))) - 1  # the scaling factor
    assert count == sum(p.numel() for p in reference.parameters())
    assert count == PARAMETERS.get(name, count)


@torch.no_grad()
def test_the_branch_sees_the_whole_image(pair):
    """A far row moves the middle blocks' norm, and with it every latent; without the branch only those near it."""
    name, _, autoencoder = pair
    images = random_images(8 * 24, 8 * 4)
    changed = images.copy()
    changed[:, -8:] *= -1
    moved = np.abs(np.asarray(encode(autoencoder, changed)) - np.asarray(encode(autoencoder, images)))[0, 0, 0].max()
    assert (moved > 0) == ("taef2" in name)
