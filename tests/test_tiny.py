"""`AutoencoderTiny`: its configs, its keys, and what of it can be told without PyTorch.

That it computes what diffusers computes is `tests/parity/test_autoencoder_tiny.py`.
"""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_autoencoder
from safetensors.numpy import save_file

from aedr_jax.autoencoders.checkpoints import module_path, to_flat_dict, weights_hash
from aedr_jax.autoencoders.config import parse_config
from aedr_jax.autoencoders.families.tiny import TINY, TinyArchitecture
from aedr_jax.autoencoders.loading import load_autoencoder
from aedr_jax.errors import AutoencoderError

# The config of madebyollin/taesd, as diffusers writes it.
TAESD = {
    "_class_name": "AutoencoderTiny",
    "_diffusers_version": "0.20.0.dev0",
    "act_fn": "relu",
    "block_out_channels": [64, 64, 64, 64],
    "decoder_block_out_channels": [64, 64, 64, 64],
    "encoder_block_out_channels": [64, 64, 64, 64],
    "force_upcast": False,
    "in_channels": 3,
    "latent_channels": 4,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "num_decoder_blocks": [3, 3, 3, 1],
    "num_encoder_blocks": [1, 3, 3, 3],
    "out_channels": 3,
    "scaling_factor": 1.0,
    "upsample_fn": "nearest",
    "upsampling_scaling_factor": 2,
}
SMALL = {
    "_class_name": "AutoencoderTiny",
    "encoder_block_out_channels": [8, 8],
    "decoder_block_out_channels": [4, 4],
    "num_encoder_blocks": [1, 1],
    "num_decoder_blocks": [1, 0],
    "latent_channels": 2,
}


def test_config():
    config = parse_config(TAESD)
    assert config.architecture == TinyArchitecture()
    assert (config.architecture.factor, config.scaling_factor, config.image_range) == (8, 1.0, (0.0, 1.0))
    taef2 = parse_config({**TAESD, "latent_channels": 32, "midblock_group_norm": True}).architecture
    assert taef2 == TinyArchitecture(latent_channels=32, midblock_group_norm=True)
    assert taef2.label == "tiny, 32 channels"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "silu"}, "act_fn = 'silu'; only 'relu' is supported"),
        ({"upsample_fn": "bilinear"}, "upsample_fn = 'bilinear'; only 'nearest' is supported"),
        ({"in_channels": 4}, "in_channels = 4; images have 3 channels"),
        ({"out_channels": 1}, "out_channels = 1; images have 3 channels"),
        ({"num_encoder_blocks": [1, 3, 3]}, "encoder_block_out_channels and num_encoder_blocks have different lengths"),
        ({"decoder_block_out_channels": [64]}, "decoder_block_out_channels and num_decoder_blocks have different"),
        ({"encoder_block_out_channels": [32, 64, 64, 64]}, r"\(32, 64, 64, 64\): the stages must be of one width"),
        ({"upsampling_scaling_factor": 4}, "the decoder enlarges by 64, but the encoder shrinks by 8"),
        ({"num_decoder_blocks": [3, 3, -1, 1]}, "num_decoder_blocks"),
        ({"midblock_group_norm": 1}, "midblock_group_norm = 1"),
    ],
)
def test_wrong_config(change, message):
    with pytest.raises(AutoencoderError, match=message):
        parse_config({**TAESD, **change})


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("encoder.layers.0.weight", "encoder.layers.0.kernel"),
        ("encoder.layers.3.conv.2.bias", "encoder.layers.3.conv.layers.2.bias"),
        ("decoder.layers.2.pool.0.weight", "decoder.layers.2.pool.layers.0.kernel"),
        ("decoder.layers.2.pool.1.weight", "decoder.layers.2.pool.layers.1.scale"),
        ("decoder.layers.2.pool.1.bias", "decoder.layers.2.pool.layers.1.bias"),
    ],
)
def test_keys(key, path):
    assert module_path(key, TINY) == path
    assert module_path(path, TINY) == path


def test_taef2_as_it_is_published_with_the_config_that_the_docs_write(tmp_path):
    """One file in diffusers' names, https://huggingface.co/madebyollin/taef2, and docs/families.md."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "families.md").read_text(encoding="utf-8")
    config = re.search(r"echo '(.*)' > taef2/config\.json", page)[1]
    made = random_autoencoder(json.loads(config))
    assert made.architecture == TinyArchitecture(latent_channels=32, midblock_group_norm=True)
    tensors = {}
    for path, value in to_flat_dict(made).items():
        key = re.sub(r"(\.conv|\.pool)\.layers", r"\1", path).replace(".kernel", ".weight").replace(".scale", ".weight")
        tensors[key] = np.ascontiguousarray(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value)
    assert {"encoder.layers.11.pool.1.weight", "decoder.layers.2.conv.0.weight"} <= tensors.keys()
    save_file(tensors, tmp_path / "taef2.safetensors")
    with pytest.raises(AutoencoderError, match=r"taef2\.safetensors: no config\.json beside it"):
        load_autoencoder(tmp_path / "taef2.safetensors")
    (tmp_path / "config.json").write_text(config)
    assert weights_hash(load_autoencoder(tmp_path / "taef2.safetensors")) == weights_hash(made)


@pytest.fixture(scope="module", params=[False, True], ids=["taesd", "taef2"])
def tiny(request):
    return random_autoencoder({**SMALL, "midblock_group_norm": request.param})


def test_the_decoder_reads_latents_within_three(tiny):
    """3·tanh(z/3) is 3 to the last digits of float32 from z = 40 on."""
    decode = jax.jit(lambda ae, z: ae.decode(z))
    far = 40 * jnp.sign(jax.random.normal(jax.random.key(0), (1, 3, 5, 2)))
    np.testing.assert_allclose(decode(tiny, far), decode(tiny, 1000 * far), atol=1e-5)
    assert jnp.abs(decode(tiny, far) - decode(tiny, far / 40)).max() > 0.01


def test_a_far_change_is_seen_through_the_branch_alone(tiny):
    encode = jax.jit(lambda ae, x: ae.encode(x))
    images = jax.random.uniform(jax.random.key(0), (1, 64, 4, 3), minval=-1.0)
    changed = images.at[:, -2:].multiply(-1.0)
    moved = jnp.abs(encode(tiny, changed) - encode(tiny, images))[0, 0].max()
    assert (moved > 0) == tiny.architecture.midblock_group_norm
