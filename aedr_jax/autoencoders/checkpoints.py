"""From a checkpoint's tensors to a Flax autoencoder, and the hash that says which models share one.

A module's path, joined by dots, is diffusers' key, but for the rules below. Every tensor of a checkpoint is used or
named as ignored, every slot of the network is filled, and shapes agree; what is wrong is listed in one error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aedr_jax.autoencoders.blocks import Numerics
from aedr_jax.autoencoders.family import IMAGE_RANGE, AutoencoderConfig, Family, Network, build_abstract
from aedr_jax.errors import AutoencoderError

__all__ = [
    "encoder_key",
    "from_state_dict",
    "is_ignored",
    "shapes_of",
    "to_flat_dict",
    "weights_hash",
    "with_values",
]

DECODING = ("decoder", "post_quant_conv", "quantizer")  # of a network's modules, those that no encoder looks at

WEIGHTS = nnx.Any(nnx.Param, nnx.BatchStat)  # what checkpoints fill

# Checkpoint key -> dotted module path, applied in order after the family's own: each is one habit of diffusers, old or
# new.
KEY_RULES: tuple[tuple[str, str], ...] = (
    (r"\.query\.(weight|bias)$", r".to_q.\1"),  # attention before diffusers 0.18
    (r"\.key\.(weight|bias)$", r".to_k.\1"),
    (r"\.value\.(weight|bias)$", r".to_v.\1"),
    (r"\.proj_attn\.(weight|bias)$", r".to_out.\1"),
    (r"\.to_out\.0\.(weight|bias)$", r".to_out.\1"),
    (r"norm(\w*)\.weight$", r"norm\1.scale"),  # norm1, group_norm, conv_norm_out, norm_layer
    (r"\.weight$", ".kernel"),
)

IGNORED_KEYS: tuple[tuple[str, str], ...] = (
    (r"^loss\.", "the discriminator and the perceptual loss of the training run"),
    (r"^model_ema\.", "a training run's second copy of the weights"),
    (r"(^|\.)num_batches_tracked$", "a counter of the training run"),
)

ORIGINAL_KEY = r"(first_stage_model\.)?(encoder\.down|decoder\.up)\.\d"


def from_state_dict(
    tensors: Mapping[str, np.ndarray],
    config: AutoencoderConfig,
    *,
    numerics: Numerics = Numerics(),
    quantize: bool | None = None,
    where: str = "checkpoint",
) -> Network:
    """The autoencoder with a checkpoint's weights.

    Args:
      tensors: diffusers' names and PyTorch's layouts, or this package's own (`to_flat_dict`); any float dtype.
      config: what `config.json` says.
      numerics: dtype and precision to compute in; parameters are kept in float32 as read.
      quantize: whether `decode` goes through the codebook; None: as diffusers does.
      where: the file's name, for the error.

    Raises:
      AutoencoderError: one error with every unused tensor, unfilled slot and wrong shape.
    """
    family = config.family
    # The scaling factor is a value, not a part of the network.
    abstract = build_abstract(dataclasses.replace(config, scaling_factor=1.0), numerics, quantize)
    slots = shapes_of(abstract)

    filled: dict[str, np.ndarray] = {}
    problems = []
    for key in sorted(tensors):
        if is_ignored(key, family):
            continue
        path = module_path(key, family)
        if path not in slots:
            problems.append(f"tensor without a place: {key} {tuple(tensors[key].shape)}")
        elif path in filled:
            problems.append(f"two tensors for one place: {path}")
        else:
            tensor = np.asarray(tensors[key])
            try:
                adapted = tensor if key == path else family.adapt(key, tensor)
            except ValueError as error:
                problems.append(f"{key}: {error}")
                adapted = tensor
            value = to_flax_layout(key, path, adapted, slots[path])
            if value.shape != slots[path]:
                problems.append(f"wrong shape: {key} {tuple(tensor.shape)}, in Flax's layout {slots[path]}")
            filled[path] = value.astype(np.float32)
    problems += [f"place without a tensor: {path} {slots[path]}" for path in sorted(slots.keys() - filled.keys())]
    if problems:
        shown = "\n  ".join(problems[:40]) + (f"\n  ... and {len(problems) - 40} more" if len(problems) > 40 else "")
        if any(re.match(ORIGINAL_KEY, key) for key in tensors):
            shown += "\nThese are names of the original code: convert the file to diffusers' layout first"
        raise AutoencoderError(f"{where}: does not fit the architecture of its config:\n  {shown}")

    return with_values(abstract, {**filled, "scaling_factor": config.scaling_factor})


def shapes_of(module: Any) -> dict[str, tuple[int, ...]]:
    """Dotted path -> shape, of what checkpoints fill."""
    return {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(module, WEIGHTS))}


def with_values(abstract: Any, values: Mapping[str, Any]) -> Any:
    """A module of shapes alone (`nnx.eval_shape`) with these values, by dotted path, in float32."""
    graph, state = nnx.split(abstract)
    flat = {
        path: leaf.replace(jnp.asarray(values[".".join(map(str, path))], jnp.float32))
        for path, leaf in nnx.to_flat_state(state)
    }
    return nnx.merge(graph, nnx.from_flat_state(flat))


def is_ignored(key: str, family: Family) -> bool:
    """Whether no reconstruction of this family looks at a checkpoint key; its dtype and shape then do not matter."""
    return any(re.search(pattern, key) for pattern, _ in (*family.ignored_keys, *IGNORED_KEYS))


def module_path(key: str, family: Family) -> str:
    """The dotted path of the module parameter that a checkpoint key fills."""
    for pattern, replacement in (*family.key_rules, *KEY_RULES):
        key = re.sub(pattern, replacement, key)
    return key


def to_flax_layout(key: str, path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Inputs and outputs last: OIHW to HWIO, (out, in) to (in, out), and kernels in time likewise; 1×1 convolutions of
    old attention become linear layers.

    A key that is its own path comes from a file of this package and is in Flax's layout already; a codebook is
    (codes, dimension) in both.
    """
    if key == path or path.endswith(".embedding") or value.ndim < 2:
        return value
    if value.ndim == 4 and len(shape) == 2 and value.shape[2:] == (1, 1):
        value = value[:, :, 0, 0]
    return np.moveaxis(value, (1, 0), (-2, -1))


def to_flat_dict(autoencoder: Any) -> dict[str, np.ndarray]:
    """Every parameter under its dotted path, float32, in Flax's layout: what `aedr convert` writes."""
    params = nnx.to_flat_state(nnx.state(autoencoder, WEIGHTS))
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in params}


def weights_hash(autoencoder: Any, *, rounded: bool = False) -> str:
    """Which autoencoder this is: sha256 over sorted parameter names, shapes and float32 values as they were read.

    The hash depends on the weights, and on the range of images where that is not [-1, 1], alone. The file's format, the
    names that a version of diffusers gave the weights, the dtype computed in, the scaling factor and random keys do not
    change it. Models with equal hashes are one family: no method that looks at the autoencoder can tell their images
    apart.

    Many models are published both in float32 and as a bfloat16 copy. The hash of the rounded values is equal for the
    two, and where it is equal they are one family as well. A float16 copy is not found so: it was rounded at other
    places.

    Args:
      autoencoder: one of this package's, or any pytree of parameters.
      rounded: hash the values rounded to bfloat16, to the nearest and to even, as PyTorch does when it casts.

    Raises:
      AutoencoderError: where there is no parameter to hash (functions that close over their weights).

    >>> ae = aedr.from_functions(lambda params, x: x, lambda params, z: z, {"weight": jnp.ones(3)}, factor=1)
    >>> aedr.weights_hash(ae) == aedr.weights_hash({"weight": jnp.ones(3)})
    True
    >>> exact, copy = {"weight": jnp.full(3, 0.1)}, {"weight": jnp.full(3, 0.1, jnp.bfloat16)}
    >>> [aedr.weights_hash(exact, rounded=r) == aedr.weights_hash(copy, rounded=r) for r in (False, True)]
    [False, True]
    """
    if isinstance(autoencoder, nnx.Module):
        named = to_flat_dict(autoencoder)
    else:
        leaves = jax.tree_util.tree_leaves_with_path(getattr(autoencoder, "params", autoencoder))
        named = {jax.tree_util.keystr(path): np.asarray(x, np.float32) for path, x in leaves if not _is_key(x)}
    if not named:
        raise AutoencoderError("no parameters to hash: pass them to from_functions as params")
    return _hash_of(named, getattr(autoencoder, "image_range", IMAGE_RANGE), rounded=rounded)


def _is_key(leaf: Any) -> bool:
    """Whether a leaf is a random key, such as a Flax module's dropout holds: it is no weight, nor made into numbers."""
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def encoder_key(autoencoder: Any) -> Hashable | None:
    """Equal for networks whose encoders compute the same, whatever decodes: class, numerics, layers, and as in
    `weights_hash` the range of images and all parameters that do not belong to decoding. None for functions, of which
    nobody says what encodes."""
    if not isinstance(autoencoder, nnx.Module):
        return None
    named = {name: value for name, value in to_flat_dict(autoencoder).items() if name.split(".")[0] not in DECODING}
    layers = {name: layer for name, layer in vars(autoencoder).items() if isinstance(layer, nnx.Module)}
    structure = jax.tree.structure({name: layer for name, layer in layers.items() if name not in DECODING})
    return type(autoencoder), autoencoder.numerics, structure, _hash_of(named, autoencoder.image_range)


def _hash_of(named: Mapping[str, np.ndarray], image_range: tuple[float, float], *, rounded: bool = False) -> str:
    digest = hashlib.sha256()
    if image_range != IMAGE_RANGE:
        digest.update(f"images in {image_range}\n".encode())
    for name in sorted(named):
        value = np.ascontiguousarray(named[name], dtype="<f4")
        digest.update(f"{name} {value.shape}\n".encode())
        digest.update((value.astype(jnp.bfloat16).view("<u2") if rounded else value).tobytes())
    return digest.hexdigest()
