"""The search on images whose geometry is known: found, tested on the rest, and said in words."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import PATCH, patch_autoencoder, patch_encode
from PIL import Image

import aedr_jax as aedr
from aedr_jax.images.geometry import Box, Geometry, orientations, original_sizes, resized
from aedr_jax.images.tiles import AlignmentConfig, Grid, telling_blocks
from aedr_jax.signal.search import (
    BLOCK,
    SearchConfig,
    _hypotheses,
    _Plan,
    _region,
    _region_upright,
    _tested,
    _tiles,
    search,
    search_many,
    searchable,
)

FACTOR = PATCH
CONFIG = SearchConfig(scales=(0.7, 1.4), sizes=24, keep=8)
RNG = np.random.default_rng(2)
SQUARE = (256, 256)
encoded = []  # shapes, each time a program is traced


def _encode(params, x):
    encoded.append(x.shape)
    return patch_encode(params, x)


@pytest.fixture(scope="module")
def autoencoder():
    return patch_autoencoder(_encode)


@pytest.fixture(scope="module")
def foreign():
    coarse = Image.fromarray(RNG.integers(0, 256, (72, 72, 3), np.uint8)).resize((288, 288), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + RNG.normal(0, 6, (288, 288, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def own(autoencoder, foreign):
    images = autoencoder.decode(autoencoder.encode(jnp.asarray(aedr.prepare(foreign))))[0]
    return np.asarray(jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5)).astype(np.uint8)


def _resized(image, side):
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


MADE = {
    "as it is": lambda x: x[:256, :256],
    "mirrored": lambda x: x[:256, 255::-1],
    "turned by 90°": lambda x: np.rot90(x[:256, :256]),
    "mirrored; turned by 270°; offset 3, 2": lambda x: np.rot90(x[1:257, 2:258][:, ::-1], 3),
    "offset 0, 1": lambda x: x[:256, 3:259],
    "scale 288/340": lambda x: _resized(x, 340),
    "scale 288/260": lambda x: _resized(x, 260),
}


@pytest.mark.parametrize("words", MADE)
def test_what_was_done_to_an_own_image_is_found(autoencoder, own, words):
    found = search(autoencoder, np.ascontiguousarray(MADE[words](own)), config=CONFIG)
    assert str(found) == words
    assert found.alignment / found.error < -5


def test_the_test_of_a_foreign_image_is_ordinary(autoencoder, foreign):
    crops = [foreign[y : y + 256, x : x + 256] for y, x in ((0, 0), (5, 9), (17, 2), (30, 32))]
    found = [search(autoencoder, crop, config=CONFIG) for crop in crops]
    # These were enlarged fourfold, which leaves a grid of its own; the model's own stand at -5 and below when found.
    assert min(each.alignment / each.error for each in found) > -5
    assert {str(each) for each in found} != {"as it is"}  # the search did choose


def test_the_region_that_found_takes_no_part_in_the_test(autoencoder, own):
    image = own[1:257, 3:259]
    geometry = Geometry(SQUARE, offset=(3, 1))
    region = _region(image, telling_blocks(image, BLOCK, CONFIG.alignment), _Plan.of(FACTOR))
    other = image.copy()
    region.of(other)[:] = RNG.integers(0, 256, (region.height, region.width, 3))
    config = dataclasses.replace(CONFIG.alignment, stop=None)  # all tiles are looked at
    expected = _tested(autoencoder, image, region, geometry, config)
    assert _tested(autoencoder, other, region, geometry, config) == expected
    elsewhere = image.copy()
    elsewhere[112:144, 112:144] = 255 - elsewhere[112:144, 112:144]
    assert _tested(autoencoder, elsewhere, region, geometry, config) != expected


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_tiles_stand_on_the_grid_and_off_the_region(factor):
    plan = _Plan.of(factor)
    for height, width in ((256, 256), (319, 263), (377, 500)):
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        region = _region(image, telling_blocks(image, BLOCK, CONFIG.alignment), plan)
        hypotheses = _hypotheses(image, region, plan, SearchConfig(sizes=4))
        for geometry in hypotheses[:: len(hypotheses) // 9]:
            upright = geometry.upright(image, factor)
            finding = _region_upright(image, region, geometry)
            tiles = _tiles(upright, finding, factor, CONFIG.alignment)
            assert 3 <= len(tiles) <= CONFIG.alignment.tiles
            for tile in tiles:
                assert not tile.meets(finding)
                assert tile.top % factor == tile.left % factor == 0
                assert tile.of(upright).shape == (tile.height, tile.width, 3)
            for a, b in itertools.combinations(tiles, 2):
                assert max(abs(a.top - b.top), abs(a.left - b.left)) >= a.height - factor


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_the_test_cuts_its_tiles_where_they_meet(factor):
    """Side by side in one image, they are what `align` cuts it into, whatever the size that was found."""
    for side in range(208, 300, factor):
        upright = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
        tiles = _tiles(upright, Box(0, 0, 7 * side // 16, 7 * side // 16), factor, CONFIG.alignment)
        height, width = tiles[0].height, sum(tile.width for tile in tiles)
        corners = Grid.of(CONFIG.alignment, factor, height).corners(height, width)
        assert corners.tolist() == [[0, i * tiles[0].width] for i in range(len(tiles))]


def test_of_settings_that_have_no_room_nothing_is_said(autoencoder, foreign):
    config = dataclasses.replace(CONFIG.alignment, block=64)
    region = Box(0, 0, 112, 112)
    assert np.isnan(_tested(autoencoder, foreign[:256, :256], region, Geometry(SQUARE), config)[0])


def test_the_windows_of_all_images_and_models_share_a_program(autoencoder, foreign):
    models, config = {"a": autoencoder, "b": dataclasses.replace(autoencoder)}, dataclasses.replace(CONFIG, sizes=4)
    for image in (foreign[:256, :256], foreign[:, :270]):
        found = search_many(models, image, config=config)
        assert found["a"] == found["b"] == search(autoencoder, image, config=config)
    windows = [shape for shape in encoded if shape[0] == CONFIG.batch]
    assert windows == [(CONFIG.batch, 64, 64, 3)]


def test_what_is_looked_for():
    image = np.zeros((480, 480, 3), np.uint8)

    def count(factor, **options):
        config = SearchConfig(**options)
        region = Box(0, 0, 210, 210)
        return len(_hypotheses(image, region, _Plan.of(factor), config))

    one = {"scales": (1.0, 1.0)}
    assert count(8, **one) == 8 * 64
    assert count(16, **one) == 8 * 256
    assert count(8, offsets=False, **one) == 8
    assert count(8, offsets=False, natives=(512,), sizes=1, scales=(0.9, 1.1)) == 8 * 2  # itself, and 512


@pytest.mark.parametrize(
    ("image", "factor", "message"),
    [
        (np.zeros((255, 400, 3), np.uint8), 8, "255×400.*takes 256 pixels"),
        (np.zeros((300, 300, 3), np.uint8), 32, "up to a factor of 16, this autoencoder has 32"),
        (np.zeros((300, 300, 3), np.float32), 8, "float32"),
        (np.zeros((300, 300), np.uint8), 8, r"\[300, 300\]"),
        (np.zeros((300, 300, 3), np.uint8), 1, "no grid"),
    ],
)
def test_images_that_are_refused(image, factor, message):
    nothing = aedr.from_functions(lambda p, x: x, lambda p, z: z, factor=factor)
    with pytest.raises(aedr.ArgumentError, match=message):
        search(nothing, image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (1.1, 2.0)}, "scales"),
        ({"keep": 0}, "positive"),
        ({"alignment": AlignmentConfig(bands=((1, 27),))}, "room for boxes of 25"),
    ],
)
def test_settings_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SearchConfig(**options)


def test_every_orientation_is_undone():
    original = RNG.integers(0, 256, (12, 20, 3), np.uint8)
    seen = set()
    for mirrored, quarters in orientations():
        image = np.rot90(original[:, ::-1] if mirrored else original, quarters)
        geometry = Geometry(image.shape[:2], mirrored, quarters)
        assert geometry.seen_upright == (12, 20)
        np.testing.assert_array_equal(geometry.upright(image, 4), original)
        box = Box(1, 2, 5, 3)
        marked = np.zeros_like(image)
        box.of(marked)[:] = 1
        back = geometry.box_turned_back(box, *image.shape[:2])
        assert back.of(geometry.turned_back(marked)).all()
        assert back.height * back.width == 15
        seen.add(image.tobytes() + bytes(image.shape))
    assert len(seen) == 8


def test_crop_and_size_are_undone():
    original = RNG.integers(0, 256, (24, 32, 3), np.uint8)
    cut = Geometry((21, 29), offset=(1, 2)).upright(original[3:, 3:], 4)
    np.testing.assert_array_equal(cut, original[4:, 5:29])
    large = RNG.integers(0, 256, (90, 120, 3), np.uint8)
    whole = np.asarray(Image.fromarray(large).resize((96, 72), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(Geometry((90, 120), size=(72, 96)).upright(large, 8), whole)
    box = Box(11, 40, 33, 56)  # to the right border
    np.testing.assert_array_equal(resized(large, (72, 96), box), box.of(whole))


def test_sizes_keep_the_proportions():
    def sizes(height, width, **options):
        settings = {"factor": 8, "natives": (1024,), "least": 0.5, "greatest": 2.0, "most": 64, **options}
        return original_sizes(height, width, **settings)

    assert (768, 1344) in sizes(617, 1080)
    assert (1344, 768) in sizes(1080, 617)
    assert (760, 1344) not in sizes(617, 1080)
    square = sizes(264, 264)
    assert [side for side, _ in square] == [side for side in range(136, 529, 8) if side != 264]
    coarse = sizes(1080, 1080)
    assert len(coarse) <= 64 + 1
    assert (1024, 1024) in coarse
    assert (1000, 1000) not in coarse


def test_models_that_an_image_is_too_small_for_are_passed_over():
    """Nor can those of a factor of 1, which has no grid, and of 32: each of them would raise."""
    models = {f"of {f}": aedr.from_functions(lambda _, x: x, lambda _, z: z, factor=f) for f in (1, 4, 16, 32)}

    def able(height, width):
        return set(searchable(models, np.zeros((height, width, 3), np.uint8)))

    assert able(255, 400) == set()
    assert able(256, 400) == able(2000, 3000) == {"of 4", "of 16"}
