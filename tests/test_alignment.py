"""The alignment against a loop over its definition, under JAX's transformations, and on images of known origin."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aedr_jax as aedr
from aedr_jax.signal.alignment import FLOOR_OF_ERROR, AlignmentConfig, align, alignment_map, shifts_of

FACTOR = 4
SMALL = AlignmentConfig(tile=64, block=8, margin=8)


def _encode(params, x):
    n, h, w, c = x.shape
    patches = x.reshape(n, h // FACTOR, FACTOR, w // FACTOR, FACTOR, c).swapaxes(2, 3)
    return jnp.tanh(patches.reshape(n, h // FACTOR, w // FACTOR, -1) @ params["down"])


def _decode(params, z):
    n, h, w, _ = z.shape
    patches = (z @ params["up"]).reshape(n, h, w, FACTOR, FACTOR, 3).swapaxes(2, 3)
    return patches.reshape(n, FACTOR * h, FACTOR * w, 3)


@pytest.fixture(scope="module")
def autoencoder():
    """Patches of 4×4 pixels on a few directions: its grid shows in its images."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(FACTOR * FACTOR * 3, 20)))
    params = {"down": jnp.asarray(basis, jnp.float32), "up": jnp.asarray(basis.T, jnp.float32)}
    return aedr.from_functions(_encode, _decode, params, factor=FACTOR)


@pytest.fixture(scope="module")
def foreign():
    rng = np.random.default_rng(1)
    smooth = jax.image.resize(jnp.asarray(rng.uniform(-1, 1, (6, 20, 24, 3)), jnp.float32), (6, 80, 96, 3), "cubic")
    return jnp.clip(smooth + 0.05 * jnp.asarray(rng.normal(size=smooth.shape), jnp.float32), -1, 1)


@pytest.fixture(scope="module")
def own(autoencoder, foreign):
    images = jnp.clip(autoencoder.decode(autoencoder.encode(foreign)), -1, 1)
    return jnp.round((images + 1) * 127.5) / 127.5 - 1  # as a file holds it


def by_hand(autoencoder, image, config):
    """D_b of each block and the controls' means, view by view and block by block."""
    height, width = image.shape[:2]
    tile, f = config.tile, FACTOR
    top, left = (height - tile) // 2 // f * f, (width - tile) // 2 // f * f
    image = np.asarray(image)[top : top + tile, left : left + tile]
    w, margin, block = tile - f, config.margin, config.block
    inner = (w - 2 * margin) // block * block

    def detail(view):
        x = jnp.asarray(np.ascontiguousarray(view))[None]
        residual = np.asarray(jnp.clip(autoencoder.decode(autoencoder.encode(x)), -1, 1) - x)[0]
        reach = config.box // 2
        padded = np.pad(residual, [(reach, reach), (reach, reach), (0, 0)], mode="reflect")
        mean = np.zeros_like(residual)
        for i in range(config.box):
            for j in range(config.box):
                mean += padded[i : i + w, j : j + w] / config.box**2
        return np.square(residual - mean).mean(-1)

    unmoved = image[:w, :w]
    details = [detail(unmoved)[margin : margin + inner, margin : margin + inner]]
    for y, x in shifts_of(f):
        moved = detail(image[y : y + w, x : x + w])
        details.append(moved[margin - y : margin - y + inner, margin - x : margin - x + inner])
    details.append(detail(unmoved[:, ::-1])[:, ::-1][margin : margin + inner, margin : margin + inner])
    turned = np.rot90(detail(np.rot90(unmoved)), -1)
    details.append(turned[margin : margin + inner, margin : margin + inner])
    side = inner // block
    logs = [
        [np.log(e[i * block : (i + 1) * block, j * block : (j + 1) * block].mean() + config.floor)
         for i in range(side) for j in range(side)]
        for e in details
    ]  # fmt: skip
    logs = np.array(logs)
    return logs[0] - logs[1:].mean(0), logs[1:].mean(1)


def test_the_definition_by_hand(autoencoder, foreign):
    found = jax.jit(lambda x: align(autoencoder, x, config=SMALL))(foreign[:2])
    for i in range(2):
        differences, controls = by_hand(autoencoder, foreign[i], SMALL)
        error = np.sqrt(
            differences.var(ddof=1) / differences.size + controls.var(ddof=1) / controls.size + FLOOR_OF_ERROR**2
        )
        # float32 residuals of some percent, whose logarithms are averaged
        np.testing.assert_allclose(found.alignment[i], differences.mean(), atol=2e-4)
        np.testing.assert_allclose(found.error[i], error, rtol=2e-3)


def test_own_images_are_aligned_and_others_are_not(autoencoder, own, foreign):
    ours, others = (align(autoencoder, x, config=SMALL) for x in (own, foreign))
    assert float(jnp.max(ours.alignment / ours.error)) < -8
    assert float(jnp.max(jnp.abs(others.alignment / others.error))) < 4
    moved = align(autoencoder, jnp.roll(own, (1, 2), (1, 2)), config=SMALL)  # the grid is lost
    assert float(jnp.min(moved.alignment)) > -0.3


def test_a_large_image_is_judged_by_its_middle_tile_on_the_grid(autoencoder, own):
    small = own[:, 8:72, 16:80]  # (80 − 64) / 2 and (96 − 64) / 2, multiples of the factor
    for a, b in zip(align(autoencoder, own, config=SMALL), align(autoencoder, small, config=SMALL), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_map_shows_where_an_image_is_the_decoders(autoencoder, own, foreign):
    half = jnp.concatenate([own[:, :, :48], foreign[:, :, 48:]], axis=2)
    config = dataclasses.replace(SMALL, tile=48)
    found = np.asarray(alignment_map(autoencoder, half, config=config))
    assert found.shape == (6, 6, 9)  # tiles of three blocks a side: two below each other, three beside each other
    assert np.median(found[:, :, :4]) < -0.6  # up to column 8 + 4 · 8 = 40
    assert abs(np.median(found[:, :, 6:])) < 0.25  # from column 56 on
    whole = align(autoencoder, half[:, :48, :48], config=config).alignment
    np.testing.assert_allclose(whole, found[:, :3, :3].mean((1, 2)), rtol=1e-4)


def test_what_says_nothing_is_nan(autoencoder, own):
    flat = jnp.zeros((1, 64, 64, 3))
    white = jnp.ones((1, 64, 64, 3))
    tiny = own[:, :32, :32]
    for images in (flat, white, tiny):
        found = align(autoencoder, images, config=SMALL)
        assert np.isnan(found.alignment).all()
        assert np.isnan(found.error).all()
    partly = own[:, 8:72, 16:80].at[:, :, 24:].set(1.0)
    assert np.isnan(align(autoencoder, partly, config=dataclasses.replace(SMALL, least_blocks=0.5)).alignment).all()
    assert np.isfinite(align(autoencoder, partly, config=dataclasses.replace(SMALL, least_blocks=0.1)).alignment).all()
    assert np.isnan(alignment_map(autoencoder, flat, config=SMALL)).all()
    assert alignment_map(autoencoder, tiny, config=SMALL).shape == (6, 0, 0)


def test_transformations(autoencoder, own):
    def found(x):
        return align(autoencoder, x, config=SMALL).alignment

    expected = found(own[:4])
    # One image more or less changes the order of additions.
    np.testing.assert_allclose(jax.vmap(lambda x: found(x[None])[0])(own[:4]), expected, rtol=1e-4, atol=1e-5)
    sharded = aedr.make_sharded(lambda ae, x: align(ae, x, config=SMALL).alignment)
    np.testing.assert_allclose(sharded(autoencoder, own[:4]), expected, rtol=1e-4, atol=1e-5)
    for images in (own[:1], jnp.zeros((1, 64, 64, 3))):
        assert np.isfinite(jax.grad(lambda x: jnp.nan_to_num(found(x)).sum())(images)).all()


def test_it_is_a_column_where_the_settings_ask(autoencoder, own):
    config = dataclasses.replace(aedr.SignalConfig(), alignment=SMALL)
    measured = aedr.measure(autoencoder, own[:2], config=config)
    expected = align(autoencoder, own[:2], config=SMALL)
    np.testing.assert_allclose(measured.alignment, expected.alignment, rtol=1e-5)
    np.testing.assert_allclose(measured.alignment_error, expected.error, rtol=1e-5)
    for settings in (aedr.SignalConfig(), aedr.SignalConfig.paper(), aedr.SignalConfig.official()):
        assert settings.alignment is None
        assert settings.describe()["alignment"] is None
    assert config.describe()["alignment"]["tile"] == 64
    assert np.isnan(aedr.measure(autoencoder, own[:2]).alignment).all()


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16, 32])
def test_shifts_leave_the_grid(factor):
    shifts = shifts_of(factor)
    assert all(max(pair) < factor and any(side % factor for side in pair) for pair in shifts)
    assert len(shifts) == len(set(shifts)) == {1: 0, 2: 1}.get(factor, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"turns": ("upside down",)}, "turns"),
        ({"box": 4}, "box 4"),
        ({"floor": 0.0}, "positive"),
        ({"shifts": (), "turns": ("mirror",)}, "fewer than two controls"),
    ],
)
def test_settings_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AlignmentConfig(**options)
