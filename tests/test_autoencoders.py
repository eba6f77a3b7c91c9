"""What every autoencoder must be: a pytree with pure methods, under each of JAX's transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, random_autoencoder, tiny_architecture, tiny_autoencoder
from flax import nnx

import aedr_jax as aedr
from aedr_jax.autoencoders import attention
from aedr_jax.autoencoders.blocks import Attention, Numerics, SpatialNorm, group_norm
from aedr_jax.autoencoders.models import Autoencoder, normal_like
from aedr_jax.autoencoders.quantizer import CODE_BLOCK, nearest_codes

# Two programs for one function differ by the order of float32 sums.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


# One program each: operation by operation, every one of some eighty would be compiled by itself.
encode = jax.jit(lambda ae, x, key=None: ae.encode(x, key))
decode = jax.jit(lambda ae, z, quantize=None: ae.decode(z, quantize=quantize), static_argnames="quantize")


apply = jax.jit(lambda layer, *inputs: layer(*inputs))


@jax.jit
def reconstruct(ae, x):
    return ae.decode(ae.encode(x))


def test_protocol_and_shapes(autoencoder, images):
    assert isinstance(autoencoder, Autoencoder)
    latents = jax.eval_shape(autoencoder.encode, images)
    assert latents.shape[:3] == (8, 16 // autoencoder.factor, 24 // autoencoder.factor)
    out = jax.eval_shape(autoencoder.decode, latents)
    assert out.shape == images.shape
    assert out.dtype == jnp.float32


def test_jit_vmap_and_single_images_agree(autoencoder, images):
    plain = reconstruct(autoencoder, images)
    np.testing.assert_allclose(decode(autoencoder, encode(autoencoder, images)), plain, **CLOSE)
    mapped = jax.vmap(lambda ae, x: reconstruct(ae, x[None])[0], in_axes=(None, 0))(autoencoder, images)
    np.testing.assert_allclose(mapped, plain, **CLOSE)
    singles = jnp.concatenate([reconstruct(autoencoder, x[None]) for x in images])
    np.testing.assert_allclose(singles, plain, **CLOSE)


def test_gradients(autoencoder, images):
    def loss(x, ae):
        return jnp.mean(jnp.square(reconstruct(ae, x) - x))

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))
    gradient, weights = jax.device_get(gradients(images[:, :8, :12], autoencoder))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(weights) if leaf.dtype == np.float32)


@pytest.mark.parametrize(
    ("kind", "devices"), [("kl", 8), ("vq", 8), ("functions", 1), ("functions", 2), ("functions", 4), ("functions", 8)]
)
def test_shard_map(images, kind, devices):
    """Networks over all devices; what shares a batch out among fewer does not know what it is that runs there."""
    autoencoder = tiny_autoencoder(kind)
    sharded = aedr.make_sharded(reconstruct, mesh=mesh_of(devices))
    np.testing.assert_allclose(sharded(autoencoder, images), reconstruct(autoencoder, images), **CLOSE)
    np.testing.assert_allclose(sharded(autoencoder, images[:5]), reconstruct(autoencoder, images[:5]), **CLOSE)


@pytest.mark.parametrize("kind", ["vq", "functions"])
def test_pmap(images, kind):
    autoencoder, parts = tiny_autoencoder(kind), images.reshape(4, 2, *images.shape[1:])
    out = jax.pmap(reconstruct, in_axes=(None, 0), devices=jax.devices()[:4])(autoencoder, parts)
    np.testing.assert_allclose(out.reshape(images.shape), reconstruct(autoencoder, images), **CLOSE)


def test_sampling(images):
    for kind in ("kl", "functions"):
        ae = tiny_autoencoder(kind)
        key = jax.random.key(1)
        assert not np.allclose(encode(ae, images, key), encode(ae, images))
        np.testing.assert_array_equal(encode(ae, images, key), encode(ae, images, key))
        keys = jax.random.split(key, len(images))
        batch = encode(ae, images, keys)
        np.testing.assert_allclose(encode(ae, images[2:3], keys[2:3]), batch[2:3], **CLOSE)
        legacy = jax.random.key_data(keys)
        np.testing.assert_array_equal(encode(ae, images, legacy), batch)
        with pytest.raises(ValueError, match="3 keys for 8 images"):
            encode(ae, images, keys[:3])


def test_posterior_sample_has_the_posteriors_spread(images):
    ae = tiny_autoencoder("kl")
    same, keys = jnp.repeat(images[:1], 200, axis=0), jax.vmap(jax.random.key)(np.arange(200))
    mean, deviation = jax.jit(lambda ae, x: ae.posterior(x))(ae, images[:1])
    samples = encode(ae, same, keys)
    z = (samples - mean) / deviation
    assert abs(float(z.mean())) < 0.02  # 57,600 draws: standard error .004
    assert abs(float(z.std()) - 1) < 0.02


def test_one_compiled_program_for_models_of_one_architecture(images):
    traces = []

    @jax.jit
    def traced(ae, x):
        traces.append(1)
        return reconstruct(ae, x)

    config = tiny_architecture("kl")
    for seed, scaling in ((0, 0.18215), (1, 0.13025)):
        traced(random_autoencoder({**config, "scaling_factor": scaling}, seed), images)
    assert len(traces) == 1
    traced(tiny_autoencoder("vq"), images)
    assert len(traces) == 2


def test_precision_and_dtype_reach_every_product(images):
    config = tiny_architecture("kl")

    for precision in ("highest", "default"):
        ae = random_autoencoder(config, numerics=Numerics(jnp.float32, precision))
        text = str(jax.make_jaxpr(reconstruct)(ae, images))
        wanted, other = ("HIGHEST", "DEFAULT") if precision == "highest" else ("DEFAULT", "HIGHEST")
        assert f"Precision.{wanted}" in text
        assert f"Precision.{other}" not in text
        assert "precision=None" not in text
    half = random_autoencoder(config, numerics=Numerics(jnp.dtype("bfloat16"), "highest"))
    with jax.numpy_dtype_promotion("standard"):  # Flax's group norm scales bfloat16 by float32 statistics
        latents = encode(half, images)
        assert latents.dtype == jnp.bfloat16
        assert decode(half, latents).dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(half, nnx.Param)))


def test_quantize_on_and_off(images):
    ae = tiny_autoencoder("vq")
    latents = encode(ae, images)
    codes = ae.quantize(latents)
    codebook = np.asarray(ae.quantizer.embedding.embedding[...])
    entries = {row.tobytes() for row in codebook}
    assert all(row.tobytes() in entries for row in np.asarray(codes).reshape(-1, 3))
    decoded = decode(ae, latents)
    np.testing.assert_array_equal(decoded, decode(ae, latents, quantize=True))
    np.testing.assert_allclose(decoded, decode(ae, codes, quantize=False), **CLOSE)
    assert not np.allclose(decoded, decode(ae, latents, quantize=False))
    np.testing.assert_allclose(jax.jit(jax.grad(lambda z: ae.quantize(z).sum()))(latents), 1.0)
    with pytest.raises(ValueError, match="no codebook"):
        tiny_autoencoder("kl").decode(latents, quantize=True)
    assert not hasattr(tiny_autoencoder("kl"), "quantize")
    assert not hasattr(tiny_autoencoder("functions"), "quantize")


@pytest.mark.parametrize("codes", [1, 5, CODE_BLOCK - 1, CODE_BLOCK, 2 * CODE_BLOCK + 3])
def test_nearest_codes_equal_an_exhaustive_search(rng, codes):
    latents, codebook = rng.normal(size=(300, 4)), rng.normal(size=(codes, 4))
    distances = ((latents[:, None] - codebook[None]) ** 2).sum(-1)
    best = np.sort(distances, axis=1)[:, :2]
    clear = best[:, -1] - best[:, 0] > 1e-5 if codes > 1 else np.ones(300, bool)
    found = jax.jit(nearest_codes)(latents.astype(np.float32), codebook.astype(np.float32))
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(np.asarray(found)[clear], distances.argmin(1)[clear])


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.bfloat16, 2e-2)])
def test_group_norm_where_the_mean_is_far_above_the_spread(rng, dtype, tolerance):
    """Reference: float64, and `nnx.GroupNorm`. E[x²] − E[x]² would be off by 1e-3 in float32; bfloat16 has 8 bits."""
    norm = group_norm(12, 4, Numerics(dtype), nnx.Rngs(0))
    norm.scale[...], norm.bias[...] = jnp.linspace(0.5, 2.0, 12), jnp.linspace(-1.0, 1.0, 12)
    x = jnp.asarray(rng.normal(100.0, 1.0, (2, 5, 7, 12)), jnp.float32).astype(dtype)
    groups = np.asarray(x, np.float64).reshape(2, 5, 7, 4, 3)
    centered = groups - groups.mean((1, 2, 4), keepdims=True)
    normal = centered / np.sqrt(np.square(centered).mean((1, 2, 4), keepdims=True) + 1e-6)
    expected = normal.reshape(x.shape) * np.linspace(0.5, 2.0, 12) + np.linspace(-1.0, 1.0, 12)
    found = apply(norm, x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=tolerance)
    if dtype == jnp.float32:
        theirs = nnx.GroupNorm(12, 4, epsilon=1e-6, use_fast_variance=False, rngs=nnx.Rngs(0))
        nnx.update(theirs, nnx.state(norm))
        np.testing.assert_allclose(found, apply(theirs, x), atol=tolerance)


@pytest.mark.parametrize("kind", ["group", "spatial"])
def test_norms_of_a_shifted_image_write_no_such_image(rng, kind):
    """Equal to the norm of the sum, which is off by a rounding of 50 itself; and no image but the result is held."""
    x = jnp.asarray(rng.normal(size=(1, 64, 64, 32)), jnp.float32)
    shift = jnp.linspace(-50.0, 50.0, 32)
    if kind == "group":
        norm, others = group_norm(32, 4, Numerics(), nnx.Rngs(0)), ()
    else:
        norm, others = SpatialNorm(32, 3, Numerics(), nnx.Rngs(0)), (jnp.ones((1, 8, 8, 3)),)
    np.testing.assert_allclose(apply(norm, x, *others, shift), apply(norm, x + shift, *others), atol=2e-5)
    if kind == "group":
        program = jax.jit(lambda norm, x: nnx.silu(norm(x, shift))).lower(norm, x).compile()
        assert program.memory_analysis().temp_size_in_bytes < x.nbytes / 4


def test_nearest_codes_takes_the_first_of_equal_codes():
    codebook = jnp.tile(jnp.asarray([[3.0, 0.0], [1.0, 1.0]]), (CODE_BLOCK, 1))
    assert jax.jit(nearest_codes)(jnp.asarray([[1.0, 1.0], [3.0, 0.0]]), codebook).tolist() == [1, 0]


@pytest.mark.parametrize("k", [1, 5, CODE_BLOCK, CODE_BLOCK + 1])
def test_nearest_codes_of_any_number_of_codes(k):
    random = np.random.default_rng(k)
    codebook, latents = (random.integers(-3, 4, (n, 2)).astype(np.float32) for n in (k, 40))  # integers: many are equal
    distances = ((latents[:, None] - codebook) ** 2).sum(-1)
    np.testing.assert_array_equal(nearest_codes(jnp.asarray(latents), jnp.asarray(codebook)), distances.argmin(1))
    latents[0, 0], latents[1, 1] = np.nan, np.nan
    assert nearest_codes(jnp.asarray(latents), jnp.asarray(codebook))[:2].tolist() == [0, 0]


def test_nearest_codes_where_jax_has_64_bits():
    with jax.enable_x64(True):
        assert nearest_codes(jnp.asarray([[1.0], [3.0]]), jnp.asarray([[3.0], [1.0]])).tolist() == [1, 0]


def test_lookup_does_not_hold_every_distance():
    latents, codebook = jnp.zeros((4096, 4)), jnp.zeros((16384, 4))
    memory = jax.jit(nearest_codes).lower(latents, codebook).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4096 * 16384 * 4 / 4


def test_attention_in_blocks_equals_attention_at_once(monkeypatch):
    monkeypatch.setitem(attention.FORMS, "cpu", (2**12, attention.FORMS["cpu"][1]))
    module = Attention(8, 4, None, Numerics(), nnx.Rngs(0))
    side = 17  # 21 blocks of 14 queries, of which the last is not full
    x = jax.random.normal(jax.random.key(0), (1, side, side, 8))

    @jax.jit
    def at_once(module, x):
        tokens = module.group_norm(x).reshape(-1, 8)
        query, key, value = (f(tokens) for f in (module.to_q, module.to_k, module.to_v))
        weights = jax.nn.softmax(jnp.matmul(query, key.T, precision="highest") / jnp.sqrt(8.0), axis=-1)
        return x + module.to_out(jnp.matmul(weights, value, precision="highest")).reshape(x.shape)

    np.testing.assert_allclose(apply(module, x), at_once(module, x), **CLOSE)


def test_on_cpus_no_program_is_made_of_products_and_exponentials():
    """As YNNPACK would make one of them, several times as slow; the maximum is what it does not know."""
    module = Attention(64, 32, None, Numerics(), nnx.Rngs(0))
    text = jax.jit(lambda module, x: module(x)).lower(module, jnp.zeros((1, 16, 16, 64))).compile().as_text()
    computations = text.split("\n\n")
    products, exponentials = ([one for one in computations if name in one] for name in (" dot(", " exponential("))
    assert products
    assert exponentials
    assert not set(products) & set(exponentials)


def test_attention_does_not_hold_every_logit():
    """Of 128² positions, whose logits are 1 GiB, what is held at a time; the tokens themselves are half a MiB each."""
    tokens = jax.ShapeDtypeStruct((1, 128 * 128, 8), jnp.float32)
    memory = (
        jax.jit(lambda q, k, v: attention.attend(q, k, v, "highest")).lower(*[tokens] * 3).compile().memory_analysis()
    )
    assert memory.temp_size_in_bytes < 4 * (3 * attention.FORMS["cpu"][0])


def test_normal_like_is_one_draw_or_one_an_image():
    x = jnp.zeros((3, 2, 2, 1))
    keys = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(normal_like(keys, x)[1], jax.random.normal(keys[1], (2, 2, 1)))
    np.testing.assert_array_equal(normal_like(keys[0], x), jax.random.normal(keys[0], x.shape))


def test_from_functions_says_what_is_missing(images):
    ae = aedr.from_functions(lambda p, x: x, lambda p, z: z, factor=1)
    with pytest.raises(aedr.AutoencoderError, match="sample="):
        ae.encode(images, jax.random.key(0))
    with pytest.raises(aedr.AutoencoderError, match="quantize="):
        aedr.from_functions(lambda p, x: x, lambda p, z: z, quantize_on_decode=True)
    with pytest.raises(aedr.AutoencoderError, match="no parameters"):
        aedr.weights_hash(ae)


def test_from_functions_with_a_codebook(images):
    codebook = jnp.asarray([[-0.5, 0.0, 0.5]]).T
    functions = (lambda p, x: x[..., :1], lambda p, z: jnp.repeat(z, 3, -1))
    ae = aedr.from_functions(*functions, {"codebook": codebook}, quantize=_round_to_codebook, factor=1)
    assert set(np.unique(ae.decode(ae.encode(images)))) <= {-0.5, 0.0, 0.5}
    free = aedr.from_functions(
        *functions, {"codebook": codebook}, quantize=_round_to_codebook, quantize_on_decode=False, factor=1
    )
    np.testing.assert_array_equal(free.decode(free.encode(images))[..., 0], images[..., 0])
    measured = jax.jit(aedr.measure)(free, images)
    assert np.isfinite(measured.latent_error).all()


def _round_to_codebook(params, latents):
    index = jnp.argmin(jnp.abs(latents - params["codebook"][:, 0]), axis=-1)
    return params["codebook"][index]
