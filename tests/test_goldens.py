"""The networks and measures against fixtures that the reference libraries computed (`goldens/make.py`)."""

import json
import runpy
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import aedr_jax

GOLDENS = Path(__file__).parent / "goldens"
NETWORKS = ("kl", "kl16", "kl-attention", "vq", "movq")
# Measured: 2e-6 at most, sums of float32 in another order. Small enough to see a group norm's epsilon: 1e-5 in place of
# 1e-6 moves an image by 1.4e-5 and more.
NETWORK_TOLERANCE = 1e-5
SIZES = ("even", "odd")
UNOPTIMIZED = {"xla_backend_optimization_level": 0}  # nearly all the time goes into compiling


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    """One tiny autoencoder, loaded from its folder, and what diffusers computed with it."""
    folder = GOLDENS / request.param
    if (folder / "shapes.json").is_file():
        folder = tmp_path_factory.mktemp(request.param)
        shutil.copy(GOLDENS / request.param / "config.json", folder)
        drawn = json.loads((GOLDENS / request.param / "shapes.json").read_text())
        draw = runpy.run_path(str(GOLDENS / "drawn.py"))["draw"]
        save_file(draw(drawn["shapes"], drawn["seed"]), folder / "diffusion_pytorch_model.safetensors")
    with np.load(GOLDENS / request.param / "expected.npz") as expected:
        return aedr_jax.load_autoencoder(folder), dict(expected)


def images_of(pixels: np.ndarray) -> jax.Array:
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1.0


def assert_close(actual: jax.Array, expected: np.ndarray, tolerance: float = NETWORK_TOLERANCE) -> None:
    """Within `tolerance` of the largest expected value."""
    assert actual.shape == expected.shape
    error = np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()
    assert error < tolerance, f"relative error {error:.1e}"


@pytest.mark.parametrize("size", SIZES)
def test_encode(network, size):
    """Reference: diffusers 0.39.0, posterior mode or unquantized latents; 1e-5 of the largest (see above)."""
    autoencoder, expected = network
    latents = jax.jit(lambda model, x: model.encode(x), compiler_options=UNOPTIMIZED)(
        autoencoder, images_of(expected[f"{size}_pixels"])
    )
    assert_close(latents, expected[f"{size}_latents"])


@pytest.mark.parametrize("size", SIZES)
def test_decode(network, size):
    """Reference: diffusers 0.39.0 `decode`, which quantizes where there is a codebook; 1e-5 of the largest."""
    autoencoder, expected = network
    images = jax.jit(lambda model, z: model.decode(z), compiler_options=UNOPTIMIZED)(
        autoencoder, expected[f"{size}_latents"]
    )
    assert_close(images, expected[f"{size}_decoded"])


@pytest.mark.parametrize("size", SIZES)
def test_codebook(network, size):
    """Reference: diffusers 0.39.0 indices, exact (no near-tie in the fixtures), and `force_not_quantize=True`."""
    autoencoder, expected = network
    if f"{size}_indices" not in expected:
        assert not hasattr(autoencoder, "quantize")
        return
    latents = jnp.asarray(expected[f"{size}_latents"])
    indices = jax.jit(lambda model, z: model.quantizer.indices(z))(autoencoder, latents)
    np.testing.assert_array_equal(indices, expected[f"{size}_indices"])
    images = jax.jit(lambda model, z: model.decode(z, quantize=False), compiler_options=UNOPTIMIZED)(
        autoencoder, latents
    )
    assert_close(images, expected[f"{size}_decoded_unquantized"])


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def test_old_attention_names(tmp_path):
    """Files from before diffusers 0.18, with linear layers or 1×1 convolutions, hold the same weights."""
    shutil.copy(GOLDENS / "kl" / "config.json", tmp_path)
    tensors = load_file(GOLDENS / "kl" / "diffusion_pytorch_model.safetensors")
    expected = aedr_jax.weights_hash(aedr_jax.load_autoencoder(GOLDENS / "kl"))
    for convolutions in (False, True):
        renamed = {}
        for key, value in tensors.items():
            for new, old in OLD_NAMES.items():
                if f".{new}." in key:
                    key = key.replace(f".{new}.", f".{old}.")
                    value = value[:, :, None, None] if convolutions and value.ndim == 2 else value
            renamed[key] = value
        assert len(renamed.keys() - tensors.keys()) == 16
        save_file(renamed, tmp_path / "diffusion_pytorch_model.safetensors")
        assert aedr_jax.weights_hash(aedr_jax.load_autoencoder(tmp_path)) == expected


def test_texture():
    """Reference: scikit-image 0.26.0; counts exact, homogeneity to float32's rounding, 1e-6."""
    with np.load(GOLDENS / "texture.npz") as golden:
        names = [name for name in golden.files if name.startswith("counts")]

        @jax.jit
        def of_all(gray):
            found = {}
            for name in names:
                rows, columns, levels, symmetric = map(int, name.split(",")[1:])
                counts = aedr_jax.cooccurrence_matrix(
                    gray.astype(jnp.int32) // (256 // levels),
                    num_levels=levels,
                    offset=(rows, columns),
                    symmetric=bool(symmetric),
                    normed=False,
                )
                homogeneity = aedr_jax.homogeneity(
                    gray, kind="inverse_difference_moment", num_levels=levels, offset=(rows, columns)
                )
                found[name] = counts[0], homogeneity[0]
            return found

        for name, (counts, homogeneity) in of_all(jnp.asarray(golden["gray"][None])).items():
            np.testing.assert_array_equal(counts, golden[name], err_msg=name)
            np.testing.assert_allclose(homogeneity, golden[name.replace("counts", "homogeneity")], rtol=1e-6)


@pytest.mark.parametrize("name", ["mse", "mae", "psnr", "ssim"])
def test_losses(name):
    """Reference: scikit-image 0.26.0 in float64; 1e-4, what dm-pix's float32 convolutions leave."""
    with np.load(GOLDENS / "losses.npz") as golden:
        a, b = images_of(golden["a"]), images_of(golden["b"])
        np.testing.assert_allclose(jax.jit(getattr(aedr_jax, name))(a, b), golden[name], rtol=1e-4)


def test_threshold():
    """Reference: `scipy.stats.gaussian_kde` 1.17.1 `integrate_box_1d`, in float64: 1e-12."""
    with np.load(GOLDENS / "threshold.npz") as golden, jax.enable_x64(True):
        samples, x = jnp.asarray(golden["samples"]), jnp.asarray(golden["x"])
        np.testing.assert_allclose(jax.jit(aedr_jax.kde_cdf)(x, samples), golden["cdf"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(aedr_jax.decision.threshold.kde_bandwidth(samples), golden["bandwidth"], rtol=1e-12)
