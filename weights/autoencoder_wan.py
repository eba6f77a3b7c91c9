"""diffusers' `AutoencoderKLWan` on images: videos of one frame, without the work that one frame does not need.

A causal convolution pads in front with zeros, so of its kernel only the last slice in time meets the first frame. Here
that slice is applied in two dimensions, which is the same result in a third of the time. The class keeps diffusers'
name, and with it the `_class_name` that is written to `config.json`: the parameters are those of that class, and what
is trained here is loaded by it.
"""

from __future__ import annotations

import diffusers
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput


class FrameConv(WanCausalConv3d):
    """A causal convolution that meets the first frame only."""

    def forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        if x.shape[2] != 1 or cache_x is not None:
            raise ValueError(f"a video of one frame, without those before it: not {tuple(x.shape)}")
        padding = self._padding[2], self._padding[0]  # of height and width, on either side
        return F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, self.stride[1:], padding)[:, :, None]


class AutoencoderKLWan(diffusers.AutoencoderKLWan):
    """`encode` and `decode` take images and latents without an axis of time, [n, channels, h, w]."""

    def __init__(self, **config: object) -> None:
        super().__init__(**config)
        for module in self.modules():
            if type(module) is WanCausalConv3d:
                module.__class__ = FrameConv

    def encode(self, x: torch.Tensor) -> AutoencoderKLOutput:
        moments = super().encode(x[:, :, None]).latent_dist.parameters
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments[:, :, 0]))

    def decode(self, z: torch.Tensor) -> DecoderOutput:
        return DecoderOutput(sample=super().decode(z[:, :, None]).sample[:, :, 0])
