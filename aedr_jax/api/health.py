"""`doctor`: what is installed, what JAX runs on, which weights and caches are here, and whether a verdict comes out."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from aedr_jax import __version__
from aedr_jax.autoencoders.registry import REGISTRY, calibration_file, local_folder, miniature_models, weight_roots
from aedr_jax.versions import version

__all__ = ["Check", "Examined", "doctor"]

DEVELOPERS = ("dev", "notebook", "parity", "test", "train")  # extras that no command asks for
MODEL = "mini-vq"  # of the self-test
SIDE = 96  # pixels, of its images: the least that has room for a few blocks


class Check(NamedTuple):
    """What was looked at, whether it is as it has to be (None: it is only said), and what was seen."""

    what: str
    ok: bool | None
    said: str


class Examined(NamedTuple):
    """All checks, and how long the self-test took."""

    checks: tuple[Check, ...]
    seconds: float

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.ok is not False for check in self.checks)


def doctor() -> Examined:
    """Look at this machine. The self-test makes a texture, passes it through a miniature model, and asks that model
    about both: the texture is to be called "none" and its reconstruction by the model's name. Nothing raises; what
    breaks is a check that is not ok, with the error.
    """
    looked = [
        *_looked("installed", _installed),
        *_looked("extras", _extras),
        *_looked("devices", _devices),
        *_looked("weights", _weights),
        *_looked("caches", _caches),
    ]
    before = time.perf_counter()
    looked += _looked("self-test", _self_test)
    return Examined(tuple(looked), time.perf_counter() - before)


def _looked(what: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    found: list[Check] = []
    try:
        found.extend(look())
    except Exception as error:  # whatever breaks here is what the user wants to know
        found.append(Check(what, False, f"{type(error).__name__}: {error}"))
    return found


def _installed() -> Iterator[Check]:
    needed = [name for name, extra in _requirements() if extra is None]
    missing = [name for name in needed if version(name) is None]
    versions = ", ".join(f"{name} {version(name)}" for name in needed if name not in missing)
    here = f"aedr-jax {__version__} in Python {platform.python_version()}"
    lost = f"missing: {', '.join(missing)}" if missing else ""
    if not needed:
        lost = "not installed as a package, so that it is not known what it needs"
    said = "; ".join(part for part in (here, versions, lost) if part)
    yield Check("installed", not missing if needed else None, said)


def _extras() -> Iterator[Check]:
    extras: dict[str, list[str]] = {}
    for name, extra in _requirements():
        if extra is not None and extra not in DEVELOPERS and "[" not in name:  # jax[cuda12]: see the devices
            extras.setdefault(extra, []).append(name)
    here = [extra for extra, names in extras.items() if all(map(version, names))]
    absent = [extra for extra in extras if extra not in here]
    hint = f'; not here: {", ".join(absent)} (pip install "aedr-jax[NAME]")' if absent else ""
    yield Check("extras", None, (", ".join(here) or "none") + hint)
    unread = "no reader (pip install c2pa-python): reports do not look for it"
    yield Check("C2PA", None, "a reader is here" if find_spec("c2pa") else unread)


def _requirements() -> Iterator[tuple[str, str | None]]:
    """Name and extra of each requirement, as the installed package states them; none of a mere checkout."""
    try:
        stated = metadata.requires("aedr-jax") or ()
    except metadata.PackageNotFoundError:
        return
    for text in stated:
        extra = re.search(r"""extra\s*==\s*["'](.+?)["']""", text)
        name = re.match(r"[\w.-]+(\[[\w,.-]+\])?", text)
        if name:
            yield name[0], extra[1] if extra else None


def _devices() -> Iterator[Check]:
    import jax

    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    yield Check("devices", True, f"{len(devices)} of {jax.default_backend()} ({', '.join(kinds)})")
    if jax.default_backend() == "cpu" and Path("/proc/driver/nvidia/version").exists():
        said = 'an NVIDIA driver is here, and JAX does not use it: pip install "aedr-jax[cuda12]"'
        yield Check("devices", False, said)


def _weights() -> Iterator[Check]:
    miniature = [name for name in miniature_models() if local_folder(name)]
    here = [name for name in REGISTRY if name not in miniature_models() and local_folder(name)]
    complete = len(miniature) == len(miniature_models())
    yield Check("miniature models", complete, ", ".join(miniature) or "none: the installation is incomplete")
    roots = ", ".join(map(str, weight_roots()))
    said = ", ".join(here) if here else f"none in {roots}; aedr convert NAME weights/NAME brings one"
    yield Check("real generators", None, said)
    yield Check("calibrations", None, ", ".join(name for name in REGISTRY if calibration_file(name)) or "none")


def _caches() -> Iterator[Check]:
    import jax
    from huggingface_hub import constants

    from aedr_jax.autoencoders.hub import lock_path

    programs = getattr(jax.config, "jax_compilation_cache_dir", None)  # not among its typed attributes
    kept = programs or "not kept (JAX_COMPILATION_CACHE_DIR=FOLDER keeps them: large models then start sooner)"
    yield Check("compiled programs", None, kept)
    for what, place in (("downloads", constants.HF_HUB_CACHE), ("hashes of downloads", lock_path())):
        yield Check(what, None, f"{place}{'' if os.path.exists(place) else ' (not there yet)'}")


def _self_test() -> Iterator[Check]:
    from aedr_jax.api.decisions import attribute

    with tempfile.TemporaryDirectory(prefix="aedr-doctor-") as folder:
        texture = _texture()
        for name, pixels in (("texture", texture), ("reconstruction", _reconstructed(texture))):
            Image.fromarray(pixels).save(Path(folder) / f"{name}.png")
        found = {Path(verdict.id).stem: verdict for verdict in attribute(folder, models=[MODEL]).verdicts}
    for name, wanted in (("texture", "none"), ("reconstruction", MODEL)):
        verdict = found[name]
        p = verdict.foreign_p_values.get(MODEL)
        said = f"{name} of {MODEL}" if wanted == MODEL else f"a {name}"
        said = f"{said}: {verdict.verdict}{'' if p is None else f', foreign p {p:.3f}'}"
        right = verdict.verdict == wanted
        yield Check("self-test", right, said if right else f"{said}; expected {wanted}. {verdict.unsaid}".rstrip())


def _texture() -> UInt8[np.ndarray, "h w 3"]:
    """Soft colours under fine grain, which no autoencoder made."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 216, (7, 7, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)
    return (soft + rng.normal(0, 12, soft.shape)).clip(0, 255).astype(np.uint8)


def _reconstructed(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    import jax

    from aedr_jax.autoencoders.loading import load_autoencoder
    from aedr_jax.images.arrays import prepare
    from aedr_jax.study.attacks import launder

    passed = jax.jit(launder)(load_autoencoder(MODEL), prepare(pixels))
    return np.asarray((passed[0] + 1) * 127.5).round().astype(np.uint8)
