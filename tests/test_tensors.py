"""Files of weights: variants, shards, pointers and dtypes; each either loads as diffusers loads it, or is refused by
name with what to do."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from make_tiny import KL, WEIGHTS, make_tensors, write_folder
from safetensors.numpy import save_file

from aedr_jax.autoencoders import loading, tensors
from aedr_jax.autoencoders.checkpoints import from_state_dict, weights_hash
from aedr_jax.autoencoders.config import parse_config
from aedr_jax.autoencoders.loading import convert, load_autoencoder
from aedr_jax.cli.main import main
from aedr_jax.errors import AutoencoderError, BaselineError
from aedr_jax.signal.perceptual import load_lpips

INDEX = f"{WEIGHTS}.index.json"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 334643276\n"


def family(values):
    return weights_hash(from_state_dict(values, parse_config(KL)))


def of_variant(variant, name=WEIGHTS):
    return name.replace(".safetensors", f".{variant}.safetensors")


def shard(folder, values, *, index=INDEX, shards=3):
    """What diffusers' `save_pretrained(max_shard_size=...)` writes."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(KL))
    keys, mapping = sorted(values), {}
    for i in range(shards):
        name = f"diffusion_pytorch_model-{i + 1:05}-of-{shards:05}.safetensors"
        mapping |= dict.fromkeys(keys[i::shards], name)
        save_file({key: values[key] for key in keys[i::shards]}, folder / name)
    write_index(folder / index, mapping)
    return folder


def write_index(path, mapping):
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": mapping}))


@pytest.fixture(scope="module")
def values():
    return make_tensors(KL)


@pytest.mark.parametrize("variant", ["ema", "non_ema", "fp16", "bf16"])
def test_a_variant_alone_is_loaded(tmp_path, values, variant):
    folder = write_folder(tmp_path / "vae", KL, values, file=of_variant(variant))
    assert weights_hash(load_autoencoder(folder)) == family(values)


def test_variants_are_preferred_in_the_order_that_is_stated(tmp_path, capsys):
    order = [WEIGHTS, INDEX, *(of_variant(variant) for variant in ("ema", "non_ema", "fp16", "bf16"))]
    families = []
    for seed, name in reversed(list(enumerate(order))):  # from the last: each new one is preferred to all before
        values = make_tensors(KL, seed=seed)
        shard(tmp_path, values) if name == INDEX else write_folder(tmp_path, KL, values, file=name)
        families.append(family(values))
        assert tensors.weights_file(tmp_path).name == name
        assert weights_hash(load_autoencoder(tmp_path)) == families[-1]
    assert len(set(families)) == len(order)
    manifest = convert(tmp_path, tmp_path / "out")
    assert (manifest["source_file"], manifest["source_shards"]) == (WEIGHTS, None)
    assert main(["convert", str(tmp_path / of_variant("fp16")), str(tmp_path / "half")]) == 0
    assert of_variant("fp16") in capsys.readouterr().out  # which file it was


def test_a_file_or_index_by_its_own_path(tmp_path):
    whole, half, shards = (make_tensors(KL, seed=seed) for seed in range(3))
    write_folder(tmp_path, KL, whole)
    write_folder(tmp_path, KL, half, file=of_variant("fp16"))
    shard(tmp_path, shards)
    write_folder(tmp_path, KL, half, file="any_name.safetensors")
    for name, expected in (
        (WEIGHTS, whole),
        (of_variant("fp16"), half),
        (INDEX, shards),
        ("any_name.safetensors", half),
    ):
        assert weights_hash(load_autoencoder(str(tmp_path / name))) == family(expected)
    manifest = convert(tmp_path / of_variant("fp16"), tmp_path / "out")
    assert manifest["source_file"] == of_variant("fp16")
    assert manifest["source"] == str(tmp_path / of_variant("fp16"))


@pytest.mark.parametrize(
    "index", [INDEX, f"{WEIGHTS}.index.fp16.json", f"{WEIGHTS}.bf16.index.json"], ids=["plain", "fp16", "old bf16"]
)
def test_shards_are_one_checkpoint(tmp_path, values, index):
    folder = shard(tmp_path / "vae", values, index=index)
    assert weights_hash(load_autoencoder(folder)) == family(values)
    manifest = convert(folder, tmp_path / "out")
    assert manifest["source_file"] == index
    assert sorted(manifest["source_shards"]) == sorted(path.name for path in folder.glob("*-of-*.safetensors"))
    assert weights_hash(load_autoencoder(tmp_path / "out")) == manifest["weights_hash"] == family(values)


def test_shards_that_do_not_fit_their_index(tmp_path, values):
    folder = shard(tmp_path / "vae", values)
    mapping = json.loads((folder / INDEX).read_text())["weight_map"]
    first, second, _ = sorted(set(mapping.values()))
    key = next(key for key, name in mapping.items() if name == first)
    cases = {
        "which is no safetensors file beside the index": [
            {**mapping, key: name}
            for name in (
                f"../{first}",
                f"/etc/{first}",
                f"sub/{first}",
                f"..\\{first}",
                ".x.safetensors",
                "a.bin",
                3,
                "",
            )
        ],
        "not the tensors that .* says": [{**mapping, key: second}, {**mapping, "more": first}],
        "1 of 4 shards are not beside it: absent.safetensors": [{**mapping, key: "absent.safetensors"}],
        "no weight_map": [{}, [], None, "x"],
    }
    (tmp_path / first).write_bytes((folder / first).read_bytes())  # where "../" would find it
    for expected, mappings in cases.items():
        for wrong in mappings:
            write_index(folder / INDEX, wrong)
            with pytest.raises(AutoencoderError, match=expected) as caught:
                load_autoencoder(folder)
            assert str(caught.value).startswith(str(folder))


def test_shards_together_are_no_larger_than_a_file_may_be(tmp_path, values, monkeypatch):
    folder = shard(tmp_path / "vae", values)
    largest = max(path.stat().st_size for path in folder.glob("*-of-*"))
    monkeypatch.setattr(tensors, "MAX_WEIGHT_BYTES", largest)
    with pytest.raises(AutoencoderError, match="more than any autoencoder"):
        load_autoencoder(folder)


@pytest.mark.parametrize(
    ("pointer", "remedy"), [(POINTER, "git lfs pull"), ("/annex/objects/SHA256E-s1--0.safetensors\n", "git annex get")]
)
def test_pointers_in_place_of_files(tmp_path, values, pointer, remedy):
    whole, shards = write_folder(tmp_path / "whole", KL, values), shard(tmp_path / "shards", values)
    for file in (whole / WEIGHTS, whole / "config.json", shards / INDEX, next(shards.glob("*-of-*"))):
        before = file.read_bytes()
        file.write_text(pointer)
        with pytest.raises(AutoencoderError, match=remedy) as caught:
            load_autoencoder(file.parent)
        assert str(caught.value).startswith(f"{file}: a pointer to the file")
        file.write_bytes(before)


def test_links_to_nothing_and_unknown_names_say_what_is_there(tmp_path, values):
    folder = write_folder(tmp_path / "vae", KL, values)
    (folder / WEIGHTS).rename(folder / "vae-ft-mse.safetensors")
    with pytest.raises(AutoencoderError, match=r"pass that file's path, such as .*vae-ft-mse\.safetensors"):
        load_autoencoder(folder)
    (folder / WEIGHTS).symlink_to(tmp_path / "blobs" / "gone")
    with pytest.raises(AutoencoderError, match="a link to nothing"):
        load_autoencoder(folder)
    shutil.rmtree(folder)
    write_folder(folder, KL, {}, file=WEIGHTS)
    (folder / WEIGHTS).unlink()
    with pytest.raises(AutoencoderError, match="download the weights too"):
        load_autoencoder(folder)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16], ids=str)
def test_float_dtypes_are_read_as_float32_values(tmp_path, dtype):
    written = {"a": np.array([[1 / 3, -2e-5, 6e4]], np.float64).astype(dtype), "empty": np.zeros((0, 2), dtype)}
    save_file(written, tmp_path / "x.safetensors")
    found = tensors.read_tensors(tmp_path / "x.safetensors")
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found["a"], written["a"].astype(np.float32))
    assert found["empty"].shape == (0, 2)


def test_ignored_tensors_may_hold_anything(tmp_path, values):
    extra = {
        "loss.discriminator.main.3.num_batches_tracked": np.array(5),
        "loss.lpips.scale": np.array([np.nan]),
        "model_ema.num_updates": np.array(3, np.int32),
        "encoder.bn.num_batches_tracked": np.array(7),
    }
    folder = write_folder(tmp_path / "vae", KL, {**values, **extra})
    assert weights_hash(load_autoencoder(folder)) == family(values)


@pytest.mark.parametrize(
    "dtype", [np.int8, np.int64, np.bool_, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2], ids=str
)
def test_quantized_weights_are_refused_with_what_to_take(tmp_path, values, dtype):
    key = "encoder.conv_in.bias"
    folder = write_folder(tmp_path / "vae", KL, {**values, key: values[key].astype(dtype)})
    with pytest.raises(AutoencoderError, match=r"encoder\.conv_in\.bias \(.*take its float32") as caught:
        load_autoencoder(folder)
    assert str(caught.value).startswith(f"{folder / WEIGHTS}: ")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_weights_that_are_not_finite_are_neither_loaded_nor_converted(tmp_path, values, bad, capsys):
    key = "decoder.conv_in.weight"
    broken = values[key].astype(np.float64)
    broken.flat[3] = bad
    folder = write_folder(tmp_path / "vae", KL, {**values, key: broken})
    with pytest.raises(AutoencoderError, match=rf"not finite in float32: {key} \(1 of {broken.size}\)"):
        load_autoencoder(folder)
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 2
    assert "download it again" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_network_of_lpips_that_is_not_finite_is_refused(tmp_path):
    save_file({"features.0.weight": np.full((64, 3, 3, 3), np.nan, np.float32)}, tmp_path / "vgg.safetensors")
    with pytest.raises(BaselineError, match="not finite"):
        load_lpips("vgg", backbone=tmp_path / "vgg.safetensors", linear=tmp_path / "vgg.safetensors")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"in_channels": 1, "out_channels": 1}, "in_channels = 1; images have 3 channels here"),
        ({"in_channels": 4, "out_channels": 4}, "out_channels = 4; images have 3 channels here"),
        ({"scaling_factor": float("nan")}, "scaling_factor = nan"),
    ],
)
def test_networks_of_other_channels_are_refused_by_name(tmp_path, values, change, expected):
    folder = write_folder(tmp_path / "vae", {**KL, **change}, values)
    with pytest.raises(AutoencoderError, match=expected):
        load_autoencoder(folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.safetensors", "not a readable safetensors file"),
        ("model.safetensors.index.json", "no config.json beside it; pass the autoencoder's whole folder"),
        ("model.ckpt", "never loaded here"),
        ("diffusion_pytorch_model.bin", "aedr convert --pickle FOLDER FOLDER"),
        ("config.json", "pass the folder"),
        ("model.txt", "pass the folder"),
    ],
)
def test_single_files_that_cannot_be_loaded(tmp_path, name, expected, monkeypatch):
    monkeypatch.setattr(loading, "download", lambda *_: pytest.fail("asked the hub"))
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(AutoencoderError, match=expected):
        load_autoencoder(str(tmp_path / name))


def test_keys_of_the_original_code_are_recognised(tmp_path):
    original = {"encoder.down.0.block.0.conv1.weight": np.zeros((8, 8, 3, 3), np.float32)}
    folder = write_folder(tmp_path / "vae", KL, original)
    with pytest.raises(AutoencoderError, match="convert the file to diffusers' layout first"):
        load_autoencoder(folder)
