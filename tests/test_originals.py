"""Single files of the original code: made on the spot from this package's networks, and read back to the same weights.

That diffusers' own converters agree on the names is `tests/parity/test_originals.py`.
"""

import json
import re

import numpy as np
import pytest
from conftest import random_autoencoder
from safetensors.numpy import save_file
from test_todays_families import of_videos

from aedr_jax.autoencoders import tensors as files
from aedr_jax.autoencoders.checkpoints import to_flat_dict, weights_hash
from aedr_jax.autoencoders.loading import convert, load_autoencoder
from aedr_jax.autoencoders.originals import recognize
from aedr_jax.errors import AutoencoderError

LEVELS = 3
KL = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [32, 32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * LEVELS,
    "up_block_types": ["UpDecoderBlock2D"] * LEVELS,
    "layers_per_block": 1,
    "latent_channels": 3,
}
FLUX2 = {**KL, "_class_name": "AutoencoderKLFlux2"}
FLUX2_SMALL = {**FLUX2, "decoder_block_out_channels": [32, 64, 96]}
PLAIN = {**KL, "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False}
WAN = {
    "_class_name": "AutoencoderKLWan",
    "base_dim": 4,
    "z_dim": 3,
    "dim_mult": [1, 2, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True],
}


def as_original(flat):
    """Latent-diffusion's names and PyTorch's layouts for an `AutoencoderKL`'s parameters."""
    renamed = {}
    for path, value in flat.items():
        key = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", path)
        key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{LEVELS - 1 - int(m[1])}.block.{m[2]}", key)
        key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{LEVELS - 1 - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = key.replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm").replace("to_out", "proj_out")
        key = re.sub(r"mid_block\.attentions\.0\.(to_)?", "mid.attn_1.", key)
        key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        key = re.sub(r"\.(kernel|scale)$", ".weight", key)
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        elif value.ndim == 2:
            value = value.T[:, :, None, None]
        renamed[key] = np.ascontiguousarray(value)
    return renamed


def as_original_flux2(flat):
    """FLUX.2's: the convolutions of latents inside encoder and decoder, and the batch norm that its pipeline uses."""
    inside = {"quant_conv": "encoder.quant_conv", "post_quant_conv": "decoder.post_quant_conv"}
    tensors = {re.sub(r"^(post_)?quant_conv", lambda m: inside[m[0]], k): v for k, v in as_original(flat).items()}
    bn = {"bn.running_mean": np.zeros(12, np.float32), "bn.running_var": np.ones(12, np.float32)}
    return {**tensors, **bn, "bn.num_batches_tracked": np.array(1000)}


def as_original_wan(tensors, layers):
    """Wan's own names for diffusers' names of Wan's."""
    renamed = {}
    for key, value in tensors.items():
        key = re.sub(r"^decoder\.up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: place(m, int(m[2]), layers), key)
        key = re.sub(r"^decoder\.up_blocks\.(\d+)\.upsamplers\.0", lambda m: place(m, layers + 1, layers), key)
        key = key.replace("down_blocks", "downsamples").replace("conv_shortcut", "shortcut")
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"middle.{2 * int(m[1])}", key)
        key = key.replace("mid_block.attentions.0", "middle.1").replace("post_quant_conv", "conv2")
        key = key.replace("quant_conv", "conv1").replace("norm_out", "head.0").replace("conv_out", "head.2")
        key = re.sub(r"((?:middle|samples)\.\d+)\.norm1", r"\1.residual.0", key)
        key = re.sub(r"((?:middle|samples)\.\d+)\.conv1", r"\1.residual.2", key)
        key = re.sub(r"((?:middle|samples)\.\d+)\.norm2", r"\1.residual.3", key)
        key = re.sub(r"((?:middle|samples)\.\d+)\.conv2", r"\1.residual.6", key)
        renamed[key.replace("conv_in", "conv1")] = np.ascontiguousarray(value)
    return renamed


def place(match, layer, layers):
    return f"decoder.upsamples.{int(match[1]) * (layers + 2) + layer}"


@pytest.mark.parametrize("config", [KL, PLAIN], ids=["quant convs and attention", "neither"])
@pytest.mark.parametrize("part", ["", "first_stage_model.", "vae."])
def test_an_autoencoder_of_latent_diffusion_alone_or_in_a_checkpoint(config, part, tmp_path):
    made = random_autoencoder(config)
    tensors = {part + key: value for key, value in as_original(to_flat_dict(made)).items()}
    assert f"{part}decoder.up.1.block.0.nin_shortcut.weight" in tensors
    other = {"model.diffusion_model.out.2.weight": np.zeros(3, np.int64)} if part else {"loss.logvar": np.zeros(1)}
    save_file({**tensors, **other}, tmp_path / "ae.safetensors")
    loaded = load_autoencoder(tmp_path / "ae.safetensors")
    assert weights_hash(loaded) == weights_hash(made)
    assert loaded.architecture == made.architecture


@pytest.mark.parametrize("config", [FLUX2, FLUX2_SMALL], ids=["one width", "a decoder of other widths"])
def test_flux2s_own_file(config, tmp_path):
    made = random_autoencoder(config)
    tensors = as_original_flux2(to_flat_dict(made))
    assert {"encoder.quant_conv.weight", "decoder.post_quant_conv.bias"} < tensors.keys()
    save_file(tensors, tmp_path / "ae.safetensors")
    loaded = load_autoencoder(tmp_path / "ae.safetensors")
    assert weights_hash(loaded) == weights_hash(made)
    assert loaded.architecture == made.architecture


def test_what_is_converted_loads_with_a_config(tmp_path):
    made = random_autoencoder(PLAIN)
    save_file(as_original(to_flat_dict(made)), tmp_path / "ae.safetensors")
    manifest = convert(tmp_path / "ae.safetensors", tmp_path / "out")
    assert manifest["source_file"] == "ae.safetensors"
    assert weights_hash(load_autoencoder(tmp_path / "out")) == weights_hash(made) == manifest["weights_hash"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["block_out_channels"] == [32, 32, 64]


def test_wans_own_file(tmp_path, rng):
    made = random_autoencoder(WAN)
    tensors = of_videos(to_flat_dict(made), rng)
    tensors = {key: value for key, value in tensors.items() if "time_conv" not in key}
    tensors["encoder.down_blocks.5.time_conv.weight"] = np.zeros((8, 8, 3, 1, 1), np.float32)
    save_file(as_original_wan(tensors, 2), tmp_path / "Wan2.1_VAE.safetensors")
    loaded = load_autoencoder(tmp_path / "Wan2.1_VAE.safetensors")
    assert weights_hash(loaded) == weights_hash(made)
    assert loaded.architecture == made.architecture


def test_of_a_checkpoint_the_rest_is_not_read(tmp_path, monkeypatch):
    """A checkpoint may be larger than any autoencoder; what is read of it may not."""
    made = random_autoencoder(PLAIN)
    tensors = {f"first_stage_model.{key}": value for key, value in as_original(to_flat_dict(made)).items()}
    file = tmp_path / "model.safetensors"
    save_file({**tensors, "model.weight": np.zeros(1_000_000, np.float32)}, file)
    monkeypatch.setattr(files, "MAX_WEIGHT_BYTES", 3_000_000)
    assert file.stat().st_size > 3_000_000
    assert weights_hash(load_autoencoder(file)) == weights_hash(made)
    monkeypatch.setattr(files, "MAX_WEIGHT_BYTES", 1000)
    with pytest.raises(AutoencoderError, match="more than any autoencoder"):
        load_autoencoder(file)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"a": (1,)}, "not in a layout of the original code"),
        ({"encoder.down.0.block.0.conv1.weight": (8, 8, 3, 3)}, r"no encoder\.conv_in\.weight in it"),
        (
            {"encoder.down.0.block.0.conv1.weight": (8, 8, 3, 3), "encoder.down.0.attn.0.q.weight": (8, 8, 1, 1)},
            "attention at several sizes",
        ),
        (
            {
                "encoder.down.0.block.0.conv1.weight": (8, 8, 3, 3),
                "encoder.down.0.downsample.conv.weight": (4, 8, 3, 3),
            },
            "folds pixels into channels, as HunyuanImage does",
        ),
        ({"encoder.downsamples.0.residual.2.weight": (8, 8, 3, 3, 3)}, "without a resampling"),
        ({"encoder.layers.0.weight": (8, 3, 3, 3)}, r"Stable Diffusion, FLUX\.1, FLUX\.2 or Wan 2\.1"),  # TAESD's
    ],
)
def test_other_files_are_refused(shapes, message):
    with pytest.raises(AutoencoderError, match=f"^x: .*{message}"):
        recognize(shapes, where="x")


KERNEL = (8, 8, 3, 3)
OF_LDM = {
    "encoder.conv_in.weight": (8, 3, 3, 3),
    "encoder.down.0.block.0.conv1.weight": KERNEL,
    "encoder.down.0.downsample.conv.weight": KERNEL,
    "encoder.down.1.block.0.conv1.weight": KERNEL,
    "decoder.up.0.block.0.conv1.weight": KERNEL,
    "decoder.up.1.block.0.conv1.weight": KERNEL,
    "decoder.conv_in.weight": (8, 4, 3, 3),
    "decoder.conv_out.weight": (3, 8, 3, 3),
    "bn.running_mean": (16,),
}
OF_WAN = {
    "encoder.conv1.weight": (8, 3, 3, 3, 3),
    "encoder.downsamples.0.residual.2.weight": (8, 8, 3, 3, 3),
    "encoder.downsamples.1.resample.1.weight": KERNEL,
    "encoder.downsamples.2.residual.2.weight": (8, 8, 3, 3, 3),
    "conv2.weight": (4, 4, 1, 1, 1),
}
READ = [(whole, name) for whole in (OF_LDM, OF_WAN) for name in whole if "weight" in name and "resample." not in name]


@pytest.mark.parametrize(("whole", "name"), READ, ids=[name for _, name in READ])
@pytest.mark.parametrize("shape", [(), (0, 8, 3, 3)], ids=["a number", "no channels"])
def test_a_shape_that_no_kernel_has_is_named(whole, name, shape):
    assert recognize(whole, where="x").config
    with pytest.raises(AutoencoderError, match=rf"^x: no {re.escape(name)} in it, or not a kernel"):
        recognize({**whole, name: shape}, where="x")


def test_levels_that_are_missing_are_named():
    beyond = {**OF_LDM, "encoder.down.3.block.0.conv1.weight": KERNEL}
    with pytest.raises(AutoencoderError, match=r"^x: no encoder\.down\.2\.block\.0\.conv1\.weight in it"):
        recognize(beyond, where="x")


@pytest.mark.parametrize(("whole", "name"), [(OF_LDM, "decoder.up.{}.x"), (OF_WAN, "decoder.upsamples.{}.x")])
def test_a_number_that_no_block_has_is_no_number(whole, name):
    """Python converts at most 4,300 digits, and raises of its own."""
    strange = name.format("9" * 5000)
    assert recognize({**whole, strange: KERNEL}, where="x").rename(strange) == strange
    resampling = {**whole, "encoder.downsamples.{}.resample.1.weight".format("9" * 5000): KERNEL}
    assert recognize(resampling, where="x").config == recognize(whole, where="x").config
