"""The tokenizer of Janus against transformers' own class, in float32, with every parameter random.

A narrow network with all that its config can ask for, and where tests marked `long` are run the one of Janus-Pro, whose
config is the class' default. Tolerances as in `test_families`, for the same reasons: 1e-5 of the largest value for the
narrow one, 1e-4 for the wide one. Of equal latents the nearest codes are equal, exactly.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

import aedr_jax

from .family_references import randomized
from .references import assert_close, nchw, nhwc, random_images

NARROW = {
    "base_channels": 32,
    "channel_multiplier": (1, 2, 2),
    "num_res_blocks": 1,
    "latent_channels": 6,
    "embed_dim": 4,
    "num_embeddings": 37,
}
CASES = [
    pytest.param((NARROW, 1e-5), id="narrow"),
    pytest.param(({}, 1e-4), id="full", marks=pytest.mark.long),
]
SIZES = {"even": (4, 6), "odd": (7, 5)}


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """A reference, what `load_autoencoder` makes of the file it was saved to, and the tolerance."""
    config, tolerance = request.param
    torch.manual_seed(0)
    reference = randomized(JanusVQVAE(JanusVQVAEConfig(**config)).eval())
    spread_codes(reference)
    folder = tmp_path_factory.mktemp("janus")
    reference.save_pretrained(folder)
    return reference, aedr_jax.load_autoencoder(folder / "model.safetensors"), tolerance


@torch.no_grad()
def spread_codes(reference):
    """A codebook as wide as latents are, so that more than one code is nearest to some."""
    latents = latents_of(reference, random_images(64, 64)).reshape(-1, reference.config.embed_dim)
    codes = reference.quantize.embedding.weight
    codes.copy_(torch.tensor(latents.mean(0)) + torch.tensor(latents.std(0)) * torch.randn_like(codes))


@torch.no_grad()
def latents_of(reference, images):
    return nhwc(reference.quant_conv(reference.encoder(nchw(images))))


encode = jax.jit(lambda autoencoder, images: autoencoder.encode(images))
decode = jax.jit(
    lambda autoencoder, latents, quantize=None: autoencoder.decode(latents, quantize=quantize), static_argnums=2
)


@pytest.mark.parametrize("size", SIZES)
def test_encode(pair, size):
    """Reference: `quant_conv` of `encoder`, of which `encode` looks for the nearest codes; tolerances at the top."""
    reference, autoencoder, tolerance = pair
    height, width = (autoencoder.factor * side for side in SIZES[size])
    images = random_images(8 * -(-height // 8), 8 * -(-width // 8))[:, :height, :width]
    assert_close(encode(autoencoder, images), latents_of(reference, images), tolerance)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_decode_without_the_codebook(pair, size):
    """Reference: `decoder` of `post_quant_conv`; tolerances at the top."""
    reference, autoencoder, tolerance = pair
    channels = reference.config.embed_dim
    latents = np.random.default_rng(0).standard_normal((2, *SIZES[size], channels)).astype(np.float32)
    expected = nhwc(reference.decoder(reference.post_quant_conv(nchw(latents))))
    assert_close(decode(autoencoder, latents, False), expected, tolerance)


@torch.no_grad()
def test_through_the_codebook(pair):
    """Reference: `encode`'s tokens and `decode` of them, its whole `forward`; tolerances at the top."""
    reference, autoencoder, tolerance = pair
    side = 6
    images = random_images(side * autoencoder.factor, side * autoencoder.factor)
    latents = latents_of(reference, images)
    reference.quantize.quant_state_dims = [side, side]
    tokens = reference.encode(nchw(images)).image_tokens
    assert len(np.unique(tokens)) > 3
    np.testing.assert_array_equal(autoencoder.quantizer.indices(jnp.asarray(latents)).reshape(-1), tokens.numpy())
    expected = nhwc(reference.decode(tokens.view(len(images), -1)))
    assert_close(decode(autoencoder, latents), expected, tolerance)
    assert not np.allclose(expected, decode(autoencoder, latents, False), atol=1e-2)
