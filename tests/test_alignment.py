"""The alignment against a loop over its definition, under JAX's transformations, and on images of known origin."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import PATCH, patch_autoencoder, patch_decode, patch_encode

import aedr_jax as aedr
from aedr_jax.images.tiles import BOX_OF_DETAIL, SATURATED, AlignmentConfig, Tiling, shifts_of
from aedr_jax.signal.alignment import (
    FLOOR_OF_ERROR,
    LEFT_BY_A_VETO,
    align,
    alignment_map,
    block_losses,
    of_blocks,
)

FACTOR = PATCH
compiled = jax.jit(align, static_argnames="config")  # operation by operation it would take longer
compiled_losses = jax.jit(block_losses, static_argnames="config")
reconstruct = jax.jit(lambda ae, x: ae.decode(ae.encode(x)))
compiled_map = jax.jit(alignment_map, static_argnames=("config", "standardized"))
SMALL = AlignmentConfig(tile=64, block=8, margin=8)


@pytest.fixture(scope="module")
def autoencoder():
    return patch_autoencoder()


@pytest.fixture(scope="module")
def foreign():
    rng = np.random.default_rng(1)
    smooth = jax.image.resize(jnp.asarray(rng.uniform(-1, 1, (6, 20, 24, 3)), jnp.float32), (6, 80, 96, 3), "cubic")
    return jnp.clip(smooth + 0.05 * jnp.asarray(rng.normal(size=smooth.shape), jnp.float32), -1, 1)


@pytest.fixture(scope="module")
def own(autoencoder, foreign):
    images = jnp.clip(autoencoder.decode(autoencoder.encode(foreign)), -1, 1)
    return jnp.round((images + 1) * 127.5) / 127.5 - 1  # as a file holds it


def box_mean(values, box):
    """The mean over a box around each pixel, mirrored at the border."""
    reach, (h, w) = box // 2, values.shape[:2]
    padded = np.pad(values, [(reach, reach), (reach, reach), (0, 0)], mode="reflect")
    return sum(padded[i : i + h, j : j + w] for i in range(box) for j in range(box)) / box**2


def by_hand(autoencoder, image, config):
    """Of one tile, by loops over views and blocks: of each band [views, blocks] losses, and which blocks tell."""
    f, margin, block = FACTOR, config.margin, config.block
    image = np.asarray(image)
    w = config.tile - f
    side = (w - 2 * margin) // block

    def means(values, y=0, x=0):
        starts = [(margin - y + i * block, margin - x + j * block) for i in range(side) for j in range(side)]
        return [values[top : top + block, left : left + block].mean() for top, left in starts]

    def residual(view):
        x = np.ascontiguousarray(view)[None]
        return (np.clip(reconstruct(autoencoder, x), -1, 1) - x)[0]

    unmoved = image[:w, :w]
    views = [(residual(unmoved), lambda e: e, (0, 0))]
    views += [(residual(image[y : y + w, x : x + w]), lambda e: e, (y, x)) for y, x in shifts_of(f)]
    views.append((residual(unmoved[:, ::-1]), lambda e: e[:, ::-1], (0, 0)))
    views.append((residual(np.rot90(unmoved)), lambda e: np.rot90(e, -1), (0, 0)))
    losses = [
        np.array([means(back(np.square(box_mean(d, a) - box_mean(d, b)).mean(-1)), *at) for d, back, at in views])
        for a, b in config.bands
    ]
    fine = means(np.square(unmoved - box_mean(unmoved, BOX_OF_DETAIL)).mean(-1))
    at_ends = means((np.abs(unmoved) > SATURATED).mean(-1))
    return losses, (np.array(fine) > config.least_detail) & (np.array(at_ends) <= 0.5)


def aligned_by_hand(losses, telling, config):
    """Of one band's losses [views, blocks]."""
    logs = np.log(losses[:, telling] + config.floor)
    differences, controls = logs[0] - logs[1:].mean(0), logs[1:].mean(1)
    between_blocks = differences.var(ddof=1) / differences.size
    error = np.sqrt(between_blocks + controls.var(ddof=1) / controls.size + FLOOR_OF_ERROR**2)
    mirrored, turned = controls[-2:] - logs[0].mean()
    is_vetoed = config.least_turned is not None and min(mirrored, turned) < config.least_turned
    return max(differences.mean(), -error) if is_vetoed else differences.mean(), error


def check_against_the_definition(autoencoder, images, config):
    """Images of one tile."""
    found = compiled(autoencoder, images, config=config)
    losses, telling = compiled_losses(autoencoder, images, config=config)
    lowest = []
    for i, image in enumerate(images):
        expected, tell = by_hand(autoencoder, image, config)
        np.testing.assert_array_equal(telling[i], tell)
        np.testing.assert_allclose(losses[i], expected, rtol=2e-3, atol=1e-7)
        of_bands = [aligned_by_hand(of_band, tell, config) for of_band in expected]
        lowest.append(min(range(len(of_bands)), key=lambda k: of_bands[k][0] / of_bands[k][1]))
        alignment, error = of_bands[lowest[-1]]
        # float32 residuals of some percent, whose logarithms are averaged
        np.testing.assert_allclose(found.alignment[i], alignment, atol=3e-4)
        np.testing.assert_allclose(found.error[i], error, rtol=2e-3)
    return lowest


def test_the_definition_by_hand(autoencoder, own, foreign):
    """Own images and foreign ones, as they are, blurred and with a white part: every band is the lowest of some."""
    blurred = jnp.asarray(np.stack([box_mean(np.asarray(image), 3) for image in own[:2]]))
    images = jnp.concatenate([foreign[:3], own[:1], blurred])[:, 8:72, 16:80]
    images = images.at[2, :, 30:].set(1.0).at[0, 20:40].set(0.3)
    lowest = check_against_the_definition(autoencoder, images, dataclasses.replace(SMALL, least_turned=None))
    assert set(lowest) == {0, 1}
    check_against_the_definition(autoencoder, images, SMALL)
    check_against_the_definition(autoencoder, images[:2], dataclasses.replace(SMALL, bands=((3, 7),)))


def test_block_losses_have_an_axis_for_each_of_what_they_are_made_of(autoencoder, own):
    losses, telling = compiled_losses(autoencoder, own, config=SMALL)
    assert (losses.shape, telling.shape) == ((6, 2, 6, 25), (6, 25))
    config = dataclasses.replace(SMALL, tile=48, bands=((1, 3), (1, 5), (3, 9)), shifts=((1, 2),), turns=("mirror",))
    losses, telling = compiled_losses(autoencoder, own, config=config)  # two tiles beside each other, of nine blocks
    assert (losses.shape, telling.shape) == ((6, 3, 3, 18), (6, 18))
    for tile, columns in enumerate((slice(0, 48), slice(48, 96))):
        alone, _ = compiled_losses(autoencoder, own[:, 16:64, columns], config=config)
        np.testing.assert_allclose(losses[..., 9 * tile : 9 * tile + 9], alone, rtol=1e-4, atol=1e-8)
    with pytest.raises(ValueError, match=r"images of \(32, 32\) pixels have no room for 4 blocks"):
        compiled_losses(autoencoder, own[:, :32, :32], config=SMALL)


def test_tiles_are_those_that_say_most_and_of_equal_ones_the_nearest_to_the_middle(autoencoder, own):
    """Nine tiles of 48 pixels from (8, 8) on, of which two are judged."""
    image = jnp.tile(own[:1], (1, 2, 2, 1))[:, :160, :160]
    config = dataclasses.replace(SMALL, tile=48, tiles=1)
    corners = [(8 + 48 * i, 8 + 48 * j) for i in range(3) for j in range(3)]

    def judged(image, config):
        """Which tile alone gives the image's alignment."""
        found = compiled(autoencoder, image, config=config).alignment
        cut = jnp.concatenate([image[:, y : y + 48, x : x + 48] for y, x in corners])
        each = np.asarray(compiled(autoencoder, cut, config=config).alignment)
        (place,) = np.flatnonzero(np.abs(each - np.asarray(found)) < 1e-4)
        return int(place)

    assert judged(image, config) == 4  # the middle
    flat = image.at[:, 56 + 4 : 56 + 20].set(0.0)  # a row of blocks of the three middle tiles says nothing
    assert judged(flat, config) == 1  # of those above and below, as near as each other, the first
    assert judged(flat.at[:, 8 + 4 : 8 + 20].set(0.0), config) == 7
    both, _ = compiled_losses(autoencoder, flat, config=dataclasses.replace(config, tiles=2))
    expected = [compiled_losses(autoencoder, flat[:, y : y + 48, 56:104], config=config)[0] for y in (8, 104)]
    np.testing.assert_allclose(both, jnp.concatenate(expected, axis=-1), rtol=1e-4, atol=1e-8)


def test_what_positions_differ_by_does_not_average_away_over_tiles(autoencoder, foreign):
    """Three tiles, of which one has fewer blocks that say something and one none, by the definition, position by
    position; and the same tile twice, of which only the blocks' part is less than of one."""
    config = dataclasses.replace(SMALL, tile=48, tiles=3, stop=None, least_turned=None)
    images = jnp.concatenate([foreign[:1, 16:64], jnp.zeros((1, 48, 48, 3))], axis=2).at[:, 4:20, :48].set(0.3)
    losses, telling = (np.asarray(x)[0] for x in compiled_losses(autoencoder, images, config=config))
    counts = telling.reshape(3, 9).sum(1)
    assert sorted(counts) == [0, 6, 9]
    as_many = 15**2 / (6**2 + 9**2)  # tiles
    found = compiled(autoencoder, images, config=config)
    of_bands = []
    for band in np.log(losses[..., telling] + config.floor):
        differences, positions = band[0] - band[1:].mean(0), band[1:].mean(1)
        square = differences.var(ddof=1) / differences.size + FLOOR_OF_ERROR**2
        square += positions.var(ddof=1) * (1 / positions.size + 1 - 1 / as_many)
        of_bands.append((differences.mean() / np.sqrt(square), np.sqrt(square)))
    np.testing.assert_allclose(found.error[0], min(of_bands)[1], rtol=1e-4)

    losses, telling = compiled_losses(autoencoder, foreign[:1, 16:64, :48], config=config)
    one, twice = (of_blocks(jnp.tile(losses[:, :1], n), jnp.tile(telling, n), tiles=n, config=config) for n in (1, 2))
    np.testing.assert_allclose(twice.alignment, one.alignment, rtol=1e-5)
    logs = np.log(np.asarray(losses)[0, 0, :, np.asarray(telling)[0]].T + config.floor)
    blocks = (logs[0] - logs[1:].mean(0)).var(ddof=1) / 9
    positions = logs[1:].mean(1).var(ddof=1)
    less = blocks * (1 - 8 / 17)  # n - 1 of the variance
    np.testing.assert_allclose(twice.error**2 - one.error**2, positions / 2 - less, rtol=1e-3)


@pytest.mark.parametrize("side", [128, 256])
def test_copies_that_are_own_when_turned_are_no_controls(side):
    """The middle of each square of 8 pixels, repeated: it commutes with turning, so what spreads the controls is that
    two of them are own images; with few tiles and many, own images are the model's, and foreign ones are not."""
    ae = aedr.from_functions(lambda _, x: x[:, 4::8, 4::8], lambda _, z: z.repeat(8, axis=1).repeat(8, axis=2))
    rng = np.random.default_rng(0)
    coarse = jnp.asarray(rng.uniform(-1, 1, (4, side // 16, side // 16, 3)), jnp.float32)
    foreign = jax.image.resize(coarse, (4, side, side, 3), "cubic")
    foreign = jnp.clip(foreign + 0.05 * jnp.asarray(rng.normal(size=foreign.shape), jnp.float32), -1, 1)
    own = reconstruct(ae, foreign)
    null, measured = aedr.Null.shipped(), [compiled(ae, images) for images in (own, foreign)]
    ours, others = (null.p_value(found.alignment / found.error) for found in measured)
    assert max(ours) < 0.001
    assert min(others) > 0.1
    by_shifts = compiled(ae, own, config=AlignmentConfig(turns=()))
    for a, b in zip(measured[0], by_shifts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def of_logs(above, config):
    """The alignment of an image whose copies lose so much more, in one band of 25 blocks: [views, 25] logarithms."""
    logs = jnp.asarray(np.linspace(-2, -1, 25) + above)
    found = of_blocks(jnp.exp(logs)[None, None], jnp.ones((1, 25), bool), tiles=1, config=config)
    return float(found.alignment[0])


def test_a_turned_copy_counts_unless_its_losses_are_the_images_own():
    """By the losses alone, block by block: three moved copies far above the image, and turned ones near it."""
    config = AlignmentConfig(bands=((1, 5),), floor=1e-30, least_turned=None)

    def alignment(mirrored, turned):
        return of_logs(np.array([np.zeros(25), *np.full((3, 25), 1.5), mirrored, turned]), config)

    near, other, apart = np.full(25, 0.0002), np.full(25, 0.001), np.resize([0.01, -0.01], 25)
    for mirrored, turned, controls in [
        (near, near, [1.5, 1.5, 1.5]),
        (near, other, [1.5, 1.5, 1.5, 0.001]),
        (other, other, [1.5, 1.5, 1.5, 0.001, 0.001]),
        (near, apart, [1.5, 1.5, 1.5, 0.0004]),  # equal in the mean alone: what a network makes of a foreign image
    ]:
        assert alignment(mirrored, turned) == pytest.approx(-np.mean(controls), abs=1e-4)


def test_a_copy_that_shows_nothing_has_no_veto_beside_one_moved_copy():
    """Where it has to be a control all the same: at a factor of 2."""
    above = np.repeat([0.0, 0.9, 0.0, 0.0], 25).reshape(4, 25)
    assert of_logs(above, AlignmentConfig(bands=((1, 5),), floor=1e-30)) == pytest.approx(-0.3, abs=1e-5)


def test_a_veto_leaves_the_standing_no_gradient_below_what_it_leaves(autoencoder, own, foreign):
    def standing(x, config):
        found = align(autoencoder, x, config=config)
        return (found.alignment / found.error).sum()

    images = jnp.concatenate([own[:1], foreign[:2]])
    gradient = jax.jit(jax.grad(standing), static_argnames="config")
    turned_down, without = (
        gradient(images, config=dataclasses.replace(SMALL, least_turned=margin)) for margin in (99.0, None)
    )
    found = compiled(autoencoder, images, config=dataclasses.replace(SMALL, least_turned=None))
    low = np.asarray(found.alignment / found.error < LEFT_BY_A_VETO)
    assert set(low) == {True, False}
    assert (turned_down[low] == 0).all()  # not the rounding of a quotient, whose signs an attack would follow
    np.testing.assert_array_equal(turned_down[~low], without[~low])


@pytest.mark.parametrize(
    ("moved", "mirrored", "turned", "expected"),
    [
        (0.5, 0.4, 0.3, -0.44),
        (0.5, 0.06, 0.3, -0.372),
        (0.5, 0.04, 0.3, None),  # JPEG's grid in a smooth picture: what moving breaks, turning keeps
        (0.5, 0.3, 0.04, None),
        (0.5, 0.0001, 0.3, -0.45),  # the image's own, which is no control and has no veto
        (0.5, -0.9, 0.3, -0.18),  # it stands above what a veto leaves
        (-0.5, 0.04, 0.3, 0.232),
    ],
)
def test_each_turned_copy_has_a_veto(moved, mirrored, turned, expected):
    above = np.repeat([0.0, moved, moved, moved, mirrored, turned], 25).reshape(6, 25)
    config = AlignmentConfig(bands=((1, 5),), floor=1e-30)
    error = np.sqrt(above[1:, 0].var(ddof=1) / 5 + FLOOR_OF_ERROR**2)
    left = LEFT_BY_A_VETO * error if expected is None else expected
    assert of_logs(above, config) == pytest.approx(left, abs=1e-5)
    without = of_logs(above, dataclasses.replace(config, least_turned=None))
    assert without == pytest.approx(expected or -above[1:, 0].mean(), abs=1e-5)
    assert of_logs(above[:4], dataclasses.replace(config, turns=())) == pytest.approx(-moved, abs=1e-5)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([0.0, 0.2, 0.2, 0.2, 0.2, 0.3], -0.22),  # without a veto, and below what it leaves
        ([0.0, 0.9, -0.9, 0.9, 0.2, 0.3], None),  # without one, and above it
        ([0.0, 0.9, 0.9, 0.9, 0.01, 0.3], None),  # with one: of equals the first
    ],
)
def test_of_two_bands_the_lower_counts_after_the_veto(second, expected):
    """The first has a veto, and would stand lowest."""
    first = [0.0, 0.5, 0.5, 0.5, 0.02, 0.3]
    above = np.repeat([first, second], 25).reshape(2, 6, 25)
    logs = jnp.asarray(np.linspace(-2, -1, 25) + above)
    config = AlignmentConfig(floor=1e-30)
    found = of_blocks(jnp.exp(logs)[None], jnp.ones((1, 25), bool), tiles=1, config=config)
    left = LEFT_BY_A_VETO * np.sqrt(np.var(first[1:], ddof=1) / 5 + FLOOR_OF_ERROR**2)
    assert float(found.alignment[0]) == pytest.approx(left if expected is None else expected, abs=1e-5)


def test_a_veto_does_not_tell_how_many_tiles_are_looked_at(autoencoder, own, foreign):
    """On few tiles it could be the noise's. With an endless margin every image is turned down, at the end."""
    config = dataclasses.replace(SMALL, tile=48, tiles=2)
    images = jnp.concatenate([own[:2], foreign[:4]])
    without, turned_down = (
        compiled(autoencoder, images, config=dataclasses.replace(config, least_turned=margin))
        for margin in (None, 99.0)
    )
    np.testing.assert_array_equal(turned_down.tiles, without.tiles)
    assert set(np.asarray(without.tiles)) == {1, 2}
    left = np.maximum(without.alignment, LEFT_BY_A_VETO * without.error)
    np.testing.assert_allclose(turned_down.alignment, left, atol=1e-6)


def test_a_tile_that_only_others_wanted_does_not_count():
    """An own image is sure after its first tile; of its second the autoencoder makes NaN, which a batch looks at."""

    def decode(_, z):
        return jnp.where(z > 0.99, jnp.nan, z).repeat(8, axis=1).repeat(8, axis=2)

    ae = aedr.from_functions(lambda _, x: x[:, 4::8, 4::8], decode)
    rng = np.random.default_rng(0)
    coarse = jnp.asarray(rng.uniform(-0.9, 0.9, (2, 8, 16, 3)), jnp.float32)
    images = jax.image.resize(coarse, (2, 128, 256, 3), "cubic")
    own = jnp.clip(images[:1, 4::8, 4::8], -0.9, 0.9).repeat(8, axis=1).repeat(8, axis=2).at[:, 4::8, 196].set(1.0)
    alone = compiled(ae, own, config=AlignmentConfig())
    both = compiled(
        ae, jnp.concatenate([own, jnp.clip(images[1:], -0.9, 0.9)]), config=AlignmentConfig(stop=(-6.0, 99.0))
    )
    assert both.tiles.tolist() == [1, 2]
    for a, b in zip(both, alone, strict=True):
        np.testing.assert_allclose(a[:1], b, rtol=1e-5)


def test_own_images_are_aligned_and_others_are_not(autoencoder, own, foreign):
    ours, others = (compiled(autoencoder, x, config=SMALL) for x in (own, foreign))
    assert float(jnp.max(ours.alignment / ours.error)) < -8
    assert float(jnp.max(jnp.abs(others.alignment / others.error))) < 4
    moved = compiled(autoencoder, jnp.roll(own, (1, 2), (1, 2)), config=SMALL)  # the grid is lost
    assert float(jnp.min(moved.alignment)) > -0.3


def test_a_large_image_is_judged_by_its_middle_tile_on_the_grid(autoencoder, own):
    small = own[:, 8:72, 16:80]  # (80 − 64) / 2 and (96 − 64) / 2, multiples of the factor
    for a, b in zip(compiled(autoencoder, own, config=SMALL), compiled(autoencoder, small, config=SMALL), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_map_shows_where_an_image_is_the_decoders(autoencoder, own, foreign):
    half = jnp.concatenate([own[:, :, :48], foreign[:, :, 48:]], axis=2)
    config = dataclasses.replace(SMALL, tile=48)
    found = np.asarray(compiled_map(autoencoder, half, config=config))
    assert found.shape == (6, 6, 9)  # tiles of three blocks a side: two below each other, three beside each other
    assert np.median(found[:, :, :4]) < -0.6  # up to column 8 + 4 · 8 = 40
    assert abs(np.median(found[:, :, 6:])) < 0.25  # from column 56 on
    alone = [dataclasses.replace(config, bands=(band,)) for band in config.bands]
    of_bands = [np.asarray(compiled_map(autoencoder, half, config=one)) for one in alone]
    np.testing.assert_allclose(found, np.mean(of_bands, axis=0), rtol=1e-3, atol=1e-4)
    whole = compiled(autoencoder, half[:, :48, :48], config=alone[0]).alignment
    np.testing.assert_allclose(whole, of_bands[0][:, :3, :3].mean((1, 2)), rtol=1e-4)


def test_a_standardized_map_is_in_units_of_what_a_further_control_would_be_apart(autoencoder, own):
    image = own[:1, 8:72, 16:80]  # one tile
    losses, telling = compiled_losses(autoencoder, image, config=SMALL)
    controls = np.log(np.asarray(losses[0, :, 1:]) + SMALL.floor).mean(0)  # [views, blocks], the mean over bands
    spread = np.sqrt(controls.var(0, ddof=1)[np.asarray(telling[0])].mean() * (1 + 1 / len(controls)))
    maps = [compiled_map(autoencoder, image, config=SMALL, standardized=units) for units in (False, True)]
    np.testing.assert_allclose(maps[1], maps[0] / spread, rtol=1e-4)


def test_what_says_nothing_is_nan(autoencoder, own):
    flat = jnp.zeros((1, 64, 64, 3))
    white = jnp.ones((1, 64, 64, 3))
    tiny = own[:, :32, :32]
    tiniest = own[:, :8, :8]  # smaller than its own margins by two blocks
    for images in (flat, white, tiny, tiniest):
        found = compiled(autoencoder, images, config=SMALL)
        assert np.isnan(found.alignment).all()
        assert np.isposinf(found.error).all()  # asked, and nothing can be said; NaN is for who did not ask
    partly = own[:, 8:72, 16:80].at[:, :, 24:].set(1.0)
    assert np.isnan(compiled(autoencoder, partly, config=dataclasses.replace(SMALL, least_blocks=0.5)).alignment).all()
    assert np.isfinite(
        compiled(autoencoder, partly, config=dataclasses.replace(SMALL, least_blocks=0.1)).alignment
    ).all()
    assert np.isnan(compiled_map(autoencoder, flat, config=SMALL)).all()
    assert alignment_map(autoencoder, tiny, config=SMALL).shape == (6, 0, 0)


def test_an_autoencoder_that_is_not_finite_says_nothing(own):
    broken = aedr.from_functions(
        patch_encode,
        lambda params, z: patch_decode(params, z) * jnp.nan,
        factor=FACTOR,
        params={"down": jnp.ones((48, 1)), "up": jnp.ones((1, 48))},
    )
    found = compiled(broken, own, config=SMALL)
    assert np.isnan(found.alignment).all()
    assert np.isnan(found.error).all()
    config = dataclasses.replace(aedr.SignalConfig.tiles(), alignment=SMALL)
    measured = jax.jit(aedr.measure, static_argnames="config")(broken, own[:1], config=config)
    assert np.isposinf(measured.alignment_error).all()  # asked, and nothing can be said
    assert aedr.attribute({"broken": measured}).verdicts == ("not assessable",)


def test_a_map_is_made_of_what_measure_takes(autoencoder, own):
    """Of levels from 0 to 255, and of sides off the grid, it had values that meant nothing."""
    for images, message in ((127.5 * (own + 1), r"in \[-1, 1\]"), (own[:, :62], "multiples of 4")):
        with pytest.raises(aedr.ArgumentError, match=message):
            alignment_map(autoencoder, images, config=SMALL)


@pytest.mark.parametrize("side", [32, 64, 160])
def test_no_images_have_no_alignment(autoencoder, side):
    """Of a size without a tile, of one tile, and of four of which two are chosen."""
    found = compiled(autoencoder, jnp.zeros((0, side, side, 3)), config=dataclasses.replace(SMALL, tiles=2))
    assert found.alignment.shape == found.error.shape == (0,)
    assert of_blocks(jnp.zeros((0, 2, 6, 18)), jnp.zeros((0, 18), bool), tiles=2).error.shape == (0,)
    with pytest.raises(ValueError, match="18 blocks of 4 tiles: expected as many of each"):
        of_blocks(jnp.zeros((1, 2, 6, 18)), jnp.zeros((1, 18), bool), tiles=4)


@pytest.mark.parametrize(("factor", "least"), [(4, 68), (8, 72), (16, 112), (32, 224), (64, 448)])
def test_every_factor_has_a_tile(factor, least):
    """The least side of which something is said: two blocks a side, the margins, and room to move by a factor."""
    ae = aedr.from_functions(
        lambda _, x: x[:, ::factor, ::factor], lambda _, z: z.repeat(factor, 1).repeat(factor, 2), factor=factor
    )
    of = lambda side: jax.eval_shape(block_losses, ae, jnp.zeros((1, side, side, 3)))  # noqa: E731
    assert of(least)[1].shape == (1, 4)
    with pytest.raises(ValueError, match="no room for 4 blocks"):
        of(least - factor)


def test_the_program_does_not_grow_with_the_image(autoencoder):
    """Up to 64 tiles are looked at, which are chosen from in one go."""

    def operations(side):
        images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        return len(jax.make_jaxpr(lambda x: align(autoencoder, x, config=SMALL))(images).eqns)

    assert operations(512) == operations(192)


def test_transformations(autoencoder, own):
    def found(x):
        return align(autoencoder, x, config=SMALL).alignment

    expected = jax.jit(found)(own[:4])
    # One image more or less changes the order of additions.
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda x: found(x[None])[0]))(own[:4]), expected, rtol=1e-4, atol=1e-5)
    sharded = aedr.make_sharded(lambda ae, x: align(ae, x, config=SMALL).alignment)
    np.testing.assert_allclose(sharded(autoencoder, own[:4]), expected, rtol=1e-4, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: jnp.nan_to_num(found(x)).sum()))
    for images in (own[:1], jnp.zeros_like(own[:1])):
        assert np.isfinite(gradient(images)).all()


def test_it_is_a_column_where_the_settings_ask(autoencoder, own):
    config = dataclasses.replace(aedr.SignalConfig(), alignment=SMALL)
    measure = jax.jit(aedr.measure, static_argnames="config")
    measured = measure(autoencoder, own[:2], config=config)
    expected = compiled(autoencoder, own[:2], config=SMALL)
    np.testing.assert_allclose(measured.alignment, expected.alignment, rtol=1e-5)
    np.testing.assert_allclose(measured.alignment_error, expected.error, rtol=1e-5)
    np.testing.assert_allclose(measured.standing, expected.alignment / expected.error, rtol=1e-5)
    assert aedr.SignalConfig().alignment == AlignmentConfig()
    for settings in (aedr.SignalConfig.paper(), aedr.SignalConfig.official()):
        assert settings.alignment is None
        assert settings.describe()["alignment"] is None
    assert config.describe()["alignment"]["tile"] == 64
    assert config.describe()["alignment"]["bands"] == [[1, 5], [3, 9]]
    unasked = measure(autoencoder, own[:2], config=aedr.SignalConfig.paper())
    assert np.isnan(unasked.alignment).all()
    assert np.isnan(unasked.alignment_error).all()


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16, 32])
def test_shifts_leave_the_grid(factor):
    shifts = shifts_of(factor)
    assert all(max(pair) < factor and any(side % factor for side in pair) for pair in shifts)
    assert len(shifts) == len(set(shifts)) == {1: 0, 2: 1}.get(factor, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"turns": ("upside down",)}, "turns"),
        ({"bands": ()}, "bands"),
        ({"bands": ((1, 4),)}, "pairs of odd numbers"),
        ({"bands": ((2, 5),)}, "pairs of odd numbers"),
        ({"bands": ((1, 5), (5, 5))}, "the second above the first"),
        ({"bands": ((-1, 5),)}, "pairs of odd numbers"),
        ({"tiles": 0}, "positive"),
        ({"floor": 0.0}, "positive"),
        ({"turns": ("mirror", "mirror")}, "each once"),
        ({"shifts": ((0, 0), (1, 1))}, r"none of them \(0, 0\)"),
        ({"shifts": ((1, 1), (1, 1))}, "pairs that differ"),
    ],
)
def test_settings_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AlignmentConfig(**options)


@pytest.mark.parametrize(
    ("options", "factor"),
    [({"turns": ()}, 1), ({"turns": ()}, 2), ({"turns": ("mirror",)}, 1), ({"shifts": (), "turns": ("mirror",)}, 8)],
)
def test_fewer_than_two_controls_are_refused_where_the_factor_is_known(options, factor):
    """Factor 2 has one shift, and 1 none."""
    config = AlignmentConfig(**options)
    with pytest.raises(ValueError, match=f"fewer than two controls at a factor of {factor}"):
        Tiling(config, factor)
    nothing = aedr.from_functions(lambda p, x: x, lambda p, z: z, factor=factor)
    with pytest.raises(ValueError, match="fewer than two controls"):
        align(nothing, jnp.zeros((1, 128, 128, 3)), config=config)
    assert Tiling(AlignmentConfig(), factor)
