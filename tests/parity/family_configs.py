"""Configurations of the further families: the class and its fields, whose defaults stand for the rest.

Tiny ones hold all that a config can ask for; full ones are the models' own. Classes are diffusers', those of the
tokenizers transformers'.
"""

from __future__ import annotations

from typing import Any

FLUX2, WAN, QWEN = "AutoencoderKLFlux2", "AutoencoderKLWan", "AutoencoderKLQwenImage"
QWEN_21 = "AutoencoderKLQwenImage21"
DC, HUNYUAN, PAELLA = "AutoencoderDC", "AutoencoderKLHunyuanImage", "PaellaVQModel"

WAN_22 = {
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}
SANA = {"downsample_block_type": "conv", "upsample_block_type": "interpolate"}
VIT = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
MIXED = {  # of dc-ae-f32c32-in and -mix: no layers at full size, batch norm and ReLU in the decoder
    "decoder_norm_types": ("batch_norm",) * 3 + ("rms_norm",) * 3,
    "decoder_act_fns": ("relu",) * 3 + ("silu",) * 3,
    "encoder_block_types": VIT,
    "decoder_block_types": VIT,
    "encoder_layers_per_block": (0, 4, 8, 2, 2, 2),
    "decoder_layers_per_block": (0, 5, 10, 2, 2, 2),
    "encoder_qkv_multiscales": ((),) * 6,
    "decoder_qkv_multiscales": ((),) * 6,
}
_TINY_WAN = {
    "base_dim": 8,
    "z_dim": 3,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True],
}
_TINY_22 = _TINY_WAN | {"decoder_base_dim": 12, "is_residual": True, "temperal_downsample": [True, False]}
_TINY_DC = {
    "latent_channels": 8,
    "encoder_block_out_channels": (16, 32, 64),
    "decoder_block_out_channels": (16, 32, 64),
}
_SCALES = {"encoder_qkv_multiscales": ((), (3,), (5, 3)), "decoder_qkv_multiscales": ((), (), (5,))}
_TINY_VIT = ("ResBlock", "EfficientViTBlock", "EfficientViTBlock")

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "flux2": (FLUX2, {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "latent_channels": 6}),
    "flux2-small": (
        FLUX2,
        {
            "block_out_channels": (8, 16),
            "decoder_block_out_channels": (12, 8),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "norm_num_groups": 4,
        },
    ),
    "wan2.1": (WAN, _TINY_WAN),
    "qwen": (QWEN, _TINY_WAN),
    "qwen-rgba": (QWEN, _TINY_WAN | {"input_channels": 4, "num_res_blocks": 2}),
    "wan2.2": (WAN, _TINY_22 | {"patch_size": 2, "in_channels": 12, "out_channels": 12}),
    "qwen2.1": (QWEN_21, _TINY_22 | {"in_channels": 4, "out_channels": 4, "temperal_downsample": [True, True]}),
    "dc-sana": (
        DC,
        _TINY_DC
        | SANA
        | _SCALES
        | {
            "encoder_block_types": _TINY_VIT,
            "decoder_block_types": _TINY_VIT,
            "encoder_layers_per_block": (1, 2, 1),
            "decoder_layers_per_block": (1, 1, 2),
        },
    ),
    "dc-mixed": (
        DC,
        _TINY_DC
        | _SCALES
        | {
            "encoder_block_types": "ResBlock",
            "decoder_block_types": _TINY_VIT,
            "encoder_layers_per_block": (0, 1, 1),
            "decoder_layers_per_block": (0, 2, 1),
            "decoder_norm_types": ("rms_norm", "batch_norm", "batch_norm"),
            "decoder_act_fns": ("silu", "relu", "silu"),
            "decoder_conv_act_fn": "silu",
        },
    ),
    "dc-plain": (
        DC,
        _TINY_DC
        | {
            "encoder_layers_per_block": (1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1),
            "encoder_qkv_multiscales": ((),) * 3,
            "decoder_qkv_multiscales": ((),) * 3,
            "decoder_norm_types": "batch_norm",
            "decoder_act_fns": "relu",
            "encoder_out_shortcut": False,
            "decoder_in_shortcut": False,
        },
    ),
    "hunyuanimage": (
        HUNYUAN,
        {
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 8,
            "block_out_channels": (32, 64, 64),
            "layers_per_block": 1,
            "spatial_compression_ratio": 4,
            "sample_size": 64,
        },
    ),
    "paella": (PAELLA, {"embed_dim": 16, "bottleneck_blocks": 2, "levels": 3, "num_vq_embeddings": 37}),
}
TINY_TOKENIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "janus": (
        "JanusVQVAE",
        {
            "base_channels": 32,
            "channel_multiplier": (1, 2, 2),
            "num_res_blocks": 1,
            "latent_channels": 6,
            "embed_dim": 4,
            "num_embeddings": 37,
        },
    ),
    "emu3": (
        "Emu3VQVAE",
        {
            "base_channels": 32,
            "channel_multiplier": (1, 2, 1, 2),
            "num_res_blocks": 1,
            "attn_resolutions": (1, 3),
            "hidden_size": 64,
            "latent_channels": 5,
            "embed_dim": 5,
            "codebook_size": 37,
        },
    ),
    "emu3-8": (
        "Emu3VQVAE",
        {
            "base_channels": 32,
            "channel_multiplier": (1, 1),
            "attn_resolutions": (),
            "hidden_size": 32,
            "temporal_downsample_factor": 8,
            "codebook_size": 37,
        },
    ),
}
_FULL_21 = WAN_22 | {
    "z_dim": 64,
    "decoder_base_dim": 144,
    "dim_mult": [1, 2, 4, 8, 8],
    "temperal_downsample": [False, True, True, True],
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": None,
}
FULL: dict[str, tuple[str, dict[str, Any]]] = {
    "flux2": (FLUX2, {}),
    "flux2-small": (FLUX2, {"decoder_block_out_channels": (96, 192, 384, 384)}),
    "wan2.1": (WAN, {}),
    "qwen": (QWEN, {}),
    "wan2.2": (WAN, WAN_22 | {"base_dim": 160, "decoder_base_dim": 256}),
    "qwen2.1": (QWEN_21, _FULL_21),
    "dc-sana": (DC, SANA | {"encoder_block_types": VIT, "decoder_block_types": VIT, "scaling_factor": 0.41407}),
    "dc-mixed": (DC, MIXED),
    "hunyuanimage": (
        HUNYUAN,
        {
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 64,
            "block_out_channels": (128, 256, 512, 512, 1024, 1024),
            "layers_per_block": 2,
            "spatial_compression_ratio": 32,
            "sample_size": 384,
            "scaling_factor": 0.75289,
        },
    ),
    "paella": (PAELLA, {}),
}
FULL_TOKENIZERS: dict[str, tuple[str, dict[str, Any]]] = {"janus": ("JanusVQVAE", {}), "emu3": ("Emu3VQVAE", {})}
