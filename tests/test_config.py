"""Architectures from `config.json`: the eight models' own, and every way of being wrong."""

import math

import pytest
from flax import nnx
from test_todays_families import SANA

from aedr_jax.autoencoders.blocks import Numerics
from aedr_jax.autoencoders.config import parse_config
from aedr_jax.autoencoders.families.kl import KLArchitecture
from aedr_jax.autoencoders.families.vq import VQArchitecture
from aedr_jax.autoencoders.family import build_abstract
from aedr_jax.errors import AutoencoderError

BLOCKS = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
ATTENTION_BLOCKS = {
    "down_block_types": ["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3,
}
SD = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    **BLOCKS,
    "block_out_channels": [128, 256, 512, 512],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
}
LARGE = {
    **SD,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "force_upcast": True,
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "sample_size": 1024,
}
CONFIGS = {
    "sd1.5": SD,
    "sd2-base": {**SD, "_name_or_path": "somewhere/vae"},
    "sd2.1": {**SD, "sample_size": 768},
    "sdxl": {**SD, "scaling_factor": 0.13025, "force_upcast": True, "sample_size": 1024},
    "sd3.5": {**LARGE, "scaling_factor": 1.5305, "shift_factor": 0.0609},
    "flux": {**LARGE, "scaling_factor": 0.3611, "shift_factor": 0.1159},
    "vqdm": {
        "_class_name": "VQModel",
        **ATTENTION_BLOCKS,
        "block_out_channels": [64, 128, 256, 512],
        "latent_channels": 256,
        "layers_per_block": 2,
        "num_vq_embeddings": 4096,
        "vq_embed_dim": 128,
        "sample_size": 32,
    },
    "kandinsky2.1": {
        "_class_name": "VQModel",
        **ATTENTION_BLOCKS,
        "block_out_channels": [128, 256, 256, 512],
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_type": "spatial",
        "num_vq_embeddings": 16384,
        "vq_embed_dim": 4,
        "scaling_factor": 0.18215,
    },
}
TAESD = {
    "_class_name": "AutoencoderTiny",
    "act_fn": "relu",
    "decoder_block_out_channels": [64] * 4,
    "encoder_block_out_channels": [64] * 4,
    "latent_channels": 4,
    "num_decoder_blocks": [3, 3, 3, 1],
    "num_encoder_blocks": [1, 3, 3, 3],
    "upsampling_scaling_factor": 2,
}
KLEIN = {
    **SD,
    "_class_name": "AutoencoderKLFlux2",
    "_name_or_path": "black-forest-labs/FLUX.2-dev",
    "batch_norm_eps": 0.0001,
    "batch_norm_momentum": 0.1,
    "latent_channels": 32,
    "patch_size": [2, 2],
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
# tensors and values of the weights that are published, as others who loaded them report: of TAESD the values alone, of
# FLUX.2 without the statistics of a batch norm that its generator uses
PUBLISHED = {
    "sd1.5": (SD, 248, 83_653_863),
    "flux": (LARGE, 244, 83_819_683),
    "flux2-klein": (KLEIN, 248, 84_046_115),
    "taesd": (TAESD, None, 2_445_063),
    "sana": ({"_class_name": "AutoencoderDC", **SANA}, 375, 312_250_275),
}
# width of latents, quant conv, codes, dimension of codes, norm, scaling factor, where it stands in tables
EXPECTED = {
    "sd1.5": (4, True, None, None, None, 0.18215, "KL, 4 channels"),
    "sd2-base": (4, True, None, None, None, 0.18215, "KL, 4 channels"),
    "sd2.1": (4, True, None, None, None, 0.18215, "KL, 4 channels"),
    "sdxl": (4, True, None, None, None, 0.13025, "KL, 4 channels"),
    "sd3.5": (16, False, None, None, None, 1.5305, "KL, 16 channels"),
    "flux": (16, False, None, None, None, 0.3611, "KL, 16 channels"),
    "vqdm": (256, None, 4096, 128, "group", 0.18215, "VQ"),
    "kandinsky2.1": (4, None, 16384, 4, "spatial", 0.18215, "MoVQ"),
}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_configs_of_the_eight_models(name):
    config = parse_config(CONFIGS[name])
    a = config.architecture
    read = (
        a.latent_channels,
        getattr(a, "use_quant_conv", None),
        getattr(a, "num_vq_embeddings", None),
        getattr(a, "vq_embed_dim", None),
        getattr(a, "norm_type", None),
        config.scaling_factor,
        a.label,
    )
    assert read == EXPECTED[name]
    assert isinstance(a, KLArchitecture if CONFIGS[name]["_class_name"] == "AutoencoderKL" else VQArchitecture)
    assert a.factor == 8
    assert (a.in_channels, a.out_channels, a.layers_per_block, a.norm_num_groups) == (3, 3, 2, 32)
    assert a.mid_block_add_attention
    assert a.block_out_channels == tuple(CONFIGS[name]["block_out_channels"])
    assert a.down_block_types == tuple(CONFIGS[name]["down_block_types"])
    assert hash(a) == hash(parse_config(CONFIGS[name]).architecture)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_networks_have_as_many_weights_as_the_published_files(name):
    fields, tensors, values = PUBLISHED[name]
    weights = nnx.to_flat_state(nnx.state(build_abstract(parse_config(fields), Numerics()), nnx.Param))
    shapes = [leaf.shape for _, leaf in weights]
    assert sum(math.prod(shape) for shape in shapes) == values
    assert tensors in (None, len(shapes))


def test_missing_fields_are_diffusers_defaults():
    kl = parse_config({"_class_name": "AutoencoderKL"})
    assert kl.architecture == KLArchitecture(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(64,),
        layers_per_block=1,
        norm_num_groups=32,
        mid_block_add_attention=True,
        latent_channels=4,
        use_quant_conv=True,
        use_post_quant_conv=True,
    )
    assert kl.scaling_factor == 0.18215
    vq = parse_config({"_class_name": "VQModel"}).architecture
    assert (vq.latent_channels, vq.num_vq_embeddings, vq.vq_embed_dim, vq.norm_type) == (3, 256, 3, "group")


def test_codes_are_as_wide_as_latents_unless_said():
    config = {"_class_name": "VQModel", "latent_channels": 7}
    assert parse_config(config).architecture.vq_embed_dim == 7
    assert parse_config({**config, "vq_embed_dim": 5}).architecture.vq_embed_dim == 5


def test_null_is_the_default():
    nulls = dict.fromkeys(("latent_channels", "scaling_factor", "norm_num_groups", "block_out_channels", "act_fn"))
    assert parse_config({"_class_name": "AutoencoderKL", **nulls}) == parse_config({"_class_name": "AutoencoderKL"})
    nulls = dict.fromkeys(("vq_embed_dim", "latents_mean", "some_new_field"))
    assert parse_config({**CONFIGS["vqdm"], **nulls}).architecture.vq_embed_dim == 256


def test_what_does_not_matter_changes_nothing():
    plain, ignored = parse_config(SD), {"sample_size": 8, "shift_factor": 0.5, "force_upcast": False, "_any": 1}
    assert parse_config({**SD, **ignored}) == plain
    assert parse_config({**SD, "act_fn": "swish"}) == plain


@pytest.mark.parametrize("class_name", [None, "UNet2DConditionModel", "AutoencoderOobleck", ["AutoencoderKL"], 3])
def test_other_classes_are_refused(class_name):
    with pytest.raises(AutoencoderError, match=r"_class_name is .*AutoencoderKL, .*VQModel") as caught:
        parse_config({**SD, "_class_name": class_name}, where="here/config.json")
    assert str(caught.value).startswith("here/config.json: ")
    assert repr(class_name) in str(caught.value)


WRONG = {
    "unknown field": ({"double_z": True}, "unknown field 'double_z' = True"),
    "field of the other class": ({"num_vq_embeddings": 8}, "unknown field 'num_vq_embeddings' = 8"),
    "activation": ({"act_fn": "relu"}, "act_fn = 'relu'"),
    "down block": ({"down_block_types": ["DownBlock2D"] * 4}, "down_block_types: unknown block 'DownBlock2D'"),
    "up block": ({"up_block_types": ["UpBlock2D"] * 4}, "up_block_types: unknown block 'UpBlock2D'"),
    "lengths": ({"block_out_channels": [128, 256]}, "different lengths"),
    "groups": ({"block_out_channels": [128, 256, 500, 512]}, "no multiples of norm_num_groups"),
    "number for a list": ({"block_out_channels": 128}, "block_out_channels = 128"),
    "text for a list": ({"down_block_types": "DownEncoderBlock2D"}, "down_block_types = 'DownEncoderBlock2D'"),
    "empty list": ({"block_out_channels": []}, "block_out_channels = []"),
    "list of texts for widths": ({"block_out_channels": ["128"] * 4}, "block_out_channels = ['128'"),
    "nested list": ({"block_out_channels": [[128]] * 4}, "block_out_channels = [[128]"),
    "text for a number": ({"layers_per_block": "2"}, "layers_per_block = '2'"),
    "fraction": ({"latent_channels": 4.5}, "latent_channels = 4.5"),
    "no groups": ({"norm_num_groups": 0}, "norm_num_groups = 0"),
    "negative": ({"latent_channels": -4}, "latent_channels = -4"),
    "number for a flag": ({"use_quant_conv": 0}, "use_quant_conv = 0"),
    "flag for a number": ({"layers_per_block": True}, "layers_per_block = True"),
    "channels": ({"in_channels": 4}, "in_channels = 4; images have 3 channels"),
    "scaling factor": ({"scaling_factor": "large"}, "scaling_factor = 'large'"),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_wrong_value_is_named(name):
    change, message = WRONG[name]
    with pytest.raises(AutoencoderError) as caught:
        parse_config({**SD, **change}, where="here/config.json")
    assert str(caught.value).startswith("here/config.json: cannot rebuild this AutoencoderKL:\n  ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_type": "layer"}, "norm_type = 'layer'"),
        ({"block_out_channels": [48] * 4, "norm_num_groups": 16}, "spatial norm needs multiples of 32"),
        ({"use_quant_conv": True}, "unknown field 'use_quant_conv'"),
    ],
)
def test_wrong_value_of_a_vq_model(change, message):
    with pytest.raises(AutoencoderError, match=message):
        parse_config({**CONFIGS["kandinsky2.1"], **change})


def test_handing_over_indices_changes_no_decoded_image():
    """aMUSEd's configs say it: a pipeline may then decode indices, which are the entries that quantize=True decodes."""
    looked_up = parse_config({**CONFIGS["vqdm"], "lookup_from_codebook": True})
    assert looked_up == parse_config(CONFIGS["vqdm"])


def test_group_norm_takes_widths_that_spatial_norm_does_not():
    widths = {"block_out_channels": [48] * 4, "norm_num_groups": 16}
    assert parse_config({**CONFIGS["vqdm"], **widths}).architecture.block_out_channels == (48,) * 4


def test_every_problem_is_listed_at_once():
    change = {"double_z": 1, "zeta": 2, "act_fn": "gelu", "layers_per_block": "2", "block_out_channels": [128, 200]}
    with pytest.raises(AutoencoderError) as caught:
        parse_config({**SD, **change})
    for part in ("'double_z'", "'zeta'", "'gelu'", "layers_per_block"):
        assert part in str(caught.value)
    with pytest.raises(AutoencoderError) as caught:
        parse_config({**SD, "double_z": 1, "up_block_types": ["Up"], "block_out_channels": [128, 200]})
    for part in ("'double_z'", "unknown block 'Up'", "different lengths", "no multiples"):
        assert part in str(caught.value)
