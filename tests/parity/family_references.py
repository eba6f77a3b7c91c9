"""diffusers' networks of the further families, with random weights, on images in [-1, 1]."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

from .references import nchw, nhwc

VIDEO = (diffusers.AutoencoderKLWan, diffusers.AutoencoderKLQwenImage)


@torch.no_grad()
def random_network(class_name: str, config: dict[str, Any], seed: int) -> torch.nn.Module:
    """A reference network with nothing left as it is made: fresh scales of 1, biases and means of 0 and variances of 1
    would hide errors. Kernels keep PyTorch's random initial values."""
    torch.manual_seed(seed)
    cls = PaellaVQModel if class_name == "PaellaVQModel" else getattr(diffusers, class_name)
    model = randomized(cls(**config).eval())
    if cls in VIDEO:  # its decoder clips, which would hide what lies outside
        model.decoder.conv_out.weight.mul_(0.3)
        model.decoder.conv_out.bias.mul_(0.3)
    return model


@torch.no_grad()
def randomized(model: torch.nn.Module) -> torch.nn.Module:
    """The network with all but its kernels drawn anew."""
    for name, value in model.named_parameters():
        if name.endswith("gammas"):
            value.normal_(0.5, 0.3)
        elif name.endswith(".bias"):
            value.normal_(0.0, 0.1)
        elif value.ndim == 1 or name.endswith(".gamma"):
            value.normal_(1.0, 0.2)
        elif "embedding" in name:
            value.normal_()
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0.0, 0.3)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif name.endswith("num_batches_tracked"):
            value.fill_(7)
    return model


@torch.no_grad()
def reference_latents(reference: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """The posterior's mode, or the latents, [n,h,w,c], of images in [-1, 1]."""
    if isinstance(reference, VIDEO):
        channels = reference.encoder.conv_in.in_channels // (reference.config.get("patch_size") or 1) ** 2
        opaque = torch.ones_like(nchw(images[..., :1])) if channels == 4 else nchw(images[..., :0])
        x = torch.cat([nchw(images), opaque], dim=1)[:, :, None]
        return nhwc(reference.encode(x).latent_dist.mode()[:, :, 0])
    if isinstance(reference, PaellaVQModel):  # with return_dict its encode raises in 0.39
        return nhwc(reference.encode(nchw((images + 1) / 2), return_dict=False)[0])
    encoded = reference.encode(nchw(images))
    return nhwc(encoded.latent if isinstance(reference, diffusers.AutoencoderDC) else encoded.latent_dist.mode())


@torch.no_grad()
def reference_images(reference: torch.nn.Module, latents: np.ndarray, **options: bool) -> np.ndarray:
    """RGB images in [-1, 1], [n,h,w,3]."""
    z = nchw(latents)
    if isinstance(reference, VIDEO):
        return nhwc(reference.decode(z[:, :, None]).sample[:, :3, 0])
    decoded = nhwc(reference.decode(z, **options).sample)
    return 2 * decoded - 1 if isinstance(reference, PaellaVQModel) else decoded
