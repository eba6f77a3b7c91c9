"""Laundering and perturbing: what comes back is a saved image, near where it has to be, and misleads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import patch_autoencoder, tiny_autoencoder
from make_tiny import KL, make_tensors

import aedr_jax as aedr
from aedr_jax.autoencoders.checkpoints import from_state_dict
from aedr_jax.autoencoders.config import parse_config
from aedr_jax.signal.alignment import align, block_losses
from aedr_jax.signal.reconstruction import to_display
from aedr_jax.study.attacks import LEVEL, along_residual, launder, log_ratio, perturb

ROUNDING = 1e-6  # of float32 between two ways to write one 8-bit level


@functools.cache
def compiled(**options):
    return jax.jit(lambda ae, x, key=None: perturb(ae, x, key=key, **{"steps": 5, **options}))


losses_of = jax.jit(block_losses)
aligned = jax.jit(functools.partial(align, config=aedr.AlignmentConfig(least_turned=None)))


@jax.jit
def statistic(ae, images):
    return log_ratio(aedr.measure(ae, images))


@pytest.fixture(scope="module")
def linear():
    return tiny_autoencoder("functions")


@pytest.fixture(scope="module")
def saved(images):
    """Images on the 256 levels of a file, some of their pixels black or white."""
    return jnp.round(jnp.clip(1.3 * images, -1.0, 1.0) * 127.5 + 127.5) / 127.5 - 1.0


def is_saved(images):
    levels = (np.asarray(images) + 1) * 127.5
    return np.abs(levels - levels.round()).max() < 1e-3 and levels.round().min() >= 0 and levels.round().max() <= 255


def test_laundering_is_one_saved_pass(linear, images):
    laundered = jax.jit(launder)(linear, 2 * images)
    once = jnp.clip(linear.decode(linear.encode(2 * images)), -1.0, 1.0)
    assert is_saved(laundered)
    np.testing.assert_allclose(laundered, once, atol=LEVEL / 2 + 1e-4)


def test_laundered_images_look_like_the_models_own(linear, images):
    assert np.all(statistic(linear, jax.jit(launder)(linear, images)) < statistic(linear, images))


@pytest.mark.parametrize("target", ["accept", "reject"])
def test_perturbation_misleads_within_the_ball(linear, saved, target):
    check_perturbation(linear, saved, target)


def test_perturbation_of_a_network(saved):
    check_perturbation(from_state_dict(make_tensors(KL), parse_config(KL)), saved[:4, :8, :8], "reject")


def check_perturbation(autoencoder, saved, target):
    perturbed = compiled(target=target)(autoencoder, saved)
    assert is_saved(perturbed)
    assert float(jnp.abs(perturbed - saved).max()) <= LEVEL + ROUNDING
    change = np.asarray(statistic(autoencoder, perturbed) - statistic(autoencoder, saved))
    assert np.isfinite(change).all()
    assert np.mean(change > 0 if target == "reject" else change < 0) > 0.7
    np.testing.assert_array_equal(compiled(target=target)(autoencoder, saved), perturbed)


def test_a_larger_ball_misleads_more(linear, saved):
    perturbed = [compiled(target="reject", epsilon=levels * 2 / 255)(linear, saved) for levels in (1, 3)]
    reached = [float(jnp.abs(x - saved).max()) / LEVEL for x in perturbed]
    np.testing.assert_allclose(reached, [1, 3], atol=1e-3)
    before, little, much = (statistic(linear, x).mean() for x in (saved, *perturbed))
    assert before < little < much


def test_epsilon_is_rounded_down_to_whole_levels(linear, saved):
    np.testing.assert_array_equal(
        compiled(target="accept", epsilon=1.9 * LEVEL, step_size=0.002)(linear, saved),
        compiled(target="accept", epsilon=LEVEL, step_size=0.002)(linear, saved),
    )


def test_an_image_does_not_depend_on_its_batch(linear, saved):
    keys = jax.random.split(jax.random.key(1), len(saved))
    whole = compiled(target="accept")(linear, saved, keys)
    part = compiled(target="accept")(linear, saved[2:4], keys[2:4])
    # A gradient next to 0 may change its sign with the order of a sum, and its pixel by a step.
    assert np.mean(np.abs(np.asarray(whole[2:4] - part)) > ROUNDING) < 0.01


def test_a_key_draws_the_start(linear, saved):
    unmoved = compiled(target="accept", epsilon=8 * LEVEL, step_size=0.0)
    np.testing.assert_allclose(unmoved(linear, saved), saved, atol=ROUNDING)
    start = unmoved(linear, saved, jax.random.key(0))
    np.testing.assert_array_equal(unmoved(linear, saved, jax.random.key(0)), start)
    assert np.any(unmoved(linear, saved, jax.random.key(1)) != start)
    inside = np.abs(np.asarray(saved)) < 1 - 8 * LEVEL
    offsets = np.asarray((start - saved) / LEVEL)[inside].round()
    assert set(offsets) == set(range(-8, 9))
    assert offsets.std() == pytest.approx(8 / 3**0.5, rel=0.05)  # uniform


def test_another_statistic_and_another_measurement(linear, saved):
    config = aedr.SignalConfig(latents="sample", clip=False, loss=aedr.mae)
    options = {"target": "accept", "statistic": lambda measured: measured.first_loss, "config": config}
    loss = jax.jit(lambda x: aedr.measure(linear, x, config=config).first_loss)
    assert np.all(loss(compiled(**options)(linear, saved)) < loss(saved))


def test_homogeneity_adds_no_gradient(linear, saved):
    with_homogeneity = compiled(target="reject", statistic=lambda measured: jnp.log(measured.signal))(linear, saved)
    np.testing.assert_allclose(with_homogeneity, compiled(target="reject")(linear, saved), atol=ROUNDING)


def test_undefined_images_stay(saved):
    def decode(params, latents):  # always grey: the second loss is 0, the ratio undefined
        return jnp.zeros_like(latents)

    ae = aedr.from_functions(lambda params, x: x, decode, factor=1)
    perturbed = compiled(target="reject")(ae, saved)
    assert not np.isfinite(statistic(ae, saved)).any()
    np.testing.assert_allclose(perturbed, saved, atol=ROUNDING)


@pytest.mark.parametrize("target", ["accept", "reject"])
def test_along_the_residual_energy_changes_on_the_grid_alone(target, rng):
    ae = patch_autoencoder()
    noise = jnp.asarray(rng.uniform(-0.6, 0.6, (2, 96, 96, 3)), jnp.float32)
    before = jax.jit(launder)(ae, noise) + jnp.round(noise * 4) * LEVEL if target == "reject" else noise
    before = to_display(before, clip=True, round8=True)
    after = jax.jit(functools.partial(along_residual, target=target, epsilon=2 * LEVEL))(ae, before)
    assert is_saved(after)
    assert 0.9 * LEVEL < float(jnp.abs(after - before).max()) <= 2 * LEVEL + ROUNDING
    energy = [np.log(losses_of(ae, x)[0]).mean((0, 1, 3)) for x in (before, after)]  # of each view
    unmoved, *moved = energy[1] - energy[0]
    sign = 1 if target == "reject" else -1
    assert sign * unmoved > (3 if target == "reject" else 1) * np.abs(moved).max()
    assert np.all(sign * (aligned(ae, after).alignment - aligned(ae, before).alignment) > 0)


@pytest.mark.parametrize(
    ("options", "message"), [({"target": "fool"}, "accept, reject"), ({"epsilon": 0.001}, "level")]
)
def test_what_a_step_along_the_residual_refuses(linear, saved, options, message):
    with pytest.raises(ValueError, match=message):
        along_residual(linear, saved, **{"target": "accept", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "fool"}, "target 'fool': expected one of accept, reject"),
        ({"target": "accept", "steps": 0}, "steps 0: expected at least 1"),
        ({"target": "accept", "epsilon": 1 / 255}, "epsilon 0.0039.*: expected at least one 8-bit level"),
    ],
)
def test_what_is_refused(linear, saved, options, message):
    with pytest.raises(ValueError, match=message):
        perturb(linear, saved, **options)
