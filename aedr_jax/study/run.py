"""What becomes of the parts of an evaluation: one Parquet, and `RESULTS/run.json`, which says what that depends on."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aedr_jax.files import whole_file
from aedr_jax.scoring.made import MADE_KEY, Made, images_hash
from aedr_jax.scoring.scorer import Candidate
from aedr_jax.signal.protocol import told_apart

__all__ = ["RUN", "join_parts", "not_finite", "write_run"]

RUN = "run.json"


def write_run(
    folder: Path,
    made: Made,
    *,
    settings: Mapping[str, Any],
    candidates: Sequence[Candidate],
    images: Mapping[str, Sequence[str]],
    parts: Sequence[Path],
) -> None:
    """Write it, whole or not at all, with a digest of its content. The next call with the same folder replaces it.

    Args:
      folder: of the results.
      made: how this call came to be.
      settings: what was asked; JSON values.
      candidates: the models.
      images: for each source the sha256 of each of its files.
      parts: the files of scores, of this call and of earlier ones, which say how they came to be.
    """
    import pyarrow.parquet as pq

    metadata = [pq.read_schema(part).metadata or {} for part in parts]
    told = [json.loads(said[MADE_KEY]) for said in metadata if MADE_KEY in said]
    for one in told:
        del one["created"]  # each part has its own
    values = {
        "made": dataclasses.asdict(made),
        "settings": dict(settings),
        "models": {candidate.name: dataclasses.asdict(candidate.identity) for candidate in candidates},
        "images": {source: {"count": len(files), "hash": images_hash(files)} for source, files in images.items()},
        "parts": [one for i, one in enumerate(told) if one not in told[:i]],
    }
    with whole_file(folder / RUN) as partial:
        partial.write_text(json.dumps({**values, "digest": told_apart(values)}, indent=1) + "\n", encoding="utf-8")


def join_parts(files: Sequence[Path], out: Path) -> None:
    """Write the scores of all parts as one Parquet: of the same parts the same file, so without how they came to be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with whole_file(out) as partial:
        table = pa.concat_tables([pq.read_table(file) for file in files])
        pq.write_table(table.replace_schema_metadata(None), partial)


def not_finite(scores: Path) -> list[str]:
    """How many scores the tables leave out, though the second loss was not 0: the model overflows, or its weights are
    broken."""
    import pyarrow.parquet as pq

    table = pq.read_table(scores, columns=["model", "method", "score", "second_loss"])
    score, second = (table.column(name).to_numpy() for name in ("score", "second_loss"))
    found = Counter[tuple[str, str]]()
    for i in np.flatnonzero(~np.isfinite(score) & (second != 0)):
        found[table.column("model")[int(i)].as_py(), table.column("method")[int(i)].as_py()] += 1
    return [
        f"{model}: {count} scores by {method} are not finite: broken weights, or too large for float32"
        for (model, method), count in found.items()
    ]
