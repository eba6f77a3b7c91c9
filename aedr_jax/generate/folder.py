"""Images that belong to a model, made by the model itself: what a calibration starts from.

Every image has its own prompt and its own seed, first seed + its number, from which its noise is drawn (on the CPU, but
for VQ-Diffusion's). So an image depends neither on the batch that it is made in, up to the order of sums, nor on where
a run was interrupted, and a folder can be completed later. `generated.json` in the folder holds the settings; each PNG
file holds its seed and prompt as text.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from aedr_jax.errors import GenerationError, SourceError
from aedr_jax.files import whole_file
from aedr_jax.generate.pipelines import Make, Settings, open_pipeline
from aedr_jax.generate.recipes import RECIPES
from aedr_jax.versions import versions

__all__ = ["Generated", "Planned", "generate", "plan_images", "read_prompts"]

RECORD = "generated.json"
MINIATURE_BATCH = 8


class Planned(NamedTuple):
    """One image to make: its file's name, its seed, and its prompt (None for a model without text)."""

    file: str
    seed: int
    prompt: str | None


class Generated(NamedTuple):
    """How many images a run made, and how many lay there already."""

    made: int
    kept: int


def read_prompts(path: str | os.PathLike[str]) -> list[str]:
    """The prompts of a text file, one a line; blank lines are skipped, and the number of `12: prompt` is left out.

    Raises:
      SourceError: when the file cannot be read, is not UTF-8 or holds no prompt.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: the prompts are not UTF-8 ({error}); save them as UTF-8") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot read the prompts: {error.strerror}") from error
    lines = [re.sub(r"^[0-9]+:( |$)", "", line.strip()).strip() for line in text.split("\n")]
    prompts = [line for line in lines if line]
    if not prompts:
        raise SourceError(f"{path}: holds no prompt; write one a line")
    return prompts


def plan_images(settings: Settings, prompts: Sequence[str] = (), n: int | None = None) -> list[Planned]:
    """File, seed and prompt of each image: the prompts are gone through again and again, always with new seeds.

    Args:
      settings: for the model and the first seed.
      prompts: ignored for a miniature model, which takes no text.
      n: how many; None: one for each prompt.

    Raises:
      GenerationError: when there are no prompts for a model that needs them, or no number of images.
    """
    texts: Sequence[str | None] = prompts if settings.model in RECIPES else [None]
    if not texts:
        raise GenerationError(f"{settings.model} needs prompts: --prompts FILE, one a line")
    if n is None and settings.model not in RECIPES:
        raise GenerationError(f"how many images? {settings.model} takes no prompts: say -n N")
    n = len(texts) if n is None else n
    if n < 1:
        raise GenerationError(f"{n} images: expected at least 1")
    if settings.first_seed + n > 2**32:
        raise GenerationError(f"seed {settings.first_seed}: the last of {n} seeds is over 2³² − 1")
    return [Planned(f"{i:05d}.png", settings.first_seed + i, texts[i % len(texts)]) for i in range(n)]


def generate(
    settings: Settings,
    plan: Sequence[Planned],
    out: str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    device: str | None = None,
    on_progress: Callable[[int], object] = lambda count: None,
) -> Generated:
    """Make the images of a plan that are not in the folder yet; each file appears whole or not at all.

    Args:
      settings: from `choose_settings`.
      plan: from `plan_images`.
      out: the folder; made where it is missing.
      batch_size: images at once; None: 1, or 8 of a miniature model. One at a time where the pipeline knows no more.
      device: where the pipeline runs, in PyTorch's words; None: the first GPU, or else the CPU.
      on_progress: called with the number of images that are done, first with those that lay there.

    Raises:
      SourceError: when the folder holds images of other settings, seeds or prompts.
      GenerationError: when the extra is not installed, the pipeline cannot be loaded, or makes no proper image.
    """
    out = Path(out)
    recipe = RECIPES.get(settings.model)
    if recipe is None and device is not None:
        raise GenerationError(f"{settings.model} runs where JAX runs (JAX_PLATFORMS): leave out --device")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(f"{out}: cannot be the folder of the images: {error.strerror}") from error
    recorded = _read_record(out)
    settings = _continue(settings, recorded, out)
    todo = [image for image in plan if not _is_done(out / image.file, image)]
    kept = len(plan) - len(todo)
    if kept:
        on_progress(kept)
    if todo:
        make, settings = open_pipeline(settings, device) if recipe else (_open_miniature(settings), settings)
        _continue(settings, recorded, out)
        at_once = 1 if recipe and not recipe.batched else batch_size or (1 if recipe else MINIATURE_BATCH)
        for start in range(0, len(todo), at_once):
            batch = todo[start : start + at_once]
            images = make([image.prompt for image in batch], [image.seed for image in batch])
            if start == 0:  # no record of a run that makes nothing, and no image without a record
                _write_record(out, settings, recorded)
            for image, pixels in zip(batch, images, strict=True):
                _save(pixels, out / image.file, image)
            on_progress(len(batch))
    return Generated(len(todo), kept)


def _save(pixels: UInt8[np.ndarray, "h w 3"], path: Path, image: Planned) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("seed", str(image.seed))
    if image.prompt is not None:
        info.add_itxt("prompt", image.prompt)
    with whole_file(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG", pnginfo=info)


def _is_done(path: Path, image: Planned) -> bool:
    """Whether the file is there; another image under its name is an error."""
    if not path.exists():
        return False
    try:
        with Image.open(path) as file:
            texts = file.info
    except OSError as error:
        raise SourceError(f"{path}: no readable image ({error}); delete it") from error
    for name, wanted in (("seed", str(image.seed)), ("prompt", image.prompt)):
        if texts.get(name) != wanted:
            raise SourceError(
                f"{path}: was made with another {name} ({texts.get(name)!r}, now {wanted!r}); choose another folder"
            )
    return True


def _read_record(out: Path) -> dict[str, Any] | None:
    path = out / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if found := sorted(out.glob("[0-9]*.png")):
            raise SourceError(f"{out}: holds {found[0].name} but no {RECORD}; choose another folder") from None
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); choose another folder") from error
    if not isinstance(record, dict) or not isinstance(record.get("versions"), list):
        raise SourceError(f"{path}: is no record of generated images; choose another folder")
    return record


def _continue(settings: Settings, recorded: Mapping[str, Any] | None, out: Path) -> Settings:
    """The settings with what the record knows and nobody asked, such as the commit; a difference is an error."""
    if recorded is None:
        return settings
    now = dataclasses.asdict(settings)
    known: dict[str, Any] = {name: recorded.get(name) for name, value in now.items() if value is None}
    # A branch or tag that was asked for is compared once it is known which commit it names.
    pending = () if settings.noise else ("revision",)
    for name, value in now.items():
        if value is not None and name not in pending and recorded.get(name) != value:
            raise SourceError(
                f"{out}: its images were made with {name} {recorded.get(name)!r}, now {value!r}; "
                "choose another folder, or the same setting"
            )
    return dataclasses.replace(settings, **known)


def _write_record(out: Path, settings: Settings, recorded: Mapping[str, Any] | None) -> None:
    """The settings, and the versions that each run had: they may change from one run to the next."""
    packages = ("aedr-jax", "torch", "diffusers", "transformers") if settings.source else ("aedr-jax", "jax", "flax")
    now = versions(packages)
    earlier = recorded["versions"] if recorded else []
    record = {**dataclasses.asdict(settings), "versions": earlier + ([] if now in earlier else [now])}
    with whole_file(out / RECORD) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _open_miniature(settings: Settings) -> Make:
    from aedr_jax.generate.miniature import sample_images

    options: dict[str, Any] = {} if settings.steps is None else {"steps": settings.steps}

    def make(prompts: Sequence[str | None], seeds: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        return sample_images(settings.model, seeds, size=(settings.size, settings.size), **options)

    return make
