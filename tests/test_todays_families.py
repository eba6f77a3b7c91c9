"""Families of today's models: their configs, what their checkpoints may hold, and how their networks fit in here.

That they compute what diffusers and transformers compute: `tests/parity/test_families.py`, `test_tokenizers.py` there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_autoencoder
from make_tiny import write_folder

import aedr_jax as aedr
from aedr_jax.autoencoders.blocks import Numerics, from_squares, to_squares
from aedr_jax.autoencoders.checkpoints import from_state_dict, to_flat_dict, weights_hash
from aedr_jax.autoencoders.config import parse_config
from aedr_jax.autoencoders.norms import UnitNorm
from aedr_jax.errors import AutoencoderError

KL_FIELDS = {
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 1024,
}
WAN_FIELDS = {
    "attn_scales": [],
    "base_dim": 96,
    "dim_mult": [1, 2, 4, 4],
    "dropout": 0.0,
    "latents_mean": [-0.75] * 16,
    "latents_std": [2.8] * 16,
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
    "z_dim": 16,
}
WAN_22 = {
    "base_dim": 160,
    "clip_output": False,
    "decoder_base_dim": 256,
    "in_channels": 12,
    "is_residual": True,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
    "z_dim": 48,
}
VIT = ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3
SANA = {
    "attention_head_dim": 32,
    "decoder_act_fns": "silu",
    "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "decoder_block_types": VIT,
    "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
    "decoder_norm_types": "rms_norm",
    "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
    "downsample_block_type": "Conv",
    "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "encoder_block_types": VIT,
    "encoder_layers_per_block": [2, 2, 2, 3, 3, 3],
    "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
    "in_channels": 3,
    "latent_channels": 32,
    "scaling_factor": 0.41407,
    "upsample_block_type": "interpolate",
}
HUNYUAN = {
    "block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "downsample_match_channel": True,
    "in_channels": 3,
    "latent_channels": 64,
    "layers_per_block": 2,
    "out_channels": 3,
    "sample_size": 384,
    "scaling_factor": 0.75289,
    "spatial_compression_ratio": 32,
    "upsample_match_channel": True,
}
PAELLA = {
    "bottleneck_blocks": 12,
    "embed_dim": 384,
    "in_channels": 3,
    "latent_channels": 4,
    "levels": 2,
    "num_vq_embeddings": 8192,
    "out_channels": 3,
    "scale_factor": 0.3764,
    "up_down_scale_factor": 2,
}
JANUS = {  # as transformers writes it of a Janus-Pro; its converter adds `depth`, which the class does not know
    "architectures": ["JanusVQVAE"],
    "base_channels": 128,
    "channel_multiplier": [1, 1, 2, 2, 4],
    "depth": 2,
    "double_latent": False,
    "dropout": 0.0,
    "dtype": "float32",
    "embed_dim": 8,
    "hidden_act": "gelu",
    "image_token_embed_dim": 2048,
    "in_channels": 3,
    "initializer_range": 0.02,
    "latent_channels": 256,
    "model_type": "janus_vqgan",
    "num_embeddings": 16384,
    "num_hidden_layers": 2,
    "num_patches": 32,
    "num_res_blocks": 2,
    "out_channels": 3,
    "projection_dim": 2048,
    "transformers_version": "5.24.0",
}
EMU3 = {  # likewise
    "architectures": ["Emu3VQVAE"],
    "attention_dropout": 0.0,
    "attn_resolutions": [3],
    "base_channels": 256,
    "channel_multiplier": [1, 2, 2, 4],
    "codebook_size": 32768,
    "double_latent": False,
    "dtype": "float32",
    "embed_dim": 4,
    "hidden_size": 1024,
    "in_channels": 3,
    "latent_channels": 4,
    "model_type": "emu3_vqgan",
    "num_attention_heads": 1,
    "num_res_blocks": 2,
    "out_channels": 3,
    "temporal_downsample_factor": 4,
    "transformers_version": "5.24.0",
}
COGVIEW = {"block_out_channels": [128, 512, 1024, 1024], "layers_per_block": 3, "mid_block_add_attention": False}
CONFIGS = {  # fields as diffusers writes them for these models -> factor, image channels, image range, label
    "flux2": (
        {
            "_class_name": "AutoencoderKLFlux2",
            **KL_FIELDS,
            "batch_norm_eps": 0.0001,
            "batch_norm_momentum": 0.1,
            "decoder_block_out_channels": None,
            "latent_channels": 32,
            "patch_size": [2, 2],
        },
        (8, 3, (-1.0, 1.0), "KL, 32 channels"),
    ),
    "qwen": (
        {"_class_name": "AutoencoderKLQwenImage", **WAN_FIELDS, "input_channels": 4},
        (8, 4, (-1.0, 1.0), "Wan, 16 channels"),
    ),
    "wan2.1": ({"_class_name": "AutoencoderKLWan", **WAN_FIELDS}, (8, 3, (-1.0, 1.0), "Wan, 16 channels")),
    "wan2.2": (
        {"_class_name": "AutoencoderKLWan", **WAN_FIELDS, **WAN_22},
        (16, 3, (-1.0, 1.0), "Wan 2.2, 48 channels"),
    ),
    "qwen2.1": ({"_class_name": "AutoencoderKLQwenImage21"}, (16, 4, (-1.0, 1.0), "Wan 2.2, 64 channels")),
    "sana": ({"_class_name": "AutoencoderDC", **SANA}, (32, 3, (-1.0, 1.0), "DC, 32 channels")),
    "sana, written again": (
        {"_class_name": "AutoencoderDC", **SANA, "downsample_block_type": "conv"},
        (32, 3, (-1.0, 1.0), "DC, 32 channels"),
    ),
    "hunyuanimage": (
        {"_class_name": "AutoencoderKLHunyuanImage", **HUNYUAN},
        (32, 3, (-1.0, 1.0), "HunyuanImage, 64 channels"),
    ),
    "paella": ({"_class_name": "PaellaVQModel", **PAELLA}, (4, 3, (0.0, 1.0), "Paella, 4 channels")),
    "janus": (JANUS, (16, 3, (-1.0, 1.0), "Janus, 8 channels")),
    "emu3": (EMU3, (8, 3, (-1.0, 1.0), "Emu3, 4 channels")),
    "cogview": (
        {"_class_name": "AutoencoderKL", **KL_FIELDS, **COGVIEW, "latent_channels": 16},
        (8, 3, (-1.0, 1.0), "KL, 16 channels"),
    ),
}

_WAN = {"base_dim": 4, "z_dim": 3, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [True]}
_FOLDED = {"patch_size": 2, "in_channels": 12, "out_channels": 12}
TINY = {
    "flux2": {
        "_class_name": "AutoencoderKLFlux2",
        "block_out_channels": [4, 4],
        "decoder_block_out_channels": [4, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "latent_channels": 3,
    },
    "qwen": {"_class_name": "AutoencoderKLQwenImage", **_WAN},
    "qwen-rgba": {"_class_name": "AutoencoderKLQwenImage", **_WAN, "input_channels": 4},
    "wan2.1": {"_class_name": "AutoencoderKLWan", **_WAN},
    "wan2.2": {"_class_name": "AutoencoderKLWan", **_WAN, **_FOLDED, "is_residual": True, "dim_mult": [1, 1]},
    "qwen2.1": {"_class_name": "AutoencoderKLQwenImage21", **_WAN, "decoder_base_dim": 8, "dim_mult": [1, 1]},
    "dc": {
        "_class_name": "AutoencoderDC",
        "latent_channels": 4,
        "attention_head_dim": 4,
        "encoder_block_out_channels": [4, 8],
        "decoder_block_out_channels": [4, 8],
        "encoder_layers_per_block": [1, 1],
        "decoder_layers_per_block": [1, 1],
        "encoder_block_types": ["ResBlock", "EfficientViTBlock"],
        "decoder_block_types": ["ResBlock", "EfficientViTBlock"],
        "encoder_qkv_multiscales": [[], [3]],
        "decoder_qkv_multiscales": [[], []],
        "decoder_norm_types": "batch_norm",
    },
    "hunyuanimage": {
        "_class_name": "AutoencoderKLHunyuanImage",
        "block_out_channels": [32, 32],
        "latent_channels": 4,
        "layers_per_block": 1,
        "spatial_compression_ratio": 2,
    },
    "paella": {"_class_name": "PaellaVQModel", "embed_dim": 8, "bottleneck_blocks": 1, "num_vq_embeddings": 5},
    "janus": {
        "architectures": ["JanusVQVAE"],
        "base_channels": 32,
        "channel_multiplier": [1, 1],
        "num_res_blocks": 1,
        "latent_channels": 3,
        "embed_dim": 2,
        "num_embeddings": 5,
    },
    "emu3": {
        "architectures": ["Emu3VQVAE"],
        "base_channels": 32,
        "channel_multiplier": [1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [0],
        "hidden_size": 32,
        "codebook_size": 5,
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_as_diffusers_writes_them(name):
    fields, expected = CONFIGS[name]
    config = parse_config(fields)
    a = config.architecture
    assert (a.factor, a.image_channels, config.image_range, a.label) == expected
    assert hash(a) == hash(parse_config(fields).architecture)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("flux2", {"decoder_block_out_channels": [96, 192]}, "decoder: down_block_types.*different lengths"),
        ("flux2", {"decoder_block_out_channels": [100] * 4}, "decoder: block_out_channels .* no multiples"),
        ("wan2.1", {"attn_scales": [0.5]}, r"attn_scales = \[0.5\]; only \[\] is supported"),
        ("wan2.1", {"temperal_downsample": [True]}, "temperal_downsample has 1 values"),
        ("wan2.1", {"in_channels": 12}, r"\(12, 3\) channels in and out of squares of side 1"),
        ("wan2.2", {"dim_mult": [1, 1, 1, 64]}, "shortcuts cannot share"),  # of the encoder, without a halving
        ("wan2.2", {"dim_mult": [3, 4, 4, 4]}, "shortcuts cannot share"),  # of the encoder
        ("wan2.2", {"dim_mult": [1, 1, 8, 8]}, "shortcuts cannot share"),  # of the decoder: 1 × 4 pixels from 8
        ("qwen", {"in_channels": 3}, "unknown field 'in_channels'"),
        ("sana", {"decoder_norm_types": "layer_norm"}, "decoder: unknown norm type 'layer_norm'"),
        ("sana", {"decoder_act_fns": ["silu"]}, "different lengths"),
        ("sana", {"encoder_block_types": "Block"}, "encoder: unknown block type 'Block'"),
        ("sana", {"encoder_layers_per_block": [2, 0, 2, 3, 3, 3]}, "encoder: no layers in a level other than"),
        ("sana", {"attention_head_dim": 48}, "512 channels are no heads of 48"),
        ("sana", {"encoder_qkv_multiscales": [[], [], [], [4], [5], [5]]}, "kernels of even size"),
        ("sana", {"latent_channels": 48}, "decoder: 48 channels to 1024: no shortcut fits"),
        ("sana", {"encoder_block_out_channels": [128, 256, 512, 512, 1024, 8192]}, "1024 to 8192 channels: no"),
        ("sana", {"upsample_block_type": "conv"}, "upsample_block_type = 'conv'"),
        ("sana", {"downsample_block_type": "CONV"}, "downsample_block_type = 'CONV'; only 'pixel_unshuffle' or"),
        ("hunyuanimage", {"spatial_compression_ratio": 16}, "expected a halving between any two of the 6 blocks"),
        ("hunyuanimage", {"downsample_match_channel": False}, "downsample_match_channel = False; only True"),
        ("hunyuanimage", {"latent_channels": 96}, "1024, is no multiple of 2 × 96"),
        ("hunyuanimage", {"block_out_channels": [128, 256, 512, 512, 1024, 1000]}, "no multiples of 32"),
        ("paella", {"levels": 12}, "too narrow for 12 levels"),
        ("paella", {"in_channels": 1}, "in_channels = 1"),
        ("janus", {"channel_multiplier": [2, 4]}, r"channel_multiplier \(2, 4\) does not begin with 1"),
        ("janus", {"base_channels": 48}, "base_channels 48: norms need a multiple of 32"),
        ("janus", {"double_latent": True}, "double_latent = True; only False"),
        ("janus", {"_class_name": "JanusVQVAE"}, "unknown field 'architectures'"),  # of diffusers it would be another
        ("janus", {"architectures": ["JanusForConditionalGeneration"]}, "_class_name is 'JanusForConditionalGen"),
        ("janus", {"architectures": ["JanusVQVAE", "Other"]}, "_class_name is None"),
        ("emu3", {"channel_multiplier": [2, 2, 2, 4]}, r"channel_multiplier \(2, 2, 2, 4\) does not begin with 1"),
        ("emu3", {"base_channels": 48, "hidden_size": 192}, "base_channels 48: norms need a multiple of 32"),
        ("emu3", {"embed_dim": 8}, "embed_dim 8 is not latent_channels 4"),
        ("emu3", {"temporal_downsample_factor": 6}, "temporal_downsample_factor 6 is no power of 2"),
        ("emu3", {"hidden_size": 512}, r"hidden_size 512, but attention is on \[1024\] channels"),
        ("emu3", {"attn_resolutions": [2, 3]}, r"hidden_size 1024, but attention is on \[512, 1024\] channels"),
        ("emu3", {"num_attention_heads": 2}, "num_attention_heads = 2; only 1"),
        ("emu3", {"double_latent": True}, "double_latent = True; only False"),
    ],
)
def test_what_cannot_be_rebuilt_is_said(name, change, message):
    with pytest.raises(AutoencoderError, match=message):
        parse_config({**CONFIGS[name][0], **change})


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shapes_and_gradients_in_each_dtype(name, dtype):
    """Traced, not run: sizes, dtypes, and that the whole can be differentiated."""
    autoencoder = random_autoencoder(TINY[name], numerics=Numerics(jnp.dtype(dtype), "highest"))
    f = autoencoder.factor
    images = jax.ShapeDtypeStruct((2, 4 * f, 5 * f, 3), jnp.float32)
    latents = jax.eval_shape(lambda x: autoencoder.encode(x, jax.random.key(0)), images)
    assert latents.shape[:3] == (2, 4, 5)
    assert latents.dtype == dtype

    def loss(x):
        return jnp.mean(autoencoder.decode(autoencoder.encode(x)))

    value, gradient = jax.eval_shape(jax.value_and_grad(loss), images)
    assert (value.dtype, gradient.shape, gradient.dtype) == (jnp.float32, images.shape, jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(autoencoder))


def of_videos(flat, rng):
    """What a file of diffusers holds in place of these: kernels of three frames of which one acts, and more."""
    tensors = {}
    for path, value in flat.items():
        key = path.replace(".conv.kernel", ".resample.1.weight").replace(".conv.bias", ".resample.1.bias")
        key = key.replace(".upsampler.", ".upsamplers.0.").replace(".kernel", ".weight")
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
            if "resample" not in key:
                earlier = rng.standard_normal((*value.shape[:2], 2, *value.shape[2:]), dtype=np.float32)
                value = np.concatenate([earlier, value[:, :, None]], axis=2)
        elif value.ndim == 2:
            value = value.T[:, :, None, None]
        elif key.endswith(".scale"):
            key, value = key.replace(".scale", ".gamma"), value[:, None, None, None]
        tensors[key] = value
    shape = (8, 4, 3, 1, 1)
    return tensors | {"decoder.up_blocks.0.upsamplers.0.time_conv.weight": rng.standard_normal(shape)}


def test_wan_and_qwen_of_equal_weights_are_one_family(rng):
    """Of kernels in time the last slice acts alone; Qwen-Image 2.1 stores it without the others."""
    made = random_autoencoder(TINY["wan2.1"])
    tensors = of_videos(to_flat_dict(made), rng)
    assert tensors["quant_conv.weight"].shape == (6, 6, 3, 1, 1)
    loaded = {name: from_state_dict(tensors, parse_config(TINY[name])) for name in ("wan2.1", "qwen")}
    flattened = {key: value[:, :, -1] if value.ndim == 5 else value for key, value in tensors.items()}
    del flattened["decoder.up_blocks.0.upsamplers.0.time_conv.weight"]
    loaded["flattened"] = from_state_dict(flattened, parse_config(TINY["qwen"]))
    assert {weights_hash(autoencoder) for autoencoder in loaded.values()} == {weights_hash(made)}
    first = dict(tensors)
    first["decoder.conv_in.weight"] = first["decoder.conv_in.weight"][:, :, ::-1]
    assert weights_hash(from_state_dict(first, parse_config(TINY["qwen"]))) != weights_hash(made)


@pytest.mark.parametrize("key", ["quant_conv.weight", "post_quant_conv.weight"])
def test_latents_through_zeros_are_refused(key, rng):
    tensors = of_videos(to_flat_dict(random_autoencoder(TINY["qwen"])), rng)
    tensors[key] = np.zeros_like(tensors[key])
    with pytest.raises(AutoencoderError, match=rf"\n  {key}: all zeros; the file is damaged"):
        from_state_dict(tensors, parse_config(TINY["qwen"]))


def test_buffers_of_a_batch_norm_that_only_pipelines_use(tmp_path, rng):
    """Every file of FLUX.2 holds them, the counter as an integer."""
    tensors = {
        f"decoder.conv_in.{name}": rng.standard_normal(shape, dtype=np.float32)
        for name, shape in {"weight": (8, 3, 3, 3), "bias": (8,)}.items()
    }
    bn = {"bn.running_mean": np.zeros(12, np.float32), "bn.running_var": np.full(12, np.nan, np.float32)}
    folder = write_folder(tmp_path, TINY["flux2"], {**tensors, **bn, "bn.num_batches_tracked": np.array(1000)})
    with pytest.raises(AutoencoderError, match="place without a tensor") as caught:
        aedr.load_autoencoder(folder)
    assert "bn." not in str(caught.value)
    assert "decoder.conv_in" not in str(caught.value)


def test_a_vector_of_zeros_has_a_norm_and_a_gradient():
    norm = UnitNorm(3, Numerics())
    np.testing.assert_array_equal(norm(jnp.zeros((1, 1, 1, 3))), 0)
    gradient = jax.grad(lambda x: norm(x).sum())(jnp.zeros((1, 1, 1, 3)))
    assert jnp.isfinite(gradient).all()


def test_squares_keep_what_was_cut():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    squares = to_squares(x, 2)
    assert squares.shape == (2, 2, 3, 3, 2, 2)
    assert squares[1, 1, 2, 0, 1, 0] == x[1, 3, 4, 0]  # row 1, column 0 of the square
    np.testing.assert_array_equal(from_squares(squares), x)
