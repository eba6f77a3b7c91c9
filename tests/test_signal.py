"""`double_reconstruct` and `measure`: formulas, presets, and invariances of a score."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_autoencoder, tiny_autoencoder

import aedr_jax as aedr
from aedr_jax.autoencoders.family import CodebookNetwork
from aedr_jax.signal.reconstruction import to_display

# Two programs for one function differ by the order of float32 sums.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
CONFIGS = {"default": aedr.SignalConfig(), "paper": aedr.SignalConfig.paper(), "official": aedr.SignalConfig.official()}


# A codebook behind few layers: what is measured is as of a VQModel, whose network `test_autoencoders.py` has.
PAELLA = {"_class_name": "PaellaVQModel", "embed_dim": 8, "bottleneck_blocks": 1, "num_vq_embeddings": 37}


@functools.cache
def of_kind(kind):
    return random_autoencoder(PAELLA) if kind == "vq" else tiny_autoencoder(kind)


@pytest.fixture(scope="module", params=["kl", "vq", "functions"])
def autoencoder(request):
    return of_kind(request.param)


double_reconstruct = jax.jit(aedr.double_reconstruct, static_argnames=("clip", "round8"))
homogeneity, mse = jax.jit(aedr.homogeneity, static_argnames="kind"), jax.jit(aedr.mse)
reconstruct = jax.jit(lambda ae, x, key=None: ae.decode(ae.encode(x, key)))


@functools.cache
def compiled(config):
    return jax.jit(lambda ae, x: aedr.measure(ae, x, config=config))


def test_double_reconstruction_is_two_passes(autoencoder, images):
    first, second = double_reconstruct(autoencoder, images, clip=False)
    np.testing.assert_allclose(first, reconstruct(autoencoder, images), **CLOSE)
    np.testing.assert_allclose(second, reconstruct(autoencoder, first), **CLOSE)
    clipped, after = double_reconstruct(autoencoder, 3 * images, clip=True)
    assert float(jnp.abs(clipped).max()) <= 1.0
    np.testing.assert_allclose(after, reconstruct(autoencoder, clipped), **CLOSE)


def test_the_two_passes_use_different_noise(images):
    ae = tiny_autoencoder("kl")
    first, second = double_reconstruct(ae, images, clip=False, key=jax.random.key(4))
    key1, key2 = jax.random.split(jax.random.key(4))
    np.testing.assert_allclose(first, reconstruct(ae, images, key1), **CLOSE)
    np.testing.assert_allclose(second, reconstruct(ae, first, key2), **CLOSE)
    assert not np.allclose(second, reconstruct(ae, first, key1), atol=1e-4)


def test_to_display():
    x = jnp.asarray([-2.0, -0.999, 0.001, 2.0])
    np.testing.assert_array_equal(to_display(x, clip=False, round8=False), x)
    rounded = to_display(x, clip=True, round8=True)
    np.testing.assert_allclose((rounded + 1) * 127.5, [0, 0, 128, 255], atol=1e-4)
    np.testing.assert_array_equal(
        jax.grad(lambda v: to_display(v, clip=True, round8=True).sum())(x), [0.0, 1.0, 1.0, 0.0]
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_measurement_by_hand(autoencoder, images, name):
    config = CONFIGS[name]
    key = jax.random.key(1) if config.latents == "sample" else None  # None means seed 1 there
    measured = compiled(config)(autoencoder, images)
    first, second = double_reconstruct(autoencoder, images, clip=config.clip, key=key)
    l1, l2 = mse(first, images), mse(second, first)
    pixels = np.round((np.asarray(images) + 1) * 127.5).astype(int)
    gray = (9797 * pixels[..., 0] + 19234 * pixels[..., 1] + 3737 * pixels[..., 2]) >> 15
    texture = homogeneity(jnp.asarray(gray, jnp.int32), kind=config.kind)
    np.testing.assert_allclose(measured.first_loss, l1, rtol=1e-4)
    np.testing.assert_allclose(measured.second_loss, l2, rtol=1e-4)
    np.testing.assert_allclose(measured.homogeneity, texture, atol=1e-6)
    np.testing.assert_allclose(measured.ratio, l1 / l2, rtol=3e-4)
    np.testing.assert_allclose(measured.signal, measured.ratio * measured.homogeneity, rtol=1e-6)


def test_given_gray_and_given_homogeneity(images):
    ae = tiny_autoencoder("functions")
    gray = jnp.full((8, 50, 60), 77, jnp.uint8)  # the original size may differ from the used one
    measure = jax.jit(aedr.measure, static_argnames="config")
    np.testing.assert_array_equal(measure(ae, images, gray=gray).homogeneity, 1.0)
    known = jnp.linspace(0.1, 0.8, 8)
    measured = measure(ae, images, homogeneity=known)
    np.testing.assert_array_equal(measured.homogeneity, known)
    squared = measure(ae, images, homogeneity=known, config=aedr.SignalConfig(gamma=2.0))
    np.testing.assert_allclose(squared.signal, squared.ratio * known**2, rtol=1e-6)
    off = measure(ae, images, homogeneity=known, config=aedr.SignalConfig(gamma=0.0))
    np.testing.assert_array_equal(off.signal, off.ratio)


def test_other_losses(images):
    ae = tiny_autoencoder("functions")
    first, second = double_reconstruct(ae, images)
    measured = compiled(aedr.SignalConfig(loss=aedr.mae))(ae, images)
    np.testing.assert_allclose(measured.first_loss, aedr.mae(first, images), rtol=1e-6)
    with jax.numpy_dtype_promotion("standard"):  # dm-pix multiplies integers by floats
        structural = compiled(aedr.SignalConfig(loss=lambda a, b: 1 - aedr.ssim(a, b)))(ae, images)
        np.testing.assert_allclose(structural.second_loss, 1 - jax.jit(aedr.ssim)(second, first), rtol=1e-5)


def test_a_score_does_not_depend_on_its_company(autoencoder, images):
    config = CONFIGS["default"]
    whole = compiled(config)(autoencoder, images)
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    shuffled = compiled(config)(autoencoder, images[order])
    single = compiled(config)(autoencoder, images[3:4])
    # Batch size and place change the order of float32 sums, nothing more.
    np.testing.assert_allclose(shuffled.signal, whole.signal[order], rtol=1e-4)
    np.testing.assert_allclose(single.signal, whole.signal[3:4], rtol=1e-4)
    others = compiled(config)(autoencoder, images.at[:3].set(0.3).at[4:].set(-0.7))
    np.testing.assert_allclose(others.signal[3], whole.signal[3], rtol=1e-6)


def test_per_image_keys_make_noise_independent_of_the_batch(images):
    ae = tiny_autoencoder("kl")
    keys = jax.random.split(jax.random.key(9), 8)
    measure = jax.jit(lambda x, key: aedr.measure(ae, x, config=CONFIGS["official"], key=key))
    np.testing.assert_allclose(measure(images[4:5], keys[4:5]).signal, measure(images, keys).signal[4:5], rtol=1e-4)


def test_sharded_measure_has_no_collective(autoencoder, images):
    config = CONFIGS["default"]
    plain = compiled(config)(autoencoder, images)
    sharded = aedr.make_sharded(lambda ae, x: aedr.measure(ae, x, config=config))
    for found, expected in zip(sharded(autoencoder, images), plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    text = sharded.jitted.lower(sharded.replicate(autoencoder), (images,)).compile().as_text()
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text


def test_pmapped_measure(images):
    autoencoder, parts = tiny_autoencoder("functions"), images.reshape(4, 2, *images.shape[1:])
    mapped = jax.pmap(lambda ae, x: aedr.measure(ae, x), in_axes=(None, 0), devices=jax.devices()[:4])(
        autoencoder, parts
    )
    plain = compiled(CONFIGS["default"])(autoencoder, images)
    np.testing.assert_allclose(mapped.signal.reshape(8), plain.signal, rtol=1e-4)


def test_gradient_of_the_signal_is_finite(autoencoder, images):
    """And that of the latent error, where there is a codebook."""

    @jax.jit
    @jax.jacrev
    def gradients(x):
        measured = aedr.measure(autoencoder, x)
        return measured.signal.sum(), measured.latent_error.sum()

    some = images[:2] if autoencoder.factor > 2 else images[:2, :8, :12]  # a corner, where it has room in it
    of_signal, of_latent_error = gradients(some)
    assert np.isfinite(of_signal).all()
    assert float(jnp.abs(of_signal).max()) > 0
    if isinstance(autoencoder, CodebookNetwork):
        assert float(jnp.abs(of_latent_error).max()) > 0


def test_undefined_ratio_is_nan_and_spares_the_other_gradients():
    identity = aedr.from_functions(lambda p, x: x, lambda p, z: jnp.where(z > 0.9, z, 0.5 * z), factor=1)
    x = jnp.stack([jnp.full((8, 8, 3), 0.95), jnp.full((8, 8, 3), 0.5)])
    measured = compiled(CONFIGS["default"])(identity, x)
    assert np.isnan(measured.ratio[0])
    assert np.isnan(measured.signal[0])
    np.testing.assert_allclose(measured.ratio[1], 4.0, rtol=1e-6)
    assert np.isnan(measured.latent_error).all()

    def defined(x):
        signal = aedr.measure(identity, x).signal
        return jnp.where(jnp.isnan(signal), 0.0, signal).sum()

    assert np.isfinite(jax.jit(jax.grad(defined))(x)).all()


def test_from_losses_alone():
    measured = aedr.Measurement.from_losses(np.array([2.0, 1.0]), np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    np.testing.assert_array_equal(measured.signal, [1.0, np.nan])
    assert np.isnan(measured.latent_error).all()


def test_latent_error_is_the_distance_to_the_codebook(images):
    ae = of_kind("vq")

    @jax.jit
    def distance(ae, x):
        latents = ae.encode(x)
        return jnp.mean((ae.quantize(latents) - latents) ** 2, axis=(1, 2, 3))

    expected = distance(ae, images)
    np.testing.assert_allclose(compiled(CONFIGS["default"])(ae, images).latent_error, expected, rtol=1e-5)


def test_refusals(images):
    with pytest.raises(ValueError, match="15×24"):
        aedr.measure(tiny_autoencoder("kl"), images[:, :15])
    for wrong in ({"latents": "mean"}, {"kind": "energy"}, {"loss_dtype": "float64"}):
        with pytest.raises(ValueError, match="expected"):
            aedr.SignalConfig(**wrong)
    with pytest.raises(ValueError, match="preset 'best'"):
        aedr.SignalConfig.preset("best")


def test_describe_is_json_and_tells_settings_apart():
    import json

    described = [json.dumps(config.describe()) for config in CONFIGS.values()]
    assert len(set(described)) == len(described)
    assert '"aedr_jax.mse"' in described[0]
