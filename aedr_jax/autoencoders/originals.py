"""Single files in the layout of the original code: an architecture from names and shapes, and diffusers' names.

Three kinds: the autoencoder of latent-diffusion's code (Stable Diffusion 1, 2, XL and 3, FLUX.1's `ae.safetensors`,
and FLUX.2's, which is known by the batch norm of its latents); the same as a part of a whole checkpoint, below
`first_stage_model.` or `vae.`; and Wan 2.1's, which is Qwen-Image's too.

A file holds no config. Widths, layers and channels follow from its shapes; the scaling factor, which cancels in a
reconstruction, is the family's default.

References: `convert_ldm_vae_checkpoint` and `convert_wan_vae_to_diffusers` of diffusers 0.39.0; for FLUX.2
`scripts/convert_flux2_to_diffusers.py` of its repository.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from aedr_jax.errors import AutoencoderError

__all__ = ["Original", "recognize"]

PARTS = ("first_stage_model.", "vae.")  # of a whole checkpoint
NUMBER = r"\d{1,4}"  # of a block: Python reads no number of thousands of digits
Shapes = Mapping[str, tuple[int, ...]]

LDM_RULES = (
    (r"^encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"^decoder\.up\.(\d+)\.block\.(\d+)\.", r"decoder.up_blocks.\1.resnets.\2."),  # counted from the other end
    (r"^decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"coder\.norm_out\.", "coder.conv_norm_out."),
    (r"^(?:encoder|decoder)\.((?:post_)?quant_conv)\.", r"\1."),  # FLUX.2's
)
WAN_RULES = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"coder\.conv1\.", "coder.conv_in."),
    (r"coder\.head\.0\.", "coder.norm_out."),
    (r"coder\.head\.2\.", "coder.conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.downsamples\.", ".down_blocks."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)


@dataclasses.dataclass(frozen=True)
class Original:
    """How to read such a file.

    Attributes:
      config: what diffusers' `config.json` would say.
      rename: the file's name of a tensor -> diffusers'; None for what is no part of the autoencoder.
    """

    config: dict[str, Any]
    rename: Callable[[str], str | None]


def recognize(shapes: Shapes, *, where: str) -> Original:
    """Which of the three kinds a file is, by its tensors' shapes.

    Raises:
      AutoencoderError: for any other file, and for a network of these kinds that has more than is known here.
    """
    for part in ("", *PARTS):
        inside = {name.removeprefix(part): shape for name, shape in shapes.items() if name.startswith(part)}
        if "encoder.down.0.block.0.conv1.weight" in inside:
            return _ldm(inside, part, where)
    if "encoder.downsamples.0.residual.2.weight" in shapes:
        return _wan(shapes, where)
    raise AutoencoderError(
        f"{where}: no config.json beside it, and not in a layout of the original code that is known here (the "
        "autoencoder of Stable Diffusion, FLUX.1, FLUX.2 or Wan 2.1, or a checkpoint with one in it): pass a diffusers "
        "folder"
    )


def _ldm(shapes: Shapes, part: str, where: str) -> Original:
    levels = _count(shapes, r"^encoder\.down\.(\d+)\.block\.0\.conv1\.weight$")
    if any(re.search(r"\.(down|up)\.\d+\.attn\.", name) for name in shapes):
        raise AutoencoderError(f"{where}: attention at several sizes, as in VQ models: pass a diffusers folder")
    widths = [_shape(shapes, f"encoder.down.{i}.block.0.conv1.weight", where)[0] for i in range(levels)]
    downsampling = "encoder.down.0.downsample.conv.weight"
    if downsampling in shapes and _shape(shapes, downsampling, where)[0] != widths[0]:
        raise AutoencoderError(f"{where}: it folds pixels into channels, as HunyuanImage does: pass a diffusers folder")
    config = {
        "_class_name": "AutoencoderKL",
        "in_channels": _shape(shapes, "encoder.conv_in.weight", where)[1],
        "out_channels": _shape(shapes, "decoder.conv_out.weight", where)[0],
        "latent_channels": _shape(shapes, "decoder.conv_in.weight", where)[1],
        "block_out_channels": widths,
        "layers_per_block": _count(shapes, r"^encoder\.down\.0\.block\.(\d+)\.conv1\.weight$"),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in shapes,
        "use_quant_conv": any(f"{inside}quant_conv.weight" in shapes for inside in ("", "encoder.")),
        "use_post_quant_conv": any(f"{inside}post_quant_conv.weight" in shapes for inside in ("", "decoder.")),
    }
    if "bn.running_mean" in shapes:
        config["_class_name"] = "AutoencoderKLFlux2"
        of_decoder = [_shape(shapes, f"decoder.up.{i}.block.0.conv1.weight", where)[0] for i in range(levels)]
        config |= {"decoder_block_out_channels": of_decoder} if of_decoder != widths else {}

    def rename(name: str) -> str | None:
        if not name.startswith(part):
            return None
        name = name.removeprefix(part)
        name = re.sub(rf"^decoder\.up\.({NUMBER})\.", lambda match: f"decoder.up.{levels - 1 - int(match[1])}.", name)
        return _renamed(name, LDM_RULES)

    return Original(config, rename)


def _wan(shapes: Shapes, where: str) -> Original:
    """The decoder's flat list is cut into blocks: residual ones, then an upsampling."""
    resamples = sorted(
        int(match[1])
        for name in shapes
        if (match := re.match(rf"encoder\.downsamples\.({NUMBER})\.resample\.1\.weight$", name))
    )
    if not resamples:
        raise AutoencoderError(f"{where}: Wan's autoencoder without a resampling: pass a diffusers folder")
    layers = resamples[0]
    base = _shape(shapes, "encoder.conv1.weight", where)[0]
    starts = [i * (layers + 1) for i in range(len(resamples) + 1)]  # of the encoder's levels
    widths = [_shape(shapes, f"encoder.downsamples.{i}.residual.2.weight", where)[0] for i in starts]
    config = {
        "_class_name": "AutoencoderKLWan",
        "base_dim": base,
        "z_dim": _shape(shapes, "conv2.weight", where)[0],
        "dim_mult": [width // base for width in widths],
        "num_res_blocks": layers,
        "temperal_downsample": [f"encoder.downsamples.{i}.time_conv.weight" in shapes for i in resamples],
    }

    def place(match: re.Match[str]) -> str:
        block, layer = divmod(int(match[1]), layers + 2)
        inside = f"resnets.{layer}" if layer <= layers else "upsamplers.0"
        return f"decoder.up_blocks.{block}.{inside}."

    def rename(name: str) -> str | None:
        return _renamed(re.sub(rf"^decoder\.upsamples\.({NUMBER})\.", place, name), WAN_RULES)

    return Original(config, rename)


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _count(shapes: Shapes, pattern: str) -> int:
    return len([name for name in shapes if re.match(pattern, name)])


def _shape(shapes: Shapes, name: str, where: str) -> tuple[int, ...]:
    if len(shapes.get(name, ())) < 2 or 0 in shapes[name]:
        raise AutoencoderError(f"{where}: no {name} in it, or not a kernel; the file is not a whole autoencoder")
    return shapes[name]
