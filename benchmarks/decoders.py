"""How both signals fare on miniature decoders that have no sampler: AutoencoderDC, Wan on images, FLUX.2's preview.

    python -m benchmarks.decoders measure --data DATA --work WORK [--models mini-wan,weights/mini-tiny32]
        [--processes none,jpeg30] [--kinds photographs,screens]
    python -m benchmarks.decoders print --work WORK      # with the same options
    python -m benchmarks.decoders images --data DATA --work WORK      # own images as WORK/MODEL/*.png

A model's own images are decodes of perturbed latents of photographs that no weights saw, the middle square of each: to
each latent channel noise of half its standard deviation over them is added, and what is decoded is rounded to 8 bits.
They are nearer to photographs than what a sampler makes. Foreign ones are photographs, JPEG files and images of other
generators of half 1, or other kinds of `benchmarks.sources`; the null is the one that ships, which saw none of these
decoders. All are squares of the model's native size (of 128 pixels for a folder of weights), as they are and as JPEG
50, or processed otherwise. Measurements are kept in WORK/MODEL/KIND-PROCESS.npz; an interrupted run goes on.

With `--half 0` foreign ones are of half 0, and own ones are made of the JPEG files of half 1: none of them is among the
images above. What was chosen on one set is confirmed on the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from aedr_jax import AlignmentConfig, Measurement, Null, SignalConfig, load_autoencoder, measure, prepare
from aedr_jax.autoencoders.names import split_list
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.decision.null import ROUNDING
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.study.metrics import area_under_curve
from benchmarks.batches import keep_arrays, of_one_version
from benchmarks.sources import SIDE, Pixels, processed, squares

MODELS = ("mini-wan", "mini-dc")
FOREIGN = ("photographs", "JPEG files", "other generators")
PROCESSES = ("none", "jpeg50")
PERTURBED = 0.5  # standard deviations of each latent channel
MOST = 60  # foreign images of a kind
MOST_OWN = 100
RATES = (0.05, 0.01)
Measuring = Callable[..., Measurement]


def side_of(model: str) -> int:
    return (REGISTRY[model].native_size if model in REGISTRY else None) or SIDE


@cache
def compiled():
    return jax.jit(lambda ae, x: ae.encode(x)), jax.jit(lambda ae, z: ae.decode(z))


def own_images(autoencoder, data: Path, side: int, half: int = 1) -> list[Pixels]:
    """Decodes of perturbed latents, uint8: of the photographs, or for half 0 of JPEG files. The noise of each follows
    from its number."""
    encode, decode = compiled()
    of = squares("photographs", data, side) if half else squares("JPEG files", data, side, half=1)
    latents = np.concatenate([encode(autoencoder, prepare(x)) for x in of])[:MOST_OWN]
    scale = PERTURBED * latents.std((0, 1, 2))
    noise = [np.random.default_rng([half, i]).standard_normal(z.shape, np.float32) for i, z in enumerate(latents)]
    decoded = [decode(autoencoder, jnp.asarray(z + scale * e)[None]) for z, e in zip(latents, noise, strict=True)]
    return [np.rint((np.clip(x[0], -1, 1) + 1) * 127.5).astype(np.uint8) for x in decoded]


def keep(path: Path, autoencoder, images: Iterable[Pixels], measuring: Measuring) -> None:
    """Write the measurements of images, whole or not at all; what is there already is not made again."""
    if path.exists():
        return
    found = [measuring(autoencoder, jnp.asarray(prepare(image))) for image in images]
    columns = {name: np.concatenate([getattr(one, name) for one in found]) for name in found[0]._fields}
    keep_arrays(path, **columns, standing=columns["alignment"] / columns["alignment_error"])


def quality(autoencoder, data: Path, side: int) -> float:
    """Mean PSNR in dB of the reconstructions of the photographs."""
    encode, decode = compiled()
    found = []
    for x in map(prepare, squares("photographs", data, side)):
        error = np.square(np.clip(decode(autoencoder, encode(autoencoder, x)), -1, 1) - x).mean()
        found.append(10 * np.log10(4 / error))
    return float(np.mean(found))


def report(work: Path, models: Sequence[str], processes: Sequence[str], of_kinds: Sequence[str]) -> None:
    null = Null.shipped()
    rows, kinds = [], []
    for model in (Path(model).name for model in models):
        for process in processes:
            own, *found = (dict(np.load(work / model / f"{kind}-{process}.npz")) for kind in ("own", *of_kinds))
            others = dict(zip(of_kinds, found, strict=True))
            foreign = {name: np.concatenate([of[name] for of in others.values()]) for name in own}
            rows.append([model, process, *aucs(own, foreign), *accepted(null, own), *accepted(null, foreign)])
            kinds += [[model, process, kind, *accepted(null, of)] for kind, of in others.items()]
    shares = [f"p <= {rate:g}" for rate in RATES]
    head = ["model", "images", "AUC, paper's signal", "AUC, alignment"]
    own_and_foreign = [f"{whose} {name}" for whose in ("own", "foreign") for name in (*shares, "n")]
    print(to_markdown([*head, *own_and_foreign], rows))
    print(to_markdown(["model", "images", "kind", *shares, "n"], kinds))


def aucs(own: Mapping[str, np.ndarray], foreign: Mapping[str, np.ndarray]) -> list[str]:
    """Of the paper's signal, and of alignment / error, 0 where nothing can be said; both are low for own images."""
    return [
        f"{area_under_curve(*(np.nan_to_num(of[name], nan=nothing) for of in (own, foreign))):.3f}"
        for name, nothing in (("signal", np.inf), ("standing", 0.0))
    ]


def accepted(null: Null, of: Mapping[str, np.ndarray]) -> list[str]:
    """The shares with p-values of at most each of `RATES`, of all; and how many there are."""
    p = np.asarray(null.p_value(of["standing"]), np.float64)
    return [*(f"{(p <= rate * ROUNDING).mean():.3f}" for rate in RATES), str(len(p))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "print", "images"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--tile", type=int, help="the side of the alignment's tiles (default: as shipped); another WORK"
    )
    parser.add_argument("--half", type=int, choices=(0, 1), default=1, help="of the images; another WORK")
    parser.add_argument("--models", type=split_list, default=list(MODELS), help="names or folders of weights")
    parser.add_argument("--processes", type=split_list, default=list(PROCESSES), help="what is done to the images")
    parser.add_argument("--kinds", type=split_list, default=list(FOREIGN), help="of foreign images")
    args = parser.parse_args()
    config = SignalConfig(alignment=AlignmentConfig(tile=args.tile)) if args.tile else SignalConfig()
    measuring = jax.jit(partial(measure, config=config))
    of_one_version(args.work, config.alignment)
    for model in args.models if args.step == "measure" else ():
        autoencoder, side = load_autoencoder(model), side_of(model)
        print(f"{model}: {quality(autoencoder, args.data, side):.1f} dB on photographs of {side} pixels", flush=True)
        own = own_images(autoencoder, args.data, side, args.half)
        folder = args.work / Path(model).name
        for process in tqdm(args.processes, desc=model, disable=None):
            images = (processed(image, process, i) for i, image in enumerate(own))
            keep(folder / f"own-{process}.npz", autoencoder, images, measuring)
            for kind in args.kinds:
                found = islice(squares(kind, args.data, side, half=args.half), MOST)
                images = (processed(image, process, i) for i, image in enumerate(found))
                keep(folder / f"{kind}-{process}.npz", autoencoder, images, measuring)
    for model in args.models if args.step == "images" else ():
        folder = args.work / Path(model).name
        folder.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(own_images(load_autoencoder(model), args.data, side_of(model), args.half)):
            Image.fromarray(image).save(folder / f"{i:03d}.png")
    if args.step == "print":
        report(args.work, args.models, args.processes, args.kinds)


if __name__ == "__main__":
    main()
