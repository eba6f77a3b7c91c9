"""The networks of a recipe, and what stands beside them in training: a discriminator, a codebook that follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, AutoencoderKL, VQModel

from autoencoder_tiny import AutoencoderTiny
from autoencoder_wan import AutoencoderKLWan
from recipes import Recipe

Autoencoder = AutoencoderKL | VQModel | AutoencoderTiny | AutoencoderKLWan | AutoencoderDC


def build(recipe: Recipe) -> Autoencoder:
    levels = len(recipe.widths)
    if recipe.attention_head:
        return build_dc(recipe)
    if recipe.tiny_blocks:
        model = AutoencoderTiny(
            encoder_block_out_channels=recipe.widths,
            decoder_block_out_channels=recipe.widths,
            num_encoder_blocks=recipe.tiny_blocks,
            num_decoder_blocks=recipe.tiny_blocks[::-1],
            latent_channels=recipe.latent_channels,
            midblock_group_norm=True,
        )
        start_as_thumbnail(model)
        return model
    if recipe.frame_blocks:
        model = AutoencoderKLWan(
            base_dim=recipe.widths[0],
            z_dim=recipe.latent_channels,
            dim_mult=[width // recipe.widths[0] for width in recipe.widths],
            num_res_blocks=recipe.frame_blocks,
            temperal_downsample=[False] + [True] * (levels - 2),
        )
        narrow_posterior(model.quant_conv, recipe)
        return model
    common = {
        "block_out_channels": recipe.widths,
        "layers_per_block": 1,
        "latent_channels": recipe.latent_channels,
        "norm_num_groups": recipe.norm_num_groups,
        "sample_size": 128,
        "scaling_factor": 1.0,  # replaced by 1 / std of the training latents at the end
    }
    if recipe.codes:
        return VQModel(
            down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
            num_vq_embeddings=recipe.codes,
            vq_embed_dim=recipe.latent_channels,
            norm_type=recipe.norm_type,
            **common,
        )
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        use_quant_conv=recipe.quant_convs,
        use_post_quant_conv=recipe.quant_convs,
        **common,
    )
    narrow_posterior(model.quant_conv if recipe.quant_convs else model.encoder.conv_out, recipe)
    return model


def narrow_posterior(moments: torch.nn.Module, recipe: Recipe) -> None:
    """Start the posterior at the recipe's variance; `moments` is the last layer before it.

    A wide posterior teaches the latents to repeat each other: in a first run two components of sixteen held 63 %.
    """
    if recipe.log_variance is not None:
        torch.nn.init.constant_(moments.bias[recipe.latent_channels :], recipe.log_variance)


def build_dc(recipe: Recipe) -> AutoencoderDC:
    """SANA's in small: residual blocks above, linear attention in the three lowest levels, one block a level."""
    upper = len(recipe.widths) - 3
    blocks = ("ResBlock",) * upper + ("EfficientViTBlock",) * 3
    scales = ((),) * upper + ((5,),) * 3
    ones = (1,) * len(recipe.widths)
    return AutoencoderDC(
        latent_channels=recipe.latent_channels,
        attention_head_dim=recipe.attention_head,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=recipe.widths,
        decoder_block_out_channels=recipe.widths,
        encoder_layers_per_block=ones,
        decoder_layers_per_block=ones,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        upsample_block_type="interpolate",
        downsample_block_type="conv",
    )


def latents_of(model: Autoencoder, x: torch.Tensor) -> torch.Tensor:
    """An image's latents, the posterior's mean where there is one."""
    encoded = model.encode(x)
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mean
    return encoded.latent if isinstance(model, AutoencoderDC) else encoded.latents


@torch.no_grad()
def start_as_thumbnail(model: AutoencoderTiny) -> None:
    """Let three channels carry the colours through: shrunk by the encoder, enlarged by the decoder.

    Without norms a tiny model as PyTorch draws it passes on little but its biases, and spends a tenth of a short run on
    finding the mean colours. From here it learns details at once; all other channels are drawn at He's scale.
    """
    for layers in (model.encoder.layers, model.decoder.layers):
        for layer in layers:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                layer.weight[:3] = 0.0
                for channel in range(3):
                    if layer.stride == (2, 2):
                        layer.weight[channel, channel] = 1 / 9
                    else:
                        layer.weight[channel, channel, 1, 1] = 1.0
                if layer.bias is not None:
                    layer.bias.zero_()
            elif hasattr(layer, "conv"):
                layer.conv[-1].weight.mul_(0.1)
                layer.conv[-1].bias.zero_()
                if hasattr(layer, "pool"):
                    layer.pool[-1].weight.zero_()


def load_trained(folder: Path, recipe: Recipe) -> AutoencoderKL:
    """A model that was exported, in float32; its config says nothing of where it was loaded from."""
    trained = AutoencoderKL.from_pretrained(folder).float()
    model = build(recipe)
    model.load_state_dict(trained.state_dict())
    model.register_to_config(scaling_factor=trained.config.scaling_factor)
    return model


class PatchDiscriminator(torch.nn.Module):
    """A three-layer PatchGAN; `forward` returns the features of each layer and the patch logits last."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(
            [
                torch.nn.Conv2d(3, width, 4, 2, 1),
                torch.nn.Conv2d(width, 2 * width, 4, 2, 1),
                torch.nn.Conv2d(2 * width, 2 * width, 3, 1, 1),
            ]
        )
        self.norms = torch.nn.ModuleList([torch.nn.GroupNorm(8, 2 * width), torch.nn.GroupNorm(8, 2 * width)])
        self.out = torch.nn.Conv2d(2 * width, 1, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i:
                x = self.norms[i - 1](x)
            x = F.leaky_relu(x, 0.2)
            features.append(x)
        return [*features, self.out(x)]


class Codebook(torch.nn.Module):
    """Running counts and sums of the vectors nearest to each entry: entries follow them, dead ones start again."""

    DECAY, RESTART_EVERY, RESTART_UNTIL = 0.99, 25, 0.75

    def __init__(self, embedding: torch.nn.Embedding) -> None:
        super().__init__()
        self.entries = [embedding.weight]  # in a list: the model's own parameter, not one of this module
        embedding.weight.requires_grad_(False)
        self.register_buffer("counts", torch.zeros(embedding.num_embeddings))
        self.register_buffer("sums", torch.zeros_like(embedding.weight))

    def nearest(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest entry of each vector of [n, c, h, w], and the vectors' indices [n * h * w]."""
        flat = z.permute(0, 2, 3, 1)
        indices = torch.cdist(flat.reshape(-1, flat.shape[-1]), self.entries[0]).argmin(1)
        return self.entries[0][indices].reshape(flat.shape).permute(0, 3, 1, 2), indices

    @torch.no_grad()
    def update(self, z: torch.Tensor, indices: torch.Tensor, step: int, recipe: Recipe) -> None:
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        counts = torch.bincount(indices, minlength=len(self.counts)).float()
        sums = torch.zeros_like(self.sums).index_add_(0, indices, flat)
        self.counts.lerp_(counts, 1 - self.DECAY)
        self.sums.lerp_(sums, 1 - self.DECAY)
        if step % self.RESTART_EVERY == 0 and step < self.RESTART_UNTIL * recipe.steps:
            fair = len(flat) / len(self.counts)
            dead = (self.counts < 0.1 * fair).nonzero()[:, 0]
            rng = np.random.default_rng([recipe.seed, step, 1])
            fresh = flat[torch.from_numpy(rng.integers(len(flat), size=len(dead))).to(flat.device)]
            noise = torch.from_numpy(rng.standard_normal(fresh.shape)).float().to(flat.device)
            fresh = fresh + 0.05 * flat.std() * noise
            self.counts[dead] = fair
            self.sums[dead] = fair * fresh
        self.entries[0].copy_(self.sums / self.counts.clamp_min(1e-12)[:, None])
