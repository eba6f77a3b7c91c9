"""Processings: each does what its name says, names survive a round trip, and only what is random follows the seed."""

import io

import numpy as np
import pytest
from PIL import Image

from aedr_jax.images.processing import GRID, Processing

SIDE = 128
GRID_NAMES = [str(processing) for processing in GRID]


@pytest.fixture(scope="module")
def image():
    """Smooth colours with some texture, 128×128."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def apply(name, image, **options):
    return Processing.parse(name).apply(image, **options)


def place_of_crop(seed, share=0.8, shape=(SIDE, SIDE)):
    """Top and left of a crop, read off an image that holds its own coordinates."""
    rows, columns = np.indices(shape, np.uint8)
    cropped = Processing("crop", share).apply(np.stack([rows, columns, rows], axis=-1), seed=seed)
    return int(cropped[0, 0, 0]), int(cropped[0, 0, 1])


def test_grid_is_the_studys():
    assert " ".join(GRID_NAMES) == (
        "none jpeg95 jpeg90 jpeg80 jpeg70 jpeg50 webp80 resize0.5 resize0.75 resize1.5 resize2 crop0.8 "
        "blur0.5 blur1 blur2 noise0.01 noise0.02 noise0.05"
    )


@pytest.mark.parametrize("processing", GRID, ids=GRID_NAMES)
def test_every_condition_of_the_grid(processing, image):
    before = image.copy()
    after = processing.apply(image)
    factor = processing.amount if processing.kind in ("resize", "crop") else 1
    assert after.dtype == np.uint8
    assert after.shape == (round(SIDE * factor), round(SIDE * factor), 3)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(processing.apply(image), after)
    if after.shape == image.shape:
        error = np.abs(after.astype(int) - image)
        assert error.mean() < 255 * 0.05
        assert (error.max() == 0) == (processing.kind == "none")


@pytest.mark.parametrize("name", [*GRID_NAMES, "jpeg1", "jpeg100", "crop1", "noise0.001", "blur0.1", "resize10"])
def test_names_survive_a_round_trip(name):
    processing = Processing.parse(name)
    assert str(processing) == name
    assert Processing.parse(str(processing)) == processing


@pytest.mark.parametrize(("name", "same"), [("resize.5", "resize0.5"), ("blur1.0", "blur1"), ("jpeg075", "jpeg75")])
def test_other_spellings_of_an_amount(name, same):
    assert Processing.parse(name) == Processing.parse(same)
    assert hash(Processing.parse(name)) == hash(Processing.parse(same))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "processing '': expected a kind and its amount"),
        ("jpeg", "processing 'jpeg': expected a kind and its amount"),
        ("none1", "processing 'none1': expected a kind and its amount"),
        ("blur-1", "processing 'blur-1': expected a kind and its amount"),
        ("blur1.2.3", "processing 'blur1.2.3': expected a kind"),
        ("blur1\n", "expected a kind and its amount"),
        ("jpg75", "processing 'jpg': expected one of none, jpeg, webp"),
        ("jpegnan", "processing 'jpegnan': expected one of none, jpeg"),
        ("jpeg0", r"jpeg 0\.0: expected 1 to 100 \(quality, a whole number\)"),
        ("jpeg75.5", r"jpeg 75\.5: expected 1 to 100 \(quality, a whole number\)"),
        ("webp101", r"webp 101\.0: expected 1 to 100"),
        ("resize0", r"resize 0\.0: expected 0\.1 to 10 \(factor"),
        ("crop1.1", r"crop 1\.1: expected 0\.1 to 1 \(share"),
        ("blur101", r"blur 101\.0: expected 0\.1 to 100 \(σ in pixels\)"),
        ("noise2", r"noise 2\.0: expected 0\.001 to 1 \(σ as a share"),
    ],
)
def test_what_is_refused_is_named_with_what_is_allowed(name, message):
    with pytest.raises(ValueError, match=message):
        Processing.parse(name)


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("kind", ["none", "jpeg", "webp", "resize", "crop", "blur", "noise"])
def test_amounts_that_are_no_amounts(kind, amount):
    with pytest.raises(ValueError, match=f"^{kind} {amount}: expected"):
        Processing(kind, amount)


@pytest.mark.parametrize("processing", GRID, ids=GRID_NAMES)
def test_seed_matters_for_noise_and_crop_only(processing, image):
    results = [processing.apply(image, seed=seed) for seed in range(3)]
    random = any((result != results[0]).any() for result in results)
    assert random == (processing.kind in ("noise", "crop"))


def test_jpeg_is_pillows_with_halved_colour(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    np.testing.assert_array_equal(apply("jpeg75", image), np.asarray(Image.open(file)))


@pytest.mark.parametrize("better", [("jpeg95", "jpeg70"), ("webp90", "webp50"), ("blur0.5", "blur2")])
def test_amounts_have_the_right_direction(better, image):
    little, much = (np.square(apply(name, image).astype(float) - image).mean() for name in better)
    assert 0 < little < much


@pytest.mark.parametrize("amount", [0.01, 0.05])
def test_noise_has_the_spread_it_says(amount):
    grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
    noisy = Processing("noise", amount).apply(grey).astype(float)
    assert abs(noisy.mean() - 128) < 0.1
    assert noisy.std() == pytest.approx(255 * amount, rel=0.02)
    assert len(np.unique(noisy - noisy.mean(axis=-1, keepdims=True))) > 3  # the channels differ


def test_noise_is_clipped_not_wrapped():
    black, white = np.zeros((SIDE, SIDE, 3), np.uint8), np.full((SIDE, SIDE, 3), 255, np.uint8)
    assert apply("noise0.05", black).max() < 128 < apply("noise0.05", white).min()


def test_blur_of_a_point_has_its_sigma():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20, 1] = 255
    blurred = Processing("blur", 1.0).apply(image).astype(float)
    assert blurred[..., [0, 2]].max() == 0  # colours are not mixed
    assert blurred[20, 20, 1] == round(255 / (2 * np.pi))
    assert blurred[20, 21, 1] == round(255 / (2 * np.pi) * np.exp(-0.5))


def test_crop_keeps_pixels_from_near_the_middle(image):
    after = apply("crop0.8", image, seed=5)
    top, left = place_of_crop(5)
    np.testing.assert_array_equal(after, image[top : top + 102, left : left + 102])


def test_crop_has_every_phase_of_the_grid():
    places = np.array([place_of_crop(seed) for seed in range(200)])
    assert np.abs(places - 13).max() <= 4  # 13 is the middle: (128 - 102) / 2
    for axis in range(2):
        assert set(places[:, axis] % 8) == set(range(8))
    assert len({tuple(place) for place in places % 8}) > 50  # both directions on their own


def test_crop_of_little_stays_inside():
    places = {place_of_crop(seed, share=0.98) for seed in range(100)}
    assert places == {(top, left) for top in range(4) for left in range(4)}  # 128 - 125 = 3 pixels to spare
    assert place_of_crop(1, share=1.0) == (0, 0)


def test_oblong_and_tiny_images():
    oblong = np.zeros((64, 100, 3), np.uint8)
    assert apply("resize0.75", oblong).shape == (48, 75, 3)
    assert apply("crop0.8", oblong).shape == (51, 80, 3)
    tiny = np.zeros((1, 2, 3), np.uint8)
    for processing in GRID:
        assert min(processing.apply(tiny).shape) >= 1
