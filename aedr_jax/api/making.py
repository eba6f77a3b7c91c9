"""`generate` and `demo`: images that belong to a model, and the whole story on them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aedr_jax.api.decisions import attribute
from aedr_jax.api.scores import Progress, unseen
from aedr_jax.autoencoders.loading import convert
from aedr_jax.autoencoders.pickled import convert_pickles
from aedr_jax.autoencoders.registry import miniature_models
from aedr_jax.errors import RunError, SourceError
from aedr_jax.generate import folder
from aedr_jax.generate.demo import PHOTOGRAPHS, Outcome, outcome, photograph_files, write_images
from aedr_jax.generate.folder import Generated, plan_images, read_prompts
from aedr_jax.generate.pipelines import choose_settings
from aedr_jax.generate.recipes import RECIPES
from aedr_jax.inputs.sources import Files
from aedr_jax.scoring.tables import check_place
from aedr_jax.scoring.verdicts import Verdict

__all__ = ["Demonstrated", "convert", "convert_pickles", "demo", "generate", "takes_prompts"]


class Demonstrated(NamedTuple):
    """The demo's verdicts, sorted by file, how many are right, and how many of the images are photographs."""

    verdicts: list[Verdict]
    outcome: Outcome
    photographs: int


def takes_prompts(model: str) -> bool:
    """Whether a model of the registry makes its images of text."""
    return model in RECIPES


def generate(
    model: str,
    out: str | os.PathLike[str],
    *,
    n: int | None = None,
    prompts: str | os.PathLike[str] | Sequence[str] = (),
    steps: int | None = None,
    guidance: float | None = None,
    size: int | None = None,
    seed: int = 0,
    dtype: str | None = None,
    pipeline: str | None = None,
    revision: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    progress: Progress = unseen,
) -> Generated:
    """Images that belong to a model, made by its own pipeline: PNG files, of which those that are there are kept.

    Args:
      model: of the registry.
      out: the folder of the files.
      n: how many; None: one for each prompt.
      prompts: a file with one a line, or the prompts; a model without text ignores them.
      steps, guidance, size, seed, dtype, pipeline, revision: as for `pipelines.choose_settings`.
      batch_size, device: as for `folder.generate`.
      progress: shown while images are made.

    Raises:
      GenerationError: for a setting that the model cannot have, or where its pipeline cannot make the images.
      SourceError: for prompts that cannot be read, and a folder of other settings.
      KeyboardInterrupt: finished images are kept, and the same call makes the rest.
    """
    settings = choose_settings(
        model,
        steps=steps,
        guidance=guidance,
        size=size,
        seed=seed,
        dtype=dtype,
        pipeline=pipeline,
        revision=revision,
    )
    if not takes_prompts(model):
        prompts = ()
    texts = read_prompts(prompts) if isinstance(prompts, str | os.PathLike) else prompts
    plan = plan_images(settings, texts, n)
    with progress(len(plan), f"{len(plan)} images of {model}") as advance:
        return folder.generate(settings, plan, out, batch_size=batch_size, device=device, on_progress=advance)


def demo(n: int = 3, *, out: str | os.PathLike[str] | None = None, progress: Progress = unseen) -> Demonstrated:
    """The whole story offline: sample each miniature model, add photographs, attribute all of them.

    Args:
      n: images of each model. The photographs are those of the extra `demo`; without it there are none.
      out: keep the images in this folder, `OUT/SOURCE/NAME.png`; None: they are deleted.
      progress: shown while images are made, and again while they are judged.

    Raises:
      SourceError: for a folder that holds something else, or that cannot be written to.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="aedr-demo-") as temporary:
            return demo(n, out=temporary, progress=progress)
    check_place(Path(out) / PHOTOGRAPHS, made=True)
    models, photographs = miniature_models(), photograph_files()
    lies = sorted(os.listdir(out)) if os.path.isdir(out) else []
    if other := next((name for name in lies if name not in (*models, PHOTOGRAPHS)), None):
        raise SourceError(f"{out}: holds other files, such as {other}, which would be judged too; name another folder")
    total = n * len(models) + len(photographs)
    with progress(total, f"generating {total} images") as advance:
        for _ in write_images(Path(out), models, n):
            advance(1)
    found = attribute(Files([out]), models=models, progress=progress)
    if found.run.interrupted:
        raise KeyboardInterrupt
    if found.run.problems:
        raise RunError("; ".join(found.run.problems))
    verdicts = sorted(found.verdicts, key=lambda verdict: verdict.path)
    return Demonstrated(verdicts, outcome(verdicts), len(photographs))
