"""`calibrate` and `attribute`: from files to a threshold, and from files to verdicts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aedr_jax.api.scores import Progress, Run, named, score_source, taken_again, unseen
from aedr_jax.autoencoders.names import as_names, match_models, why_no_name
from aedr_jax.autoencoders.registry import calibration_file, default_models, list_models, local_folder
from aedr_jax.decision import calibration as decision
from aedr_jax.decision.attribution import NONE, check_false_names
from aedr_jax.decision.calibration import Calibration
from aedr_jax.decision.validation import check_choice
from aedr_jax.errors import AutoencoderError, CalibrationError, RunError, SourceError
from aedr_jax.images.processing import Processing
from aedr_jax.inputs.containers import as_source
from aedr_jax.inputs.sources import Source, until_failure
from aedr_jax.scoring.dataset import check_workers
from aedr_jax.scoring.job import Setup, check_setup
from aedr_jax.scoring.judging import Judging, searched
from aedr_jax.scoring.made import Made, images_hash
from aedr_jax.scoring.record import Record
from aedr_jax.scoring.rows import Row, rows_to_measurement
from aedr_jax.scoring.scored import Scores
from aedr_jax.scoring.scorer import Scorer
from aedr_jax.scoring.tables import check_apart, check_file, check_output
from aedr_jax.scoring.verdict_table import write_verdicts
from aedr_jax.scoring.verdicts import Verdict, check_calibrations, families_of
from aedr_jax.signal.measurement import PRESETS, SignalConfig

__all__ = [
    "VERDICTS",
    "Attributed",
    "Calibrations",
    "attribute",
    "calibrate",
    "candidates_of",
    "load_calibrations",
    "scored_candidates",
]

SHIPPED = "shipped"
VERDICTS = Setup(SignalConfig.tiles())

# Of each model one calibration, or one for each past of the images that they were made of.
Calibrations = Mapping[str, Calibration | Sequence[Calibration]]


class Attributed(NamedTuple):
    """Verdicts in the order of the images, and the run that scored them."""

    verdicts: list[Verdict]
    run: Run


def calibrate(
    inputs: Any,
    model: str,
    *,
    validation: Any = None,
    alpha: float | None = None,
    false_accepts: float | None = None,
    rule: str = "exact",
    processing: str | Processing = "none",
    setup: Setup = Setup(),
    out: str | os.PathLike[str] | None = None,
    command: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    progress: Progress = unseen,
    on_run: Callable[[Run], Any] = lambda run: None,
) -> Calibration:
    """A model's threshold from images known to belong to it. Error rows are left out.

    Args:
      inputs: its own images: a `Source`, or what `open_source` reads, one or a list.
      model: a registry name, a folder or a hub path, or `NAME=SOURCE`.
      validation: likewise, of images that are not its own: alpha is picked on them where it is not given.
      alpha, false_accepts, rule: as for `aedr_jax.calibrate`.
      processing: what is done to each image first, such as "jpeg75": the past that the calibration stands for.
      setup: how images are measured.
      out: also write it to this file, as JSON.
      command: what was typed, for its provenance.
      image_column, id_column: of tables and datasets, where they cannot be told.
      progress: shown while images are scored.
      on_run: given the run over its own images, then that over the validation images, before anything follows.

    Raises:
      RunError: where a part of the images could not be read, or none could be scored.
      CalibrationError: as `aedr_jax.calibrate`; what is wrong with the choices, before the first image is scored.
      SourceError, AutoencoderError: as `score`; and where `out` is a folder, or cannot be written.
      ValueError: on another rule.
      KeyboardInterrupt: where the run is interrupted: no threshold comes of a part of the images.

    Warns:
      CalibrationWarning: as `aedr_jax.calibrate`.
    """
    check_choice(alpha=alpha, false_accepts=false_accepts, rule=rule, validated=validation is not None)
    if out is not None:
        check_file(out, made=True)
    check_setup(setup)
    columns = {"image_column": image_column, "id_column": id_column}
    models = named([model])
    own = as_source(inputs, **columns)
    foreign = None if validation is None else as_source(validation, **columns)
    for source in filter(None, (own, foreign)):
        check_apart(source, out)
    processing = Processing.parse(processing) if isinstance(processing, str) else processing
    scorer = setup.scorer(models, processing=processing)

    def measured(source: Source) -> list[Row]:
        run = score_source(scorer, source, progress)
        on_run(run)
        if run.interrupted:
            raise KeyboardInterrupt
        if run.problems or run.nothing_scored:
            raise RunError("no calibration is made of a part of the images")
        return run.good

    rows = measured(own)
    others = measured(foreign) if foreign else []
    (candidate,) = scorer.candidates
    made = decision.calibrate(
        rows_to_measurement(rows),
        config=setup.config,
        autoencoder=candidate.autoencoder,
        alpha=alpha,
        validation=rows_to_measurement(others) if others else None,
        false_accepts=false_accepts,
        model=candidate.name,
        rule=rule,
        source=models[candidate.name],
        images_hash=images_hash(row.sha256 for row in rows),
        size_rule=scorer.protocol(candidate).size_rule,
        processing=str(processing),
        sizes=np.array([(row.used_height, row.used_width) for row in rows]),
    )
    made = dataclasses.replace(made, provenance=dataclasses.replace(made.provenance, command=command))
    if out is not None:
        made.save(out)
    return made


def candidates_of(
    models: Sequence[str] | Mapping[str, Any] | None,
    calibrations: str | os.PathLike[str] | Calibrations | None,
    setup: Setup,
) -> tuple[dict[str, Any], dict[str, list[Calibration]]]:
    """The candidates that a call of `attribute` asks for: name -> what `load_autoencoder` takes, and name ->
    calibrations.

    Raises:
      CalibrationError, SourceError, AutoencoderError: as `attribute`, whose arguments these are.
    """
    check_setup(setup)
    if models is not None and not isinstance(models, Mapping):
        models = as_names(models)
    if models is not None and not models:
        raise CalibrationError("no model to attribute to")
    if calibrations is None:
        if setup.config.alignment is None:
            raise CalibrationError(
                f"settings {setup.config.name!r} have no alignment: verdicts then need calibrations "
                "(aedr calibrate, and --calibrations DIR)"
            )
        chosen: dict[str, list[Calibration]] = {}
        places = named(models) if models else {name: name for name in default_models() if local_folder(name)}
    else:
        pasts = _pasts(calibrations)
        sources = {name: known[0].provenance.source if known else None for name, known in pasts.items()}
        given = match_models(models or pasts, sources)
        chosen = {name: pasts[name] for name in given}
        check_calibrations(chosen)
        if isinstance(models, Mapping):
            return dict(models), chosen
        places = {name: given[name] or known[0].trusted_source(models or ()) for name, known in chosen.items()}
    if wrong := next(filter(None, map(why_no_name, places)), ""):  # names of calibrations and mappings; others passed
        raise AutoencoderError(wrong)
    return places, chosen


def scored_candidates(
    scores: Scores,
    models: Iterable[str] | None,
    calibrations: str | os.PathLike[str] | Calibrations | None,
    *,
    search: bool = False,
) -> tuple[Scores, dict[str, list[Calibration]]]:
    """The scores of the candidates that a call of `attribute` asks for, and name -> calibrations.

    Raises:
      CalibrationError, SourceError: as `attribute`, whose arguments these are.
    """
    if search:
        raise SourceError(f"{scores.where}: a search needs the images, and scores have none")
    models = None if models is None else as_names(models)
    if calibrations is None:
        wanted = tuple(scores.kinds if models is None else models)
        chosen: dict[str, list[Calibration]] = {}
    else:
        pasts = _pasts(calibrations)
        wanted = tuple(name for name in pasts if name in scores.kinds) if models is None else tuple(models)
        if not wanted:
            known = ", ".join(pasts) or "none"
            raise SourceError(f"{scores.where}: no rows of a model with a calibration (there are: {known})")
        chosen = {name: pasts.get(name, []) for name in wanted}
        check_calibrations(chosen)
    found = Scores(scores.where, models=wanted)
    presets = {found.kinds[name].preset for name in wanted}
    if calibrations is None and any(name in PRESETS and PRESETS[name].alignment is None for name in presets):
        raise CalibrationError(f"{scores.where}: scores without alignment; verdicts then need calibrations")
    return found, chosen


def _pasts(calibrations: str | os.PathLike[str] | Calibrations) -> dict[str, list[Calibration]]:
    """For each model its calibrations, loaded where they are not given."""
    made = calibrations if isinstance(calibrations, Mapping) else load_calibrations(calibrations)
    return {name: decision.pasts_of(known) for name, known in made.items()}


def attribute(
    inputs: Any,
    *,
    models: Sequence[str] | Mapping[str, Any] | None = None,
    calibrations: str | os.PathLike[str] | Calibrations | None = None,
    false_names: float = 0.05,
    search: bool = False,
    setup: Setup = VERDICTS,
    out: str | os.PathLike[str] | None = None,
    record: str | os.PathLike[str] | None = None,
    command: str | None = None,
    workers: int | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    progress: Progress = unseen,
    on_run: Callable[[Run], Any] = lambda run: None,
) -> Attributed:
    """A verdict for each image: a model, several, or none of the candidates. Nothing needs to be calibrated.

    Args:
      inputs: a `Source`, or what `open_source` reads, one or a list; or `Scores`, whose rows are judged: no image is
        decoded again and no model loaded, and candidates are called as in the rows.
      models: the candidates: registry names, folders or hub paths, or `NAME=SOURCE`; or name -> one of these or an
        autoencoder, such as one of `from_functions`; with calibrations, by these calibrations' names. None: every model
        of the registry whose weights are here, but for those that take part only when they are named
        (`Entry.by_default`), or every one with a calibration.
      calibrations: a folder or a file of `calibrate`, name -> calibrations, or "shipped" for those beside the weights;
        None: for none. (Of `Scores` without `models` those are candidates that have rows and calibrations.)
      false_names: as for `aedr_jax.attribute`.
      search: whether an image that no model accepts is looked at again, mirrored, turned, cropped and resized
        (`signal.search`), by the models that can (`search.why_not`: from 256 pixels on, up to a factor of 16);
        calibrations are not asked then. Each of the two looks gets half of `false_names`. As dear as tens of passes a
        model.
      setup: how images are measured, by default on their tiles alone: as the calibrations' were.
      out: also write the verdicts (`verdict_table`): .parquet, .csv or .jsonl.
      record: also write the run's provenance to this file, for `verify`.
      command: what was typed, for the record and for Parquet's metadata.
      workers: decoder processes; None: as many as have enough to do, at most one a CPU and 16.
      image_column, id_column: of tables and datasets, where they cannot be told.
      progress: shown while images are scored.
      on_run: given the run before its rows are judged.

    Raises:
      CalibrationError: before the first image is scored, where settings without alignment (the presets of the paper)
        come without calibrations, a calibration cannot be read, was made with other weights or settings, does not say
        which sizes and values it saw, or names a source that nobody asked for (`Calibration.trusted_source`).
      KeyboardInterrupt: as `score`, and while images are searched.
      SourceError, AutoencoderError: as `score`; for an `out` without an ending, which
        `attribute_dataset` fills and goes on with; for a search in `Scores`, which have no images; and for a record of
        `Scores` whose settings are no preset, which their rows do not say.
    """
    if out is not None and check_output(out).suffix == "":
        raise SourceError(f"{out}: attribute_dataset writes folders; expected an ending of .parquet, .csv or .jsonl")
    if record is not None:
        check_file(record)
    check_false_names(false_names)
    check_workers(workers)
    if isinstance(inputs, Scores):
        check_apart(inputs, out, record)
        scores, chosen = scored_candidates(inputs, models, calibrations, search=search)
        judging = Judging(chosen, false_names)
        judging.check(scores.protocols())
        measured = scores.measuring().setup() if record is not None else setup
        run = _run_of(scores, progress)
        on_run(run)
        verdicts = judging.verdicts(run.rows, scores.models)
        return _finished(verdicts, run, scores.models, measured, judging, out=out, record=record, command=command)
    places, chosen = candidates_of(models, calibrations, setup)
    source = as_source(inputs, image_column=image_column, id_column=id_column)
    check_apart(source, out, record)
    scorer = setup.scorer(places)
    judging = Judging(chosen, false_names, search)
    judging.check({candidate.name: scorer.protocol(candidate) for candidate in scorer.candidates})
    run = score_source(scorer, source, progress, workers=workers)
    on_run(run)
    verdicts = judging.verdicts(run.rows, list(places))
    if search and not run.interrupted:  # who stopped the run is told that its rows are kept, and waits for no more
        verdicts, run = _searched(verdicts, run, source, scorer, judging.rate, progress)
    return _finished(verdicts, run, list(places), setup, judging, out=out, record=record, command=command)


def _finished(
    verdicts: list[Verdict],
    run: Run,
    models: Sequence[str],
    setup: Setup,
    judging: Judging,
    *,
    out: str | os.PathLike[str] | None,
    record: str | os.PathLike[str] | None,
    command: str | None,
) -> Attributed:
    """What `attribute` gives, written and recorded where that was asked for."""
    if out is not None:
        write_verdicts(verdicts, models, out, about=Made.now(command).in_parquet())
    if record is not None:
        Record.of(verdicts, run.rows, setup=setup, judging=judging, command=command).save(record)
    return Attributed(verdicts, run)


def _run_of(scores: Scores, progress: Progress) -> Run:
    """The run that scores are."""
    total = scores.count()
    rows: list[Row] = []
    failures: list[Exception] = []
    with progress(total, "scores") as advance:
        for image in until_failure(scores, failures):
            rows += image.rows
            advance(1)
    for failure in failures:
        if not isinstance(failure, RunError):
            raise failure
    return Run(rows, None if total is None else total * len(scores.models), problems=tuple(map(str, failures)))


def _searched(
    verdicts: list[Verdict], run: Run, source: Source, scorer: Scorer, false_names: float, progress: Progress
) -> tuple[list[Verdict], Run]:
    """The verdicts, those of images that no model accepts from a search; and the run, among whose problems are images
    that the source did not give again."""
    unnamed = {(verdict.id, verdict.path): i for i, verdict in enumerate(verdicts) if verdict.verdict == NONE}
    families = families_of(run.rows)
    found = list(verdicts)
    failures: list[Exception] = []
    with progress(len(unnamed), "searching") as advance:
        for place, item in taken_again(source, unnamed, failures):
            found[place] = searched(found[place], item, scorer, false_names=false_names, families=families)
            advance(1)
    if unnamed:
        why = "; ".join(map(str, failures)) or "they are gone"
        missed = f"{len(unnamed)} images that no model accepts could not be searched: {why}"
        run = run._replace(problems=(*run.problems, missed))
    return found, run


def load_calibrations(where: str | os.PathLike[str] = SHIPPED) -> dict[str, list[Calibration]]:
    """For each model its calibrations, one for each past of the images that they were made of.

    Args:
      where: a folder of them (*.json), or one file; "shipped": those that lie beside weights on this machine.

    Raises:
      SourceError: where there is none, or two of one model and past.
      CalibrationError: for a file that is none.
    """
    if where == SHIPPED:
        shipped = {name: calibration_file(name) for name in list_models()}
        return {name: [Calibration.load(path)] for name, path in shipped.items() if path}
    if not isinstance(where, str | os.PathLike):
        raise CalibrationError(
            f"calibrations: {type(where).__name__}; expected a folder or a file of them, 'shipped', or a mapping, "
            "{model: calibration}"
        )
    folder = Path(where)
    files = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
    if not files:
        raise SourceError(f"{folder}: no calibration (*.json) there; make one with aedr calibrate")
    found: dict[str, list[Calibration]] = {}
    for file in files:
        calibration = Calibration.load(file)
        name = calibration.model or file.stem
        pasts = found.setdefault(name, [])
        past = calibration.protocol.processing
        if past in (other.protocol.processing for other in pasts):
            raise SourceError(f"{folder}: two calibrations of {name} (processing {past}); keep one of them there")
        pasts.append(calibration)
    return found
