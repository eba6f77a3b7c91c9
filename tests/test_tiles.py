"""Which tiles are judged, how many of them, and with how many programs."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import patch_autoencoder, patch_decode, patch_encode
from PIL import Image

import aedr_jax as aedr
from aedr_jax.images.tiles import AlignmentConfig, Grid, Tiling, telling_blocks
from aedr_jax.inputs.decoding import Decoder
from aedr_jax.inputs.sources import Item, find_images
from aedr_jax.scoring.scorer import Candidate, Scorer
from aedr_jax.signal.alignment import _tiles as tiles_of
from aedr_jax.signal.alignment import align, align_tiles
from aedr_jax.typed import build

pytestmark = pytest.mark.usefixtures("two_devices", "decoded_here")
SMALL = AlignmentConfig(tile=48, tiles=3, block=8, margin=8)
ALL = dataclasses.replace(SMALL, stop=None)
aligned = jax.jit(align_tiles, static_argnames="config")
measure = jax.jit(aedr.measure, static_argnames="config")
cut_of_arrays = jax.jit(tiles_of, static_argnames=("grid", "config"))


@pytest.fixture(scope="module")
def autoencoder():
    return patch_autoencoder()


def noisy(shape, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(20, 236, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def own(autoencoder):
    """Eight tiles that come from the decoder, and eight that do not."""
    foreign = jnp.asarray(aedr.prepare(noisy((8, 48, 48), 1)))
    made = jnp.clip(autoencoder.decode(autoencoder.encode(foreign)), -1, 1)
    return np.asarray(jnp.round((made + 1) * 127.5) / 127.5 - 1), np.asarray(foreign)


def stacked(*tiles):
    return jnp.asarray(np.stack(tiles)[None])


def looked_at_by_hand(autoencoder, tiles, firm, little):
    """Tile after tile until the image stands firmly or hardly at all."""
    for number in range(1, tiles.shape[1] + 1):
        found = aligned(autoencoder, tiles[:, :number], config=ALL)
        standing = float(found.alignment[0] / found.error[0])
        if standing <= firm or standing >= little:
            break
    return number, float(found.alignment[0]), float(found.error[0])


def test_no_further_tile_is_looked_at_once_it_is_clear(autoencoder, own):
    ours, others = own
    mixed = np.where(np.arange(48)[:, None, None] < 16, ours[2], others[2])  # a third of it
    images = {
        "own": stacked(*ours[:3]),
        "foreign": stacked(*others[:3]),
        "open": stacked(mixed, others[3], ours[4]),
    }
    numbers = set()
    for stop in ((-6.0, -1.0), (-1e3, 1e3), (-2.0, 0.5)):
        config = dataclasses.replace(SMALL, stop=stop)
        for tiles in images.values():
            found = aligned(autoencoder, tiles, config=config)
            number, alignment, error = looked_at_by_hand(autoencoder, tiles, *stop)
            assert found.tiles.tolist() == [number]
            np.testing.assert_allclose(found.alignment[0], alignment, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found.error[0], error, rtol=1e-4)
            numbers.add(number)
    assert numbers == {1, 2, 3}


def test_what_is_said_of_an_image_does_not_depend_on_its_company(autoencoder, own):
    ours, others = own
    batch = jnp.concatenate([stacked(*ours[:3]), stacked(*others[:3]), stacked(others[3], ours[4], others[5])])
    together = aligned(autoencoder, batch, config=SMALL)
    assert len(set(together.tiles.tolist())) > 1  # one image's tiles are computed for another's sake
    for i in range(3):
        alone = aligned(autoencoder, batch[i : i + 1], config=SMALL)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i], b[0], rtol=1e-4, atol=1e-6)


def test_a_tile_that_says_nothing_is_not_computed(autoencoder, own):
    black = np.full((48, 48, 3), -1.0, np.float32)
    found = aligned(autoencoder, stacked(black, own[0][0], black), config=SMALL)
    alone = aligned(autoencoder, stacked(own[0][0]), config=SMALL)
    assert found.tiles.tolist() == [1]
    np.testing.assert_allclose(found.alignment, alone.alignment, rtol=1e-5)
    broken = aedr.from_functions(patch_encode, lambda p, z: patch_decode(p, z) * jnp.nan, autoencoder.params, factor=4)
    nothing = aligned(broken, stacked(black, black), config=SMALL)
    assert (nothing.tiles.tolist(), nothing.error.tolist()) == ([0], [np.inf])
    assert np.isnan(aligned(broken, stacked(own[0][0]), config=SMALL).error).all()


@pytest.mark.parametrize("shape", [(48, 48), (50, 97), (52, 60), (160, 160), (147, 203), (36, 200), (45, 44)])
def test_files_are_cut_as_arrays_are(shape):
    image = noisy(shape, sum(shape))
    image[: shape[0] // 2, : shape[1] // 3] = 128  # says nothing
    image = image[: shape[0] // 4 * 4, : shape[1] // 4 * 4]
    cut = Tiling(SMALL, factor=4)(image)
    grid = Grid.of(SMALL, 4, min(image.shape[:2]))
    expected = np.asarray(cut_of_arrays(aedr.prepare(image), grid, SMALL))[0]
    np.testing.assert_allclose(aedr.prepare(cut[: len(expected)]), expected)
    assert len(cut) == SMALL.tiles
    assert not cut[len(expected) :].any()  # black
    as_json = json.loads(json.dumps(dataclasses.asdict(Tiling(SMALL, factor=4))))
    assert build(Tiling, as_json) == Tiling(SMALL, factor=4)


@pytest.mark.parametrize(("factor", "sides"), [(4, {68, 84, 100, 116}), (8, {72, 88, 104, 120}), (16, {112})])
def test_small_images_have_few_sizes_of_tiles(factor, sides):
    config = AlignmentConfig()
    found = {Tiling(config, factor)(np.zeros((side, 300, 3), np.uint8)).shape[1] for side in range(64, 128)}
    assert found == sides
    assert len(sides) <= 4
    assert {Tiling(config, factor)(np.zeros((side, side, 3), np.uint8)).shape[1] for side in (128, 200, 517)} == {128}


@pytest.mark.parametrize(("factor", "tile", "blocks"), [(4, 128, 25), (8, 128, 25), (16, 128, 9), (32, 256, 9)])
def test_a_tile_holds_nine_blocks_of_a_large_factor(factor, tile, blocks):
    """And one smaller tile of four where the image has no room for them."""
    grid = Grid.of(AlignmentConfig(), factor, 1024)
    assert (grid.tile, grid.blocks) == (tile, blocks)
    assert Grid.of(AlignmentConfig(), 32, 255).blocks == 4


def test_tiles_of_another_size_are_refused(autoencoder):
    for side in (47, 52, 12):
        with pytest.raises(ValueError, match="the settings cut no such ones"):
            align_tiles(autoencoder, jnp.zeros((1, 1, side, side, 3)), config=SMALL)
    with pytest.raises(ValueError, match="below the factor, 4"):
        align(autoencoder, jnp.zeros((1, 64, 64, 3)), config=dataclasses.replace(SMALL, shifts=((1, 4), (2, 2))))
    with pytest.raises(ValueError, match=r"stop .*the first below the second"):
        AlignmentConfig(stop=(-1.0, -6.0))


def test_one_program_serves_all_sizes(tmp_path):
    """A hundred images of a hundred sizes: one for sides of a tile and more, at most four for smaller ones."""
    traced = []

    def encode(params, x):
        traced.append(x.shape)
        return x[:, ::8, ::8] * params

    rng = np.random.default_rng(0)
    sides = [(int(a), int(b)) for a, b in rng.integers(64, 420, (100, 2))]
    assert len(set(sides)) == 100
    small = rng.integers(0, 256, (420, 420, 3), dtype=np.uint8)
    for i, (height, width) in enumerate(sides):
        Image.fromarray(small[:height, :width]).save(tmp_path / f"{i:03}.bmp")
    ae = aedr.from_functions(encode, lambda _, z: z.repeat(8, 1).repeat(8, 2), jnp.float32(1.0))
    config = dataclasses.replace(aedr.SignalConfig.tiles(), alignment=AlignmentConfig(tiles=2))  # many images have one
    scorer = Scorer([Candidate("tiny", ae, "hash")], config=config)
    rows = list(scorer.score(find_images([tmp_path])))
    assert len(rows) == 100
    assert {row.status for row in rows} == {"ok"}
    assert len(traced) == len(set(traced)) <= 5
    assert all(shape[1] == shape[2] for shape in traced)
    by_size = {(row.height, row.width): (row.used_height, row.used_width) for row in rows}
    assert all(used == (h // 8 * 8, w // 8 * 8) for (h, w), used in by_size.items())


def test_rows_of_tiles_have_the_alignment_that_measure_has(tmp_path, autoencoder):
    image = noisy((150, 290), 3)
    image[:, 100:180] = 255
    made = np.asarray(autoencoder.decode(autoencoder.encode(jnp.asarray(aedr.prepare(noisy((64, 84), 4))))))[0]
    image[40:104, 180:264] = np.clip(np.round((made + 1) * 127.5), 0, 255)
    Image.fromarray(image).save(tmp_path / "0.png")
    config = dataclasses.replace(aedr.SignalConfig.tiles(), alignment=SMALL)
    (row,) = Scorer([Candidate("tiny", autoencoder, "hash")], config=config).score(find_images([tmp_path]))
    images = aedr.prepare(image[:148, :288])
    whole = measure(autoencoder, images, config=dataclasses.replace(aedr.SignalConfig(), alignment=SMALL))
    alone = measure(autoencoder, images, config=config)
    for found in (row.measured, alone):
        np.testing.assert_allclose(found.alignment, whole.alignment, rtol=1e-5)
        np.testing.assert_allclose(found.alignment_error, whole.alignment_error, rtol=1e-4)
        others = [getattr(found, name) for name in found._fields if not name.startswith("alignment")]
        assert np.isnan(others).all()
    assert np.isfinite(whole.first_loss).all()
    assert (row.preset, row.used_height, row.used_width) == ("custom", 148, 288)


def test_a_model_that_is_not_finite_is_an_error_of_tiles_too(tmp_path):
    Image.fromarray(noisy((128, 128), 5)).save(tmp_path / "0.png")
    broken = aedr.from_functions(
        lambda _, x: x[:, ::8, ::8], lambda _, z: z.repeat(8, 1).repeat(8, 2) * jnp.nan, factor=8
    )
    (row,) = Scorer([Candidate("tiny", broken, "hash")], config=aedr.SignalConfig.tiles()).score(
        find_images([tmp_path])
    )
    assert row.status == "error"
    assert "tiny: the tiles' pass is not finite in float32" in row.error


def test_decoders_hand_over_tiles_alone():
    pixels = noisy((300, 200), 6)
    file = Image.fromarray(pixels)
    from io import BytesIO

    buffer = BytesIO()
    file.save(buffer, "PNG")
    tiling = Tiling(AlignmentConfig(), 8)
    decoded = Decoder(8, crops=(8,), tilings=(tiling,))(Item("0", "0.png", buffer.getvalue()))
    np.testing.assert_array_equal(decoded.images[0], tiling(pixels[:296]))
    assert (decoded.used, decoded.gray.size) == (((296, 200),), 0)


def test_settings_that_measure_nothing_are_refused():
    with pytest.raises(ValueError, match="nothing would be measured"):
        aedr.SignalConfig(loss=None, alignment=None)
    assert aedr.SignalConfig.tiles().name == "tiles"
    assert aedr.SignalConfig.tiles().describe()["loss"] is None


@pytest.mark.parametrize("shape", [(96, 160), (160, 96)])
def test_telling_blocks_are_those_of_the_whole_image(shape):
    image = noisy(shape, 7)
    image[:40], image[40:, 64:88] = 128, 255
    every = telling_blocks(image, 8, SMALL)
    assert every.shape == (shape[0] // 8, shape[1] // 8)
    assert not every[:4].any()
    assert not every[5:, 8:11].any()
    assert every[6:, 12:].all()
    np.testing.assert_array_equal(telling_blocks(image, 8, SMALL, slice(16, 88)), every[2:11, 2:11])
    flat = np.full_like(image, 128)
    flat[89], flat[:, 89] = 255, 255  # two pixels beyond the part, as far as the detail of its last ones reaches
    every = telling_blocks(flat, 8, SMALL)
    np.testing.assert_array_equal(telling_blocks(flat, 8, SMALL, slice(16, 88)), every[2:11, 2:11])
