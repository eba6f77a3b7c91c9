"""diffusers' `AutoencoderTiny` with the group-normalised middle blocks that the preview autoencoder of FLUX.2 has.

The class keeps diffusers' name, and with it the `_class_name` that is written to `config.json`: it is that class with
one field more. diffusers' own class does not know the field and would drop the branches' weights with no more than a
warning, so what is trained here is loaded through this class or through `aedr_jax`.
"""

from __future__ import annotations

import diffusers
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock

EXPANSION, GROUPS = 4, 4  # of the branch: its width over the block's, and the groups of its norm


class MiddleBlock(torch.nn.Module):
    """A block of `AutoencoderTiny` on x + pool(x); pool is a 1×1 convolution, a group norm, ReLU, a 1×1 convolution."""

    def __init__(self, block: AutoencoderTinyBlock, width: int) -> None:
        super().__init__()
        self.conv, self.skip, self.fuse = block.conv, block.skip, block.fuse
        self.pool = torch.nn.Sequential(
            torch.nn.Conv2d(width, EXPANSION * width, 1, bias=False),
            torch.nn.GroupNorm(GROUPS, EXPANSION * width),
            torch.nn.ReLU(),
            torch.nn.Conv2d(EXPANSION * width, width, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.pool(x)
        return self.fuse(self.conv(x) + self.skip(x))


class AutoencoderTiny(diffusers.AutoencoderTiny):
    """`midblock_group_norm`: whether the blocks at the latents' size are `MiddleBlock`s; False is diffusers' class."""

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64),
        decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64),
        act_fn: str = "relu",
        upsample_fn: str = "nearest",
        latent_channels: int = 4,
        upsampling_scaling_factor: int = 2,
        num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3),
        num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1),
        latent_magnitude: float = 3,
        latent_shift: float = 0.5,
        force_upcast: bool = False,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        midblock_group_norm: bool = False,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            encoder_block_out_channels=encoder_block_out_channels,
            decoder_block_out_channels=decoder_block_out_channels,
            act_fn=act_fn,
            upsample_fn=upsample_fn,
            latent_channels=latent_channels,
            upsampling_scaling_factor=upsampling_scaling_factor,
            num_encoder_blocks=num_encoder_blocks,
            num_decoder_blocks=num_decoder_blocks,
            latent_magnitude=latent_magnitude,
            latent_shift=latent_shift,
            force_upcast=force_upcast,
            scaling_factor=scaling_factor,
            shift_factor=shift_factor,
        )
        if midblock_group_norm:
            # Blocks of the encoder's last stage end one before its last layer; those of the decoder's first follow
            # a convolution and its activation.
            end = len(self.encoder.layers) - 1
            encoder_blocks = range(end - num_encoder_blocks[-1], end)
            decoder_blocks = range(2, 2 + num_decoder_blocks[0])
            for layers, blocks, width in (
                (self.encoder.layers, encoder_blocks, encoder_block_out_channels[-1]),
                (self.decoder.layers, decoder_blocks, decoder_block_out_channels[0]),
            ):
                for i in blocks:
                    layers[i] = MiddleBlock(layers[i], width)
