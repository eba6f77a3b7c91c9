"""Single files of the original code against diffusers 0.39.0's own converters: the same tensors in the same places."""

import re

import diffusers
import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint, convert_wan_vae_to_diffusers
from safetensors.torch import save_file
from test_originals import as_original, as_original_flux2, as_original_wan

import aedr_jax
from aedr_jax.autoencoders.checkpoints import to_flat_dict

from .references import DOWN, UP

KL = {
    "block_out_channels": (32, 32, 64),
    "down_block_types": (DOWN,) * 3,
    "up_block_types": (UP,) * 3,
    "layers_per_block": 2,
    "latent_channels": 3,
}
WAN = {"base_dim": 4, "z_dim": 3}  # its converter knows four levels of two blocks only


@pytest.mark.parametrize("part", ["", "first_stage_model."])
def test_latent_diffusion(part, tmp_path):
    """Reference: `convert_ldm_vae_checkpoint`, exactly."""
    reference = diffusers.AutoencoderKL(**KL)
    reference.save_pretrained(tmp_path / "vae")
    loaded = aedr_jax.load_autoencoder(tmp_path / "vae")
    original = {part + k: torch.tensor(v) for k, v in as_original(to_flat_dict(loaded)).items()}
    reference.load_state_dict(convert_ldm_vae_checkpoint(dict(original), reference.config), strict=True)
    reference.save_pretrained(tmp_path / "converted")
    save_file(original, tmp_path / "ae.safetensors")
    places = (tmp_path / "converted", tmp_path / "ae.safetensors")
    hashes = {aedr_jax.weights_hash(aedr_jax.load_autoencoder(place)) for place in places}
    assert hashes == {aedr_jax.weights_hash(loaded)}


@pytest.mark.parametrize("decoder", [None, (32, 64, 96)])
def test_flux2(decoder, tmp_path):
    """Reference: `convert_ldm_vae_checkpoint` but for the two names, exactly. They and the batch norm's are as in
    `scripts/convert_flux2_to_diffusers.py` of diffusers' repository, which is not installed with it."""
    reference = diffusers.AutoencoderKLFlux2(**KL, decoder_block_out_channels=decoder)
    reference.save_pretrained(tmp_path / "vae")
    loaded = aedr_jax.load_autoencoder(tmp_path / "vae")
    original = {k: torch.tensor(v) for k, v in as_original_flux2(to_flat_dict(loaded)).items()}
    moved = {re.sub(r"^(en|de)coder\.(?=(post_)?quant_conv)", "", k): v for k, v in original.items()}
    converted = convert_ldm_vae_checkpoint(moved, reference.config)
    reference.load_state_dict(converted | {k: v for k, v in original.items() if k.startswith("bn.")}, strict=True)
    reference.save_pretrained(tmp_path / "converted")
    save_file(original, tmp_path / "ae.safetensors")
    both = [aedr_jax.load_autoencoder(tmp_path / name) for name in ("converted", "ae.safetensors")]
    assert {aedr_jax.weights_hash(autoencoder) for autoencoder in both} == {aedr_jax.weights_hash(loaded)}
    assert both[0].architecture == both[1].architecture


def test_wan(tmp_path):
    """Reference: `convert_wan_vae_to_diffusers`, exactly."""
    reference = diffusers.AutoencoderKLWan(**WAN)
    tensors = reference.state_dict()
    original = {k: torch.tensor(v) for k, v in as_original_wan({k: v.numpy() for k, v in tensors.items()}, 2).items()}
    assert not set(original) & set(tensors)
    converted = convert_wan_vae_to_diffusers(dict(original))
    assert converted.keys() == tensors.keys()
    assert all(np.array_equal(converted[name], tensors[name]) for name in tensors)
    reference.save_pretrained(tmp_path / "vae")
    save_file(original, tmp_path / "Wan2.1_VAE.safetensors")
    first, second = (aedr_jax.load_autoencoder(tmp_path / name) for name in ("vae", "Wan2.1_VAE.safetensors"))
    assert aedr_jax.weights_hash(first) == aedr_jax.weights_hash(second)
    assert first.architecture == second.architecture
