"""3×3 convolutions written otherwise: the same numbers as XLA's, on every shape, strip by strip, and their gradients.

Tolerance: 2e-6 of the largest value. Sums of float32 are taken in another order, and over differences of pixels.
"""

import re

import jax
import jax.numpy as jnp
import pytest
from conftest import random_autoencoder, tiny_architecture
from flax import nnx

from aedr_jax.autoencoders import convolutions
from aedr_jax.autoencoders.blocks import Numerics, conv
from aedr_jax.autoencoders.convolutions import FEW, MANY, SOME, convolve_upsampled, convolver, upsample_nearest

TOLERANCE = 2e-6
OPTIONS = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "precision": "highest"}


def plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], **OPTIONS)


def of_many(x, kernel):
    return convolver(MANY, MANY)(x, kernel, (1, 1), [(1, 1), (1, 1)], **OPTIONS)


def of_few(x, kernel):
    return convolver(1, FEW)(x, kernel, (1, 1), [(1, 1), (1, 1)], **OPTIONS)


def upsampled(x, kernel):
    return convolve_upsampled(x, kernel, "highest")


def plain_upsampled(x, kernel):
    return plain(upsample_nearest(x, 2), kernel)


PAIRS = {
    "of many": (of_many, plain),
    "of few": (of_few, plain),
    "upsampled, of many": (upsampled, plain_upsampled),
    "upsampled": (upsampled, plain_upsampled),
}


@pytest.fixture
def functions(request, monkeypatch):
    """A pair; with few channels in place of the many that would be slow here."""
    if request.param == "upsampled, of many":
        monkeypatch.setattr(convolutions, "MANY", 1)
    return PAIRS[request.param]


def drawn(rng, n, h, w, c, o):
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((n, h, w, c), (3, 3, c, o)))


def cut(monkeypatch, pixels):
    monkeypatch.setattr(convolutions, "WHOLE", 0)
    monkeypatch.setattr(convolutions, "STRIP", 1)
    monkeypatch.setattr(convolutions, "ROWS", pixels)


def assert_close(found, expected):
    assert found.shape == expected.shape
    assert not found.size or float(jnp.abs(found - expected).max()) <= TOLERANCE * float(jnp.abs(expected).max())


@pytest.mark.parametrize("functions", PAIRS, indirect=True)
@pytest.mark.parametrize("most", [None, 16, 5])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 2, 3), (2, 5, 8, 4, 6), (1, 13, 4, 5, 2), (6, 2, 4, 3, 3), (0, 4, 4, 2, 2)]
)
def test_equal_to_the_convolution(rng, monkeypatch, functions, most, shape):
    """With few pixels at a time the second and third are cut into strips, of which some end outside of the image, and
    of the six a few are done at a time; no images are none."""
    if most:
        cut(monkeypatch, most)
    function, reference = functions
    x, kernel = drawn(rng, *shape)
    assert_close(jax.jit(lambda *of: function(*of))(x, kernel), reference(x, kernel))


def test_between_some_channels_small_images_take_products_and_large_ones_the_convolution(rng, monkeypatch):
    monkeypatch.setattr(convolutions, "NEAR", 6 * 4 * 5)
    function = jax.jit(lambda *of: convolver(SOME, SOME)(*of, (1, 1), [(1, 1), (1, 1)], **OPTIONS))
    for h, is_convolution in ((6, False), (7, True)):
        x, kernel = drawn(rng, 1, h, 4, 3, 5)
        assert ("stablehlo.convolution" in function.lower(x, kernel).as_text()) == is_convolution
        assert_close(function(x, kernel), plain(x, kernel))


@pytest.mark.parametrize("functions", PAIRS, indirect=True)
def test_gradients_are_equal(rng, monkeypatch, functions):
    cut(monkeypatch, 8)
    function, reference = functions
    x, kernel = drawn(rng, 1, 6, 4, 3, 5)
    weights = jnp.asarray(rng.normal(size=reference(x, kernel).shape), jnp.float32)

    def gradients(of):
        return jax.jit(jax.grad(lambda x, kernel: jnp.sum(of(x, kernel) * weights), argnums=(0, 1)))(x, kernel)

    for found, expected in zip(gradients(function), gradients(reference), strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize(("c", "o", "pixels"), [(3, 16, 4), (16, 16, 2), (16, 3, 4), (3, 32, 2), (4, 64, 2)])
def test_between_few_channels_some_pixels_of_a_row_are_made_at_once(rng, c, o, pixels):
    """Of a width that they do not divide, with the channels that networks have."""
    x, kernel = drawn(rng, 2, 5, 7, c, o)
    assert_close(jax.jit(of_few)(x, kernel), plain(x, kernel))
    kernels = jax.jit(of_few).trace(x, kernel).lower(lowering_platforms=("cpu",)).as_text()
    assert f"tensor<3x{pixels + 2}x{c}x{pixels * o}xf32>" in kernels


@pytest.mark.parametrize("functions", ["of many", "upsampled, of many"], indirect=True)
def test_products_on_cpus_and_in_float32_only(rng, functions):
    function, _ = functions
    x, kernel = drawn(rng, 1, 4, 4, 3, 5)

    def has_convolution(x, platform):
        traced = jax.jit(lambda *of: function(*of)).trace(x, kernel.astype(x.dtype))
        return "stablehlo.convolution" in traced.lower(lowering_platforms=(platform,)).as_text()

    assert [has_convolution(x, platform) for platform in ("cpu", "cuda", "tpu")] == [False, True, True]
    assert has_convolution(x.astype(jnp.bfloat16), "cpu")


@pytest.mark.parametrize(("function", "rewritten"), [(of_few, "3x6x3x20"), (upsampled, "2x2x3x20")])
def test_between_few_channels_it_is_the_convolution_elsewhere(rng, function, rewritten):
    """And no other: a single one, with the kernel as it is."""
    x, kernel = drawn(rng, 1, 4, 4, 3, 5)

    def kernel_of(x, platform):
        traced = jax.jit(lambda *of: function(*of)).trace(x, kernel.astype(x.dtype))
        (line,) = re.findall(r"stablehlo.convolution.*", traced.lower(lowering_platforms=(platform,)).as_text())
        return re.findall(r"tensor<(\w+)x\w+>", line)[1]

    assert [kernel_of(x, platform) for platform in ("cpu", "cuda", "tpu")] == [rewritten, "3x3x3x5", "3x3x3x5"]
    assert kernel_of(x.astype(jnp.bfloat16), "cpu") == "3x3x3x5"


def test_which_convolutions_of_a_network_are_rewritten():
    """Those between many channels or few that keep the size; the form is a part of the module, so of the program's
    key."""

    def form(*arguments, **options):
        return nnx.eval_shape(lambda: conv(*arguments, Numerics(), nnx.Rngs(0), **options)).conv_general_dilated

    as_it_is = jax.lax.conv_general_dilated
    many, some, few = convolver(MANY, MANY), convolver(SOME, SOME), convolver(3, 16)
    assert len({many, some, few, as_it_is}) == 4
    assert form(MANY, MANY, 3) is form(MANY, 2 * MANY, 3) is many
    assert form(3, 16, 3) is form(16, 16, 3) is few
    assert form(SOME, SOME, 3) is form(MANY, SOME, 3) is some
    assert form(MANY, SOME // 2, 3) is form(32, 16, 3) is as_it_is
    assert form(MANY, MANY, 1) is form(16, 16, 1) is as_it_is
    assert form(MANY, MANY, 3, rewritten=False) is form(16, 16, 3, rewritten=False) is as_it_is
    assert form(MANY, MANY, 3, stride=2) is form(16, 16, 3, stride=2) is as_it_is


def test_a_decoder_convolves_no_upsampled_image():
    """On the CPU those that upsample see 2×2 pixels of the small one."""
    autoencoder = random_autoencoder(tiny_architecture("kl"))
    latents = jnp.zeros((1, 4, 4, autoencoder.architecture.latent_channels))
    text = [
        jax.jit(lambda ae, z: ae.decode(z)).trace(autoencoder, latents).lower(lowering_platforms=(name,)).as_text()
        for name in ("cpu", "cuda")
    ]
    assert text[0].count("stablehlo.convolution") == text[1].count("stablehlo.convolution")
    around_corners = [len(re.findall(r"stablehlo.convolution.*, tensor<2x2x", one)) for one in text]
    assert around_corners == [len(autoencoder.architecture.block_out_channels) - 1, 0]
