"""The rivals: their formulas, that every image is scored by itself, and that a model's own images score small."""

import functools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_autoencoder
from flax import nnx

import aedr_jax as aedr
from aedr_jax.autoencoders.blocks import Numerics, Upsample
from aedr_jax.autoencoders.convolutions import convolve_few
from aedr_jax.rivals import (
    RIVALS,
    aeroblade_score,
    entropy_2d,
    grubbs_threshold,
    latenttracer_losses,
    latenttracer_score,
    official_inputs,
    ronan_losses,
    ronan_score,
    times_homogeneity,
)
from aedr_jax.rivals.inversion import with_fast_gradients
from aedr_jax.rivals.rdd import gaussian_blur
from aedr_jax.rivals.registry import make_methods, rival_of
from aedr_jax.signal.reconstruction import to_display

# Each rival with what it needs by its record, and few enough steps for a test.
OPTIONS = {
    name: ({"distance": aedr.mae} if rival.distance else {})
    | ({"steps": 4} if rival.limits and rival.limits.steps else {})
    for name, rival in RIVALS.items()
}
# Those that descend, through one network, with a codebook. `parity/test_baselines.py` has both through the other, whose
# gradient is tested in `test_autoencoders.py`.
CASES = [
    (name, kind)
    for name in RIVALS
    for kind in ("kl", "vq", "functions")
    if not ("steps" in OPTIONS[name] and kind == "kl")
]
# Two programs for one function differ by the order of float32 sums, which a descent carries on.
CLOSE = {"rtol": 2e-4, "atol": 2e-6}


@pytest.fixture(scope="module")
def images(images):
    """A corner of each: the gradient of a convolution, compiled in a hurry, takes its time over every pixel."""
    return images[:, :8, :12]


# One program each: operation by operation, every one would be compiled by itself.
blur, entropy, mae, mse = map(jax.jit, (gaussian_blur, entropy_2d, aedr.mae, aedr.mse))
trace = jax.jit(latenttracer_losses, static_argnames=("steps", "clamp"))
reconstruct = jax.jit(lambda ae, x, key=None: ae.decode(ae.encode(x, key)))


@functools.cache
def compiled(name):
    return jax.jit(functools.partial(RIVALS[name].score, **OPTIONS[name]))


def projection():
    """2×2 patches projected onto 5 of their 12 dimensions: what it decodes, it reconstructs exactly."""
    basis = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 5)))[0].astype(np.float32)

    def encode(basis, x):
        n, h, w, _ = x.shape
        return x.reshape(n, h // 2, 2, w // 2, 2, 3).swapaxes(2, 3).reshape(n, h // 2, w // 2, 12) @ basis

    def decode(basis, z):
        n, h, w, _ = z.shape
        return (z @ basis.T).reshape(n, h, w, 2, 2, 3).swapaxes(2, 3).reshape(n, 2 * h, 2 * w, 3)

    return aedr.from_functions(encode, decode, jnp.asarray(basis), factor=2, scaling_factor=2.0)


def test_the_table_knows_each_by_its_name():
    assert all(name == rival.name for name, rival in RIVALS.items())
    methods = make_methods()
    for name, rival in RIVALS.items():
        assert rival_of(f"{name}-mse" if rival.distance else name) is rival
    assert rival_of("latenttracer-512") is RIVALS["latenttracer"]
    assert {name for name in methods if rival_of(name) is None} == {name for name in methods if name.startswith("aedr")}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_one_score_an_image(images, name, kind):
    scores = compiled(name)(tiny_autoencoder(kind), images)
    assert (scores.shape, scores.dtype) == ((8,), jnp.float32)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 8


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_score_does_not_depend_on_its_company(images, name, kind):
    autoencoder, others = tiny_autoencoder(kind), images.at[:3].set(0.3).at[4:].set(-0.7)
    whole = compiled(name)(autoencoder, images)
    np.testing.assert_allclose(compiled(name)(autoencoder, others)[3], whole[3], rtol=1e-6, atol=1e-9)


def test_keys_of_their_own_make_ronan_independent_of_the_batch(images):
    ae, keys = tiny_autoencoder("functions"), jax.random.split(jax.random.key(2), 8)
    whole = compiled("ronan")(ae, images, key=keys)
    np.testing.assert_allclose(compiled("ronan")(ae, images[3:4], key=keys[3:4]), whole[3:4], **CLOSE)
    assert not np.allclose(whole, compiled("ronan")(ae, images, key=keys[::-1]))


@pytest.mark.parametrize("name", RIVALS)
def test_vmapped_and_sharded(images, name):
    ae, score = tiny_autoencoder("functions"), functools.partial(RIVALS[name].score, **OPTIONS[name])
    keys = jax.random.split(jax.random.key(2), 8)
    if "key" in RIVALS[name].takes:
        inputs, fn = (images, keys), lambda ae, x, k: score(ae, x, key=k)
    else:
        inputs, fn = (images,), score
    expected = jax.jit(fn)(ae, *inputs)
    np.testing.assert_allclose(aedr.make_sharded(fn)(ae, *inputs), expected, **CLOSE)
    one_each = [x.reshape(8, 1, *x.shape[1:]) for x in inputs]
    mapped = jax.jit(jax.vmap(fn, in_axes=(None, *(0 for _ in inputs))))(ae, *one_each)
    np.testing.assert_allclose(mapped[:, 0], expected, **CLOSE)


@pytest.mark.parametrize("name", RIVALS)
def test_own_images_score_smaller(images, name):
    ae = projection()
    own = ae.decode(ae.encode(0.5 * images))  # within [-1, 1], where nothing is clipped
    options = OPTIONS[name] | ({"steps": 60} if "steps" in OPTIONS[name] else {})
    score = jax.jit(functools.partial(RIVALS[name].score, **options))
    mine, others = score(ae, own), score(ae, 0.5 * images)
    # Each against its own counterpart: RDD's other terms differ from image to image by design.
    assert (mine < others).all()


@pytest.mark.parametrize("name", RIVALS)
def test_scores_calibrate_and_attribute(images, name):
    a, b = projection(), tiny_autoencoder("functions", seed=5)
    scores = {"a": compiled(name)(a, images), "b": compiled(name)(b, images)}
    with pytest.warns(aedr.CalibrationWarning, match="8 belonging images"):
        calibrations = {
            model: aedr.calibrate(values, method=name, model=model, autoencoder=a if model == "a" else b)
            for model, values in scores.items()
        }
    assert calibrations["a"].protocol.method == name
    assert len(aedr.attribute(scores, calibrations).verdicts) == 8


def test_aeroblade_by_hand(autoencoder, images):
    @jax.jit
    def decoded_scored_and_cut(ae, x):
        cut = []
        aeroblade_score(ae, x, distance=lambda a, b: cut.append(b) or aedr.mse(a, b), truncate=True)
        return ae.decode(ae.encode(x), quantize=False), aeroblade_score(ae, x, distance=aedr.mae), cut[0]

    decoded, actual, cut = decoded_scored_and_cut(autoencoder, images)
    expected = mae(images, to_display(decoded, clip=True, round8=True))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    levels = (cut + 1) * 127.5
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert (levels <= (jnp.clip(decoded, -1, 1) + 1) * 127.5 + 1e-3).all()


def test_aeroblade_samples_with_a_key(images):
    ae = tiny_autoencoder("functions")
    key = jax.random.key(5)
    decoded = to_display(reconstruct(ae, images, key), clip=True, round8=True)
    score = jax.jit(functools.partial(aeroblade_score, distance=aedr.mse))
    actual = score(ae, images, key=key)
    np.testing.assert_allclose(actual, mse(images, decoded), rtol=1e-6)
    assert not np.allclose(actual, score(ae, images))


@pytest.mark.parametrize("kind", ["vq", "functions"])
def test_latenttracer_starts_at_the_reconstruction_and_takes_the_minimum(images, kind):
    @jax.jit
    def traced_and_decoded(ae, x):
        latents = ae.quantize(ae.encode(x)) if kind == "vq" else ae.encode(x)
        return latenttracer_losses(ae, x, steps=4), ae.decode(latents, quantize=False)

    ae = tiny_autoencoder(kind)
    losses, decoded = traced_and_decoded(ae, images)
    assert losses.shape == (4, 8)
    first = mse(np.clip(np.asarray(decoded) / 2 + 0.5, 0, 1), np.asarray(images) / 2 + 0.5)
    np.testing.assert_allclose(losses[0], first, rtol=1e-4)
    np.testing.assert_allclose(compiled("latenttracer")(ae, images), losses.min(axis=0), rtol=1e-5)


def test_latenttracer_of_one_step_and_without_clamping(images):
    ae = tiny_autoencoder("functions")
    decoded = np.asarray(reconstruct(ae, images))
    clamped = np.asarray(mse(np.clip(decoded, -1, 1), images)) / 4  # in [0, 1] squares are a quarter
    score = jax.jit(functools.partial(latenttracer_score, steps=1))
    np.testing.assert_allclose(score(ae, images), clamped, rtol=1e-5)
    unclamped = np.asarray(trace(ae, images, steps=1, clamp=False))
    np.testing.assert_allclose(unclamped[0], np.asarray(mse(decoded, images)) / 4, rtol=1e-5)
    assert (unclamped[0] > clamped).any()


def test_the_minimum_is_not_the_last_step(images):
    """Started at the best latents there are, Adam's first steps of .05 only lead away."""
    ae = projection()
    own = ae.decode(ae.encode(0.5 * images)) + 1e-3  # off the range: at an exact optimum the gradient is 0
    losses = latenttracer_losses(ae, own, steps=3)
    assert (losses[1] > losses[0]).all()
    np.testing.assert_array_equal(latenttracer_score(ae, own, steps=3), losses[0])


def test_scaling_factor_sets_the_size_of_a_step(images):
    """Adam steps by the learning rate whatever the loss: latents that are scaled up move less."""
    moved = {}
    for scale in (1.0, 10.0):
        shifted = aedr.from_functions(lambda p, x: x + 0.3, lambda p, z: z, factor=1, scaling_factor=scale)
        start, after = latenttracer_losses(shifted, images * 0.5, steps=2).mean(axis=1)
        moved[scale] = math.sqrt(4 * start) - math.sqrt(4 * after)
    # In units of the images: .05 at scale 1, .005 at scale 10, up to Adam's epsilon.
    np.testing.assert_allclose([moved[1.0], moved[10.0]], [0.05, 0.005], rtol=1e-2)


def test_learning_rates():
    """.05 at step 0, .025 at steps 1 to 50, .0125 from step 51; seen through a loss with a constant gradient sign."""
    far = aedr.from_functions(lambda p, x: x + 4.0, lambda p, z: z, factor=1)
    losses = latenttracer_losses(far, jnp.zeros((1, 8, 8, 3)), steps=60, clamp=False)[:, 0]
    moved = -np.diff(2 * np.sqrt(np.asarray(losses, np.float64)))
    # Adam's step is the rate itself where gradients hardly change; over 60 steps they shrink by a third.
    np.testing.assert_allclose(moved[0], 0.05, rtol=1e-3)
    np.testing.assert_allclose(moved[1], 0.025, rtol=2e-2)
    np.testing.assert_allclose(moved[51] / moved[50], 0.5, rtol=1e-2)


def test_ronan_by_hand(images):
    ae = tiny_autoencoder("functions")
    losses = jax.jit(functools.partial(ronan_losses, steps=4))(ae, images)
    pixels = np.round((np.asarray(images) + 1) * 127.5).astype(int)
    gray = jnp.asarray((9797 * pixels[..., 0] + 19234 * pixels[..., 1] + 3737 * pixels[..., 2]) >> 15, jnp.int32)
    expected = losses.min(axis=0) / entropy(gray)
    np.testing.assert_allclose(compiled("ronan")(ae, images), expected, rtol=1e-4)
    given = jax.jit(functools.partial(ronan_score, steps=1))(ae, images, gray=gray // 2)
    np.testing.assert_allclose(given, losses[0] / entropy(gray // 2), rtol=1e-4)


def test_entropy_of_known_images():
    # One grey level: inner pixels share one pair; edges and corners see black outside, but black has only one pair.
    np.testing.assert_allclose(entropy(np.zeros((1, 6, 6), np.uint8)), -36 / 64 * np.log2(36 / 64), rtol=1e-6)
    flat = [16 / 64, 16 / 64, 4 / 64]  # 4×4 inside, 4·4 at the edges, 4 corners of a 6×6 image
    expected = -sum(p * np.log2(p) for p in flat)
    np.testing.assert_allclose(entropy(np.full((1, 6, 6), 200, np.uint8)), expected, rtol=1e-6)


def test_grubbs_threshold():
    """Reference: the published critical value of Grubbs' one-sided test, N 10, level .05: 2.176, to three decimals."""
    scores = np.random.default_rng(4).normal(size=10)
    threshold = grubbs_threshold(scores)
    np.testing.assert_allclose((threshold - scores.mean()) / scores.std(ddof=1), 2.176, atol=1e-3)
    with pytest.raises(aedr.CalibrationError, match=r"alpha 1\.5"):
        grubbs_threshold(scores, alpha=1.5)
    with pytest.raises(aedr.CalibrationError, match="scores: 3 given"):
        grubbs_threshold(scores[:3])


def test_did_is_a_difference_of_two_losses(autoencoder, images):
    first, second = jax.jit(aedr.double_reconstruct)(autoencoder, images)
    expected = mae(first, images) - mae(second, first)
    np.testing.assert_allclose(compiled("did-ae")(autoencoder, images), expected, **CLOSE)


def test_blur_keeps_constants_and_means(images):
    np.testing.assert_allclose(blur(jnp.full((1, 5, 6, 3), 0.7)), 0.7, rtol=1e-6)
    spike = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(1.0)
    np.testing.assert_allclose(blur(spike).sum(), 1.0, rtol=1e-6)
    turned = blur(jnp.rot90(images, axes=(1, 2)))
    np.testing.assert_allclose(turned, jnp.rot90(blur(images), axes=(1, 2)), atol=1e-6)


def test_times_homogeneity(images):
    scores = jnp.linspace(1.0, 2.0, 8)
    measured = jax.jit(aedr.measure)(tiny_autoencoder("functions"), images)
    times = jax.jit(times_homogeneity, static_argnames="gamma")
    np.testing.assert_allclose(times(scores, images), scores * measured.homogeneity, rtol=1e-6)
    flat = jnp.full((8, 20, 20), 9, jnp.uint8)
    np.testing.assert_array_equal(times(scores, images, gray=flat, gamma=0.5), scores)


def test_official_inputs(rng):
    pixels = [rng.integers(0, 256, size, np.uint8) for size in ((256, 256, 3), (1024, 512, 3))]
    large = official_inputs(pixels)
    assert (large.shape, large.dtype) == ((2, 512, 512, 3), np.float32)
    np.testing.assert_allclose(large[0, ::2, 1::2], pixels[0] / 127.5 - 1, atol=1e-6)  # doubled pixel by pixel
    pairs = pixels[1].reshape(512, 2, 512, 3).mean(axis=1) / 127.5 - 1
    np.testing.assert_allclose(large[1], pairs, atol=0.5 / 127.5 + 1e-6)  # rounded to 8 bit
    np.testing.assert_allclose(official_inputs(pixels[:1], sizes=(256,))[0], pixels[0] / 127.5 - 1, atol=1e-6)
    assert official_inputs(pixels, sizes=(32, 256)).shape == (2, 256, 256, 3)


@pytest.mark.parametrize("name", ["latenttracer", "ronan"])
def test_without_optax_the_error_names_the_extra(images, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(aedr.BaselineError, match=r'pip install "aedr-jax\[baselines\]"'):
        RIVALS[name].score(tiny_autoencoder("functions"), images, **OPTIONS[name])


@pytest.mark.parametrize(
    ("size", "padding", "form"),
    [
        (1, 0, jax.lax.conv_general_dilated),
        (3, 1, jax.lax.conv_general_dilated),
        (3, 0, jax.lax.conv_general_dilated),
        (3, 1, convolve_few),
    ],
    ids=["1", "3", "3 within", "few"],
)
def test_fast_gradients_are_those_of_lax(size, padding, form):
    check_fast_gradients(
        nnx.Conv(4, 6, (size, size), padding=padding, precision="highest", conv_general_dilated=form, rngs=nnx.Rngs(0))
    )


def test_fast_gradients_of_upsampling_are_those_of_lax():
    check_fast_gradients(Upsample(4, 6, Numerics(), nnx.Rngs(0)))


def check_fast_gradients(layer):
    layers = {"lax": layer, "fast": with_fast_gradients(layer)}
    x = jax.random.normal(jax.random.key(0), (2, 5, 7, 4))

    def loss(layer, x):
        return jnp.square(layer(x)).sum()

    found = {name: jax.jit(jax.grad(loss, argnums=(0, 1)))(layer, x) for name, layer in layers.items()}
    for a, b in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)

    def descend(layer, x):
        return jax.lax.scan(lambda x, _: (x - 0.1 * jax.grad(loss, argnums=1)(layer, x), None), x, length=3)[0]

    slow = {}
    for name, layer in layers.items():
        lines = jax.jit(descend).lower(layer, x).compile().as_text().splitlines()
        slow[name] = [line for line in lines if " convolution(" in line and "b01f_01io->b01f" not in line]
    assert not slow["fast"]
    assert slow["lax"]  # when XLA has mended this, `with_fast_gradients` can go


@pytest.mark.parametrize(
    "options",
    [
        {"strides": 2, "padding": "VALID"},
        {"padding": 2, "kernel_dilation": 2},
        {"padding": 1, "feature_group_count": 2},
    ],
    ids=lambda options: ",".join(options),
)
def test_fast_gradients_leave_other_convolutions_alone(options):
    layer = nnx.Conv(4, 6, (3, 3), precision="highest", rngs=nnx.Rngs(0), **options)
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 4))

    def gradient(layer):
        return jax.grad(lambda x: jnp.square(layer(x)).sum())(x)

    np.testing.assert_array_equal(gradient(with_fast_gradients(layer)), gradient(layer))
    assert layer.conv_general_dilated is jax.lax.conv_general_dilated  # a copy was changed


def test_fast_gradients_of_functions_are_their_own():
    functions = tiny_autoencoder("functions")
    assert with_fast_gradients(functions) is functions
