"""Architectures, read from diffusers' `config.json`.

A config field is either part of the architecture, or kept beside it (`scaling_factor`), or named as ignored with the
reason. Anything else is an error: a field that a loader does not know may change what the network computes.

References: the classes of diffusers 0.39.0, whose defaults stand for missing fields.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from aedr_jax.autoencoders.families import FAMILIES
from aedr_jax.autoencoders.family import AutoencoderConfig, Family
from aedr_jax.errors import AutoencoderError

__all__ = ["parse_config"]

IGNORED_FIELDS = {  # of every family
    "sample_size": "the training size; the networks are fully convolutional",
    "shift_factor": "where the latents of the diffusion model are centred; cancels in a reconstruction",
    "latents_mean": "likewise",
    "latents_std": "likewise",
    "force_upcast": "a hint to run in float32, which is the default here",
}
# What transformers writes into every config: of a network these say nothing.
IGNORED_OF_TRANSFORMERS = (
    "architectures",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "torch_dtype",
    "transformers_version",
)


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
    class_name = config.get("_class_name") or _of_transformers(config)
    family = FAMILIES.get(class_name) if isinstance(class_name, str) else None
    if family is None:
        raise AutoencoderError(
            f"{where}: _class_name is {class_name!r}; expected one of {', '.join(sorted(FAMILIES))} "
            "(is this the autoencoder's own folder, such as vae/, vqvae/ or movq/?)"
        )
    passed_by = IGNORED_OF_TRANSFORMERS if "_class_name" not in config else ()
    given = {
        name: value
        for name, value in config.items()
        if not (name.startswith("_") or name in passed_by or value is None)
    }
    fields = {field.name: field for field in dataclasses.fields(family.architecture)}
    known = {"scaling_factor", *fields, *family.fixed_fields, *family.ignored_fields, *IGNORED_FIELDS}
    problems = [f"unknown field {name!r} = {given[name]!r}" for name in sorted(given.keys() - known)]
    problems += [
        f"{name} = {given[name]!r}; only {' or '.join(map(repr, taken))} is supported"
        for name, taken in family.fixed_fields.items()
        if name in given and given[name] not in taken
    ]
    hints = typing.get_type_hints(family.architecture)
    mistyped = [
        f"{name} = {given[name]!r}; expected the likes of {field.default or field.type}"
        for name, field in fields.items()
        if name in given and not _is_of_type(given[name], hints[name], **field.metadata)
    ]
    scaling_factor = given.get("scaling_factor", family.scaling_factor)
    if not _is_of_type(scaling_factor, float):
        mistyped.append(f"scaling_factor = {scaling_factor!r}; expected a finite number")
    if mistyped:
        raise AutoencoderError(_unusable(where, family, problems + mistyped))
    values = {name: _frozen(value) for name, value in given.items() if name in fields}
    architecture = family.architecture.from_fields(values)
    if problems := problems + architecture.problems():
        raise AutoencoderError(_unusable(where, family, problems))
    return AutoencoderConfig(family, architecture, float(scaling_factor), family.image_range)


def _of_transformers(config: Mapping[str, Any]) -> Any:
    """The class that a config of transformers is of, which has a list of them; None where it names none or several."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and len(names) == 1 else None


def _unusable(where: str, family: Family, problems: list[str]) -> str:
    return f"{where}: cannot rebuild this {family.class_name}:\n  " + "\n  ".join(problems)


def _is_of_type(value: Any, hint: Any, *, least: int = 1, empty: bool = False) -> bool:
    """Whether a JSON value can stand where an architecture's annotation says `hint` (see `Architecture`)."""
    if isinstance(hint, types.UnionType):
        return any(_is_of_type(value, option, least=least, empty=empty) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        item, _ = typing.get_args(hint)
        items = isinstance(value, list) and all(_is_of_type(v, item, least=least, empty=empty) for v in value)
        return items and (empty or bool(value))
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is int:
        return isinstance(value, int) and value >= least
    if hint is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # false of NaN too
    return isinstance(value, str) and hint is str


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
