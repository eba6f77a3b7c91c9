"""A family is one record: a made-up one, as unlike the others as families come, needs nothing but its own."""

import dataclasses
import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_autoencoder, tiny_architecture
from flax import nnx
from safetensors.numpy import save_file

import aedr_jax as aedr
from aedr_jax.autoencoders.checkpoints import from_state_dict, is_ignored, to_flat_dict
from aedr_jax.autoencoders.config import parse_config
from aedr_jax.autoencoders.families import FAMILIES
from aedr_jax.autoencoders.family import Architecture, Family, GaussianNetwork
from aedr_jax.errors import AutoencoderError
from aedr_jax.study.evaluation import _design


@dataclasses.dataclass(frozen=True)
class PatchArchitecture(Architecture):
    patch_size: int = 2
    z_dim: int = 5
    layers: tuple[int, ...] = dataclasses.field(default=(0, 1), metadata={"least": 0})
    scales: tuple[tuple[float, ...], ...] = dataclasses.field(default=(), metadata={"empty": True})
    decoder_widths: tuple[int, ...] | None = None
    image_channels: ClassVar[int] = 4

    @property
    def factor(self):
        return self.patch_size

    @property
    def label(self):
        return f"patches of {self.patch_size}"


class AutoencoderPatch(GaussianNetwork):
    """One convolution there, one back."""

    def make_layers(self, numerics, rngs):
        p, z = self.architecture.patch_size, self.architecture.z_dim
        options = {"strides": p, "padding": "VALID", "precision": "highest", "rngs": rngs}
        self.down = nnx.Conv(4, 2 * z, (p, p), **options)
        self.gain = nnx.BatchStat(jnp.ones(z))
        self.up = nnx.ConvTranspose(z, 4, (p, p), **options)

    def apply_encoder(self, x):
        return self.down(x)

    def apply_decoder(self, z):
        return self.up(z * self.gain[...])


def _last_frame(key, value):
    if key == "up.weight":  # PyTorch has (in, out, h, w) here, and turns it when applied
        return value.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    return value[:, :, -1] if value.ndim == 5 else value.reshape(-1)


PATCH = Family(
    class_name="AutoencoderPatch",
    architecture=PatchArchitecture,
    network=AutoencoderPatch,
    image_range=(0.0, 1.0),
    fixed_fields={"causal": (True,)},
    ignored_fields={"clip_output": "dead"},
    key_rules=((r"\.gamma$", ""),),
    ignored_keys=((r"^bn\.", "of pipelines"),),
    adapt=_last_frame,
)
CONFIG = {"_class_name": "AutoencoderPatch", "causal": True, "clip_output": False, "latents_mean": [0.0] * 5}


@pytest.fixture
def patch(monkeypatch):
    monkeypatch.setitem(FAMILIES, "AutoencoderPatch", PATCH)


def make_tensors():
    rng = np.random.default_rng(0)
    shapes = {
        "down.weight": (10, 4, 3, 2, 2),
        "down.bias": (10,),
        "gain.gamma": (5, 1, 1, 1),
        "up.weight": (5, 4, 2, 2),
        "up.bias": (4,),
    }
    return {key: rng.standard_normal(shape).astype(np.float32) / 3 for key, shape in shapes.items()}


def test_table():
    assert all(family.class_name == name for name, family in FAMILIES.items())
    assert len({family.architecture for family in FAMILIES.values()}) == len(FAMILIES)


def test_config(patch):
    config = parse_config(CONFIG)
    assert config.architecture == PatchArchitecture()
    assert (config.scaling_factor, config.image_range) == (1.0, (0.0, 1.0))
    given = {"patch_size": 4, "layers": [0], "scales": [[], [0.5, 2]], "decoder_widths": [8]}
    assert parse_config({**CONFIG, **given}).architecture == PatchArchitecture(4, 5, (0,), ((), (0.5, 2)), (8,))
    assert parse_config({**CONFIG, "scales": [], "decoder_widths": None}).architecture == PatchArchitecture()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [-1]}, r"layers = \[-1\]"),
        ({"layers": []}, r"layers = \[\]"),
        ({"scales": [0.5]}, r"scales = \[0.5\]"),
        ({"scales": [["a"]]}, r"scales = \[\['a'\]\]; expected the likes of tuple"),
        ({"decoder_widths": [0]}, r"decoder_widths = \[0\]; expected the likes of tuple"),
        ({"causal": False}, "causal = False; only True is supported"),
        ({"block_out_channels": [8]}, "unknown field 'block_out_channels'"),
        ({"scaling_factor": float("nan")}, "scaling_factor = nan"),
    ],
)
def test_wrong_config(patch, change, message):
    with pytest.raises(AutoencoderError, match=message):
        parse_config({**CONFIG, **change})


def test_checkpoint_to_images(patch, images, tmp_path):
    """Reference: sums over patches in float64; float32 has seven digits."""
    tensors = make_tensors()
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    ae = aedr.load_autoencoder(tmp_path)
    assert (ae.factor, _design(ae)) == (2, "patches of 2")
    assert not hasattr(ae, "quantize")

    n, h, w, _ = images.shape
    unit = np.concatenate([(np.asarray(images, np.float64) + 1) / 2, np.ones((n, h, w, 1))], axis=-1)
    patches = unit.reshape(n, h // 2, 2, w // 2, 2, 4)
    moments = np.einsum("nhywxc,zcyx->nhwz", patches, tensors["down.weight"][:, :, -1]) + tensors["down.bias"]
    mean, log_variance = np.split(moments, 2, axis=-1)
    latents = ae.encode(images)
    np.testing.assert_allclose(latents, mean, atol=1e-5)
    np.testing.assert_allclose(ae.posterior(images)[1], np.exp(log_variance / 2), atol=1e-5)
    assert not np.allclose(ae.encode(images, jax.random.key(0)), latents)
    scaled = np.asarray(latents, np.float64) * tensors["gain.gamma"].reshape(-1)
    decoded = np.einsum("nhwz,zcyx->nhywxc", scaled, tensors["up.weight"]).reshape(n, h, w, 4) + tensors["up.bias"]
    np.testing.assert_allclose(ae.decode(latents), 2 * decoded[..., :3] - 1, atol=1e-5)

    with pytest.raises(ValueError, match="AutoencoderPatch has no codebook"):
        ae.decode(latents, quantize=True)
    with pytest.raises(AutoencoderError, match="an AutoencoderPatch has no codebook"):
        aedr.load_autoencoder(tmp_path, quantize=True)
    again = from_state_dict(to_flat_dict(ae), parse_config(CONFIG))
    assert aedr.weights_hash(again) == aedr.weights_hash(ae)


def test_tensors_of_its_own_that_it_names_as_ignored(patch):
    counted = {**make_tensors(), "bn.num_batches_tracked": np.array(3), "bn.running_mean": np.zeros(5, np.float32)}
    from_state_dict(counted, parse_config(CONFIG))
    with pytest.raises(AutoencoderError, match=r"tensor without a place: bm\.mean"):
        from_state_dict({**counted, "bm.mean": np.zeros(5)}, parse_config(CONFIG))
    assert is_ignored("bn.running_mean", PATCH)
    assert not is_ignored("bn.running_mean", FAMILIES["AutoencoderKL"])


def test_range_of_images_is_the_models_own(images):
    """aMUSEd is a `VQModel` that was trained on images in [0, 1]."""
    one_block = {"block_out_channels": [8], "down_block_types": None, "up_block_types": None}
    described = {**tiny_architecture("vq"), **one_block, "mid_block_add_attention": False}
    plain, config = random_autoencoder(described), parse_config(described)
    unit = from_state_dict(to_flat_dict(plain), dataclasses.replace(config, image_range=(0.0, 1.0)))
    latents = unit.encode(images)
    np.testing.assert_array_equal(latents, plain.encode((images + 1) / 2))
    np.testing.assert_array_equal(unit.decode(latents), 2 * plain.decode(latents) - 1)
