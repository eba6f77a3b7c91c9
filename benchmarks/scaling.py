"""What a verdict on very many images takes: bytes, chips, hours, and what would break first.

    python -m benchmarks.scaling measure --out INPUTS.json                            # on this machine
    python -m benchmarks.scaling print INPUTS.json --images 1e9 --candidates 8 --rate 1000 --processes 256

`measure` finds the inputs that do not depend on the accelerator: CPU seconds to decode a JPEG of 1024 pixels and cut
its tiles, bytes of a row, seconds to write a part, and to read the ids of one back when a run begins or ends. `--rate`
is the images a second of one accelerator with one candidate, from `python -m benchmarks.speed` (the last column of
"tiled"). What is assumed and not measured are the options' defaults: a process fails once in `--mtbf` hours and takes
`--restart` seconds to be back, and speeds differ by `--spread`.

`print` first does the sums, then simulates the run: images go to processes by a hash of their ids, each works at its
own speed, loses what it had not written when it fails, starts again and reads the ids of all parts that are there.
Hours are medians over `--repeats` simulated runs, with the 95 % quantile.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from aedr_jax import AlignmentConfig
from aedr_jax.images.tiles import Tiling
from aedr_jax.inputs.decoding import Decoder
from aedr_jax.inputs.sources import Item
from aedr_jax.scoring.job import SCORES
from aedr_jax.scoring.rows import Row, of_numbers
from aedr_jax.scoring.store import Parts
from aedr_jax.scoring.tables import to_markdown
from aedr_jax.signal.measurement import Measurement

PART = 1000  # images
SIDE = 1024
ID_BYTES = 45 + 32  # of memory an image: ids that were seen, and those that earlier runs finished (docs/large.md)


class Inputs(NamedTuple):
    """What was measured; seconds of one CPU core, and bytes."""

    decode_seconds: float
    image_bytes: float
    row_bytes: float
    write_seconds: float
    read_seconds: float


def picture(seed: int) -> bytes:
    """A JPEG of 1024 pixels with detail everywhere."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    noise = rng.normal(0, 6, (SIDE, SIDE, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def rows(part: int) -> list[Row]:
    rng = np.random.default_rng(part)
    texts = {"size_rule": "crop8", "model": "sd1.5", "weights_hash": "0" * 64, "preset": "tiles"}
    return [
        Row(
            id=f"shard-{part:06}.tar/{i:06}.jpg",
            path=f"/data/shard-{part:06}.tar/{i:06}.jpg",
            sha256=rng.bytes(32).hex(),
            measured=of_numbers(rng.normal(size=len(Measurement._fields))),
            width=SIDE,
            height=SIDE,
            format="JPEG",
            dtype="float32",
            precision="highest",
            quantize=None,
            status="ok",
            **texts,
        )
        for i in range(PART)
    ]


def measure(out: Path, images: int = 40, parts: int = 100) -> None:
    files = [picture(seed) for seed in range(8)]
    decoder = Decoder(8, crops=(8,), tilings=(Tiling(AlignmentConfig(), 8),))
    begun = time.process_time()
    for i in range(images):
        decoder(Item(str(i), "x.jpg", files[i % len(files)]))
    decoding = (time.process_time() - begun) / images
    with tempfile.TemporaryDirectory() as work:
        store = Parts(Path(work) / "rows", tag="0", layout=SCORES)
        store.open({})
        made = [rows(part) for part in range(parts)]
        begun = time.process_time()
        for of_part in made:
            store.write(of_part)
        writing = (time.process_time() - begun) / parts
        size = sum(file.stat().st_size for file in store.folder.iterdir()) / (parts * PART)
        begun = time.process_time()
        store.done()
        reading = (time.process_time() - begun) / parts
    found = Inputs(decoding, float(np.mean([len(file) for file in files])), size, writing, reading)
    out.write_text(json.dumps(found._asdict(), indent=1) + "\n")
    print(out.read_text(), end="")


def hours(args: argparse.Namespace, inputs: Inputs, rng: np.random.Generator) -> tuple[float, float]:
    """Of one simulated run: until the last process ends, and the share of all processes' time that was lost."""
    share = rng.multinomial(int(args.images), np.full(args.processes, 1 / args.processes))
    speed = args.rate / args.candidates * np.exp(args.spread * rng.standard_normal(args.processes))
    work = share / speed
    parts = args.images / PART
    failures = rng.poisson(work / 3600 / args.mtbf)
    # A failure comes at any time of the run: half of the parts are there on average, and half a minute is not written.
    lost = np.array([(args.restart + rng.random(n) * (60 + parts * inputs.read_seconds)).sum() for n in failures])
    ends = work + lost + parts * inputs.read_seconds  # and the look through all ids at the end
    return ends.max() / 3600, 1 - work.sum() / (ends.max() * args.processes)


def report(args: argparse.Namespace) -> None:
    inputs = Inputs(**json.loads(args.file.read_text()))
    n, chip_hours = args.images, args.images * args.candidates / args.rate / 3600
    rng = np.random.default_rng(0)
    found = np.array([hours(args, inputs, rng) for _ in range(args.repeats)])
    cost = f", {chip_hours * args.price:,.0f} at {args.price:g} an hour" if args.price else ""
    parts, each = math.ceil(n / PART), args.rate / args.candidates
    table = [
        ["images read", f"{n * inputs.image_bytes / 1e12:.1f} TB"],
        ["rows of scores", f"{n * args.candidates * inputs.row_bytes / 1e9:.0f} GB in {parts:,} parts"],
        ["accelerator hours", f"{chip_hours:,.0f}{cost}"],
        ["CPU core hours, decoding", f"{n * inputs.decode_seconds / 3600:,.0f}"],
        ["CPU cores that keep one accelerator busy", f"{each * inputs.decode_seconds:.1f}"],
        ["bytes a second into one accelerator's machine", f"{each * inputs.image_bytes / 1e6:.0f} MB"],
        ["hours, simulated", f"{np.median(found[:, 0]):.2f}, 95 %: {np.quantile(found[:, 0], 0.95):.2f}"],
        ["of the processes' time lost to chance, failures and reading ids", f"{100 * np.median(found[:, 1]):.1f} %"],
        ["memory for ids, each process", f"{n * ID_BYTES / 1e9:.1f} GB"],
        ["seconds to read all ids, at a start and at the end", f"{parts * inputs.read_seconds:,.0f}"],
    ]
    print(f"**{n:.0e} images, {args.candidates} candidates, {args.processes} processes of one accelerator each**\n")
    print(to_markdown(["what", "how much"], table))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("measure").add_argument("--out", type=Path, required=True)
    said = steps.add_parser("print")
    said.add_argument("file", type=Path)
    said.add_argument("--images", type=float, default=1e9)
    said.add_argument("--candidates", type=int, default=8)
    said.add_argument("--rate", type=float, required=True, help="images a second, one accelerator and one candidate")
    said.add_argument("--processes", type=int, default=256)
    said.add_argument("--mtbf", type=float, default=500.0, help="hours between two failures of a process (assumed)")
    said.add_argument("--restart", type=float, default=120.0, help="seconds until a process is back (assumed)")
    said.add_argument("--spread", type=float, default=0.03, help="of the logarithm of processes' speeds (assumed)")
    said.add_argument("--price", type=float, default=0.0, help="of an accelerator hour")
    said.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()
    if args.step == "measure":
        measure(args.out)
    else:
        report(args)


if __name__ == "__main__":
    main()
