"""transformers' tokenizers of images against its own classes, in float32, with every parameter and buffer random.

Narrow networks with all that a config can ask for, and where tests marked `long` are run those of the models, whose
configs are the classes' defaults. Tolerances as in `test_families`, for the same reasons: 1e-5 of the largest value for
the narrow ones, 1e-4 for the wide ones. Of equal latents the nearest codes are equal, exactly.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

import aedr_jax
from aedr_jax.autoencoders.loading import convert

from .family_configs import FULL_TOKENIZERS, TINY_TOKENIZERS
from .family_references import random_network, reference_images, reference_latents, saved, through_the_codebook
from .references import assert_close, random_images

TOLERANCE = {"tiny": 1e-5, "full": 1e-4}
SIZES = {"even": (4, 6), "odd": (7, 5)}

CASES = [("tiny", name) for name in TINY_TOKENIZERS]
CASES += [pytest.param(("full", name), marks=pytest.mark.long) for name in FULL_TOKENIZERS]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def pair(request, tmp_path_factory):
    """A reference, what `load_autoencoder` makes of the file it was saved to, and the tolerance."""
    width, name = request.param
    class_name, config = (TINY_TOKENIZERS if width == "tiny" else FULL_TOKENIZERS)[name]
    reference = random_network(class_name, config, seed=0)
    spread_codes(reference)
    file = saved(reference, class_name, tmp_path_factory.mktemp(name))
    return reference, aedr_jax.load_autoencoder(file), TOLERANCE[width]


@torch.no_grad()
def spread_codes(reference):
    """A codebook as wide as latents are, so that more than one code is nearest to some."""
    latents = reference_latents(reference, random_images(64, 64)).reshape(-1, reference.config.embed_dim)
    codes = reference.quantize.embedding.weight
    codes.copy_(torch.tensor(latents.mean(0)) + torch.tensor(latents.std(0)) * torch.randn_like(codes))


encode = jax.jit(lambda autoencoder, images: autoencoder.encode(images))
decode = jax.jit(
    lambda autoencoder, latents, quantize=None: autoencoder.decode(latents, quantize=quantize), static_argnums=2
)


def images_of(autoencoder, size):
    height, width = (autoencoder.factor * side for side in SIZES[size])
    return random_images(8 * -(-height // 8), 8 * -(-width // 8), count=2)[:, :height, :width]


@pytest.mark.parametrize("size", SIZES)
def test_encode(pair, size):
    """Reference: that of which `encode` looks for the nearest codes; tolerances at the top."""
    reference, autoencoder, tolerance = pair
    images = images_of(autoencoder, size)
    assert_close(encode(autoencoder, images), reference_latents(reference, images), tolerance)


@pytest.mark.parametrize("size", SIZES)
def test_decode_without_the_codebook(pair, size):
    """Reference: what `decode` does of the entries of its codebook; tolerances at the top."""
    reference, autoencoder, tolerance = pair
    channels = reference.config.embed_dim
    latents = np.random.default_rng(0).standard_normal((2, *SIZES[size], channels)).astype(np.float32)
    assert_close(decode(autoencoder, latents, False), reference_images(reference, latents), tolerance)


@pytest.mark.parametrize("size", SIZES)
def test_through_the_codebook(pair, size):
    """Reference: `encode`'s tokens and `decode` of them; tolerances at the top."""
    reference, autoencoder, tolerance = pair
    images = images_of(autoencoder, size)
    latents = reference_latents(reference, images)
    codes, expected = through_the_codebook(reference, images)
    assert len(np.unique(codes)) > 3
    np.testing.assert_array_equal(autoencoder.quantizer.indices(jnp.asarray(latents)), codes)
    assert_close(decode(autoencoder, latents), expected, tolerance)
    assert not np.allclose(expected, decode(autoencoder, latents, False), atol=1e-2)


@pytest.mark.parametrize("name", TINY_TOKENIZERS)
def test_layouts(name, tmp_path):
    """A file by its path, the index of its shards, and what `convert` makes of it are one autoencoder."""
    class_name, config = TINY_TOKENIZERS[name]
    reference = random_network(class_name, config, seed=8)
    file = saved(reference, class_name, tmp_path / "file")
    reference.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*-of-*.safetensors"))) > 1
    convert(file, tmp_path / "converted")
    places = [file, tmp_path / "shards" / "model.safetensors.index.json", tmp_path / "converted"]
    assert len({aedr_jax.weights_hash(aedr_jax.load_autoencoder(place)) for place in places}) == 1


_TEXT = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
_TEXT |= {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "projection_dim": 16}
_VOCABULARY = {"<image>": 299, "<|extra_200|>": 298} | {f"<|visual token {i:06d}|>": 200 + i for i in range(37)}
WHOLE = {  # tokenizer -> its whole model, that model's config, and what a converted one's has in the tokenizer's part
    "janus": (
        "Janus",
        {"text_config": {"model_type": "llama", **_TEXT}, "vision_config": _VISION},
        {"depth": 2, "projection_dim": 16, "image_token_embed_dim": 16},
    ),
    "emu3": ("Emu3", {"text_config": _TEXT, "vocabulary_map": _VOCABULARY}, {}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_saved_out_of_the_whole_as_the_docs_say(name, tmp_path):
    """docs/families.md; and the whole is refused by its class' name."""
    model, parts, converted = WHOLE[name]
    class_name, vq = TINY_TOKENIZERS[name]
    whole_class = getattr(transformers, f"{model}ForConditionalGeneration")
    whole = whole_class(getattr(transformers, f"{model}Config")(vq_config={**vq, **converted}, **parts))
    reference = random_network(class_name, vq, seed=9)
    whole.model.vqmodel.load_state_dict(reference.state_dict())
    whole.save_pretrained(tmp_path / "whole")
    again = whole_class.from_pretrained(tmp_path / "whole")
    again.model.vqmodel.save_pretrained(tmp_path / "part")
    assert converted.items() <= json.loads((tmp_path / "part" / "config.json").read_text()).items()
    files = [saved(reference, class_name, tmp_path / "alone"), tmp_path / "part" / "model.safetensors"]
    assert len({aedr_jax.weights_hash(aedr_jax.load_autoencoder(file)) for file in files}) == 1
    with pytest.raises(aedr_jax.AutoencoderError, match=f"'{whole_class.__name__}'; expected"):
        aedr_jax.load_autoencoder(tmp_path / "whole" / "model.safetensors")
