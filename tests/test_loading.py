"""`load_autoencoder` and `aedr convert`: folders, names, and what a conversion keeps. Downloads: `test_hub.py`."""

import hashlib
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from make_tiny import KL, MOVQ, WEIGHTS, make_tensors, with_old_attention, write_folder
from safetensors.numpy import load_file, save_file

from aedr_jax import __version__
from aedr_jax.autoencoders import loading
from aedr_jax.autoencoders.checkpoints import weights_hash
from aedr_jax.autoencoders.loading import convert, load_autoencoder
from aedr_jax.autoencoders.tensors import weights_file
from aedr_jax.cli.main import main
from aedr_jax.errors import AutoencoderError


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may download; what is tried is in the list."""
    tried = []

    def download(*arguments):
        tried.append(arguments)
        raise AutoencoderError("no network in this test")

    monkeypatch.setattr(loading, "download", download)
    return tried


@pytest.fixture(scope="module")
def kl_folder(tmp_path_factory):
    config = {**KL, "scaling_factor": 0.3}
    return write_folder(tmp_path_factory.mktemp("kl") / "vae", config, with_old_attention(make_tensors(KL)))


@pytest.fixture(scope="module")
def movq_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("movq") / "movq", MOVQ, make_tensors(MOVQ))


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(0), (1, 8, 8, 3), minval=-1.0, maxval=1.0)


@jax.jit
def reconstruct(autoencoder, x):
    return autoencoder.decode(autoencoder.encode(x))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_convert_round_trip(kl_folder, tmp_path, capsys, x):
    out = tmp_path / "weights" / "mine"
    assert main(["convert", str(kl_folder), str(out), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest == json.loads((out / "manifest.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "flax_model.safetensors", "manifest.json"]

    original, converted = load_autoencoder(kl_folder), load_autoencoder(out)
    np.testing.assert_array_equal(reconstruct(converted, x), reconstruct(original, x))
    assert float(converted.scaling_factor[...]) == np.float32(0.3)
    assert manifest == {
        "format": "aedr_jax autoencoder 1",
        "source": str(kl_folder),
        "source_file": WEIGHTS,
        "source_sha256": sha256(kl_folder / WEIGHTS),
        "source_shards": None,
        "source_commit": None,
        "quantize": None,
        "image_range": None,
        "weights_hash": weights_hash(original),
        "rounded_hash": weights_hash(original, rounded=True),
        "aedr_jax": __version__,
        "sha256": sha256(out / "flax_model.safetensors"),
    }
    assert weights_hash(converted) == manifest["weights_hash"]


def test_converting_again_changes_nothing_and_says_so(kl_folder, tmp_path, capsys):
    first = convert(kl_folder, tmp_path / "first")
    assert main(["convert", str(tmp_path / "first"), str(tmp_path / "second")]) == 0
    assert f"family {first['weights_hash'][:12]}" in capsys.readouterr().out
    assert sha256(tmp_path / "first" / "flax_model.safetensors") == sha256(tmp_path / "second/flax_model.safetensors")


def test_range_of_images_is_given_recorded_and_part_of_the_hash(kl_folder, tmp_path, x):
    """No config says that aMUSEd's images are in [0, 1]."""
    plain, unit = load_autoencoder(kl_folder), load_autoencoder(kl_folder, image_range=(0, 1))
    np.testing.assert_array_equal(unit.encode(x), plain.encode((x + 1) / 2))
    assert weights_hash(unit) != weights_hash(plain)
    assert weights_hash(unit, rounded=True) != weights_hash(plain, rounded=True)
    convert(kl_folder, tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "image_range": [0.0, 1.0]}))
    again = convert(tmp_path / "out", tmp_path / "again")
    assert tuple(again["image_range"]) == (0.0, 1.0)
    assert weights_hash(load_autoencoder(tmp_path / "again")) == weights_hash(unit) == again["weights_hash"]
    for wrong in ((1, 0), (0,), (0, float("nan")), (True, 2)):
        with pytest.raises(AutoencoderError, match="image_range is "):
            load_autoencoder(kl_folder, image_range=wrong)
    manifest.write_text(json.dumps({"image_range": [1]}))
    with pytest.raises(AutoencoderError, match=r"manifest\.json: image_range is \[1\]"):
        load_autoencoder(tmp_path / "out")


def test_how_a_model_generates_survives_conversion(movq_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AEDR_WEIGHTS", str(tmp_path))
    (tmp_path / "kandinsky2.1").symlink_to(movq_folder)
    assert convert("kandinsky2.1", tmp_path / "by-name")["quantize"] is False
    assert convert(tmp_path / "by-name", tmp_path / "again")["quantize"] is False
    assert load_autoencoder(tmp_path / "again").quantize_on_decode is False
    assert convert(movq_folder, tmp_path / "bare")["quantize"] is None
    assert load_autoencoder(tmp_path / "bare").quantize_on_decode is True


def test_quantize_is_the_models_own_unless_said(movq_folder, tmp_path, monkeypatch, x):
    monkeypatch.setenv("AEDR_WEIGHTS", str(tmp_path))
    for name in ("kandinsky2.1", "vqdm"):
        (tmp_path / name).symlink_to(movq_folder)
    assert load_autoencoder("vqdm").quantize_on_decode is True
    kandinsky, official = load_autoencoder("kandinsky2.1"), load_autoencoder("kandinsky2.1", quantize=True)
    assert (kandinsky.quantize_on_decode, official.quantize_on_decode) == (False, True)
    decode = jax.jit(lambda ae, z, quantize=None: ae.decode(z, quantize=quantize), static_argnames="quantize")
    latents = jax.jit(lambda ae, x: ae.encode(x))(kandinsky, x)
    quantized = decode(official, latents)
    assert not np.allclose(decode(kandinsky, latents), quantized)
    np.testing.assert_array_equal(decode(kandinsky, latents, quantize=True), quantized)


def test_codebook_where_there_is_none_is_an_error(kl_folder):
    with pytest.raises(AutoencoderError, match="an AutoencoderKL has no codebook"):
        load_autoencoder(kl_folder, quantize=True)


def test_what_is_saved_apart_is_not_asked_for(no_network):
    with pytest.raises(AutoencoderError, match="janus: deepseek-community/Janus-Pro-1B is a model of transformers, of"):
        load_autoencoder("janus")
    assert no_network == []


def test_registry_name_is_looked_up_here_first(kl_folder, tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("AEDR_WEIGHTS", str(tmp_path))
    with pytest.raises(AutoencoderError, match="no network in this test"):
        load_autoencoder("sd1.5")
    assert no_network == [("stable-diffusion-v1-5/stable-diffusion-v1-5", "vae", None)]
    expected = convert(kl_folder, tmp_path / "sd1.5")["weights_hash"]
    assert weights_hash(load_autoencoder("sd1.5")) == expected
    assert len(no_network) == 1
    with pytest.raises(AutoencoderError, match="no network in this test"):
        load_autoencoder("sd1.5", revision="v2")  # a named revision is not what lies here
    assert no_network[1:] == [("stable-diffusion-v1-5/stable-diffusion-v1-5", "vae", "v2")]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("org/name", ("org/name", "", None)),
        ("org/name/vae", ("org/name", "vae", None)),
        ("org/name/a/b", ("org/name", "a/b", None)),
    ],
)
def test_hub_path_is_repository_and_subfolder(name, asked, no_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AutoencoderError, match="no network"):
        load_autoencoder(name)
    assert no_network == [asked]


@pytest.mark.parametrize(
    ("name", "path", "as_by_name"),
    [
        ("amused-512", "amused/amused-512/vqvae", ((0.0, 1.0), True)),
        ("kandinsky2.1", "kandinsky-community/kandinsky-2-1/movq", ((-1.0, 1.0), False)),
        (None, "amused/amused-512/other", ((-1.0, 1.0), True)),
    ],
)
def test_a_hub_path_of_the_registry_is_the_model_of_that_name(name, path, as_by_name, movq_folder, monkeypatch):
    monkeypatch.setattr(loading, "download", lambda *asked: weights_file(movq_folder))
    for model in (name, path) if name else (path,):
        loaded = load_autoencoder(model)
        assert (loaded.image_range, loaded.quantize_on_decode) == as_by_name
    assert load_autoencoder(path, image_range=(0, 2)).image_range == (0.0, 2.0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, "bfloat16", np.dtype("float16")])
def test_dtype_is_what_is_computed_in(kl_folder, dtype, x):
    autoencoder = load_autoencoder(kl_folder, dtype=dtype, precision="default")
    assert autoencoder.numerics.dtype == jnp.dtype(dtype)
    assert autoencoder.numerics.precision == "default"
    with jax.numpy_dtype_promotion("standard"):  # flax mixes its float32 statistics with the layers' dtype
        latents = jax.eval_shape(autoencoder.encode, x)
        assert latents.dtype == jnp.dtype(dtype)
        assert jax.eval_shape(autoencoder.decode, latents).dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["float64", "int8", "half-ish", jnp.int32, complex, 3])
def test_other_dtypes_are_refused(kl_folder, dtype):
    with pytest.raises(AutoencoderError, match="expected one of float32, bfloat16, float16"):
        load_autoencoder(kl_folder, dtype=dtype)


def test_other_precisions_are_refused(kl_folder):
    with pytest.raises(AutoencoderError, match="precision 'exact': expected one of highest, high, default"):
        load_autoencoder(kl_folder, precision="exact")


def test_failed_conversion_is_a_wrong_call_and_leaves_nothing(tmp_path, capsys):
    folder = write_folder(tmp_path / "vae", {**KL, "double_z": True}, make_tensors(KL))
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("aedr convert: ")
    assert "unknown field 'double_z'" in message
    assert not (tmp_path / "out").exists()


def test_damaged_manifest_is_named(kl_folder, tmp_path):
    convert(kl_folder, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text("{")
    with pytest.raises(AutoencoderError, match=r"manifest\.json: not readable as JSON"):
        load_autoencoder(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text('{"quantize": "no"}')
    with pytest.raises(AutoencoderError, match=r"manifest\.json: quantize is 'no'"):
        load_autoencoder(tmp_path / "out")


@pytest.mark.parametrize("renamed", [0, 1, 2])
@pytest.mark.parametrize("before", ["nothing", "another model"])
def test_what_an_interrupted_conversion_leaves_loads_as_no_mixture(before, renamed, movq_folder, tmp_path, monkeypatch):
    """Whichever of the three files have their names by then; the old model is quantized, the new one is not."""
    monkeypatch.setenv("AEDR_WEIGHTS", str(tmp_path))
    (tmp_path / "kandinsky2.1").symlink_to(movq_folder)
    out, old = tmp_path / "out", None
    if before == "another model":
        old = convert(write_folder(tmp_path / "old", MOVQ, make_tensors(MOVQ, seed=1)), out)["weights_hash"]
    replace, done = os.replace, []

    def interrupted(*names):
        if len(done) == renamed:
            raise KeyboardInterrupt
        done.append(names)
        replace(*names)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert("kandinsky2.1", out)
    monkeypatch.setattr(os, "replace", replace)
    if old and not renamed:
        left = load_autoencoder(out)
        assert (weights_hash(left), left.quantize_on_decode) == (old, True)
    else:
        with pytest.raises(AutoencoderError, match="convert it again" if old else r"no config\.json|no .*safetensors"):
            load_autoencoder(out)
    assert not list(out.glob(".*"))  # nothing half written
    manifest = convert("kandinsky2.1", out)
    left = load_autoencoder(out)
    assert (weights_hash(left), left.quantize_on_decode) == (manifest["weights_hash"], False)


def test_weights_that_were_changed_after_a_conversion_are_refused(kl_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AEDR_WEIGHTS", str(tmp_path))
    convert(kl_folder, tmp_path / "sd1.5")
    file = tmp_path / "sd1.5" / "flax_model.safetensors"
    save_file({key: value + 1 for key, value in load_file(file).items()}, file)
    for model in ("sd1.5", tmp_path / "sd1.5", file):
        with pytest.raises(AutoencoderError, match=r"flax_model\.safetensors: not the file that manifest\.json"):
            load_autoencoder(model)
    (tmp_path / "sd1.5" / "manifest.json").unlink()
    load_autoencoder("sd1.5")  # nothing says what it was


def test_a_revision_is_of_a_download(kl_folder, no_network):
    with pytest.raises(AutoencoderError, match="revision 'v2' is of a download"):
        load_autoencoder(kl_folder, revision="v2")
    assert no_network == []
