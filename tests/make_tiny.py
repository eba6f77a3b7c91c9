"""Tiny random checkpoints in diffusers' layout and names, made without PyTorch; and pictures to measure with them."""

import functools
import json
import re

import numpy as np
from flax import nnx
from PIL import Image
from safetensors.numpy import save_file

from aedr_jax.autoencoders.blocks import Numerics
from aedr_jax.autoencoders.config import parse_config
from aedr_jax.autoencoders.family import build_abstract

KL = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}
SMALLEST = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [4, 4, 4],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "mid_block_add_attention": False,
    "norm_num_groups": 2,
    "latent_channels": 2,
}
VQ = {
    "_class_name": "VQModel",
    "block_out_channels": [8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "vq_embed_dim": 4,
    "num_vq_embeddings": 32,
}
MOVQ = {
    "_class_name": "VQModel",
    "block_out_channels": [32],
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "latent_channels": 4,
    "vq_embed_dim": 4,
    "num_vq_embeddings": 32,
    "norm_type": "spatial",
}
# Where the network is not the subject: nothing but convolutions, two blocks of them. It is traced and compiled in a
# seventh of the time of `KL`, and run in a tenth.
QUICK = {
    "_class_name": "AutoencoderDC",
    "latent_channels": 4,
    "encoder_block_out_channels": [8, 8],
    "decoder_block_out_channels": [8, 8],
    "encoder_layers_per_block": [0, 1],
    "decoder_layers_per_block": [0, 1],
    "encoder_qkv_multiscales": [[], []],
    "decoder_qkv_multiscales": [[], []],
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@functools.cache
def _shapes(config_json):
    config = parse_config(json.loads(config_json))
    abstract = build_abstract(config, Numerics())
    params = nnx.to_flat_state(nnx.state(abstract, nnx.Param))
    return [(tuple(map(str, path)), leaf.shape) for path, leaf in params]


def make_tensors(config, *, seed=0, dtype=np.float32):
    """Tensors under today's diffusers names, in PyTorch's layouts; exactly representable in `dtype`."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for path, shape in _shapes(json.dumps(config)):
        *module, name = path
        if module[-1] == "to_out":
            module.append("0")
        value = rng.standard_normal(shape)
        if name == "embedding":
            module, name = ["quantize", "embedding"], "weight"
        elif name == "scale":
            name, value = "weight", 1 + 0.1 * value
        elif name == "kernel":
            name, value = "weight", value / np.sqrt(np.prod(shape[:-1]))
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        else:
            value = 0.1 * value
        tensors[".".join([*module, name])] = np.ascontiguousarray(value.astype(dtype).astype(np.float32))
    return tensors


def with_old_attention(tensors, *, convolutions=False):
    """The attention names of old diffusers files, and where `convolutions` their 1×1 kernels."""
    renamed = {}
    for key, value in tensors.items():
        old = key
        for new_name, old_name in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            old = re.sub(rf"\.{re.escape(new_name)}\.(weight|bias)$", rf".{old_name}.\1", old)
        renamed[old] = value[:, :, None, None] if convolutions and old != key and value.ndim == 2 else value
    return renamed


def write_folder(folder, config, tensors, *, file=WEIGHTS):
    """A diffusers folder; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / file)
    return folder


def textured(rng, side=66):
    """A picture of soft colours under fine grain: of an image without detail nothing can be said."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray((soft + rng.normal(0, 12, soft.shape)).clip(0, 255).astype(np.uint8))
