"""The eight models' autoencoders against PyTorch diffusers 0.39.0, in float32 with random weights.

At a quarter of their width, and at full width where tests marked `long` are run (`.ci/long`).

Tolerance: 1e-4 of the largest value. Both sides compute in float32 and add in another order, some 40 convolutions
deep; measured 3e-6 to 8e-6 for latents and 3e-6 to 2e-5 for images.
"""

import collections
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import aedr_jax

from .references import (
    DOWN,
    KL,
    MODELS,
    UP,
    VQ,
    assert_close,
    narrowed,
    nchw,
    nhwc,
    random_images,
    random_network,
    save_with_old_names,
)

TOLERANCE = 1e-4
SIZES = {"even": (8, 8), "odd": (9, 7)}  # of the latents
NAMING = {"sd1.5": "old", "sd2-base": "old", "sd2.1": "convolutions", "sdxl": "old"}  # the others: as diffusers saves
traces = collections.Counter()


def _width(autoencoder):
    return "full" if max(autoencoder.architecture.block_out_channels) == 512 else "narrow"


def _encode(autoencoder, images):
    traces["encode", _width(autoencoder)] += 1
    return autoencoder.encode(images)


def _decode(autoencoder, latents, quantize):
    traces["decode", _width(autoencoder)] += 1
    return autoencoder.decode(latents, quantize=quantize)


encode, decode = jax.jit(_encode), jax.jit(_decode, static_argnums=2)


WIDTHS = ("narrow", pytest.param("full", marks=pytest.mark.long))


@pytest.fixture(scope="module", params=WIDTHS)
def width(request):
    return request.param


@pytest.fixture(scope="module", params=MODELS)
def pair(request, width):
    """A model's name, its reference, and what `load_autoencoder` makes of the folder it was saved to."""
    name = request.param
    cls, config = MODELS[name]
    reference = random_network(cls, config if width == "full" else narrowed(config), seed=list(MODELS).index(name))
    with tempfile.TemporaryDirectory() as folder:
        if name in NAMING:
            save_with_old_names(reference, Path(folder), convolutions=NAMING[name] == "convolutions")
        else:
            reference.save_pretrained(folder)
        autoencoder = aedr_jax.load_autoencoder(folder)
    return name, reference, autoencoder


@pytest.fixture
def codebook_pair(pair):
    name, reference, autoencoder = pair
    if isinstance(reference, KL):
        assert not hasattr(autoencoder, "quantize")
        pytest.skip(f"{name} has no codebook")
    return pair


def random_latents(autoencoder, size, seed=0):
    """N(0,1): spread over the whole codebook, as the latents of an untrained encoder are not."""
    a = autoencoder.architecture
    channels = getattr(a, "vq_embed_dim", a.latent_channels)
    return np.random.default_rng(seed).standard_normal((1, *size, channels)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_encode(pair, size):
    """Reference: `AutoencoderKL.encode().latent_dist.mode()`, `VQModel.encode().latents`; 1e-4 (see the top)."""
    _, reference, autoencoder = pair
    height, width = SIZES[size]
    images = random_images(8 * height, 8 * width)
    encoded = reference.encode(nchw(images))
    latents = encoded.latents if isinstance(reference, VQ) else encoded.latent_dist.mode()
    assert_close(encode(autoencoder, images), nhwc(latents), TOLERANCE)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_decode(pair, size):
    """Reference: `decode` as the model generates; 1e-4 (see the top). Latents are given, so that codes are equal."""
    name, reference, autoencoder = pair
    latents = random_latents(autoencoder, SIZES[size])
    options = {"force_not_quantize": True} if name == "kandinsky2.1" else {}
    expected = reference.decode(nchw(latents), **options).sample
    actual = decode(autoencoder, latents, False if options else None)
    assert_close(actual, nhwc(expected), TOLERANCE)


@torch.no_grad()
def test_decode_the_other_way(codebook_pair):
    """Reference: `VQModel.decode` with the codebook for Kandinsky, without it for VQ-Diffusion; 1e-4 (see the top)."""
    name, reference, autoencoder = codebook_pair
    latents = random_latents(autoencoder, SIZES["odd"], seed=1)
    options = {"force_not_quantize": True} if name == "vqdm" else {}
    expected = reference.decode(nchw(latents), **options).sample
    actual = decode(autoencoder, latents, not options)
    assert_close(actual, nhwc(expected), TOLERANCE)


@torch.no_grad()
def test_indices(codebook_pair):
    """Reference: the indices of `VectorQuantizer.forward`, exact where the two nearest codes differ by over 1e-4.

    Distances are near 16 in 128 dimensions, where float32 is exact to 2e-6 and a `cdist` by matrix products to 1e-5.
    """
    _, reference, autoencoder = codebook_pair
    latents = random_latents(autoencoder, (64, 32), seed=2)
    expected = reference.quantize(nchw(latents))[2][2].numpy()
    actual = np.array(jax.jit(lambda model, z: model.quantizer.indices(z))(autoencoder, latents)).reshape(-1)

    codebook = reference.quantize.embedding.weight.double()
    vectors = torch.from_numpy(latents.reshape(-1, latents.shape[-1])).double()
    two = torch.cdist(vectors, codebook).topk(2, largest=False).values
    clear = ((two[:, 1] - two[:, 0]) > 1e-4).numpy()
    print(f"{(~clear).sum()} near-ties, {(actual != expected).sum()} indices differ")
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(actual[clear], expected[clear])
    # In a near-tie either code will do, but no third one.
    chosen = torch.linalg.vector_norm(vectors - codebook[actual], dim=-1)
    assert float((chosen - two[:, 0]).max()) < 1e-4


@pytest.mark.parametrize("of", WIDTHS)
def test_one_program_for_models_of_one_architecture(of):
    """sd1.5, sd2-base, sd2.1 and sdxl run one compiled program for each size; so do sd3.5 and flux."""
    if not traces["encode", of]:
        pytest.skip("counts what the tests above traced: run the whole file")
    # Two sizes of four architectures, and the two codebooks decoded the other way.
    assert (traces["encode", of], traces["decode", of]) == (8, 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_files(tmp_path, dtype):
    """Reference: diffusers reading the same half-precision file into float32; 1e-4 (see the top)."""
    config = {
        "block_out_channels": (32, 64),
        "down_block_types": (DOWN,) * 2,
        "up_block_types": (UP,) * 2,
        "layers_per_block": 1,
    }
    options = {"variant": "fp16" if dtype == torch.float16 else None}  # another file name, as on the hub
    random_network(KL, config).to(dtype).save_pretrained(tmp_path, **options)
    options |= {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    reference = KL.from_pretrained(tmp_path, **options).eval()
    autoencoder = aedr_jax.load_autoencoder(tmp_path)
    images = random_images(40, 24)
    latents = nhwc(reference.encode(nchw(images)).latent_dist.mode())
    assert_close(autoencoder.encode(jnp.asarray(images)), latents, TOLERANCE)
    assert_close(autoencoder.decode(jnp.asarray(latents)), nhwc(reference.decode(nchw(latents)).sample), TOLERANCE)
