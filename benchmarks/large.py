"""The figures of docs/large.md: speed and memory of a large run, and ten runs that are killed.

    python benchmarks/large.py run --images 20000     # prints JSON
    python benchmarks/large.py kills --images 200
    python benchmarks/large.py devices --images 32

Images are made on the spot: 64×64 PNG, smooth noise from their number. Linux only (it reads /proc).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

MODEL = "mini-kl4-a"
SIDE = 64
KILLS = 10
BATCHES = 20  # through the autoencoder alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "kills", "devices", "score"))
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--work", help="keep images and rows here (default: a folder that is deleted)")
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    if args.what == "score":  # what `kills` kills
        score_small_parts(Path(args.work))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(args.work or temporary)
        make_images(work / "images", args.images)
        found = run(work, args) if args.what == "run" else kills(work) if args.what == "kills" else devices(work)
        print(json.dumps(found, indent=1))


def make_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(len(list(folder.iterdir())), count):
        coarse = Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 9, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{i:05d}.png")


def run(work: Path, args: argparse.Namespace) -> dict:
    """One `aedr score` from start to end, watched from outside."""
    out = work / "scores"
    call = [sys.executable, "-m", "aedr_jax.cli", "score", str(work / "images"), "--model", MODEL]
    start = time.monotonic()
    process = subprocess.Popen([*call, "--out", str(out), "--batch-size", str(args.batch_size)])
    peaks, peak, first = {}, 0.0, None
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        done = rows_in(out) if out.is_dir() else 0
        if done and first is None:
            first = (time.monotonic(), done)
        for mark in (2_000, 20_000):
            if done >= mark and mark not in peaks:
                peaks[mark] = {"images": done, "peak_MiB": round(peak)}
        time.sleep(1)
    wall = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    done = rows_in(out)
    steady = (done - first[1]) / (start + wall - first[0]) if first and done > first[1] else None
    network = autoencoder_cpu(args.batch_size)
    return {
        "images": done,
        "wall_s": round(wall, 1),
        "images_per_s": round(done / wall, 2),
        "images_per_s_after_first_part": steady and round(steady, 2),
        "cores_busy": round(cpu / wall, 2),
        "peak_MiB": round(peak),
        "peaks": peaks,
        "cpu_s_per_image": round(cpu / done, 4),
        "autoencoder_cpu_s_per_image": round(network, 4),
        "share_outside_autoencoder": round(1 - network * done / cpu, 3),
        "exit_code": process.returncode,
    }


def memory(pid: int) -> float:
    """Resident memory of a process and its children in MiB; what they share counts in each."""
    try:
        pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += map(int, (task / "children").read_text().split())
        pages = [int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in set(pids)]
    except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
        return 0.0
    return sum(pages) * resource.getpagesize() / 2**20


def rows_in(folder: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in folder.glob("part-*.parquet"))


def autoencoder_cpu(batch_size: int) -> float:
    """CPU seconds an image of the compiled double reconstruction alone, the images in memory already."""
    import jax

    import aedr_jax as aedr

    autoencoder = aedr.load_autoencoder(MODEL)
    images = np.random.default_rng(0).uniform(-1, 1, (batch_size, SIDE, SIDE, 3)).astype(np.float32)
    reconstruct = jax.jit(aedr.double_reconstruct)
    jax.block_until_ready(reconstruct(autoencoder, images))
    start = time.process_time()
    for _ in range(BATCHES):
        jax.block_until_ready(reconstruct(autoencoder, images))
    return (time.process_time() - start) / (BATCHES * batch_size)


def score_small_parts(work: Path) -> None:
    import aedr_jax as aedr

    aedr.score_dataset(str(work / "images"), {MODEL: MODEL}, work / "killed", part_images=8, workers=2)


def kills(work: Path) -> dict:
    """Kill -9 at ten random moments after the first part, go on each time, and compare with an undisturbed run."""
    import aedr_jax as aedr

    aedr.score_dataset(str(work / "images"), {MODEL: MODEL}, work / "undisturbed", part_images=8, workers=2)
    moments, done = [], []
    draw = random.Random(0)
    for kill in range(KILLS + 1):
        process = subprocess.Popen([sys.executable, __file__, "score", "--work", str(work)])
        before = rows_in(work / "killed")
        while process.poll() is None and kill < KILLS and rows_in(work / "killed") == before:
            time.sleep(0.01)
        wait = draw.uniform(0, 1.5)
        if kill < KILLS:
            time.sleep(wait)
            alive = process.poll() is None
            process.kill()
            moments.append(round(wait, 2) if alive else "had ended")
        process.wait()
        done.append(rows_in(work / "killed"))
    whole, again = (pq.read_table(work / name).sort_by("id").to_pylist() for name in ("undisturbed", "killed"))
    return {
        "images": len(whole),
        "seconds_after_a_part_was_written": moments,
        "rows_after_each": done,
        "doubles": len(again) - len({row["id"] for row in again}),
        "equal_to_undisturbed": whole == again,
        "half_written_left": len(list((work / "killed").glob(".*"))),
    }


def devices(work: Path) -> dict:
    """The same images on 1, 2, 4 and 8 devices: how far each column is from one device's, relatively, at most."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    import jax

    import aedr_jax as aedr
    from aedr_jax.scoring.sharding import local_mesh

    autoencoder = aedr.load_autoencoder(MODEL)
    pixels = np.stack([aedr.read_image(path) for path in sorted((work / "images").iterdir())])
    images = aedr.prepare(pixels)
    found, collectives = {}, {}
    for count in (1, 2, 4, 8):
        measure = aedr.make_sharded(aedr.measure, mesh=local_mesh(jax.devices()[:count]))
        found[count] = measure(autoencoder, images)
        text = measure.jitted.lower(measure.replicate(autoencoder), (images,)).compile().as_text()
        collectives[count] = sum(text.count(name) for name in ("all-reduce", "all-gather", "all-to-all", "collective"))
    columns = ("first_loss", "second_loss", "ratio", "homogeneity", "signal")
    return {
        "images": len(images),
        "largest_relative_difference": {
            count: {name: largest_difference(getattr(rows, name), getattr(found[1], name)) for name in columns}
            for count, rows in found.items()
        },
        "collectives_in_the_program": collectives,
    }


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(np.asarray(a, np.float64) / np.asarray(b, np.float64) - 1.0)))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
