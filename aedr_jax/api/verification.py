"""`verify`: compute what a record says again, and say what differs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aedr_jax.api.decisions import Calibrations, attribute, candidates_of
from aedr_jax.api.scores import Progress, Run, named, unseen
from aedr_jax.autoencoders.registry import REGISTRY, local_folder
from aedr_jax.decision.null import ROUNDING, Null
from aedr_jax.errors import RunError, SourceError
from aedr_jax.scoring.job import Setup
from aedr_jax.scoring.judging import Judging
from aedr_jax.scoring.made import Made
from aedr_jax.scoring.record import Record, RecordedImage
from aedr_jax.scoring.recorded import Recorded, keys_of

__all__ = ["P_TOLERANCE", "TOLERANCE", "Difference", "Verified", "verify"]

# Sums in float32 come out otherwise in another order. Measured on a CPU, alignments of six example images, without the
# compiler's optimisations, with other vector instructions, and in a batch of six in place of one by one: 7e-7 without a
# codebook, and 3e-4 with one, where a latent lies between two entries; of 200 images with a codebook, after the program
# had changed, 3e-3 of one. No accelerator was compared.
TOLERANCE = 5e-3
P_TOLERANCE = 0.02  # what that moves a p-value of a calibration, whose scores spread over tenths


class Difference(NamedTuple):
    """Something that is not as recorded: of the record, a model or an image; what of it; and both values."""

    of: str
    what: str
    recorded: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.of}: {self.what}: recorded {_short(self.recorded)}, now {_short(self.now)}"


class Verified(NamedTuple):
    """Whether a record holds for the images that were given.

    Attributes:
      holds: nothing differs.
      differences: first of the record, then of the models, then of the images.
      notes: what is different and need not make a difference: versions, the device.
      images: how many were measured again.
      unchecked: the recorded images that were not given, of which nothing is said; of a folder's the first few.
      unchecked_count: how many those are.
      tolerance: by which alignments and other scores may differ (`TOLERANCE`).
    """

    holds: bool
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    images: int
    unchecked: tuple[str, ...]
    unchecked_count: int = 0
    tolerance: float = TOLERANCE


def verify(
    record: str | os.PathLike[str],
    inputs: Any,
    *,
    models: Sequence[str] | Mapping[str, Any] | None = None,
    calibrations: str | os.PathLike[str] | Calibrations | None = None,
    setup: Setup | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    progress: Progress = unseen,
    on_run: Callable[[Run], Any] = lambda run: None,
) -> Verified:
    """Measure images again as a record says that they were, and compare.

    Equal are to be: the weights and settings of every model (by their fingerprints, which are said first), the null,
    the calibrations, the bytes of each image and its verdict. Alignments, their errors and other scores may differ by
    `TOLERANCE`, absolutely below 1 and relatively above: sums in float32 come out otherwise in another order, which is
    a matter of processors, versions and batches. Foreign p-values of alignments are to follow from the recorded
    alignments exactly; other p-values may differ by `P_TOLERANCE`.

    Args:
      record: the file that `attribute(record=)` wrote, a page of `report`, or the folder of `attribute_dataset`,
        finished or not.
      inputs: as for `attribute`: the images that are to be looked at. An image is found in the record by its bytes, or
        else by its name.
      models: where models lie whose weights are not here by their registry's name, `NAME=SOURCE` by the record's names,
        or a registry's name that may be downloaded; or name -> one of these or an autoencoder, such as one of
        `from_functions`. A record says no place, and none would be believed.
      calibrations: as for `attribute`, where the record's verdicts are with calibrations.
      setup: in place of the record's.
      image_column, id_column: of tables and datasets, where they cannot be told.
      progress: shown while images are measured.
      on_run: given the run.

    Raises:
      SourceError: for a file that is no record, a model that nobody here knows the place of, and as `attribute`.
      RunError: where the inputs could not be read to their end.
      KeyboardInterrupt: where the run is interrupted.
    """
    recorded = Recorded.load(record)
    told = recorded.record
    places = _places(told, models or ())
    if told.calibrations and calibrations is None:
        raise SourceError(f"{record}: its verdicts are with calibrations; say where they are (--calibrations DIR)")
    setup = setup or told.measuring.setup()
    chosen = candidates_of(places, calibrations, setup)[1] if told.calibrations else {}
    found = attribute(
        inputs,
        models=places,
        calibrations=chosen or None,
        false_names=told.false_names,
        search=told.search,
        setup=setup,
        image_column=image_column,
        id_column=id_column,
        progress=progress,
        on_run=on_run,
    )
    if found.run.interrupted:
        raise KeyboardInterrupt
    if found.run.problems:
        raise RunError("; ".join(found.run.problems))
    judging = Judging(chosen, told.false_names, told.search)
    now = Record.of(found.verdicts, found.run.rows, setup=setup, judging=judging)
    looked = recorded.look_up(now.images)
    pairs = _matched(looked.images, now.images)
    edited = [*([] if recorded.intact else ["record"]), *looked.edited]
    differences = [
        *(Difference(one, "digest", "of other content", "the file was changed after it was written") for one in edited),
        *_of_models(told, now),
        *(difference for before, image in pairs for difference in _of_image(before, image)),
    ]
    seen = {key for before, _ in pairs if before for key in (before.sha256, before.id) if key}
    unchecked = [image.id for image in looked.images if not {image.sha256, image.id} & seen]
    return Verified(
        not differences,
        tuple(differences),
        tuple(_notes(looked.made, now.made)),
        len(now.images),
        (*unchecked, *looked.others),
        len(unchecked) + looked.left,
    )


def _places(record: Record, models: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The record's models as `attribute` takes them, from what the user says and the registry alone."""
    if not record.models:
        raise SourceError("a record without a model")
    given = named(models)
    if unknown := [name for name in given if name not in record.models]:
        raise SourceError(f"no model {', '.join(unknown)} in the record (there are: {', '.join(record.models)})")
    if lost := [name for name in record.models if name not in given and not (name in REGISTRY and local_folder(name))]:
        if record.models[lost[0]].protocol.identity.dtype is None:
            raise SourceError(
                f"the record's model {lost[0]!r} is an autoencoder of from_functions, which no file can bring; hand it "
                f"over in Python: aedr.api.verify(RECORD, IMAGES, models={{{lost[0]!r}: autoencoder}})"
            )
        where = lost[0] if lost[0] in REGISTRY else f"{lost[0]}=FOLDER"
        raise SourceError(
            f"the record's model {lost[0]!r} is none whose weights are here by that name, and nothing is downloaded on "
            f"a file's word; say where it is: --models {where}"
        )
    return {name: given.get(name, name) for name in record.models}


def _of_models(record: Record, now: Record) -> list[Difference]:
    found = []
    for name, model in record.models.items():
        mine = now.models.get(name)
        if mine is None:
            found.append(Difference(name, "candidate", "asked", "not asked"))
            continue
        apart = model.protocol.differences(mine.protocol)
        found += [Difference(name, what.split(".")[-1], *both) for what, both in apart.items()]
        if model.fingerprint != mine.fingerprint and not apart:
            found.append(Difference(name, "fingerprint", model.fingerprint, mine.fingerprint))
    if record.null != now.null:
        found.append(Difference("null", "hash", record.null, now.null))
    for name in dict.fromkeys([*record.calibrations, *now.calibrations]):
        before, after = (sorted(one.calibrations.get(name, ())) for one in (record, now))
        if before != after:
            found.append(Difference(name, "calibrations", ", ".join(before), ", ".join(after)))
    return found


def _notes(before: Iterable[Made], now: Made) -> list[str]:
    """What has another version now, or another device; each once."""
    after = {**now.versions, "device": now.backend}
    notes = [
        f"{name}: recorded with {then.get(name, 'none')}, now {after.get(name, 'none')}"
        for then in ({**made.versions, "device": made.backend} for made in before)
        for name in dict.fromkeys([*then, *after])
        if then.get(name) != after.get(name)
    ]
    return list(dict.fromkeys(notes))


def _matched(
    recorded: Sequence[RecordedImage], now: Sequence[RecordedImage]
) -> list[tuple[RecordedImage | None, RecordedImage]]:
    """For each image that was measured its entry: by its bytes, else by its id, else by its file's name."""
    known = {key: image for image in reversed(recorded) for key in keys_of(image.id, image.sha256) if key[1]}

    def entry(image: RecordedImage) -> RecordedImage | None:
        return next((known[key] for key in keys_of(image.id, image.sha256) if key in known), None)

    return [(entry(image), image) for image in now]


def _of_image(before: RecordedImage | None, image: RecordedImage) -> list[Difference]:
    if before is None:
        return [Difference(image.id, "image", "not in the record", image.verdict)]
    found = []
    for what in ("sha256", "verdict", "status", "found"):
        pair = getattr(before, what), getattr(image, what)
        if pair[0] != pair[1]:
            found.append(Difference(image.id, "bytes (sha256)" if what == "sha256" else what, *pair))
    for what in ("alignments", "alignment_errors", "scores"):
        found += _numbers(image.id, what, getattr(before, what), getattr(image, what), TOLERANCE)
    aligned = bool(before.alignments) and not before.found
    for what in ("foreign_p_values", "p_values"):
        if not (aligned and what == "foreign_p_values"):
            found += _numbers(image.id, what, getattr(before, what), getattr(image, what), P_TOLERANCE)
    if aligned and before.foreign_p_values:
        follow = {
            name: float(Null.shipped().p_value(np.array([alignment / before.alignment_errors[name]]))[0])
            for name, alignment in before.alignments.items()
            if before.alignment_errors.get(name)
        }
        found += _numbers(image.id, "foreign_p_values", before.foreign_p_values, follow, ROUNDING - 1)
    return found


def _numbers(
    of: str, what: str, recorded: Mapping[str, float], now: Mapping[str, float], tolerance: float
) -> list[Difference]:
    found = []
    for name in dict.fromkeys([*recorded, *now]):
        before, after = recorded.get(name, math.nan), now.get(name, math.nan)
        if not abs(before - after) <= tolerance * max(1.0, abs(before)):  # nor where one is missing
            found.append(Difference(of, f"{what} with {name}", before, after))
    return found


def _short(value: Any) -> str:
    if isinstance(value, float):
        return "none" if math.isnan(value) else f"{value:.6g}"
    text = str(value) if value != "" else "none"
    return f"{text[:12]}…" if len(text) >= 64 and text.isalnum() else text
