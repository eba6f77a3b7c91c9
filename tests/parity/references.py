"""The eight models' configurations, random reference networks, and how parity is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import jax
import numpy as np
import torch
from safetensors.torch import save_file

DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
ATTENTION_DOWN, ATTENTION_UP = "AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"

_FOUR_BLOCKS = {"layers_per_block": 2, "down_block_types": (DOWN,) * 4, "up_block_types": (UP,) * 4}
_SD = _FOUR_BLOCKS | {"block_out_channels": (128, 256, 512, 512), "latent_channels": 4}
_SIXTEEN = _SD | {
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "force_upcast": True,
}
_VQ = _FOUR_BLOCKS | {
    "down_block_types": (DOWN, DOWN, DOWN, ATTENTION_DOWN),
    "up_block_types": (ATTENTION_UP, UP, UP, UP),
}
KL, VQ = diffusers.AutoencoderKL, diffusers.VQModel

# What shapes and scales each network, from the models' own config.json; diffusers' defaults stand for the rest.
MODELS: dict[str, tuple[type, dict[str, Any]]] = {
    "sd1.5": (KL, _SD | {"scaling_factor": 0.18215}),
    "sd2-base": (KL, _SD | {"scaling_factor": 0.18215}),
    "sd2.1": (KL, _SD | {"scaling_factor": 0.18215}),
    "sdxl": (KL, _SD | {"scaling_factor": 0.13025, "force_upcast": True}),
    "sd3.5": (KL, _SIXTEEN | {"scaling_factor": 1.5305, "shift_factor": 0.0609}),
    "flux": (KL, _SIXTEEN | {"scaling_factor": 0.3611, "shift_factor": 0.1159}),
    "vqdm": (
        VQ,
        _VQ
        | {
            "block_out_channels": (64, 128, 256, 512),
            "latent_channels": 256,
            "vq_embed_dim": 128,
            "num_vq_embeddings": 4096,
        },
    ),
    "kandinsky2.1": (
        VQ,
        _VQ
        | {
            "block_out_channels": (128, 256, 256, 512),
            "latent_channels": 4,
            "vq_embed_dim": 4,
            "num_vq_embeddings": 16384,
            "norm_type": "spatial",
        },
    ),
}


def narrowed(config: dict[str, Any]) -> dict[str, Any]:
    """A quarter of the width and of the codebook: the same layers and names, for a tenth of the time.

    Not below 32 channels, which the group norms share out among 32 groups.
    """
    widths = tuple(max(32, width // 4) for width in config["block_out_channels"])
    codes = {"num_vq_embeddings": config["num_vq_embeddings"] // 16} if "num_vq_embeddings" in config else {}
    return config | {"block_out_channels": widths} | codes


# Eight times smaller latents, as in all of them, at a fraction of the width.
SMALL_KL = _FOUR_BLOCKS | {
    "block_out_channels": (16, 16, 32, 32),
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "latent_channels": 4,
}

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@torch.no_grad()
def random_network(cls: type, config: dict[str, Any], seed: int = 0) -> torch.nn.Module:
    """A reference network with PyTorch's default weights, random norm affines and a N(0,1) codebook.

    Fresh norms are the identity, which would hide a swapped or missing affine; a fresh codebook is uniform in ±1/n,
    where every nearest code is a near-tie.
    """
    torch.manual_seed(seed)
    model = cls(**config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.weight.normal_(1.0, 0.2)
            module.bias.normal_(0.0, 0.2)
        elif isinstance(module, torch.nn.Embedding):
            module.weight.normal_()
    return model


def save_with_old_names(model: torch.nn.Module, folder: Path, *, convolutions: bool = False) -> None:
    """Save as diffusers did before 0.18: other names in attention, whose layers may be 1×1 convolutions."""
    model.save_config(folder)
    tensors = {}
    for key, value in model.state_dict().items():
        for new, old in OLD_NAMES.items():
            if f".{new}." in key:
                key = key.replace(f".{new}.", f".{old}.")
                value = value[:, :, None, None] if convolutions and value.ndim == 2 else value
        tensors[key] = value.contiguous()
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")


def random_images(height: int, width: int, *, count: int = 1, seed: int = 0) -> np.ndarray:
    """Noise over a coarse pattern, float32 NHWC in [-1, 1]."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(-1, 1, (count, height // 8, width // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(coarse + 0.2 * random.standard_normal(coarse.shape), -1, 1).astype(np.float32)


def nchw(array: np.ndarray | jax.Array) -> torch.Tensor:
    return torch.from_numpy(np.array(array).transpose(0, 3, 1, 2).copy())


def nhwc(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().numpy().transpose(0, 2, 3, 1)


def relative_error(actual: np.ndarray | jax.Array, expected: np.ndarray) -> float:
    """The largest difference over the largest expected value."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.abs(np.asarray(actual, np.float32) - expected).max() / np.abs(expected).max())


def assert_close(actual: np.ndarray | jax.Array, expected: np.ndarray, tolerance: float) -> None:
    """Within `tolerance` of the largest expected value; the error is printed (`pytest -rP` shows it)."""
    error = relative_error(actual, expected)
    print(f"error {error:.1e}, tolerance {tolerance:.0e}")
    assert error <= tolerance, f"error {error:.1e} of the largest value, tolerance {tolerance:.0e}"
