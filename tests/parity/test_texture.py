"""Co-occurrence counts, homogeneity and losses against scikit-image."""

import jax.numpy as jnp
import numpy as np
import pytest
import skimage.feature
import skimage.metrics

import aedr_jax

# scikit-image's angles turn from the columns to the rows; distances 1 to 3 give these (rows, columns).
OFFSETS = {
    (0, 1): (1, 0.0),
    (0, 3): (3, 0.0),
    (1, 1): (1, np.pi / 4),
    (2, 0): (2, np.pi / 2),
    (1, -1): (1, 3 * np.pi / 4),
    (0, -1): (1, np.pi),
    (-1, 0): (1, 3 * np.pi / 2),
    (-1, 1): (1, -np.pi / 4),
    (-1, -1): (1, 5 * np.pi / 4),
}


@pytest.fixture(scope="module")
def gray():
    """Two grey images, uint8 [2,40,33], whose neighbours are alike, as in a photograph."""
    random = np.random.default_rng(11)
    walk = np.cumsum(random.integers(-15, 16, (2, 40, 33)), axis=2) + random.integers(0, 256, (2, 40, 1))
    return walk.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("levels", [8, 32, 256])
@pytest.mark.parametrize("offset", OFFSETS)
def test_counts(gray, offset, levels):
    """Reference: `graycomatrix`, symmetric or not. Exact: both count."""
    distance, angle = OFFSETS[offset]
    scaled = gray // (256 // levels)
    for symmetric in (False, True):
        counts = aedr_jax.cooccurrence_matrix(
            jnp.asarray(scaled, jnp.int32), num_levels=levels, offset=offset, symmetric=symmetric, normed=False
        )
        for image, actual in zip(scaled, counts, strict=True):
            expected = skimage.feature.graycomatrix(image, [distance], [angle], levels=levels, symmetric=symmetric)
            np.testing.assert_array_equal(actual, expected[:, :, 0, 0])


@pytest.mark.parametrize("size", [(1, 200), (150, 151)])
def test_counts_of_other_sizes(size):
    """Reference: `graycomatrix`, exact; one row only, and more pairs than are counted at once."""
    levels = np.random.default_rng(12).integers(0, 32, size, dtype=np.uint8)
    counts = aedr_jax.cooccurrence_matrix(jnp.asarray(levels, jnp.int32)[None], normed=False)
    expected = skimage.feature.graycomatrix(levels, [1], [0.0], levels=32, symmetric=True)
    np.testing.assert_array_equal(counts[0], expected[:, :, 0, 0])


@pytest.mark.parametrize("levels", [8, 32, 256])
@pytest.mark.parametrize("offset", [(0, 1), (1, -1)])
def test_homogeneity(gray, offset, levels):
    """Reference: `graycoprops(..., "homogeneity")`, float64; 1e-6: a float32 sum of at most 65,536 shares."""
    distance, angle = OFFSETS[offset]
    actual = aedr_jax.homogeneity(jnp.asarray(gray), kind="inverse_difference_moment", num_levels=levels, offset=offset)
    for image, value in zip(gray // (256 // levels), actual, strict=True):
        shares = skimage.feature.graycomatrix(image, [distance], [angle], levels=levels, symmetric=True, normed=True)
        expected = skimage.feature.graycoprops(shares, "homogeneity")[0, 0]
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_inverse_difference(gray):
    """Reference: Σ P / (1 + |i − j|) over scikit-image's P, as the paper's Eq. 4 has it; 1e-6 (see above)."""
    i, j = np.indices((32, 32))
    for image, value in zip(gray // 8, aedr_jax.homogeneity(jnp.asarray(gray)), strict=True):
        shares = skimage.feature.graycomatrix(image, [1], [0.0], levels=32, symmetric=True, normed=True)[:, :, 0, 0]
        np.testing.assert_allclose(value, (shares / (1 + np.abs(i - j))).sum(), rtol=1e-6)


LOSSES = {
    "mse": skimage.metrics.mean_squared_error,
    "mae": lambda a, b: np.abs(a - b).mean(),
    "psnr": lambda a, b: skimage.metrics.peak_signal_noise_ratio(a, b, data_range=2.0),
    "ssim": lambda a, b: skimage.metrics.structural_similarity(
        a, b, data_range=2.0, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    ),
}
TOLERANCES = {"mse": 1e-6, "mae": 1e-6, "psnr": 1e-6, "ssim": 1e-5}


@pytest.mark.parametrize("noise", [0.004, 0.1, 0.7])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, noise):
    """Reference: scikit-image in float64, relative. 1e-6 for float32 means of 5,280 squares; 1e-5 for SSIM, whose
    variances are differences of means of squares and lose digits."""
    random = np.random.default_rng(13)
    a = random.uniform(-1, 1, (2, 44, 40, 3))
    b = np.clip(a + noise * random.standard_normal(a.shape), -1, 1)
    a32, b32 = a.astype(np.float32), b.astype(np.float32)
    actual = np.asarray(getattr(aedr_jax, name)(jnp.asarray(a32), jnp.asarray(b32)))
    expected = [LOSSES[name](x.astype(np.float64), y.astype(np.float64)) for x, y in zip(a32, b32, strict=True)]
    print(f"error {np.abs(actual / expected - 1).max():.1e}")
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCES[name])
