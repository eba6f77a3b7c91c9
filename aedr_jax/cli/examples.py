"""What `aedr COMMAND --help` ends with: calls that can be typed as they stand."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["EXAMPLES", "FIRST", "examples_of"]

EXAMPLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "demo": ("aedr demo", "aedr demo -n 5 --out demo-images"),
        "models": ("aedr models", "aedr models --json --calibrations calibrations"),
        "convert": (
            "aedr convert sd1.5 weights/sd1.5",
            "aedr convert org/repo/vae weights/mine --revision main",
            "aedr convert vae.bin weights/mine --pickle",
        ),
        "generate": (
            "aedr generate --model sd1.5 --prompts prompts.txt -n 500 --out own",
            "aedr generate --model mini-vq -n 20 --out own",
        ),
        "score": (
            "aedr score photos --model sd1.5 --out scores.parquet",
            'aedr score "shards/*.tar" --model sd1.5 --model flux --out scores',
            "aedr score photos --model mini-vq --preset paper --json",
        ),
        "calibrate": (
            "aedr calibrate own --model sd1.5 --out calibrations/sd1.5.json",
            "aedr calibrate own --model sd1.5 --out c/jpeg.json --processing jpeg75",
        ),
        "attribute": (
            "aedr attribute photo.png",
            "aedr attribute photos --models sd1.5,mine=weights/vae --out verdicts.csv",
            "aedr attribute photos --calibrations calibrations --json",
            "aedr attribute photo.png --record photo.json",
        ),
        "report": (
            "aedr report photo.png --out photo.html",
            "aedr report photos --models sd1.5 --most-images 5 --out photos.html",
        ),
        "verify": (
            "aedr verify photo.json photo.png",
            "aedr verify photo.html photo.png",
            "aedr verify verdicts photos/1.png",
            "aedr verify photos.json photos --models mine=weights/vae",
        ),
        "doctor": ("aedr doctor", "aedr doctor --json"),
        "evaluate": ("aedr evaluate folders --out results --methods aedr --no-plots",),
    }
)

FIRST = """examples:
  aedr demo                 the whole story offline, on miniature models
  aedr attribute photo.png  a verdict with every model whose weights are here
  aedr models               which those are
  aedr COMMAND --help       the options and examples of one command"""


def examples_of(command: str) -> str:
    """The last lines of a command's help, or "" where it has no examples."""
    lines = EXAMPLES.get(command, ())
    return "\n  ".join(["examples:", *lines]) if lines else ""
