"""Every further family against diffusers 0.39.0, in float32, with every parameter and buffer random.

Tiny networks by default, all that a config can ask for among them; at full width where tests marked `long` are run
(`.ci/long`). Sizes of latents are even and odd, height and width differ; `AutoencoderDC` adds up in another order for
at most 32 latent positions, so one size is below and one above.

Tolerance: 1e-4 of the largest value at full width, as in `test_autoencoders` and for the same reason; a tenth of it for
the tiny ones, which are less deep and add fewer numbers (measured 3e-7 to 4e-6).
"""

import tempfile

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

import aedr_jax

from .references import assert_close, nchw, nhwc, random_images

TOLERANCE = {"tiny": 1e-5, "full": 1e-4}
SIZES = {"even": (4, 6), "odd": (7, 5)}

FLUX2, WAN, QWEN = diffusers.AutoencoderKLFlux2, diffusers.AutoencoderKLWan, diffusers.AutoencoderKLQwenImage
DC, HUNYUAN = diffusers.AutoencoderDC, diffusers.AutoencoderKLHunyuanImage
VIDEO = (WAN, QWEN)

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

TINY = {
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
    "qwen2.1": (WAN, _TINY_22 | {"in_channels": 4, "out_channels": 4, "temperal_downsample": [True, True]}),
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
    "paella": (PaellaVQModel, {"embed_dim": 16, "bottleneck_blocks": 2, "levels": 3, "num_vq_embeddings": 37}),
}
FULL = {
    "flux2": (FLUX2, {}),
    "flux2-small": (FLUX2, {"decoder_block_out_channels": (96, 192, 384, 384)}),
    "wan2.1": (WAN, {}),
    "qwen": (QWEN, {}),
    "wan2.2": (WAN, WAN_22 | {"base_dim": 160, "decoder_base_dim": 256}),
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
    "paella": (PaellaVQModel, {}),
}
CASES = [("tiny", name) for name in TINY] + [pytest.param(("full", n), marks=pytest.mark.long) for n in FULL]


@torch.no_grad()
def random_network(cls, config, seed):
    """A reference network with nothing left as it is made: fresh scales of 1, biases and means of 0 and variances of 1
    would hide errors. Kernels keep PyTorch's random initial values."""
    torch.manual_seed(seed)
    model = cls(**config).eval()
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
    if cls in VIDEO:  # its decoder clips, which would hide what lies outside
        model.decoder.conv_out.weight.mul_(0.3)
        model.decoder.conv_out.bias.mul_(0.3)
    return model


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def pair(request):
    """A reference, what `load_autoencoder` makes of the folder it was saved to, and the tolerance."""
    width, name = request.param
    cls, config = (TINY if width == "tiny" else FULL)[name]
    reference = random_network(cls, config, seed=list(TINY).index(name))
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder)
        autoencoder = aedr_jax.load_autoencoder(folder)
    return reference, autoencoder, TOLERANCE[width]


@torch.no_grad()
def reference_latents(reference, images):
    """The posterior's mode, or the latents, [n,h,w,c], of images in [-1, 1]."""
    if isinstance(reference, VIDEO):
        channels = reference.encoder.conv_in.in_channels // (reference.config.get("patch_size") or 1) ** 2
        opaque = torch.ones_like(nchw(images[..., :1])) if channels == 4 else nchw(images[..., :0])
        x = torch.cat([nchw(images), opaque], dim=1)[:, :, None]
        return nhwc(reference.encode(x).latent_dist.mode()[:, :, 0])
    if isinstance(reference, PaellaVQModel):  # with return_dict its encode raises in 0.39
        return nhwc(reference.encode(nchw((images + 1) / 2), return_dict=False)[0])
    encoded = reference.encode(nchw(images))
    return nhwc(encoded.latent if isinstance(reference, DC) else encoded.latent_dist.mode())


@torch.no_grad()
def reference_images(reference, latents, **options):
    """RGB images in [-1, 1], [n,h,w,3]."""
    z = nchw(latents)
    if isinstance(reference, VIDEO):
        return nhwc(reference.decode(z[:, :, None]).sample[:, :3, 0])
    decoded = nhwc(reference.decode(z, **options).sample)
    return 2 * decoded - 1 if isinstance(reference, PaellaVQModel) else decoded


encode = jax.jit(lambda autoencoder, images: autoencoder.encode(images))
decode = jax.jit(
    lambda autoencoder, latents, quantize=None: autoencoder.decode(latents, quantize=quantize), static_argnums=2
)


def random_latents(reference, size, seed=0):
    channels = getattr(reference.config, "z_dim", None) or reference.config.latent_channels
    return np.random.default_rng(seed).standard_normal((2, *size, channels)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_encode(pair, size):
    """Reference: `encode`, its mode or latent; tolerances at the top."""
    reference, autoencoder, tolerance = pair
    height, width = (autoencoder.factor * side for side in SIZES[size])
    images = random_images(8 * -(-height // 8), 8 * -(-width // 8))[:, :height, :width]
    assert_close(encode(autoencoder, images), reference_latents(reference, images), tolerance)


@pytest.mark.parametrize("size", SIZES)
def test_decode(pair, size):
    """Reference: `decode` by its own defaults, inside ±1 where it clips; tolerances at the top."""
    reference, autoencoder, tolerance = pair
    latents = random_latents(reference, SIZES[size])
    expected = reference_images(reference, latents)
    assert np.abs(expected).max() < 1 or not isinstance(reference, VIDEO)
    assert_close(decode(autoencoder, latents), expected, tolerance)


def loaded(reference, folder):
    reference.save_pretrained(folder)
    return aedr_jax.load_autoencoder(folder)


@pytest.mark.parametrize("name", ["wan2.1", "wan2.2"])
def test_decode_clips(name, tmp_path):
    """Reference: `decode`, whose last step is a clip to ±1, after the squares are unfolded; 1e-5 (see the top)."""
    reference = random_network(*TINY[name], seed=3)
    with torch.no_grad():
        reference.decoder.conv_out.weight.mul_(20)
    latents = random_latents(reference, SIZES["odd"])
    expected = reference_images(reference, latents)
    assert 0.2 < (np.abs(expected) == 1).mean() < 0.95
    actual = decode(loaded(reference, tmp_path), latents)
    assert_close(actual, expected, TOLERANCE["tiny"])
    assert jnp.abs(actual).max() == 1


def test_paella_through_its_codebook(tmp_path):
    """Reference: `decode(force_not_quantize=False)`; 1e-5 (see the top). Its own default passes the codebook by."""
    reference = random_network(*TINY["paella"], seed=4)
    autoencoder = loaded(reference, tmp_path)
    assert not autoencoder.quantize_on_decode
    latents = random_latents(reference, SIZES["odd"])
    expected = reference_images(reference, latents, force_not_quantize=False)
    assert_close(decode(autoencoder, latents, True), expected, TOLERANCE["tiny"])
    assert not np.allclose(expected, reference_images(reference, latents), atol=1e-2)
    assert aedr_jax.load_autoencoder(tmp_path, quantize=True).quantize_on_decode


def test_samples_of_the_posterior_spread_as_the_reference_says(tmp_path):
    """Reference: `latent_dist.std` on one frame; 1e-5 (see the top)."""
    reference = random_network(*TINY["wan2.2"], seed=5)
    autoencoder = loaded(reference, tmp_path)
    images = random_images(32, 16)
    with torch.no_grad():
        expected = nhwc(reference.encode(nchw(images)[:, :, None]).latent_dist.std[:, :, 0])
    assert_close(autoencoder.posterior(jnp.asarray(images))[1], expected, TOLERANCE["tiny"])


@pytest.mark.parametrize("name", ["flux2", "wan2.2"])
@torch.no_grad()
def test_a_bfloat16_copy_is_of_the_family(name, tmp_path):
    """Reference: PyTorch's cast to bfloat16, exactly."""
    reference = random_network(*TINY[name], seed=6)
    whole, copy = loaded(reference, tmp_path / "whole"), loaded(reference.to(torch.bfloat16), tmp_path / "copy")
    hashes = [[aedr_jax.weights_hash(ae, rounded=r) for ae in (whole, copy)] for r in (False, True)]
    assert [len(set(of_both)) for of_both in hashes] == [2, 1]
