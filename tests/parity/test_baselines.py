"""The rivals against independent computations: PyTorch loops over diffusers, the authors' entropy, OpenCV and NumPy."""

from collections import Counter

import cv2
import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import aedr_jax as aedr
from aedr_jax.rivals import (
    aeroblade_score,
    did_score,
    entropy_2d,
    latenttracer_losses,
    official_inputs,
    rdd_score,
    ronan_losses,
)
from aedr_jax.rivals.rdd import gaussian_blur

from .references import DOWN, UP, assert_close, nchw, nhwc, random_images, random_network

SMALL = {
    "down_block_types": (DOWN,) * 2,
    "up_block_types": (UP,) * 2,
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "latent_channels": 4,
}
CONFIGS = {
    "kl": (diffusers.AutoencoderKL, SMALL | {"scaling_factor": 0.18215}),
    "vq": (diffusers.VQModel, SMALL | {"vq_embed_dim": 4, "num_vq_embeddings": 32}),
}
STEPS = 60  # beyond both halvings


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """A diffusers autoencoder, and what `load_autoencoder` makes of the folder that it was saved to."""
    reference = random_network(*CONFIGS[request.param], seed=3)
    reference.requires_grad_(False)
    folder = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder)
    return reference, aedr.load_autoencoder(folder)


@pytest.fixture(scope="module")
def images():
    return random_images(16, 24, count=2, seed=5)


def encode(reference, x):
    encoded = reference.encode(x)
    return encoded.latents if isinstance(reference, diffusers.VQModel) else encoded.latent_dist.mean


def decode(reference, latents):
    options = {"force_not_quantize": True} if isinstance(reference, diffusers.VQModel) else {}
    return reference.decode(latents, **options).sample


def scale(reference):
    return 1.0 if isinstance(reference, diffusers.VQModel) else reference.config.scaling_factor


def descend(reference, x, start, rate, *, halve, clamp):
    """The losses of one image before each step, as the authors' loop computes them."""
    latents = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([latents], lr=rate)
    losses = []
    for step in range(STEPS):
        decoded = decode(reference, latents / scale(reference)) / 2 + 0.5
        decoded = decoded.clamp(0, 1) if clamp else decoded
        loss = torch.nn.functional.mse_loss(decoded, x / 2 + 0.5)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if halve and step % 50 == 0:
            optimizer.param_groups[0]["lr"] *= 0.5
    return losses


@pytest.mark.parametrize("clamp", [True, False])
def test_latenttracer(pair, images, clamp):
    """Reference: `torch.optim.Adam` on each image by itself; 1e-4 of the largest loss at each of 60 steps.

    Both are float32: decoders agree to 1e-6, and Adam divides by the root of a gradient's square, which passes a
    relative error of a small gradient on to the step at full size.
    """
    reference, autoencoder = pair
    x = nchw(images)
    latents = encode(reference, x)
    start = reference.quantize(latents)[0] if isinstance(reference, diffusers.VQModel) else latents * scale(reference)
    expected = [
        descend(reference, x[i : i + 1], start[i : i + 1], 0.05, halve=True, clamp=clamp) for i in range(len(images))
    ]
    actual = jax.jit(lambda ae, x: latenttracer_losses(ae, x, steps=STEPS, clamp=clamp))(autoencoder, images)
    assert_close(actual, np.asarray(expected, np.float32).T, 1e-4)


def test_ronan(pair, images):
    """Reference and tolerance: as for LatentTracer, from the noise that JAX drew."""
    reference, autoencoder = pair
    key = jax.random.key(7)
    shape = jax.eval_shape(lambda ae, x: ae.encode(x), autoencoder, jnp.asarray(images)).shape
    start = nchw(jax.random.normal(key, shape))
    x = nchw(images)
    expected = [
        descend(reference, x[i : i + 1], start[i : i + 1], 0.1, halve=False, clamp=True) for i in range(len(images))
    ]
    actual = jax.jit(lambda ae, x: ronan_losses(ae, x, steps=STEPS, key=key))(autoencoder, images)
    assert_close(actual, np.asarray(expected, np.float32).T, 1e-4)


@pytest.mark.parametrize("size", [(24, 31), (7, 5)])
def test_entropy(size):
    """Reference: the pixel-by-pixel definition in Python's integers and float64; 1e-5: a float32 sum of logarithms."""
    rng = np.random.default_rng(8)
    height, width = size
    gray = np.stack([rng.integers(0, 256, size), rng.integers(0, 3, size), np.full(size, 255)]).astype(np.uint8)
    for image, actual in zip(gray, jax.jit(entropy_2d)(gray), strict=True):
        padded = [[0] * (width + 2), *([0, *map(int, row), 0] for row in image), [0] * (width + 2)]
        pairs = Counter(
            (
                padded[y][x],
                sum(padded[y + dy][x + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)) / 8,
            )
            for y in range(1, height + 1)
            for x in range(1, width + 1)
        )
        shares = np.array(list(pairs.values())) / ((height + 2) * (width + 2))
        np.testing.assert_allclose(actual, -(shares * np.log2(shares)).sum(), rtol=1e-5)


@pytest.mark.parametrize("truncate", [False, True])
@torch.no_grad()
def test_aeroblade(pair, images, truncate):
    """Reference: diffusers, clamping and 8 bit in NumPy, mean squares in float64; 1e-4 of the largest.

    Networks agree to 1e-6, but a pixel within that of the border between two levels may fall to either: one pixel of
    1152 by one level moves a mean square of about .5 by less than 1e-5.
    """
    reference, autoencoder = pair
    decoded = nhwc(decode(reference, encode(reference, nchw(images))))
    levels = np.clip(decoded / 2 + 0.5, 0, 1) * 255
    pixels = np.floor(levels) if truncate else np.round(levels)
    expected = np.square(pixels / 127.5 - 1 - images.astype(np.float64)).mean(axis=(1, 2, 3))
    score = jax.jit(lambda ae, x: aeroblade_score(ae, x, distance=aedr.mse, truncate=truncate))
    actual = score(autoencoder, jnp.asarray(images))
    assert_close(actual, expected.astype(np.float32), 1e-4)


@torch.no_grad()
def passed(reference, x):
    """What diffusers makes of float32 NHWC images, as the model generates: through the codebook where there is one."""
    return nhwc(reference.decode(encode(reference, nchw(x))).sample)


def mean_absolute(a, b):
    return np.abs(a.astype(np.float64) - b).mean(axis=(1, 2, 3))


def test_rdd(pair, images):
    """Reference: diffusers, OpenCV's blur and NumPy's rotation; 1e-4 of the largest of the four distances.

    Networks agree to 1e-6 of theirs; the score is a difference, so its own size is no measure. With a codebook,
    latents are far from a tie in this draw (a tie would show as 1e-2).
    """
    reference, autoencoder = pair
    blurred = np.stack([cv2.GaussianBlur(image, (3, 3), 0.8) for image in images])
    four = [images, blurred, np.rot90(images, axes=(1, 2)), np.rot90(blurred, axes=(1, 2))]
    distances = [mean_absolute(x, np.clip(passed(reference, np.ascontiguousarray(x)), -1, 1)) for x in four]
    expected = distances[0] - distances[1] - distances[2] / 2 + distances[3] / 2
    actual = jax.jit(lambda ae, x: rdd_score(ae, x, distance=aedr.mae))(autoencoder, jnp.asarray(images))
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.max(distances))


def test_did(pair, images):
    """Reference: diffusers and NumPy in float64; 1e-4 of the first loss, as for RDD."""
    reference, autoencoder = pair
    first = np.clip(passed(reference, images), -1, 1)
    losses = mean_absolute(images, first), mean_absolute(first, passed(reference, first))
    actual = jax.jit(did_score)(autoencoder, jnp.asarray(images))
    np.testing.assert_allclose(actual, losses[0] - losses[1], atol=1e-4 * losses[0].max())


def test_blur(images):
    """Reference: `cv2.GaussianBlur`, float32; 1e-6: three products a pixel and axis."""
    expected = np.stack([cv2.GaussianBlur(image, (3, 3), 0.8) for image in images])
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(images)), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(768, 640), (1024, 1024), (256, 256), (700, 513), (480, 640), (300, 400)])
def test_official_sizes(size):
    """Reference: OpenCV's INTER_AREA, then PyTorch's bilinear interpolation; one level and a hundredth.

    OpenCV sums in float32 or fixed point, here it is float64: halves may be rounded to either level.
    """
    pixels = np.random.default_rng(9).integers(0, 256, (*size, 3), np.uint8)
    area = cv2.resize(pixels, (512, 512), interpolation=cv2.INTER_AREA)
    for sizes in ((), (768,), (32, 256)):
        expected = torch.from_numpy(area.astype(np.float32)).permute(2, 0, 1)[None]
        for side in sizes:
            expected = torch.nn.functional.interpolate(expected, (side, side), mode="bilinear", align_corners=False)
        actual = (official_inputs([pixels], sizes=sizes) + 1) * 127.5
        np.testing.assert_allclose(actual, nhwc(expected), rtol=0, atol=1.01)
