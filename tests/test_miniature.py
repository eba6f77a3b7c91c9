"""The miniature models as generators: any size, one seed one image, training that can be interrupted."""

import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import aedr_jax as aedr
from aedr_jax.autoencoders.registry import REGISTRY, miniature_models
from aedr_jax.generate.miniature import FlowConfig, LatentFlow, load_flow, sample_images, sample_latents, save_flow

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "weights"))

import train_sampler

MODELS = miniature_models()


def tiny_flow(channels=4, **changes):
    config = FlowConfig((0.5,) * channels, (2.0,) * channels, widths=(8, 8, 16))
    return LatentFlow(dataclasses.replace(config, **changes), nnx.Rngs(0))


def jitted(flow):
    return functools.partial(jax.jit(lambda flow, x, t: flow(x, t)), flow)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (5, 9), (1, 3)])
def test_any_latent_size(height, width):
    x = jax.random.normal(jax.random.key(0), (2, height, width, 4))
    assert jitted(tiny_flow())(x, jnp.zeros(2)).shape == x.shape


def test_the_network_has_no_fixed_positions():
    """A shifted input gives a shifted output, on a canvas so wide that the border sees nothing of the content."""
    x = jnp.zeros((1, 192, 192, 4)).at[:, 92:96, 92:96].set(1.0)
    flow, t = jitted(tiny_flow()), jnp.full(1, 0.5)
    moved, expected = flow(jnp.roll(x, (8, -8), (1, 2)), t), jnp.roll(flow(x, t), (8, -8), (1, 2))
    inside = np.s_[:, 64:128, 64:128]
    largest = jnp.abs(expected[inside]).max()
    assert largest > 0.1
    # Group norm adds 36,864 pixels in another order: 4e-7 of the largest apart, 6e-6 with the XLA of JAX 0.10.0.
    np.testing.assert_allclose(moved[inside], expected[inside], atol=1e-5 * largest)


def test_heun_integrates_a_known_field():
    """dx/dt = x has the solution e at t = 1; Heun's error with n steps is about e/(6 n²)."""

    class Growth(LatentFlow):
        def __init__(self):
            self.config = FlowConfig((0.0,), (1.0,))

        def __call__(self, x, t):
            return x

    found = sample_latents(Growth(), jnp.ones((1, 1, 1, 1)), steps=20)
    np.testing.assert_allclose(found, np.e, rtol=5e-4)


def test_latents_are_scaled_back():
    flow = tiny_flow()
    nnx.update(flow, jax.tree.map(jnp.zeros_like, nnx.state(flow, nnx.Param)))  # no velocity: noise stays noise
    noise = jax.random.normal(jax.random.key(1), (2, 4, 4, 4))
    np.testing.assert_allclose(jax.jit(sample_latents)(flow, noise), 2.0 * noise + 0.5, rtol=1e-6)


def test_saved_and_loaded(tmp_path, monkeypatch):
    folder = tmp_path / "mini-kl4-a"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    flow = tiny_flow()
    save_flow(flow, folder)
    monkeypatch.setenv("AEDR_WEIGHTS", str(tmp_path))
    loaded = load_flow("mini-kl4-a")
    assert loaded.config == flow.config
    for a, b in zip(*(jax.tree.leaves(nnx.state(f, nnx.Param)) for f in (flow, loaded)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)  # float16

    save_flow(tiny_flow(channels=3), tmp_path)
    (tmp_path / "sampler.safetensors").rename(folder / "sampler.safetensors")
    with pytest.raises(aedr.AutoencoderError, match=r"sampler\.json"):
        load_flow("mini-kl4-a")


def test_only_miniature_models_generate_here():
    with pytest.raises(aedr.AutoencoderError, match="no sampler"):
        load_flow("sd1.5")


@pytest.mark.parametrize("size", [(100, 128), (0, 128), (-8, 8)])
def test_wrong_sizes_are_refused(size):
    with pytest.raises(aedr.AutoencoderError, match="multiples of 8"):
        sample_images("mini-kl4-a", [0], size=size)


def test_an_image_belongs_to_its_seed_alone():
    together = sample_images("mini-kl4-a", [3, 4, 5], steps=2, size=(64, 56))
    alone = sample_images("mini-kl4-a", [4], steps=2, size=(64, 56))
    assert together.shape == (3, 64, 56, 3)
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(together[1], alone[0])
    assert np.abs(together[0].astype(int) - together[1]).mean() > 5


def test_no_seeds_are_no_images_of_the_native_size():
    assert sample_images("mini-kl4-a", [], steps=1).shape == (0, 128, 128, 3)


@pytest.mark.parametrize("name", MODELS)
def test_generated_latents_are_what_the_model_decodes(name):
    flow, entry = load_flow(name), REGISTRY[name]
    autoencoder, images = aedr.load_autoencoder(name), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    assert jax.eval_shape(autoencoder.encode, images).shape == (1, 4, 4, flow.config.channels)
    assert sum(x.size for x in jax.tree.leaves(nnx.state(flow, nnx.Param))) * 2 < 1.3e6
    assert entry.native_size == 128


RECIPE, UPDATES = train_sampler.Recipe(steps=6, batch=2), {}


def sampler_trainer(recipe=RECIPE):
    latents = np.random.default_rng(0).standard_normal((8, 4, 4, 4)).astype(np.float32)
    trainer = train_sampler.Trainer(recipe, FlowConfig((0.0,) * 4, (1.0,) * 4, widths=(8, 8)), latents)
    trainer._update = UPDATES.setdefault(recipe, trainer._update)  # one program for runs of one recipe
    return trainer


@jax.numpy_dtype_promotion("standard")  # optax's schedules mix integers and floats
def test_same_seed_and_resumed_runs_end_in_the_same_weights(tmp_path):
    whole, again, interrupted = (sampler_trainer() for _ in range(3))
    start = jax.tree.leaves(whole.ema)
    losses = [[run.train_step() for _ in range(6)] for run in (whole, again)]
    assert losses[0] == losses[1]
    for _ in range(2):
        interrupted.train_step()
    interrupted.save(tmp_path / "checkpoint.npz")
    resumed = sampler_trainer()
    resumed.load(tmp_path / "checkpoint.npz")
    assert resumed.step == 2
    for _ in range(4):
        resumed.train_step()
    for a, b, c, first in zip(*map(jax.tree.leaves, (whole.ema, again.ema, resumed.ema)), start, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
        assert not np.array_equal(a, first)


def test_another_recipe_is_refused(tmp_path):
    sampler_trainer().save(tmp_path / "checkpoint.npz")
    with pytest.raises(SystemExit, match="another recipe"):
        sampler_trainer(dataclasses.replace(RECIPE, seed=1)).load(tmp_path / "checkpoint.npz")
