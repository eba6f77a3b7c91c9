"""Two caps: what is decoded at all, and what is measured of an image; of a larger one it is the middle."""

import math
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_autoencoder
from hypothesis import given, settings
from hypothesis import strategies as st
from make_tiny import QUICK, make_tensors, write_folder
from PIL import Image

from aedr_jax.autoencoders.adapters import FunctionAutoencoder
from aedr_jax.autoencoders.blocks import Numerics
from aedr_jax.cli.main import main
from aedr_jax.errors import SourceError
from aedr_jax.images.codec import MAX_PIXELS, read_image
from aedr_jax.images.pixels import fit_centre
from aedr_jax.inputs.decoding import MAX_SCORED_PIXELS, Decoded, Decoder, Refused
from aedr_jax.inputs.sources import Item, find_images
from aedr_jax.inputs.workers import decode_all
from aedr_jax.scoring.job import Setup
from aedr_jax.scoring.job import settings as run_settings
from aedr_jax.scoring.scorer import Candidate, Scorer

pytestmark = pytest.mark.usefixtures("two_devices")


def picture(width, height, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def put(tmp_path):
    def save(image, name="a.png", **options):
        image.save(tmp_path / name, **options)
        return Item(name, tmp_path / name)

    return save


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(64, 9000), st.integers(64, 9000), st.sampled_from([64, 192]), st.integers(192**2, 1 << 22))
def test_the_middle_of_a_large_image(height, width, grid, most):
    rows, columns = fit_centre(height, width, most_pixels=most, grid=grid)
    kept = [rows.stop - rows.start, columns.stop - columns.start]
    assert kept[0] * kept[1] <= most
    if height * width <= most:
        assert kept == [height, width]
    for side, part in ((height, rows), (width, columns)):
        size = part.stop - part.start
        if size == side:
            assert part == slice(0, side)
        else:
            assert part.start % grid == size % grid == 0
            assert size >= grid
            assert 0 <= (side - part.stop) - part.start < 2 * grid  # as central as the grid allows
    if min(kept) < min(height, width):
        assert max(kept) - min(kept) < grid + 2 * grid  # near to a square, as long as both sides are cut
    assert kept[0] * kept[1] > most / 4 or [height, width] == kept or most < 16 * grid**2


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (130, 700), (1000, 66)])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_large_image_is_its_middle(put, size, name):
    """Just as if the middle had been the file: pixels and grey levels, and so the homogeneity."""
    decoder = Decoder(8, most_pixels=128 * 128)
    item = put(picture(*size), name)
    found = decoder(item)
    rows, columns = fit_centre(size[1], size[0], most_pixels=128 * 128, grid=64)
    whole = Decoder(1)(item)
    assert (found.width, found.height) == size
    np.testing.assert_array_equal(found.gray, whole.gray[rows, columns])
    (image,) = found.images
    middle = whole.images[0][rows, columns]
    np.testing.assert_array_equal(image, middle[: len(middle) // 8 * 8, : middle.shape[1] // 8 * 8])
    assert decoder.cut(*size) == ",centre16384"
    assert found.images[0].base is None or found.images[0].base.nbytes <= 3 * 128 * 128  # the whole is let go
    if name == "a.png":
        alone = decoder(put(Image.fromarray(middle), "middle.png"))
        np.testing.assert_array_equal(alone.images[0], image)
        np.testing.assert_array_equal(alone.gray, found.gray)


def test_an_image_of_just_the_cap_is_whole(put):
    decoder = Decoder(2, most_pixels=100 * 80)
    assert decoder(put(picture(100, 80))).images[0].shape == (80, 100, 3)
    assert decoder.cut(100, 80) == ""
    assert decoder(put(picture(101, 80))).images[0].shape == (80, 64, 3)
    assert decoder.cut(101, 80) == ",centre8000"


def test_what_was_done_to_an_image_was_done_to_all_of_it(put):
    item = put(picture(200, 160))
    larger = Decoder(8, processing="resize2", most_pixels=128 * 128)(item)
    assert (larger.width, larger.height) == (400, 320)
    assert larger.images[0].shape == (128, 128, 3)
    whole = Decoder(8, processing="resize2")(item)
    np.testing.assert_array_equal(larger.images[0], whole.images[0][64:192, 128:256])


def test_the_authors_resizing_refuses_a_large_image(put):
    refused = Decoder(1, ((8, None),), most_pixels=128 * 128)(put(picture(200, 160)))
    assert isinstance(refused, Refused)
    assert "200×160 is above 16384 pixels, and the official preset resizes whole images" in refused.error


def test_the_cap_on_decoding_is_a_setting(put):
    item = put(picture(200, 160))
    refused = Decoder(most_pixels=64 * 64, most_decoded=200 * 160 - 1)(item)
    assert "200×160 is above the 31999 pixels that are decoded" in refused.error
    assert isinstance(Decoder(most_pixels=64 * 64, most_decoded=200 * 160)(item), Decoded)
    with pytest.raises(ValueError, match="31999"):
        read_image(item.path, most_pixels=31_999)


def test_a_photograph_of_24_megapixels(put):
    """In a worker process, within its memory; every camera makes such files."""
    exif = Image.Exif()
    exif[0x0112] = 6
    item = put(picture(6000, 4000), "a.jpg", exif=exif)
    (found,) = decode_all(Decoder(8), [item], workers=1)
    assert isinstance(found, Decoded), found
    assert (found.width, found.height) == (4000, 6000)
    assert found.images[0].shape == (1024, 1024, 3)
    assert found.gray.shape == (1024, 1024)
    assert 1024**2 == MAX_SCORED_PIXELS < 24_000_000 < MAX_PIXELS


@pytest.fixture
def candidate(monkeypatch):
    monkeypatch.setattr(FunctionAutoencoder, "numerics", Numerics(), raising=False)  # which a row tells
    return Candidate("tiny", tiny_autoencoder("functions"), "hash")


def test_the_row_says_what_was_measured(put, candidate):
    put(picture(300, 200), "large.png")
    item = put(picture(100, 80), "small.png")
    scorer = Scorer([candidate], most_pixels=128 * 128)
    rows = {row.id: row for row in scorer.score(find_images([Path(item.path).parent]))}
    large, small = rows["large.png"], rows["small.png"]
    assert (large.width, large.height, large.used_width, large.used_height) == (300, 200, 128, 128)
    assert (small.width, small.height, small.used_width, small.used_height) == (100, 80, 100, 80)
    assert (large.size_rule, small.size_rule) == ("crop2,centre16384", "crop2")
    assert large.status == small.status == "ok"


@pytest.mark.parametrize("caps", [{"most_pixels": 64 * 64 - 1}, {"most_pixels": 9000, "most_decoded": 8999}])
def test_caps_that_cannot_be_kept(candidate, caps):
    with pytest.raises(SourceError, match=f"at most {caps['most_pixels']} pixels are to be measured"):
        Scorer([candidate], **caps)


def test_a_run_goes_on_with_the_same_caps_only(candidate):
    setups = [Setup(), Setup(most_pixels=1 << 19), Setup(most_decoded=1 << 25)]
    scorers = [Scorer([candidate], most_pixels=s.most_pixels, most_decoded=s.most_decoded) for s in setups]
    found = [run_settings(scorer) for scorer in scorers]
    assert found[0] != found[1] != found[2] != found[0]


def test_caps_on_the_command_line(put, tmp_path, capsys):
    write_folder(tmp_path / "model", QUICK, make_tensors(QUICK))
    item = put(picture(100, 80))
    call = ["score", str(item.path), "--model", str(tmp_path / "model")]
    folder = ["--out", str(tmp_path / "scores"), "--workers", "0"]
    main([*call, *folder, "--most-decoded", "7999", "--most-pixels", "4096"])
    assert "1 of them unreadable" in capsys.readouterr().out
    for options in ([], folder):
        assert main([*call, *options, "--most-pixels", "4095"]) == 2
        assert "at most 4095 pixels are to be measured" in capsys.readouterr().err


def test_grid_of_a_middle_keeps_to_the_decoders_multiple(put):
    found = Decoder(24, most_pixels=400 * 400)(put(picture(500, 500)))
    assert found.images[0].shape == (384, 384, 3)  # two of lcm(64, 24)
    assert math.lcm(64, 24) == 192


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_all_methods_of_a_comparison_see_one_side(put, name):
    """The middle, from a line of the grid; in a worker process as here."""
    item, whole = put(picture(231, 160), name), Decoder()(put(picture(231, 160), name))
    decoder = Decoder(8, side=96, grid=24)
    found = decoder(item)
    top, left = (160 - 96) // 2 // 24 * 24, (231 - 96) // 2 // 24 * 24
    middle = slice(top, top + 96), slice(left, left + 96)
    np.testing.assert_array_equal(found.images[0], whole.images[0][middle])
    np.testing.assert_array_equal(found.gray, whole.gray[middle])
    assert (found.width, found.height, found.seed) == (231, 160, whole.seed)
    (elsewhere,) = decode_all(decoder, [item], workers=1)
    np.testing.assert_array_equal(elsewhere.images[0], found.images[0])
    np.testing.assert_array_equal(elsewhere.gray, found.gray)


def test_what_is_compared_is_processed_after_it_is_cut(put):
    item = put(picture(231, 160))
    middle = Decoder(side=96, grid=24)(item).images[0]
    resized = np.asarray(Image.fromarray(middle).resize((48, 48), Image.Resampling.LANCZOS))
    small = Decoder(32, side=96, grid=24, processing="resize0.5")
    np.testing.assert_array_equal(small(item).images[0], resized[:32, :32])
    assert small(item).gray.shape == (32, 32)  # of what the methods see
    large = Decoder(8, side=96, processing="resize2")(item)
    assert large.images[0].shape == (96, 96, 3)
    refused = Decoder(side=161)(item)
    assert "231×160; the shorter side must be at least 161 pixels" in refused.error
    refused = Decoder(64, side=96, processing="resize0.5")(item)
    assert "resize0.5 leaves 48×48 pixels" in refused.error
