"""The pipelines that the models generate with, and how the authors ran them.

The models of the paper run in diffusers, an optional extra that is imported only when images are made; the miniature
models need none of it. What would alter the pixels afterwards is off: Stable Diffusion's safety checker, which blacks
images out, and SDXL's invisible watermark, which otherwise depends on the packages installed. Pickles are never
loaded, nor code from a repository.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from jaxtyping import UInt8

from aedr_jax.autoencoders.names import looks_local
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.errors import GenerationError
from aedr_jax.generate.recipes import RECIPES, WITHOUT, Recipe

__all__ = ["Make", "Settings", "choose_settings", "open_pipeline"]

MINIATURE = "aedr_jax.generate.miniature.sample_images"
DECODER = "KandinskyPipeline"  # the half of a combined pipeline
EXTRA = 'pip install "aedr-jax[generate]"'
PICKLED = """not all of its weights are there as safetensors. Pickled ones are never loaded here, since unpickling
runs code. If you trust them, convert them once, where PyTorch is, and pass --pipeline FOLDER:
  hf download {source} --local-dir FOLDER
  aedr convert --pickle FOLDER/NAME/diffusion_pytorch_model.bin FOLDER/NAME     for each NAME that holds one
  python -c "import transformers as t; f = 'FOLDER/text_encoder'; t.CLIPTextModel.from_pretrained(f).save_pretrained(f)"
(the class of another text encoder stands in its config.json)"""
Make = Callable[[Sequence[str | None], Sequence[int]], np.ndarray]  # prompts, seeds -> uint8 [n, h, w, 3]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the pixels of a folder of images, next to each one's prompt.

    Attributes:
      model: a name of the registry.
      pipeline: the class that makes the images.
      source: the pipeline's repository or folder; None for a miniature model.
      revision: its commit; before the download the revision asked for, or None for the newest.
      prior: the repository of the prior, and `prior_revision` its commit, where the pipeline has one apart.
      steps: of sampling; None for a miniature model's own number.
      guidance: the scale; None without text.
      size: the side in pixels.
      dtype: of the weights; None for a miniature model.
      first_seed: the seed of image 0.
      noise: the kind of device that draws the noise; None before the pipeline is loaded.
    """

    model: str
    pipeline: str
    size: int
    first_seed: int = 0
    source: str | None = None
    revision: str | None = None
    prior: str | None = None
    prior_revision: str | None = None
    steps: int | None = None
    guidance: float | None = None
    dtype: str | None = None
    noise: str | None = None


def choose_settings(
    model: str,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    size: int | None = None,
    seed: int = 0,
    dtype: str | None = None,
    pipeline: str | None = None,
    revision: str | None = None,
) -> Settings:
    """The settings of a run: the paper's where nothing else is asked.

    Args:
      model: a name of the registry.
      steps: of sampling.
      guidance: the scale, in the pipeline's own meaning.
      size: the side in pixels; None: the model's native size.
      seed: of the first image.
      dtype: of the weights; None: the authors' (the registry's `official_dtype`).
      pipeline: a folder or hub path in place of the registry's repository.
      revision: a commit, tag or branch of the hub path.

    Raises:
      GenerationError: for a model without a name here, or a setting that it cannot have.
    """
    if model not in REGISTRY:
        raise GenerationError(f"{model!r} is no model of the registry ({', '.join(REGISTRY)})")
    entry, recipe = REGISTRY[model], RECIPES.get(model)
    if recipe is None and entry.repository is not None:
        raise GenerationError(
            f"{model}: how its pipeline is run is not known here: {WITHOUT[model]}. Make its images yourself"
        )
    if recipe is not None and recipe.elsewhere and pipeline is None:
        raise GenerationError(
            f"{model}: {entry.repository} holds the autoencoder alone; pass the repository or folder of the whole "
            f"{recipe.pipeline} (--pipeline)"
        )
    size = entry.native_size if size is None else size
    if size is None:
        raise GenerationError(f"{model}: its native size is not known; give one")
    multiple = recipe.multiple if recipe else 8
    if size < 1 or size % multiple:
        raise GenerationError(f"size {size}: {model} makes images whose side is a multiple of {multiple}")
    if steps is not None and steps < 1:
        raise GenerationError(f"{steps} steps: expected at least 1")
    if seed < 0:
        raise GenerationError(f"seed {seed}: expected 0 or more")
    if recipe is None:
        asked = {"guidance": guidance, "dtype": dtype, "pipeline": pipeline, "revision": revision}
        if refused := [f"--{name}" for name, value in asked.items() if value is not None]:
            raise GenerationError(f"{model} is a miniature model that ships with this package: no {', '.join(refused)}")
        return Settings(model, MINIATURE, size, seed, steps=steps)
    if dtype is not None and dtype not in recipe.dtypes:
        raise GenerationError(f"dtype {dtype}: {model} runs in {', '.join(recipe.dtypes)}")
    return Settings(
        model,
        recipe.pipeline,
        size,
        seed,
        source=_source(pipeline or str(entry.repository), revision),
        revision=revision or (None if pipeline else entry.revision),
        steps=recipe.steps if steps is None else steps,
        guidance=recipe.guidance if guidance is None else guidance,
        dtype=dtype or entry.official_dtype,
    )


def _source(name: str, revision: str | None) -> str:
    """The absolute path of a folder, or a hub path as it is."""
    if Path(name).is_dir():
        if revision is not None:
            raise GenerationError(f"{name}: a folder has no revision; leave out --revision")
        return str(Path(name).resolve())
    if looks_local(name) or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        raise GenerationError(f"{name}: no such folder, and no hub path (org/name)")
    return name


def open_pipeline(settings: Settings, device: str | None = None) -> tuple[Make, Settings]:
    """Load a pipeline, from the hub if it is not on this machine.

    Args:
      settings: of a model with a recipe.
      device: in PyTorch's words; None: the first GPU, or else the CPU.

    Returns:
      A function of prompts and seeds that makes images, and the settings with the commits and the noise's device.

    Raises:
      GenerationError: when the extra is not installed, or the pipeline cannot be loaded or is another model's.
    """
    recipe = RECIPES[settings.model]
    try:
        import accelerate  # noqa: F401 (without it diffusers 0.39 leaves SD3.5 in float32 whatever is asked)
        import diffusers
        import torch
        import transformers  # noqa: F401 (without it diffusers has only stand-ins for its pipelines)
    except ImportError as error:
        raise GenerationError(f"{settings.model} runs in PyTorch and diffusers: {EXTRA} ({error})") from error
    if not hasattr(diffusers, recipe.pipeline):
        raise GenerationError(
            f"diffusers {diffusers.__version__} has no {recipe.pipeline}: pip install diffusers==0.39.0, which has"
        )
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise GenerationError(f"device {device}: PyTorch cannot use it ({str(error).splitlines()[0]})") from error

    pipe, settings = _load(diffusers, getattr(torch, str(settings.dtype)), settings, recipe)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(place)
    noise = torch.device("cpu") if recipe.batched else place
    size = {"height": settings.size, "width": settings.size} if recipe.sized else {}

    def make(prompts: Sequence[str | None], seeds: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        generators = [torch.Generator(noise).manual_seed(seed) for seed in seeds]
        guided: dict[str, Any] = {recipe.guidance_name: settings.guidance}
        if recipe.negative is not None:
            guided["negative_prompt"] = [recipe.negative] * len(prompts)
        made = pipe(
            prompt=list(prompts),
            generator=generators if recipe.batched else generators[0],
            num_inference_steps=settings.steps,
            output_type="np",
            **guided,
            **size,
            **recipe.call,
        )
        return _to_uint8(made.frames[:, 0] if hasattr(made, "frames") else made.images, settings)

    return make, dataclasses.replace(settings, noise=noise.type)


def _to_uint8(images: np.ndarray, settings: Settings) -> UInt8[np.ndarray, "n h w 3"]:
    """[0, 1] to 0..255, rounded as diffusers rounds; what is no image must not get into a calibration."""
    height, width = images.shape[1:3]
    if (height, width) != (settings.size, settings.size):
        raise GenerationError(
            f"{settings.source}: makes {width}×{height} images, asked for {settings.size}: set --size"
        )
    if not np.isfinite(images).all():
        raise GenerationError(
            f"{settings.source}: not a number among the pixels in {settings.dtype}: try another --dtype"
        )
    return (images * 255).round().astype(np.uint8)


def _load(diffusers: Any, dtype: Any, settings: Settings, recipe: Recipe) -> tuple[Any, Settings]:
    """The pipeline with all its parts, and the settings with the commits that were loaded."""

    def load(name: str, source: str, folder: Path) -> Any:
        cls = getattr(diffusers, name)
        with _explained(source):
            if not recipe.whole:
                return _load_parts(cls, folder, dtype)
            return cls.from_pretrained(
                folder, torch_dtype=dtype, use_safetensors=True, trust_remote_code=False, **recipe.options
            )

    source = str(settings.source)
    folder, revision = _fetch(diffusers, source, settings.revision, recipe)
    settings = dataclasses.replace(settings, revision=revision)
    found = _class_name(folder)
    if found == recipe.pipeline:
        return load(found, source, folder), settings
    if recipe.prior is None or found != DECODER:
        raise GenerationError(f"{source}: holds a {found}; {settings.model} is made by {recipe.pipeline}")
    # The decoder alone, as its repository has it: the prior comes from a repository of its own.
    prior_folder, prior_revision = _fetch(diffusers, recipe.prior, settings.prior_revision, recipe)
    prior = load("KandinskyPriorPipeline", recipe.prior, prior_folder)
    parts = {f"prior_{name}": part for name, part in prior.components.items()}
    pipe = getattr(diffusers, recipe.pipeline)(**load(DECODER, source, folder).components, **parts)
    return pipe, dataclasses.replace(settings, prior=recipe.prior, prior_revision=prior_revision)


def _load_parts(cls: Any, folder: Path, dtype: Any) -> Any:
    """A pipeline from the folders and classes that its constructor names."""
    networks = {"torch_dtype": dtype, "use_safetensors": True}
    return cls(
        **{
            name: part.from_pretrained(folder / name, **(networks if hasattr(part, "state_dict") else {}))
            for name, part in get_type_hints(cls.__init__).items()
            if name != "return"
        }
    )


def _fetch(diffusers: Any, source: str, revision: str | None, recipe: Recipe) -> tuple[Path, str | None]:
    """The pipeline's folder on this machine, and its commit (None for the user's own folder)."""
    if Path(source).is_dir():
        return Path(source), None
    with _explained(source):
        if recipe.whole:
            found = diffusers.DiffusionPipeline.download(
                source, revision=revision, use_safetensors=True, trust_remote_code=False, **recipe.options
            )
        else:
            from huggingface_hub import snapshot_download

            found = snapshot_download(source, revision=revision, allow_patterns=["*.json", "*.txt", "*.safetensors"])
    folder = Path(found)
    return folder, folder.name if folder.parent.name == "snapshots" else revision


def _class_name(folder: Path) -> str:
    """The pipeline class that a folder says it holds."""
    path = folder / "model_index.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["_class_name"])
    except FileNotFoundError as error:
        raise GenerationError(f"{folder}: no diffusers pipeline (no {path.name}); pass the whole pipeline") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GenerationError(f"{path}: is no index of a pipeline ({error})") from error


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    from huggingface_hub.errors import GatedRepoError

    try:
        yield
    except Exception as error:  # OSError, those of whichever HTTP client it uses, of safetensors, of a wrong class, ...
        if isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError):
            reason = "this model is gated. Accept its licence on its hub page, then log in with `hf auth login`"
        elif re.search(r"(no file named|Could not find the necessary) \S*safetensors", str(error)):
            reason = PICKLED.format(source=source)
        else:
            reason = f"the pipeline cannot be loaded: {error.__cause__ or error}"
        raise GenerationError(f"{source}: {reason}") from error
