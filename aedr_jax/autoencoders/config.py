"""Architectures, read from diffusers' `config.json`.

A config field is either part of the architecture, or kept beside it (`scaling_factor`), or named as ignored with the
reason. Anything else is an error: a field that a loader does not know may change what the network computes.

References: `diffusers.AutoencoderKL` and `diffusers.VQModel` 0.39.0, whose defaults stand for missing fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from aedr_jax.errors import AutoencoderError

__all__ = ["Architecture", "AutoencoderConfig", "KLArchitecture", "VQArchitecture", "parse_config"]

DOWN_BLOCKS = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}  # name -> has attention
UP_BLOCKS = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}

IGNORED_FIELDS = {
    "sample_size": "the training size; the networks are fully convolutional",
    "shift_factor": "where the latents of the diffusion model are centred; cancels in a reconstruction",
    "latents_mean": "likewise",
    "latents_std": "likewise",
    "force_upcast": "a hint to run in float32, which is the default here",
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What both kinds of autoencoder share. Hashable: it is part of the key under which a program is compiled."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    norm_num_groups: int = 32
    mid_block_add_attention: bool = True

    @property
    def factor(self) -> int:
        """Downsampling from image to latents: every block but the last halves the size."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclasses.dataclass(frozen=True)
class KLArchitecture(Architecture):
    """A `diffusers.AutoencoderKL`."""

    class_name: ClassVar[str] = "AutoencoderKL"
    latent_channels: int = 4
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True


@dataclasses.dataclass(frozen=True)
class VQArchitecture(Architecture):
    """A `diffusers.VQModel`."""

    class_name: ClassVar[str] = "VQModel"
    latent_channels: int = 3
    num_vq_embeddings: int = 256
    vq_embed_dim: int = 3
    norm_type: str = "group"


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """An architecture and the numbers that travel with the weights."""

    architecture: KLArchitecture | VQArchitecture
    scaling_factor: float = 0.18215


def parse_config(config: Mapping[str, Any], *, where: str = "config.json") -> AutoencoderConfig:
    """The architecture that a diffusers `config.json` describes.

    Args:
      config: the parsed JSON object.
      where: the file's name, for the error.

    Returns:
      The `AutoencoderConfig`.

    Raises:
      AutoencoderError: listing every field that is unknown or has a value that cannot be rebuilt.
    """
    classes = {cls.class_name: cls for cls in (KLArchitecture, VQArchitecture)}
    class_name = config.get("_class_name")
    if not isinstance(class_name, str) or class_name not in classes:
        raise AutoencoderError(
            f"{where}: _class_name is {class_name!r}; expected one of {', '.join(sorted(classes))} "
            "(is this the autoencoder's own folder, such as vae/, vqvae/ or movq/?)"
        )
    cls = classes[class_name]
    fields = {field.name for field in dataclasses.fields(cls)}
    given = {name: value for name, value in config.items() if not name.startswith("_") and value is not None}

    problems = [f"unknown field {name!r} = {given[name]!r}" for name in sorted(given) if not _known(name, fields)]
    if given.get("act_fn", "silu") not in ("silu", "swish"):
        problems.append(f"act_fn = {given['act_fn']!r}; only 'silu' is supported")
    if given.get("lookup_from_codebook", False):
        problems.append("lookup_from_codebook = true; latents that are indices are not supported")

    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if name in fields
    }
    defaults = {field.name: field.default for field in dataclasses.fields(cls)} | {"scaling_factor": 1.0}
    mistyped = [name for name, v in given.items() if name in defaults and not _same_type(v, defaults[name])]
    problems += [f"{name} = {given[name]!r}; expected the likes of {defaults[name]!r}" for name in mistyped]
    if mistyped:
        raise AutoencoderError(_unusable(where, class_name, problems))
    if class_name == "VQModel":
        values.setdefault("vq_embed_dim", values.get("latent_channels", cls.latent_channels))
    architecture = cls(**values)
    problems += _inconsistencies(architecture)
    if problems:
        raise AutoencoderError(_unusable(where, class_name, problems))
    return AutoencoderConfig(architecture, float(given.get("scaling_factor", AutoencoderConfig.scaling_factor)))


def _unusable(where: str, class_name: str, problems: list[str]) -> str:
    return f"{where}: cannot rebuild this {class_name}:\n  " + "\n  ".join(problems)


def _same_type(value: Any, default: Any) -> bool:
    """Whether a JSON value can stand where this default does: sizes are positive, lists hold one kind and something."""
    if isinstance(default, tuple):
        return isinstance(value, list) and bool(value) and all(_same_type(item, default[0]) for item in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int) and value > 0
    if isinstance(default, float):
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, str)


def _known(name: str, fields: set[str]) -> bool:
    return name in fields or name in IGNORED_FIELDS or name in ("scaling_factor", "act_fn", "lookup_from_codebook")


def _inconsistencies(architecture: KLArchitecture | VQArchitecture) -> list[str]:
    a = architecture
    problems = [f"down_block_types: unknown block {name!r}" for name in a.down_block_types if name not in DOWN_BLOCKS]
    problems += [
        f"{name} = {getattr(a, name)}; images have 3 channels here: networks of grey, depth or RGBA are not supported"
        for name in ("in_channels", "out_channels")
        if getattr(a, name) != 3
    ]
    problems += [f"up_block_types: unknown block {name!r}" for name in a.up_block_types if name not in UP_BLOCKS]
    if not len(a.down_block_types) == len(a.up_block_types) == len(a.block_out_channels):
        problems.append("down_block_types, up_block_types and block_out_channels have different lengths")
    if any(width % a.norm_num_groups for width in a.block_out_channels):
        problems.append(f"block_out_channels {a.block_out_channels} are no multiples of norm_num_groups")
    if isinstance(a, VQArchitecture):
        if a.norm_type not in ("group", "spatial"):
            problems.append(f"norm_type = {a.norm_type!r}; expected 'group' or 'spatial'")
        elif a.norm_type == "spatial" and any(width % 32 for width in a.block_out_channels):
            problems.append(f"block_out_channels {a.block_out_channels}: spatial norm needs multiples of 32")
    return problems
