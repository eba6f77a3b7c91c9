"""The figures of docs/large.md on verdicts: rate, memory at a tenth and at the end, a kill -9 and what follows it.

    python benchmarks/verdicts.py scores --images 100000       # of a folder of scores of two models; prints JSON
    python benchmarks/verdicts.py functions --images 100000    # through an autoencoder of one matrix, 72×72
    python benchmarks/verdicts.py model --images 5000          # through a miniature model, likewise

Scores are made up: standings of the null's images, and for one image in ten of the model's own kind. Images are made on
the spot and never lie on a disk. Each run is killed once half of its images are done, goes on, and is compared with its
own count: every image once. With --seconds each process ends after so long, and another goes on. Linux only (it reads
/proc).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from large import memory, rows_in
from PIL import Image

import aedr_jax as aedr
from aedr_jax.errors import RunError
from aedr_jax.inputs.sources import Item, Source
from aedr_jax.scoring.job import SCORES
from aedr_jax.scoring.rows import Row, of_numbers
from aedr_jax.scoring.store import Parts
from aedr_jax.signal.measurement import Measurement

MODEL = "mini-kl4-a"
PATCH = 8
PART = 1000
SIDE = 72  # the least of which something can be said: of less nothing would be computed


class Made(Item):
    """The image of a number, made when it is read."""

    def read(self) -> bytes:
        rng = np.random.default_rng(int(self.id))
        coarse = Image.fromarray(rng.integers(60, 196, (9, 9, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        file = io.BytesIO()
        Image.fromarray(smooth + rng.integers(0, 40, smooth.shape, dtype=np.uint8)).save(file, "BMP")
        return file.getvalue()


class Noise(Source):
    """Smooth noise under grain, of a number each, as uncompressed files."""

    light = True

    def __init__(self, images: int, seconds: float | None) -> None:
        self.images, self.seconds = images, seconds

    def __iter__(self) -> Iterator[Item]:
        begun = time.monotonic()
        for i in range(self.images):
            if self.seconds is not None and time.monotonic() - begun > self.seconds:
                raise RunError(f"{self.seconds:g} seconds have passed")
            yield Made(f"{i:07d}", f"noise/{i:07d}.bmp")

    def count(self) -> int:
        return self.images


def patches(images):
    n, h, w, c = images.shape
    return (
        images.reshape(n, h // PATCH, PATCH, w // PATCH, PATCH, c).swapaxes(2, 3).reshape(n, h // PATCH, w // PATCH, -1)
    )


def encode(params, images):
    return patches(images) @ params["basis"]


def decode(params, latents):
    n, h, w, _ = latents.shape
    found = (latents @ params["basis"].T).reshape(n, h, w, PATCH, PATCH, 3).swapaxes(2, 3)
    return found.reshape(n, h * PATCH, w * PATCH, 3)


def cheap_autoencoder():
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(PATCH * PATCH * 3, 16)))
    return aedr.from_functions(encode, decode, {"basis": basis.astype(np.float32)}, factor=PATCH)


def make_scores(folder: Path, images: int) -> None:
    """Rows of two models, in parts as `score_dataset` writes them."""
    folder.mkdir(parents=True)
    parts = Parts(folder, tag="0-of-1", layout=SCORES)
    standings = np.concatenate([np.array(group) for group in aedr.Null.shipped().groups.values()])
    rng = np.random.default_rng(0)
    for start in range(0, images, PART):
        rows = []
        for i in range(start, min(start + PART, images)):
            for model in ("one", "other"):
                own = model == "one" and i % 10 == 0
                error = rng.uniform(0.02, 0.2)
                values = dict.fromkeys(Measurement._fields, np.nan)
                alignment = (2 * standings.min() if own else rng.choice(standings)) * error
                values |= {"alignment": alignment, "alignment_error": error}
                rows.append(
                    Row(
                        id=f"{i:07d}",
                        path=f"images/{i:07d}.png",
                        sha256=f"{i:064x}",
                        width=512,
                        height=512,
                        format="PNG",
                        used_width=512,
                        used_height=512,
                        size_rule="crop8",
                        model=model,
                        weights_hash=("0" if model == "one" else "1") * 64,
                        preset="tiles",
                        dtype="float32",
                        precision="highest",
                        quantize=None,
                        measured=of_numbers(values.values()),
                        status="ok",
                    )
                )
        parts.write(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scores", "functions", "model"))
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--work", help="keep scores and verdicts here (default: a folder that is deleted)")
    parser.add_argument("--seconds", type=float, help="of a process, after which another goes on")
    parser.add_argument("--before", type=shlex.split, default=[], help='each process\'s command: "nice -n 10"')
    parser.add_argument("--alone", action="store_true", help="the run itself, in this process")
    args = parser.parse_args()
    if args.alone:
        attribute(args.what, Path(args.work), args.images, args.seconds)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(args.work or temporary)
        work.mkdir(parents=True, exist_ok=True)
        if args.what == "scores" and not (work / "scores").exists():
            make_scores(work / "scores", args.images)
        print(json.dumps(watched(args, work), indent=1))


def attribute(what: str, work: Path, images: int, seconds: float | None) -> None:
    """What is watched."""
    if what == "scores":
        aedr.api.attribute_dataset(aedr.api.Scores(work / "scores"), work / "verdicts", part_images=PART)
        return
    models = {"cheap": cheap_autoencoder()} if what == "functions" else {MODEL: MODEL}
    options = {"models": models, "workers": 0, "part_images": PART if what == "functions" else PART // 10}
    try:
        aedr.api.attribute_dataset(Noise(images, seconds), work / "verdicts", **options)
    except RunError as error:
        sys.exit(str(error))


def watched(args: argparse.Namespace, work: Path) -> dict:
    """A run that is killed in the middle, and those that go on."""
    what, images = args.what, args.images
    call = [*args.before, sys.executable, __file__, what, "--images", str(images), "--work", str(work), "--alone"]
    call += [] if args.seconds is None else ["--seconds", str(args.seconds)]
    runs: list[dict] = []
    while rows_in(work / "verdicts") < images:
        killed = any(run["exit_code"] == -signal.SIGKILL for run in runs)
        runs.append(watch(subprocess.Popen(call), work / "verdicts", images, kill_at=None if killed else images // 2))
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
        if not runs[-1]["images"]:
            raise SystemExit("a run has made nothing")
    table = pq.read_table(work / "verdicts", columns=["id", "verdict"])
    ids = table["id"].to_pylist()
    verdicts = {row["values"]: row["counts"] for row in table["verdict"].value_counts().to_pylist()}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "what": what,
        "runs": runs,
        "images": len(ids),
        "each_once": len(set(ids)) == len(ids) == images,
        "cpu_s_per_image": round((used.ru_utime + used.ru_stime) / images, 5),  # with twice start and compilation
        "verdicts": verdicts,
        "half_written_left": len(list((work / "verdicts").glob(".*"))),
    }


def watch(process: subprocess.Popen, out: Path, images: int, *, kill_at: int | None = None) -> dict:
    start, before, first = time.monotonic(), rows_in(out), None
    memory_by_images: dict[int, int] = {}  # at every twentieth of the images, and the last
    while process.poll() is None:
        done, resident = rows_in(out), memory(process.pid)
        if done > before and first is None:
            first = (time.monotonic(), done)
        if done > before and resident:
            last = max(memory_by_images, default=before)
            if last // (images // 20) == done // (images // 20) and len(memory_by_images) > 1:
                del memory_by_images[last]
            memory_by_images[done] = round(resident)
        if kill_at is not None and done >= kill_at:
            process.kill()
            process.wait()
            break
        time.sleep(0.5)
    now, done = time.monotonic(), rows_in(out)
    steady = (done - first[1]) / (now - first[0]) if first and done > first[1] else None
    return {
        "there_before": before,
        "images": done - before,
        "wall_s": round(now - start, 1),
        "images_per_s_after_first_part": steady and round(steady, 1),
        "MiB_by_images": memory_by_images,
        "exit_code": process.returncode,
    }


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
