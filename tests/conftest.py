"""Eight fake devices, strict dtype promotion, signatures checked at run time; set before JAX or the package load."""

import os
import sys

# Most of the suite's time is compilation: optimise less, but for the parity suite, which runs with users' flags. The
# workers of pytest-xdist inherit the flags, and do not see the arguments.
if "PYTEST_XDIST_WORKER" not in os.environ:
    PARITY = any("parity" in argument for argument in sys.argv)
    QUICK = [
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
    FLAGS = ["--xla_force_host_platform_device_count=8", *([] if PARITY else QUICK)]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import functools
import gc

import jaxtyping

jaxtyping.install_import_hook("aedr_jax", "beartype.beartype")

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish() -> None:
    """What is imported by now stays: garbage collection need not go through it again, which is an eighth of tracing."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Programs are kept for the session: every `Scorer` would compile its own anew.

    Each worker of pytest-xdist has a folder of its own: JAX does not write entries in one step, and who reads half of
    one is warned, which is an error here.
    """
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def programs_let_go() -> Iterator[None]:
    """Each compiled program maps memory, and a process has only so many maps (65,530 by default): XLA aborts beyond."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def two_devices() -> Iterator[None]:
    """Scorers and the command line see two of the eight devices, as on a machine that has no more.

    A batch is filled up to one image a device, so on eight a single image costs eight. What holds on 1, 2, 4 and 8
    devices: `test_sharding.py`, `test_autoencoders.py`; rows and runs over all eight: `test_dataset.py`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda **_: jax.devices()[:2])
        patch.setattr(jax, "local_device_count", lambda: 2)
        yield


def mesh_of(devices: int) -> jax.sharding.Mesh:
    """A one-axis mesh over the first so many devices."""
    from aedr_jax.scoring.sharding import local_mesh

    return local_mesh(jax.devices()[:devices])


DECODING = ("aedr_jax.scoring.scorer.decode_all", "aedr_jax.study.folders.decode_all")


@pytest.fixture(scope="module")
def decoded_here() -> Iterator[None]:
    """What a run has decoded in a process of its own is decoded in this one, since to start a process takes longer.

    That both give the same: `test_workers.py`.
    """
    from aedr_jax.inputs.workers import decode_all

    with pytest.MonkeyPatch.context() as patch:
        for name in DECODING:
            patch.setattr(name, lambda decoder, items, *, workers: decode_all(decoder, items, workers=0))
        yield


@pytest.fixture
def decoder_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it, in a file of which the rest is `decoded_here`."""
    from aedr_jax.inputs.workers import decode_all

    for name in DECODING:
        monkeypatch.setattr(name, decode_all)


@pytest.fixture(scope="module")
def one_scorer_for_each_setup() -> Iterator[None]:
    """Equal setups share a scorer, and so its programs."""
    from aedr_jax import api
    from aedr_jax.images.processing import Processing

    made, build = {}, api.Setup.scorer

    def scorer(self, models, *, processing=Processing("none")):
        key = repr((self, dict(models), processing))
        if key not in made:
            made[key] = build(self, models, processing=processing)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.Setup, "scorer", scorer)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of published figures beside the project; it is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the project: the authors' published figures are not distributed with it")
    return SHARED


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def images() -> jax.Array:
    """Eight smooth images in [-1, 1], 16×24."""
    coarse = jax.random.uniform(jax.random.key(3), (8, 4, 6, 3), minval=-1.0, maxval=1.0)
    return jax.image.resize(coarse, (8, 16, 24, 3), "linear")


def tiny_architecture(kind: str) -> dict:
    """Configs of tiny autoencoders, in diffusers' words: two levels of one block and, of KL, attention in the middle.

    Every layer of a network is traced and compiled. Those with more of them: `test_goldens.py`. The channels are so few
    that some pixels are made at once (`convolutions.convolve_few`), or with a codebook just too many for that.
    """
    common = {
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
        "block_out_channels": [8, 8] if kind == "kl" else [20, 20],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    if kind == "kl":
        return {"_class_name": "AutoencoderKL", **common, "latent_channels": 3}
    codebook = {"num_vq_embeddings": 37, "vq_embed_dim": 3}
    return {"_class_name": "VQModel", **common, "mid_block_add_attention": False, "latent_channels": 3, **codebook}


@functools.cache
def tiny_autoencoder(kind: str, seed: int = 0):
    """A tiny random autoencoder of each kind that the package takes: kl, vq, functions. Nobody alters it."""
    if kind == "functions":
        return function_autoencoder(seed)
    return random_autoencoder(tiny_architecture(kind), seed)


PATCH = 4  # pixels a side, of `patch_autoencoder`


def patch_encode(params, x):
    n, h, w, c = x.shape
    patches = x.reshape(n, h // PATCH, PATCH, w // PATCH, PATCH, c).swapaxes(2, 3)
    return jnp.tanh(patches.reshape(n, h // PATCH, w // PATCH, -1) @ params["down"])


def patch_decode(params, z):
    n, h, w, _ = z.shape
    patches = (z @ params["up"]).reshape(n, h, w, PATCH, PATCH, 3).swapaxes(2, 3)
    return patches.reshape(n, PATCH * h, PATCH * w, 3)


def patch_autoencoder(encode=patch_encode):
    """Patches of 4×4 pixels on a few directions: its grid shows in its images."""
    import aedr_jax as aedr

    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(PATCH * PATCH * 3, 20)))
    params = {"down": jnp.asarray(basis, jnp.float32), "up": jnp.asarray(basis.T, jnp.float32)}
    return aedr.from_functions(encode, patch_decode, params, factor=PATCH)


def random_autoencoder(config: dict, seed: int = 0, numerics=None, quantize=None):
    """Random weights, drawn by NumPy: Flax's own initialisers would be compiled one by one."""
    from aedr_jax.autoencoders.blocks import Numerics
    from aedr_jax.autoencoders.checkpoints import from_state_dict, shapes_of
    from aedr_jax.autoencoders.config import parse_config
    from aedr_jax.autoencoders.family import build_abstract

    numerics = numerics or Numerics()
    parsed = parse_config(config)
    abstract = build_abstract(parsed, numerics)
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes_of(abstract).items():
        kind = name.split(".")[-1]
        spread = 0.3 if kind in ("bias", "scale") else 1 / np.sqrt(np.prod(shape[:-1]))
        spread = 1.0 if kind == "embedding" else spread
        draw = spread * rng.normal(size=shape) + (kind == "scale")
        tensors[name] = (np.exp(draw) if kind == "running_var" else draw).astype(np.float32)
    return from_state_dict(tensors, parsed, numerics=numerics, quantize=quantize)


def _encode(params: dict, x: jax.Array) -> jax.Array:
    n, h, w, c = x.shape
    patches = x.reshape(n, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(n, h // 2, w // 2, 4 * c)
    return jnp.tanh(patches @ params["down"])


def _decode(params: dict, z: jax.Array) -> jax.Array:
    n, h, w, _ = z.shape
    return (z @ params["up"]).reshape(n, h, w, 2, 2, 3).swapaxes(2, 3).reshape(n, 2 * h, 2 * w, 3)


def _sample(params: dict, x: jax.Array, key: jax.Array) -> jax.Array:
    from aedr_jax.autoencoders.models import normal_like

    latents = _encode(params, x)
    return latents + 0.1 * normal_like(key, latents)


def function_autoencoder(seed: int = 0):
    """A linear autoencoder of 2×2 patches, given as functions."""
    from aedr_jax import from_functions

    down = np.random.default_rng(seed).normal(size=(12, 5)).astype(np.float32) / 3
    params = {"down": jnp.asarray(down), "up": jnp.asarray(down.T)}
    return from_functions(_encode, _decode, params, sample=_sample, factor=2)


@pytest.fixture(scope="session", params=["kl", "vq", "functions"])
def autoencoder(request: pytest.FixtureRequest):
    return tiny_autoencoder(request.param)
