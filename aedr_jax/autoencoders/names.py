"""What a user calls a model, where its autoencoder is, and what rows and calibrations call it.

A model is a name of the registry, a local folder or file, or a hub path. Its name is what it was given
(`NAME=SOURCE`), or else: the registry's; the whole hub path; the last part of an absolute local path, with the parts
above it while it says nothing (every diffusers folder is called "vae"), and with further ones until no two models share
a name.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aedr_jax.autoencoders.hub import cached
from aedr_jax.autoencoders.registry import REGISTRY, local_folder, other_folders
from aedr_jax.errors import AutoencoderError

__all__ = [
    "ALL_HERE",
    "Place",
    "as_names",
    "locate",
    "looks_local",
    "match_models",
    "models_here",
    "name_models",
    "split_list",
    "why_no_name",
]

GENERIC = {"vae", "vqvae", "movq", "vqgan", "autoencoder", "ae"}
FILES = (".safetensors", ".json", ".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack", ".onnx", ".gguf")
ALL_HERE = "all-here"  # given as a model: every one whose weights are on this machine
VERDICTS = ("none", "error", "not assessable", ALL_HERE)  # no names of models: nobody could tell what is meant
DEEPEST = 4  # org/repo/a/b: nothing on the hub keeps an autoencoder deeper
_HUB_PART = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)


class Place(NamedTuple):
    """Where an autoencoder is: kind is "registry", "local" (the source is an absolute path) or "hub"."""

    kind: str
    source: str


def locate(model: str | os.PathLike[str]) -> Place:
    """What kind of thing goes by a name, without loading it or asking the hub. A `Path` is always local.

    Raises:
      AutoencoderError: for a local path with nothing there, and for what can be none of the three.
    """
    as_names([model])
    name = os.fspath(model)
    if isinstance(model, str) and name in REGISTRY:
        return Place("registry", name)
    path = Path(os.path.expanduser(name))  # Path's own fails on an unknown user, and its exists on a long name
    if name and os.path.exists(path):
        # Links keep the name that the user sees; only ".." needs them followed.
        return Place("local", str(path.resolve() if ".." in path.parts else path.absolute()))
    if isinstance(model, os.PathLike) or looks_local(name):
        raise AutoencoderError(f"{name}: no such {'file' if name.endswith(FILES) else 'folder'}{_nearest(path)}")
    parts = name.split("/")
    if not 2 <= len(parts) <= DEEPEST or not all(map(_HUB_PART.fullmatch, parts)):
        close = difflib.get_close_matches(name, REGISTRY, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise AutoencoderError(
            f"{name!r} is no model of the registry ({', '.join(REGISTRY)}), "
            f"no local folder and no hub path (org/repo/subfolder){hint}"
        )
    return Place("hub", name)


def as_names(models: Any) -> list[Any]:
    """What goes by `locate`, one or several of them.

    Raises:
      AutoencoderError: for what is no text and no path, such as an autoencoder.
    """
    several = isinstance(models, Iterable) and not isinstance(models, str | os.PathLike)
    given = list(models) if several else [models]
    if odd := [type(model).__name__ for model in given if not isinstance(model, str | os.PathLike)]:
        raise AutoencoderError(
            f"model: {odd[0]}; expected a registry name, a folder or a hub path (where a mapping is taken, an "
            "autoencoder goes by a name: {'mine': autoencoder})"
        )
    return given


def looks_local(name: str) -> bool:
    """Whether a name that is not there would be a local path: a mistyped one must not become a request to the hub."""
    parts = name.split("/")
    return (
        name.startswith(("/", "~", "./", "../"))
        or name in (".", "..")
        or "\\" in name
        or name.endswith(("/", *FILES))
        or ".." in parts
        or len(parts) > DEEPEST
        or (len(parts) > 1 and os.path.exists(parts[0]))
    )


def models_here() -> list[str]:
    """The models whose weights are on this machine: names of the registry that have a folder or were downloaded, then
    the paths of other folders beside them. Nothing is loaded, and the hub is not asked."""
    names = [
        name
        for name, entry in REGISTRY.items()
        if local_folder(name) or (entry.repository and cached(entry.repository, entry.subfolder or "", entry.revision))
    ]
    return [*names, *map(str, other_folders())]


def _expanded(models: str | Iterable[str], among: Container[str] | None = None) -> list[str]:
    """With `models_here` in place of `ALL_HERE`, but for what is given anyway and what is not `among` these."""
    given = as_names(models)
    if ALL_HERE not in given:
        return given
    here = [model for model in models_here() if model not in given and (among is None or model in among)]
    return [one for model in given for one in (here if model == ALL_HERE else [model])]


def name_models(models: str | Iterable[str]) -> dict[str, str]:
    """Name -> source of each model: a registry name, an absolute path, or a hub path.

    Args:
      models: what `locate` takes, or `NAME=SOURCE` to choose the name; the part before `=` holds no slash. "all-here"
        stands for all whose weights are on this machine.

    Raises:
      AutoencoderError: as `locate`; where a model is given twice, or a name cannot stand in a verdict.
    """
    given = [_split(model) for model in _expanded(models)]
    chosen = [name for name, _ in given]
    places = [locate(source) for _, source in given]
    unnamed = [place.source for name, place in zip(chosen, places, strict=True) if name is None]
    if twice := [source for source, count in Counter(unnamed).items() if count > 1]:
        raise AutoencoderError(f"two models of one name: {', '.join(twice)} is given twice")
    depths = [_depth(place) for place in places]
    while True:
        names = [name or _name(place, depth) for name, place, depth in zip(chosen, places, depths, strict=True)]
        counts = Counter(names)
        grown = [
            min(depth + (counts[name] > 1 and own is None and place.kind == "local"), _deepest(place))
            for name, own, place, depth in zip(names, chosen, places, depths, strict=True)
        ]
        if grown == depths:
            break
        depths = grown
    for name, place in zip(names, places, strict=True):
        if counts[name] > 1:
            raise AutoencoderError(f"two models of one name: {name}; name them: NAME={place.source}")
        if wrong := why_no_name(name):
            raise AutoencoderError(f"{wrong}; choose one: NAME={place.source}")
    return {name: place.source for name, place in zip(names, places, strict=True)}


def why_no_name(name: object) -> str:
    """Why a verdict could not say that a model of this name made an image; "" where it can.

    >>> from aedr_jax.autoencoders.names import why_no_name
    >>> why_no_name("sd1.5"), why_no_name("None")
    ('', "'None' is what a verdict says, no model's name")
    """
    if not isinstance(name, str) or not name or not name.isprintable() or name != name.strip() or set(name) & set(",|"):
        return f"{name!r} cannot be a model's name"
    if name.casefold() in VERDICTS or name.casefold().startswith("ambiguous"):
        return f"{name!r} is what a verdict says, no model's name"
    return ""


def match_models(wanted: Iterable[str], known: Mapping[str, str | None]) -> dict[str, str | None]:
    """Which of the models that are known are meant: name -> the source that the user gave, or None.

    Args:
      wanted: known names; `NAME=SOURCE` with a known name; or known sources, or such whose names are known. "all-here"
        stands for those of the known whose weights are on this machine.
      known: names, as calibrations have them, and the sources that these were made with.

    Raises:
      AutoencoderError: for a name that is not known.
    """
    found: dict[str, str | None] = {}
    for text in _expanded(wanted, among=known):
        source: str | None = None
        name = text
        if text not in known:
            try:
                ((name, source),) = name_models([text]).items()
            except AutoencoderError:
                name = _split(text)[0] or text
                if name in known:  # it is the source that is wrong
                    raise
            if name not in known:
                name = next((other for other, recorded in known.items() if source and recorded == source), name)
        if name not in known:
            raise AutoencoderError(
                f"no calibration of {name} (there are: {', '.join(known) or 'none'}); "
                "make one with aedr calibrate --model NAME"
            )
        if name in found:
            raise AutoencoderError(f"{name}: given twice")
        found[name] = source
    return found


def split_list(text: str) -> list[str]:
    """The names of a comma list, without the spaces around them and without empty ones."""
    return [name for part in text.split(",") if (name := part.strip())]


def _split(text: str | os.PathLike[str]) -> tuple[str | None, str | os.PathLike[str]]:
    """`NAME=SOURCE`, but for a path with an equals sign in it."""
    if isinstance(text, os.PathLike):
        return None, text
    name, equals, source = text.partition("=")
    if not equals or "/" in name or "\\" in name or os.path.exists(text):
        return None, text
    if not name.strip() or not source.strip():
        raise AutoencoderError(f"{text!r}: expected NAME=SOURCE")
    return name.strip(), source.strip()


def _name(place: Place, depth: int) -> str:
    return "/".join(Path(place.source).parts[-depth:]) if place.kind == "local" else place.source


def _depth(place: Place) -> int:
    """How many parts of a local path it takes to say something."""
    if place.kind != "local":
        return 1
    parts = reversed(Path(place.source).parts[1:])
    return next((i for i, part in enumerate(parts, 1) if not _generic(part)), _deepest(place))


def _deepest(place: Place) -> int:
    return max(len(Path(place.source).parts) - 1, 1)  # all but the root


def _generic(part: str) -> bool:
    return part.lower() in GENERIC or part.endswith(FILES)


def _nearest(path: Path) -> str:
    """Where the path stops being there, and what is there instead."""
    there = next((parent for parent in path.parents if os.path.isdir(parent)), None)
    missing = path.parts[len(there.parts)] if there is not None and len(path.parts) > len(there.parts) else ""
    if there is None or str(there) == "." or not os.access(there, os.R_OK):
        return ""
    close = difflib.get_close_matches(missing, [child.name for child in there.iterdir()], n=1)
    return f" ({there} is there{f', and in it {close[0]}' if close else ''})"
