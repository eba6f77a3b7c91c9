"""`evaluate`: the paper's experiments on a folder of folders, with tables and plots."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from aedr_jax.autoencoders.names import as_names, name_models
from aedr_jax.autoencoders.registry import miniature_models
from aedr_jax.errors import SourceError
from aedr_jax.rivals import RIVALS, Limits
from aedr_jax.rivals.registry import NO_LIMITS, make_methods
from aedr_jax.signal.perceptual import load_lpips
from aedr_jax.study import evaluation
from aedr_jax.study.comparison import read_scores
from aedr_jax.study.plots import check_plots, write_plots
from aedr_jax.study.tables import tables, write_tables

__all__ = ["Evaluated", "evaluate"]


class Evaluated(NamedTuple):
    """What was compared, and what was written.

    Attributes:
      images: how many of each source.
      left_out: images and scores that were left out, with the reason.
      files: the tables and plots; the scores are in `OUT/scores.parquet`.
      summary: the main table as Markdown, among the files.
    """

    images: dict[str, int]
    left_out: list[str]
    files: list[Path]
    summary: Path


def evaluate(
    inputs: str | os.PathLike[str],
    out: str | os.PathLike[str],
    models: Sequence[str] | None = None,
    *,
    methods: Sequence[str] | None = None,
    limits: Mapping[str, Limits] = NO_LIMITS,
    lpips: tuple[str, str] | None = None,
    count: int = 2 * evaluation.AT_MOST,
    side: int | None = None,
    seed: int = 0,
    robustness: int = 0,
    batch_size: int = 8,
    plots: bool = True,
    command: str | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Evaluated:
    """Score a folder of folders by every method, and write tables and plots; the same call goes on where it stopped.

    Args:
      inputs: a folder for each model, and one named `real`.
      out: where results go.
      models: as for `score`; None: the miniature models.
      methods: by name; None: all but those that resize images first.
      limits: how far dear rivals go, by name; what is None in them is as the rival's record says.
      lpips: VGG16's safetensors and LPIPS' linear ones; without them the methods that need them are absent.
      count, side, seed, robustness, batch_size, command, say: as for `study.evaluation.evaluate`.
      plots: whether to draw them (extra `plots`).

    Raises:
      SourceError: for unknown methods, limits for unknown models, and folders that `find_sources` refuses.
      AutoencoderError: for models that cannot be loaded.
      BaselineError: for weights of LPIPS that are none.
    """
    if plots:
        check_plots()
    models = as_names(models or miniature_models())
    perceptual = load_lpips("vgg", backbone=lpips[0], linear=lpips[1]) if lpips else None
    known = make_methods(_whole(limits, list(name_models(models))), perceptual)
    chosen = methods or [name for name, method in known.items() if method.resize is None]
    if unknown := [name for name in chosen if name not in known]:
        raise SourceError(f"method {', '.join(unknown)}: expected some of {', '.join(known)}")
    sources = evaluation.evaluate(
        inputs,
        out,
        models,
        methods={name: known[name] for name in chosen},
        count=count,
        side=side,
        seed=seed,
        robustness=robustness,
        batch_size=batch_size,
        command=command,
        say=say,
    )
    folder = Path(out)
    scores = read_scores(folder / "scores.parquet")
    found = tables(scores)
    files = write_tables(found, folder / "tables")
    if plots:
        files += write_plots(scores, found, folder / "plots")
    counts = {source: len(images) for source, images in sources.images.items()}
    return Evaluated(counts, sources.left_out, files, folder / "tables" / "summary.md")


def _whole(asked: Mapping[str, Limits], models: Sequence[str]) -> dict[str, Limits]:
    """What was asked of each dear rival; else what its record says."""
    found = {}
    for name, rival in RIVALS.items():
        if (limits := rival.limits) is None:
            continue
        given = asked.get(name, Limits())
        if unknown := [model for model in given.models or () if model not in models]:
            raise SourceError(f"--{name}-models {', '.join(unknown)}: expected some of {', '.join(models)}")
        first = None if rival.first_models is None else tuple(models[: rival.first_models])
        found[name] = Limits(given.count or limits.count, given.steps or limits.steps, given.models or first)
    return found
