"""Checkpoints of every age to one autoencoder, its hash, and what is said of files that do not fit."""

import json
import os
import struct

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from conftest import random_autoencoder, tiny_architecture
from flax import nnx
from make_tiny import KL, MOVQ, WEIGHTS, make_tensors, with_old_attention, write_folder
from safetensors.numpy import save_file

from aedr_jax.autoencoders.adapters import from_functions
from aedr_jax.autoencoders.blocks import Numerics
from aedr_jax.autoencoders.checkpoints import encoder_key, from_state_dict, to_flat_dict, weights_hash
from aedr_jax.autoencoders.config import parse_config
from aedr_jax.autoencoders.loading import load_autoencoder
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.autoencoders.tensors import read_tensors
from aedr_jax.errors import AutoencoderError


def load(tensors, config=KL, **options):
    return from_state_dict(tensors, parse_config(config), **options)


@pytest.fixture(scope="module")
def tensors():
    return make_tensors(KL)


@pytest.fixture(scope="module")
def family(tensors):
    return weights_hash(load(tensors))


@pytest.mark.parametrize("config", [KL, MOVQ], ids=["kl", "movq"])
def test_every_value_lands_in_its_place(config):
    tensors = make_tensors(config)
    flat = to_flat_dict(load(tensors, config))
    assert len(flat) == len(tensors)
    conv = flat["encoder.down_blocks.0.resnets.0.conv1.kernel"]
    np.testing.assert_array_equal(conv, tensors["encoder.down_blocks.0.resnets.0.conv1.weight"].transpose(2, 3, 1, 0))
    query = flat["decoder.mid_block.attentions.0.to_q.kernel"]
    np.testing.assert_array_equal(query, tensors["decoder.mid_block.attentions.0.to_q.weight"].T)
    out = flat["decoder.mid_block.attentions.0.to_out.bias"]
    np.testing.assert_array_equal(out, tensors["decoder.mid_block.attentions.0.to_out.0.bias"])
    np.testing.assert_array_equal(flat["encoder.conv_norm_out.scale"], tensors["encoder.conv_norm_out.weight"])
    if config is MOVQ:
        np.testing.assert_array_equal(flat["quantizer.embedding.embedding"], tensors["quantize.embedding.weight"])


@pytest.mark.parametrize(
    ("config", "convolutions"), [(KL, False), (KL, True), (MOVQ, True)], ids=["kl", "kl-1x1", "movq-1x1"]
)
def test_old_attention_is_the_same_autoencoder(config, convolutions):
    tensors = make_tensors(config)
    old = with_old_attention(tensors, convolutions=convolutions)
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in old
    assert not any("to_" in key for key in old)
    assert weights_hash(load(old, config)) == weights_hash(load(tensors, config))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_files_are_read_exactly(tmp_path, dtype):
    tensors = make_tensors(KL, dtype=dtype)
    half = write_folder(tmp_path / "half", KL, {key: value.astype(dtype) for key, value in tensors.items()})
    autoencoder = load_autoencoder(half)
    assert weights_hash(autoencoder) == weights_hash(load(tensors))
    assert {value.dtype for value in to_flat_dict(autoencoder).values()} == {np.dtype(np.float32)}


def test_hash_depends_on_the_weights_alone(tensors, family):
    shuffled = dict(sorted(tensors.items(), reverse=True))
    assert weights_hash(load(shuffled)) == family
    assert weights_hash(load(tensors, numerics=Numerics(jnp.dtype("bfloat16"), "default"))) == family
    assert weights_hash(load(tensors, {**KL, "scaling_factor": 0.5, "sample_size": 8})) == family
    assert weights_hash(load({**tensors, "loss.discriminator.main.0.weight": np.zeros((8, 3, 4, 4))})) == family


@pytest.mark.parametrize("key", ["decoder.conv_out.bias", "encoder.conv_in.weight", "quant_conv.weight"])
def test_hash_sees_one_changed_value(tensors, family, key):
    changed = tensors[key].copy()
    changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
    assert weights_hash(load({**tensors, key: changed})) != family


def test_a_bfloat16_copy_has_the_rounded_hash_of_its_original(tmp_path, tensors):
    """Rounding is to the nearest and to even. A float16 copy was rounded at other places."""
    copies = {dtype: {k: v.astype(dtype) for k, v in tensors.items()} for dtype in (ml_dtypes.bfloat16, np.float16)}
    bfloat16, float16 = (
        load_autoencoder(write_folder(tmp_path / str(i), KL, c)) for i, c in enumerate(copies.values())
    )
    whole = load(tensors)
    assert weights_hash(bfloat16) != weights_hash(whole)
    assert weights_hash(bfloat16, rounded=True) == weights_hash(whole, rounded=True) != weights_hash(whole)
    assert weights_hash(float16, rounded=True) != weights_hash(whole, rounded=True)
    # 1 + 2^-8 lies in the middle between 1 and 1 + 2^-7, 1 + 3·2^-8 between 1 + 2^-7 and 1 + 2^-6: even neighbours.
    ties, even = np.float32([1 + 2**-8, 1 + 3 * 2**-8]), np.float32([1, 1 + 2**-6])
    assert weights_hash({"a": ties}, rounded=True) == weights_hash({"a": even}, rounded=True)
    assert weights_hash({"a": np.nextafter(ties, 9)}, rounded=True) != weights_hash({"a": even}, rounded=True)


def test_hash_sees_which_parameter_a_value_is_in(tensors, family):
    norm, other = (f"encoder.mid_block.resnets.0.norm{i}.bias" for i in (1, 2))
    assert weights_hash(load({**tensors, norm: tensors[other], other: tensors[norm]})) != family


def test_nothing_to_hash_is_an_error():
    closed = from_functions(lambda params, x: x, lambda params, z: z)
    with pytest.raises(AutoencoderError, match="no parameters to hash"):
        weights_hash(closed)


@pytest.mark.parametrize("make", [jax.random.key, nnx.Rngs])
def test_random_keys_among_parameters_are_no_weights(make):
    """Such as a Flax module's dropout holds."""
    one, other = ({"weight": jnp.ones(3), "dropout": make(seed)} for seed in (0, 1))
    assert weights_hash(one) == weights_hash(other) != weights_hash({**one, "weight": jnp.zeros(3)})


def test_encoders_that_compute_the_same_are_one(tensors):
    """Whatever decodes. Weights are not all of an encoder: the groups of its norms leave no trace in them."""
    own = encoder_key(load(tensors))
    tuned = {key: value * np.float32(1.01) if key.startswith("decoder") else value for key, value in tensors.items()}
    assert encoder_key(load(tuned)) == own == encoder_key(load(tensors, {**KL, "scaling_factor": 0.5}))
    others = [
        load(tensors, numerics=Numerics(jnp.dtype("bfloat16"), "highest")),
        load(tensors, numerics=Numerics(jnp.float32, "default")),
        load(tensors, {**KL, "norm_num_groups": KL["norm_num_groups"] // 2}),
        load({**tensors, "encoder.conv_in.bias": tensors["encoder.conv_in.bias"] + 1}),
    ]
    assert len({own, *map(encoder_key, others)}) == 1 + len(others)
    assert encoder_key(from_functions(lambda p, x: x, lambda p, z: z, {"w": jnp.ones(1)})) is None


def test_an_encoder_may_stand_before_decoders_of_several_widths():
    """As FLUX.2's does."""
    large = {**tiny_architecture("kl"), "_class_name": "AutoencoderKLFlux2"}
    small = {**large, "decoder_block_out_channels": [16, 8]}
    first, second = (random_autoencoder(config) for config in (large, small))
    assert encoder_key(first) != encoder_key(second)
    decoder = {key: value for key, value in to_flat_dict(second).items() if key.startswith(("decoder", "post_quant"))}
    assert encoder_key(load({**to_flat_dict(first), **decoder}, small)) == encoder_key(first)


def test_own_names_and_layouts_load_back(tensors, family):
    assert weights_hash(load(to_flat_dict(load(tensors)))) == family


def test_scaling_factor_is_kept_but_is_no_weight(tensors):
    autoencoder = load(tensors, {**KL, "scaling_factor": 0.25})
    assert float(autoencoder.scaling_factor[...]) == 0.25
    assert not any("scaling" in name for name in to_flat_dict(autoencoder))


def test_everything_wrong_is_one_error(tensors):
    broken = {key: value for key, value in tensors.items() if key != "decoder.conv_in.bias"}
    broken["decoder.extra.weight"] = np.zeros((2, 3), np.float32)
    broken["encoder.conv_in.weight"] = np.zeros((8, 4, 3, 3), np.float32)
    broken["encoder.mid_block.attentions.0.query.bias"] = tensors["encoder.mid_block.attentions.0.to_q.bias"]
    with pytest.raises(AutoencoderError) as caught:
        load(broken, where="here.safetensors")
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[0] == "here.safetensors: does not fit the architecture of its config:"
    assert sorted(lines[1:]) == [
        "place without a tensor: decoder.conv_in.bias (8,)",
        "tensor without a place: decoder.extra.weight (2, 3)",
        "two tensors for one place: encoder.mid_block.attentions.0.to_q.bias",
        "wrong shape: encoder.conv_in.weight (8, 4, 3, 3), in Flax's layout (3, 3, 3, 8)",
    ]


def test_transposed_or_flattened_tensors_do_not_fit(tensors):
    for key, shape in (("encoder.conv_in.weight", (8, 27)), ("encoder.conv_norm_out.weight", (2, 4))):
        with pytest.raises(AutoencoderError, match=f"wrong shape: {key}"):
            load({**tensors, key: tensors[key].reshape(shape)})


def test_long_lists_of_problems_are_cut():
    with pytest.raises(AutoencoderError, match=r"and \d+ more") as caught:
        load({})
    assert len(str(caught.value).splitlines()) == 42


def test_training_leftovers_are_ignored_and_nothing_else(tensors, family):
    leftovers = {"loss.logvar": np.zeros(()), "model_ema.decay": np.zeros(()), "loss.a.weight": np.zeros((1, 1))}
    assert weights_hash(load({**tensors, **leftovers})) == family
    with pytest.raises(AutoencoderError, match="without a place: encoder_loss"):
        load({**tensors, "encoder_loss.weight": np.zeros(3)})


def test_tensors_of_other_dtypes_are_refused(tmp_path, tensors):
    for dtype in (np.int32, np.int64, np.uint8, np.complex64):
        path = tmp_path / f"{np.dtype(dtype).name}.safetensors"
        save_file({**tensors, "encoder.conv_in.bias": np.zeros(8, dtype)}, path)
        with pytest.raises(AutoencoderError, match=r"encoder\.conv_in\.bias") as caught:
            read_tensors(path)
        assert str(caught.value).startswith(f"{path}: ")


def corrupt(data):
    """A file's bytes, damaged in every way that a broken download or a hostile author would."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    first = next(name for name in header if name != "__metadata__")
    header[first]["data_offsets"][1] += 1 << 40
    outside = json.dumps(header).encode()
    return {
        "empty": b"",
        "cut": data[:-5],
        "header cut": data[:100],
        "header too long": struct.pack("<Q", 1 << 60) + data[8:],
        "header no json": data[:8] + b"\xff" * size + data[8 + size :],
        "offsets outside": struct.pack("<Q", len(outside)) + outside + data[8 + size :],
        "pickle": b"\x80\x04\x95" + data,
        "page": b"<!doctype html><title>Rate limited</title>",
    }


def test_corrupt_files_are_errors_that_name_them(tmp_path, tensors):
    folder = write_folder(tmp_path / "vae", KL, tensors)
    for how, data in corrupt((folder / WEIGHTS).read_bytes()).items():
        (folder / WEIGHTS).write_bytes(data)
        with pytest.raises(AutoencoderError, match="not a readable safetensors file") as caught:
            load_autoencoder(folder)
        assert str(folder / WEIGHTS) in str(caught.value), how


def test_file_larger_than_any_autoencoder_is_not_read(tmp_path, tensors):
    folder = write_folder(tmp_path / "vae", KL, tensors)
    os.truncate(folder / WEIGHTS, (4 << 30) + 1)  # sparse
    with pytest.raises(AutoencoderError, match="more than any autoencoder"):
        load_autoencoder(folder)


def test_float32_is_preferred_to_float16(tmp_path, tensors, family):
    folder = write_folder(tmp_path / "vae", KL, make_tensors(KL, seed=1), file=WEIGHTS.replace(".s", ".fp16.s"))
    assert weights_hash(load_autoencoder(folder)) != family
    write_folder(folder, KL, tensors)
    assert weights_hash(load_autoencoder(folder)) == family


def test_pickled_weights_are_never_loaded(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(KL))
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(AutoencoderError, match=r"never loaded here.*\n.*aedr convert --pickle FOLDER FOLDER"):
        load_autoencoder(tmp_path)


def test_folder_above_the_autoencoder_gets_a_hint(tmp_path, tensors):
    folder = write_folder(tmp_path / "model" / "vae", KL, tensors)
    with pytest.raises(AutoencoderError, match=f"did you mean {folder}\\?"):
        load_autoencoder(tmp_path / "model")
    with pytest.raises(AutoencoderError, match=r"holds no config\.json$"):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b'"AutoencoderKL"', b"{'_class_name'}", b"\xff\xfe", b"[" * 100_000]
)
def test_config_that_is_no_json_object(tmp_path, tensors, content):
    folder = write_folder(tmp_path / "vae", KL, tensors)
    (folder / "config.json").write_bytes(content)
    with pytest.raises(AutoencoderError, match=r"config\.json: "):
        load_autoencoder(folder)


@pytest.mark.parametrize("name", ["sd9", "", "a//b", "org/bad name", "org/näme"])
def test_unknown_name_lists_the_registry(name):
    with pytest.raises(AutoencoderError, match="no model of the registry") as caught:
        load_autoencoder(name)
    assert all(known in str(caught.value) for known in REGISTRY)


def test_models_of_one_architecture_share_no_values(tensors, family):
    first, second = load(tensors), load(make_tensors(KL, seed=1), {**KL, "scaling_factor": 0.5})
    assert weights_hash(second) != family
    first.encoder.conv_in.bias[...] = jnp.full(8, 7.0)
    third = load(tensors)
    assert weights_hash(third) == family
    assert float(first.scaling_factor[...]) == float(third.scaling_factor[...]) == np.float32(0.18215)


def test_weights_stay_float32_in_the_module(tensors):
    autoencoder = load(tensors, numerics=Numerics(jnp.dtype("float16")))
    assert {leaf.dtype for _, leaf in nnx.to_flat_state(nnx.state(autoencoder, nnx.Param))} == {jnp.dtype("float32")}
