"""Files in, decisions out: whatever the command line does is one call here, and gives data back.

    import aedr_jax as aedr

    run = aedr.api.score("photos", "mini-vq")                             # run.rows
    made = aedr.api.calibrate("own", "mini-vq", out="calibrations/mini-vq.json")
    found = aedr.api.attribute("photos", calibrations="calibrations")     # found.verdicts

Inputs are a `Source`, or whatever `open_source` reads: folders, patterns, image files, archives, tables, datasets, one
of them or a list. How images are measured is one `Setup`, the same for all three. Ctrl-C, an input that breaks off and
files that were passed over are said by the `Run`; a wrong call raises `AedrError`. Nothing here prints.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "aedr_jax.api.comparison": ("Evaluated", "evaluate"),
    "aedr_jax.api.decisions": ("Attributed", "attribute", "calibrate", "load_calibrations"),
    "aedr_jax.api.inventory": ("Inventory", "ModelRecord", "models"),
    "aedr_jax.api.making": ("Demonstrated", "demo", "generate"),
    "aedr_jax.api.scores": ("Counts", "Progress", "Run", "score"),
    "aedr_jax.autoencoders.loading": ("convert",),
    "aedr_jax.autoencoders.pickled": ("convert_pickles",),
    "aedr_jax.inputs.containers": ("open_source",),
    "aedr_jax.scoring.dataset": ("score_dataset",),
    "aedr_jax.scoring.job": ("Setup",),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_MODULE_OF)

if TYPE_CHECKING:
    from aedr_jax.api.comparison import Evaluated as Evaluated
    from aedr_jax.api.comparison import evaluate as evaluate
    from aedr_jax.api.decisions import Attributed as Attributed
    from aedr_jax.api.decisions import attribute as attribute
    from aedr_jax.api.decisions import calibrate as calibrate
    from aedr_jax.api.decisions import load_calibrations as load_calibrations
    from aedr_jax.api.inventory import Inventory as Inventory
    from aedr_jax.api.inventory import ModelRecord as ModelRecord
    from aedr_jax.api.inventory import models as models
    from aedr_jax.api.making import Demonstrated as Demonstrated
    from aedr_jax.api.making import demo as demo
    from aedr_jax.api.making import generate as generate
    from aedr_jax.api.scores import Counts as Counts
    from aedr_jax.api.scores import Progress as Progress
    from aedr_jax.api.scores import Run as Run
    from aedr_jax.api.scores import score as score
    from aedr_jax.autoencoders.loading import convert as convert
    from aedr_jax.autoencoders.pickled import convert_pickles as convert_pickles
    from aedr_jax.inputs.containers import open_source as open_source
    from aedr_jax.scoring.dataset import score_dataset as score_dataset
    from aedr_jax.scoring.job import Setup as Setup


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
