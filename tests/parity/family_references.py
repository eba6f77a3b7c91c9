"""The further families' networks in diffusers and transformers, with random weights, on images in [-1, 1].

Qwen-Image 2.1's class is none of diffusers 0.39's. Its network is the one of `AutoencoderKLWan`, which stands for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from safetensors.torch import save_file
from transformers import Emu3VQVAE, JanusVQVAE

from .family_configs import QWEN_21
from .references import nchw, nhwc

VIDEO = (diffusers.AutoencoderKLWan, diffusers.AutoencoderKLQwenImage)
ELSEWHERE = {"PaellaVQModel": PaellaVQModel, QWEN_21: diffusers.AutoencoderKLWan}  # where diffusers has no such name
TOKENIZERS = {"JanusVQVAE": JanusVQVAE, "Emu3VQVAE": Emu3VQVAE}  # of transformers


@torch.no_grad()
def random_network(class_name: str, config: dict[str, Any], seed: int) -> torch.nn.Module:
    """A reference network with nothing left as it is made: fresh scales of 1, biases and means of 0 and variances of 1
    would hide errors. Kernels keep PyTorch's random initial values."""
    torch.manual_seed(seed)
    if tokenizer := TOKENIZERS.get(class_name):
        return randomized(tokenizer(tokenizer.config_class(**config)).eval())
    model = randomized((ELSEWHERE.get(class_name) or getattr(diffusers, class_name))(**config).eval())
    if isinstance(model, VIDEO):  # its decoder clips, which would hide what lies outside
        model.decoder.conv_out.weight.mul_(0.3)
        model.decoder.conv_out.bias.mul_(0.3)
    return model


def saved(reference: torch.nn.Module, class_name: str, folder: Path) -> Path:
    """The reference in a folder, as its class is published: what `load_autoencoder` takes.

    Of Qwen-Image 2.1's class files hold the last slice of each kernel in time, and no other.
    """
    reference.save_pretrained(folder)
    if class_name in TOKENIZERS:
        return folder / "model.safetensors"
    if class_name == QWEN_21:
        tensors = {
            name: (value[:, :, -1] if value.ndim == 5 else value).contiguous()
            for name, value in reference.state_dict().items()
        }
        config = {**json.loads(reference.to_json_string()), "_class_name": class_name}
        (folder / "config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return folder


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
    if isinstance(reference, JanusVQVAE):  # of these its encode looks for the nearest codes
        return nhwc(reference.quant_conv(reference.encoder(nchw(images))))
    if isinstance(reference, Emu3VQVAE):  # likewise; frames stand before channels
        frames = reference.encode(nchw(images), sizes_of(images)).last_hidden_state
        return nhwc(reference.quant_conv(frames.transpose(1, 2))[:, :, 0])
    if isinstance(reference, PaellaVQModel):  # with return_dict its encode raises in 0.39
        return nhwc(reference.encode(nchw((images + 1) / 2), return_dict=False)[0])
    encoded = reference.encode(nchw(images))
    return nhwc(encoded.latent if isinstance(reference, diffusers.AutoencoderDC) else encoded.latent_dist.mode())


@torch.no_grad()
def reference_images(reference: torch.nn.Module, latents: np.ndarray, **options: bool) -> np.ndarray:
    """RGB images in [-1, 1], [n,h,w,3]; of latents as they are, by no codebook unless an option says so."""
    z = nchw(latents)
    if isinstance(reference, JanusVQVAE):
        return nhwc(reference.decoder(reference.post_quant_conv(z)))
    if isinstance(reference, Emu3VQVAE):  # the first of the frames that a frame of latents is decoded to
        frames = reference.decoder(reference.post_quant_conv(z[:, :, None]).transpose(1, 2), z[:, None])
        return nhwc(frames.unflatten(0, (len(z), -1))[:, 0])
    if isinstance(reference, VIDEO):
        return nhwc(reference.decode(z[:, :, None]).sample[:, :3, 0])
    decoded = nhwc(reference.decode(z, **options).sample)
    return 2 * decoded - 1 if isinstance(reference, PaellaVQModel) else decoded


@torch.no_grad()
def through_the_codebook(reference: torch.nn.Module, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A tokenizer's nearest codes, [n,hz,wz], and RGB images of them: its own `encode` and `decode`."""
    if isinstance(reference, JanusVQVAE):
        factor = 2 ** (len(reference.config.channel_multiplier) - 1)
        sides = [images.shape[1] // factor, images.shape[2] // factor]
        reference.quantize.quant_state_dims = sides  # otherwise those of the training
        codes = reference.encode(nchw(images)).image_tokens.view(len(images), -1)
        return codes.unflatten(1, sides).numpy(), nhwc(reference.decode(codes))
    codes = torch.stack(reference.encode(nchw(images), sizes_of(images)).image_tokens)
    return codes.numpy(), nhwc(reference.decode(codes))


def sizes_of(images: np.ndarray) -> torch.Tensor:
    return torch.tensor([images.shape[1:3]] * len(images))
