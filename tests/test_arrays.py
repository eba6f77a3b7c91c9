"""What cannot be right is refused: by dtype and shape even while traced, by range where values are known."""

import functools
import warnings

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from conftest import tiny_autoencoder

import aedr_jax as aedr
from aedr_jax.images.arrays import prepare
from aedr_jax.images.tiles import Grid, tile_of


@pytest.fixture(autouse=True)
def as_a_user_has_it():
    """Without the type checks of the test suite, which would refuse first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(5).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def ae():
    return tiny_autoencoder("functions")


def test_prepare_brings_pixels_into_shape(pixels):
    images = prepare(pixels)
    assert (images.shape, images.dtype, type(images)) == ((2, 16, 24, 3), np.float32, np.ndarray)
    np.testing.assert_allclose(images, pixels / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(prepare(pixels[0]), images[:1])
    np.testing.assert_array_equal(prepare(list(pixels)), images)
    np.testing.assert_allclose(jax.jit(prepare)(pixels), images, atol=1e-6)
    back = np.round((images + 1) * 127.5).astype(np.uint8)
    np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p: p / 255, r"float64 \[2,16,24,3\]; expected uint8"),
        (lambda p: p.astype(np.int32), r"int32"),
        (lambda p: p[..., 0], r"uint8 \[2,16,24\]"),
        (lambda p: p.transpose(0, 3, 1, 2), r"uint8 \[2,3,16,24\]"),
        (lambda p: [p[0], p[1, :8]], "2 shapes, 8×24×3, 16×24×3: one call takes images of one size"),
        (lambda p: [], "pixels: an empty list"),
        (lambda p: "photo.png", "pixels"),
        (lambda p: None, "pixels: NoneType"),
    ],
)
def test_prepare_refuses(pixels, wrong, message):
    with pytest.raises(aedr.ArgumentError, match=message):
        prepare(wrong(pixels))


WRONG_IMAGES = [
    (lambda x: np.uint8(127.5 * (x + 1)), r"images: uint8 \[2,16,24,3\]; expected float32 .* aedr\.prepare"),
    (lambda x: np.int32(x), "images: int32"),
    (lambda x: jnp.asarray(x, jnp.bfloat16), "images: bfloat16 .*half precision"),
    (lambda x: x.astype(np.float16), "images: float16 .*half precision"),
    (lambda x: x[0], r"images: float32 \[16,24,3\]"),
    (lambda x: x[..., :1], r"images: float32 \[2,16,24,1\]"),
    (lambda x: x.transpose(0, 3, 1, 2), r"channels come last: images\.transpose\(0, 2, 3, 1\)"),
    (lambda x: x[:, :15], "15×24; both sides must be multiples of 2"),
    (lambda x: x[:, :6, :6], "6×6; the shorter side must have at least 8"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_IMAGES)
@pytest.mark.parametrize("function", [aedr.measure, aedr.double_reconstruct])
def test_images_that_cannot_be_right_are_refused_traced_and_not(ae, pixels, function, wrong, message):
    images = wrong(prepare(pixels))
    with pytest.raises(aedr.ArgumentError, match=message):
        function(ae, images)
    with pytest.raises(aedr.ArgumentError, match=message):
        jax.eval_shape(function, ae, images)


@pytest.mark.parametrize(
    "wrong", [lambda x: list(x), lambda x: np.array([x[0], x[0, :8]], dtype=object), lambda x: x.tolist()]
)
def test_lists_of_images_are_told_what_to_pass(ae, pixels, wrong):
    with pytest.raises(aedr.ArgumentError, match=r"images: .*expected one array.*aedr\.prepare"):
        aedr.measure(ae, wrong(prepare(pixels)))


@pytest.mark.parametrize("function", [aedr.measure, aedr.double_reconstruct])
@pytest.mark.parametrize("where", [np.asarray, jnp.asarray])
def test_known_values_out_of_range_are_refused(ae, pixels, function, where):
    images = where(prepare(pixels))
    for wrong, message in [(127.5 * (images + 1), "from 0 to 255"), (1.1 * images, "from -1.1 to 1.1")]:
        with pytest.raises(aedr.ArgumentError, match=message):
            function(ae, wrong)
    with pytest.raises(aedr.ArgumentError, match="nan"):
        function(ae, where(np.where(np.arange(3) == 1, np.nan, np.asarray(images)).astype(np.float32)))
    with pytest.warns(aedr.RangeWarning, match=r"from 0 to 1 look like \[0, 1\]"):
        function(ae, (images + 1) / 2)


def test_bright_images_and_rounding_are_not_complained_of(ae, pixels):
    images = prepare(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aedr.measure(ae, 0.75 + images / 4)
        aedr.measure(ae, images * np.float32(1.003))
        aedr.measure(ae, np.float32(0.02) * images + np.float32(0.1))  # flat, dim
        aedr.measure(ae, images.astype(np.float64))


def test_measurement_needs_settings(ae, pixels):
    with pytest.raises(aedr.ArgumentError, match=r"config: 'paper'; expected a SignalConfig, such as"):
        aedr.measure(ae, prepare(pixels), config="paper")


WRONG_GRAY = [
    (lambda g: g / 255, r"gray: float(32|64) \[2,16,24\]; expected integers"),
    (lambda g: g > 127, "gray: bool"),
    (lambda g: g[0], r"gray: uint8 \[16,24\]"),
    (lambda g: g[:1], "gray: of 1 images, but there are 2"),
    (lambda g: list(g), "gray: list; expected one array"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_GRAY)
def test_gray_that_cannot_be_right_is_refused_traced_and_not(ae, pixels, wrong, message):
    images, gray = prepare(pixels), wrong(pixels[..., 0])
    with pytest.raises(aedr.ArgumentError, match=message):
        aedr.measure(ae, images, gray=gray)
    if not isinstance(gray, list):
        with pytest.raises(aedr.ArgumentError, match=message):
            jax.eval_shape(lambda g: aedr.measure(ae, images, gray=g), gray)


def test_gray_and_homogeneity_out_of_range_are_refused(ae, pixels):
    images, gray = prepare(pixels), pixels[..., 0].astype(np.int32)
    for wrong in (gray + 200, gray - 2):
        with pytest.raises(aedr.ArgumentError, match=r"gray: values from .*expected integers"):
            aedr.measure(ae, images, gray=wrong)
    known = np.array([0.5, np.nan], np.float32)
    assert np.isnan(aedr.measure(ae, images, homogeneity=known).signal[1])
    for wrong, message in [
        (known + np.float32(0.6), "values such as 1.1"),
        (known[:1], "of 1 images"),
        (np.array([1, 0]), "int64"),
        ([0.5, 0.5], "list"),
    ]:
        with pytest.raises(aedr.ArgumentError, match=f"homogeneity: {message}"):
            aedr.measure(ae, images, homogeneity=wrong)


@pytest.mark.parametrize("name", ["mse", "mae", "psnr", "ssim"])
def test_losses_take_floating_point_of_one_shape(pixels, name):
    loss = getattr(aedr, name)
    a, b = prepare(pixels), prepare(pixels[::-1])
    assert np.isfinite(loss(a, b)).all()
    assert jax.eval_shape(loss, a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)).shape == (2,)
    with pytest.raises(aedr.ArgumentError, match=r"a: uint8 \[2,16,24,3\]"):
        loss(pixels, pixels[::-1])
    with pytest.raises(aedr.ArgumentError, match="b: int32"):
        loss(a, np.int32(b))
    with pytest.raises(aedr.ArgumentError, match="expected two batches of one shape"):
        loss(a, b[:1])


def test_lpips_takes_floating_point_of_one_shape(pixels):
    weights = aedr.Lpips((), (), (), network="alex")
    with pytest.raises(aedr.ArgumentError, match="a: uint8"):
        aedr.lpips(weights, pixels, pixels)


def test_texture_takes_integers(pixels):
    gray = pixels[..., 0]
    for function, name in ((aedr.homogeneity, "gray"), (aedr.cooccurrence_matrix, "levels")):
        with pytest.raises(aedr.ArgumentError, match=rf"{name}: float64 \[2,16,24\]"):
            function(gray / 255)
        with pytest.raises(aedr.ArgumentError, match=rf"{name}: uint8 \[16,24\]"):
            function(gray[0])
    with pytest.raises(aedr.ArgumentError, match=r"values from .* to 5"):
        aedr.homogeneity(gray.astype(np.int32) * 2)


@pytest.mark.parametrize("kind", ["kl", "vq", "functions"])
def test_autoencoders_encode_floating_point(pixels, kind):
    ae = tiny_autoencoder(kind)
    with pytest.raises(aedr.ArgumentError, match=r"images: uint8 \[2,16,24,3\]"):
        jax.eval_shape(ae.encode, pixels)
    with pytest.raises(aedr.ArgumentError, match=r"images: float32 \[16,24,3\]"):
        ae.encode(prepare(pixels)[0])
    if kind != "functions":  # whose latents may be anything
        with pytest.raises(aedr.ArgumentError, match=r"latents: uint8"):
            ae.decode(pixels)


@pytest.mark.parametrize("function", [aedr.kde_cdf, functools.partial(aedr.kde_quantile, q=0.5)])
def test_densities_take_a_vector(function):
    for wrong, message in [
        (np.ones((2, 3)), r"\[2,3\]"),
        (np.array([1.0]), r"\[1\]"),
        (np.array([True, False]), "bool"),
        (np.array([1j, 2j]), "complex"),
    ]:
        with pytest.raises(aedr.CalibrationError, match=f"samples: .*{message}"):
            function(samples=wrong, **({"x": 0.5} if function is aedr.kde_cdf else {}))


def _latents(params, x):
    return x[:, ::8, ::8]


def _images(params, z):
    return z.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize(
    "decode",
    [
        lambda params, z: _images(params, z)[..., :1],
        lambda params, z: _images(params, z)[0],
        lambda params, z: _images(params, z).astype(jnp.uint8),
        lambda params, z: (_images(params, z),),
    ],
)
def test_what_the_functions_of_an_autoencoder_give_is_looked_at(decode):
    """Grey would be compared with each channel, and one image with all: verdicts without an error."""
    images = aedr.prepare(np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8))
    with pytest.raises(aedr.AutoencoderError, match="decode gave"):
        aedr.measure(aedr.from_functions(_latents, decode), images, config=aedr.SignalConfig.tiles())


def test_latents_may_be_a_pytree():
    images = aedr.prepare(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    one = aedr.from_functions(_latents, _images, quantize=lambda params, z: jnp.round(z))
    several = aedr.from_functions(
        lambda params, x: {"z": _latents(params, x), "zero": jnp.zeros((len(x), 8, 8, 9))},
        lambda params, z: _images(params, z["z"]),
        quantize=lambda params, z: {**z, "z": jnp.round(z["z"])},
    )
    expected, found = aedr.measure(one, images), aedr.measure(several, images)
    np.testing.assert_allclose(found.latent_error, expected.latent_error / 4, rtol=1e-6)  # of 12 channels 9 are right
    np.testing.assert_array_equal(found.ratio, expected.ratio)


@pytest.mark.parametrize("key", [None, jax.random.key(0)])
def test_of_latents_that_show_another_factor_a_warning_tells(key):
    """The controls would be moved by steps of another grid, and own images of the decoder would be foreign."""
    x = np.zeros((1, 64, 32, 3), np.float32)
    for given in (2, 4, 16):
        ae = aedr.from_functions(_latents, _images, sample=lambda p, x, key: _latents(p, x), factor=given)
        with pytest.warns(aedr.FactorWarning, match=rf"latents \[1, 8, 4, 3\] .* factor of 8, not of {given}: "):
            jax.eval_shape(ae.encode, x, key)  # shapes are enough


@pytest.mark.parametrize(
    "encode",
    [
        lambda params, x: (_latents(params, x),),
        lambda params, x: _latents(params, x).reshape(1, -1, 3),
        lambda params, x: _latents(params, x).reshape(1, 1, -1, 3),
        lambda params, x: _latents(params, x).transpose(0, 3, 1, 2),
        lambda params, x: x.mean((1, 2), keepdims=True),
        lambda params, x: jnp.pad(_latents(params, x), ((0, 0), (0, 3), (0, 3), (0, 0))),
    ],
    ids=["tuple", "tokens", "row", "channels first", "one cell", "padded"],
)
def test_other_latents_show_no_factor(encode):
    for factor in (4, 8):
        aedr.from_functions(encode, _images, factor=factor).encode(np.zeros((1, 64, 64, 3), np.float32))


def test_channels_that_look_like_rows_show_no_factor():
    """Four channels of 8 by 16 cells are not 4 rows of 8 with 16 channels."""
    ae = aedr.from_functions(lambda _, x: x[:, ::8, ::8, :1].repeat(4, 3).transpose(0, 3, 1, 2), _images, factor=8)
    assert ae.encode(np.zeros((1, 64, 128, 3), np.float32)).shape == (1, 4, 8, 16)


@pytest.mark.parametrize(("multiple", "tile"), [(32, 104), (64, 72)])
def test_an_encode_of_coarse_multiples_is_told_its_tile(multiple, tile):
    def encode(params, x):
        n, h, w, c = x.shape
        coarse = x.reshape(n, h // multiple, multiple, w // multiple, multiple, c).mean((2, 4))
        return _latents(params, x) + coarse.repeat(multiple // 8, 1).repeat(multiple // 8, 2)

    ae = aedr.from_functions(encode, _images)
    images = aedr.prepare(np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), dtype=np.uint8))
    with pytest.raises(TypeError, match="reshape") as raised:
        aedr.measure(ae, images)
    (note,) = (note for note in raised.value.__notes__ if "aedr_jax" in note)
    assert "120×120 pixels" in note
    assert "multiples of 32 alone, measure with SignalConfig(alignment=AlignmentConfig(tile=104)); of 64 " in note
    assert "of 64 alone, with tile=72" in note
    config = aedr.SignalConfig(alignment=aedr.AlignmentConfig(tile=tile))
    assert np.isfinite(aedr.measure(ae, images, config=config).alignment)
    with pytest.raises(ValueError, match="reshape") as raised:  # another fault has no such note
        aedr.from_functions(lambda p, x: x.reshape(7), _images).encode(images)
    assert not hasattr(raised.value, "__notes__")


def test_tiles_of_any_factor_have_windows_of_a_multiple():
    for factor in (1, 2, 3, 4, 8, 14, 16, 32):
        for multiple in (32, 64):
            tile = tile_of(multiple, factor)
            assert Grid.of(aedr.AlignmentConfig(tile=tile), factor, 1 << 12).window % multiple == 0


def test_the_map_takes_settings_of_the_alignment():
    ae = aedr.from_functions(_latents, _images)
    with pytest.raises(aedr.ArgumentError, match="a SignalConfig; expected an AlignmentConfig"):
        aedr.alignment_map(ae, np.zeros((1, 128, 128, 3), np.float32), config=aedr.SignalConfig.tiles())


@pytest.mark.parametrize("shape", [(), (1, 2)])
def test_there_is_one_value_an_image(shape):
    measured = aedr.Measurement.of_alignment(np.full(shape, -1.0), np.full(shape, 0.1))
    with pytest.raises(aedr.CalibrationError, match=r"a: measured values of shape .*; expected \[n\]"):
        aedr.attribute({"a": measured})
