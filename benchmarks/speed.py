"""Seconds, memory and multiply-adds of a verdict, beside those of the authors' procedure in PyTorch.

    python -m benchmarks.speed measure --out ROWS.jsonl                         # sd at 256 and 512, float32
    python -m benchmarks.speed measure --out ROWS.jsonl --architectures sd,flux,mini-kl4-a --sizes 512 --batches 1,8 \
        --dtypes float32,bfloat16 --precisions highest,default --torch-compile --seconds 200
    python -m benchmarks.speed measure --out ROWS.jsonl --sizes 1024 --once
    python -m benchmarks.speed measure --out ROWS.jsonl --sizes 2048 --memory --what torch,tiled
    python -m benchmarks.speed print --out ROWS.jsonl

What is measured (`--what`), everything with the same random weights and images that lie on the device already:

- torch, torch-compile: two encode and decode passes and both losses (`benchmarks.authors`), with the number of threads
  that is best; compiled, which takes a C++ compiler and minutes, with `--threads`. Needs torch and diffusers, and says
  so where they are absent.
- paper: `measure` with the preset "paper", homogeneity included, compiled; its losses are compared with PyTorch's.
- tiled: what decides by default (`tiled`); of random weights no image is an own one, and most stop after one tile.
- latenttracer: ten of its hundred steps, extrapolated from two and four.
- outside: what a verdict costs beside the autoencoder: a PNG file decoded, homogeneity, losses.

`paper` and `tiled` are what `make_sharded` makes of them. Where that is more than one program (several devices, which
`JAX_NUM_CPU_DEVICES=2` makes of a CPU; a batch for which there are CPUs enough), their first call is their seconds to
compile.

Seconds are medians of rounds in which each is called once, in turn; the time to compile is apart. With `--once` there
is one call of each and none before it, and PyTorch takes `--threads` threads, for what takes minutes. Multiply-adds are
those of convolutions and products that are done: PyTorch's own count, and for JAX those of the traced program. The
ceiling is one large product of the same dtype and precision, the faster of both libraries. Memory is what the GPU's
allocator held at most (JAX: what the compiled program asks for), or with `--memory` on a CPU the largest resident size
of a process that does nothing else, libraries, weights and compilation included. A configuration that `--seconds`
leaves no room for gets a row that says so. The file holds a line for each row and time that it was found again;
`print` shows the last.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.authors import Authors, find
from benchmarks.counting import count_multiply_adds

WHAT = ("torch", "paper", "tiled", "outside", "torch-compile", "latenttracer")
STEPS = (2, 4, 10)  # of LatentTracer: two that are run, and the one extrapolated to
CEILING_SIDE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}

_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
_SD = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": (_DOWN,) * 4,
    "up_block_types": (_UP,) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_VQ = _SD | {
    "_class_name": "VQModel",
    "down_block_types": (_DOWN, _DOWN, _DOWN, "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", _UP, _UP, _UP),
}
_VQDM = {"block_out_channels": (64, 128, 256, 512), "latent_channels": 256, "vq_embed_dim": 128}
_MOVQ = {"block_out_channels": (128, 256, 256, 512), "norm_type": "spatial"}
# From the models' own config.json: Stable Diffusion 1, 2 and XL; FLUX and 3.5; VQ-Diffusion; Kandinsky 2.1.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "sd": _SD,
    "flux": _SD | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
    "vqdm": _VQ | _VQDM | {"num_vq_embeddings": 4096},
    "kandinsky2.1": _VQ | _MOVQ | {"vq_embed_dim": 4, "num_vq_embeddings": 16384},
}
UNQUANTIZED = ("kandinsky2.1", "mini-movq")  # as these generate


@dataclasses.dataclass(frozen=True)
class Case:
    """What all rows of one comparison share."""

    architecture: str
    size: int
    batch: int
    dtype: str
    precision: str

    @property
    def fields(self) -> dict[str, Any]:
        if self.architecture in ARCHITECTURES:
            return json.loads(json.dumps(ARCHITECTURES[self.architecture]))  # lists, as in a file
        from aedr_jax.autoencoders.registry import local_folder

        folder = local_folder(self.architecture)
        if folder is None:
            raise SystemExit(f"{self.architecture}: none of {', '.join(ARCHITECTURES)}, and no miniature model")
        return json.loads((folder / "config.json").read_text())

    @property
    def quantize(self) -> bool:
        return self.fields["_class_name"] == "VQModel" and self.architecture not in UNQUANTIZED

    def pixels(self) -> np.ndarray:
        """Noise over a coarse pattern, uint8 [n,h,w,3]: every block of it has detail to be judged by."""
        draw, cells = np.random.default_rng(0), self.size // 8
        coarse = draw.uniform(-1, 1, (self.batch, cells, cells, 3)).repeat(8, axis=1).repeat(8, axis=2)
        noisy = np.clip(coarse + 0.2 * draw.standard_normal(coarse.shape), -1, 1)
        return np.round((noisy + 1) * 127.5).astype(np.uint8)

    def images(self) -> np.ndarray:
        return (self.pixels() / np.float32(127.5) - 1).astype(np.float32)

    def autoencoder(self, authors: Authors | None) -> Any:
        """With the reference's weights, or fresh ones where there is none."""
        import jax.numpy as jnp
        from flax import nnx

        from aedr_jax.autoencoders.blocks import Numerics
        from aedr_jax.autoencoders.checkpoints import from_state_dict
        from aedr_jax.autoencoders.config import parse_config
        from aedr_jax.autoencoders.family import build

        config, numerics = parse_config(self.fields), Numerics(jnp.dtype(self.dtype), self.precision)
        quantize = self.quantize if self.fields["_class_name"] == "VQModel" else None
        if authors is not None:
            return from_state_dict(authors.tensors(), config, numerics=numerics, quantize=quantize)
        return nnx.jit(lambda: build(config, numerics, nnx.Rngs(0), quantize=quantize))()


class Subject(NamedTuple):
    """Something to time: what to call, and what was found out beforehand."""

    run: Callable[[], Any]
    compile_seconds: float = 0.0
    multiply_adds: int | None = None
    peak_mib: float | None = None
    note: str = ""


def paper(autoencoder: Any, images: Any) -> Any:
    """The preset of the paper, whole."""
    from aedr_jax import SignalConfig, measure

    return measure(autoencoder, images, config=SignalConfig.paper())


def tiled(autoencoder: Any, images: Any) -> Any:
    """What decides by default, of images whose tiles all have something to say."""
    from aedr_jax.signal.alignment import align

    return align(autoencoder, images)


def latenttracer(autoencoder: Any, images: Any, steps: int) -> Any:
    from aedr_jax.rivals.latenttracer import latenttracer_losses

    return latenttracer_losses(autoencoder, images, steps=steps)


def compiled(function: Callable[..., Any], *arguments: Any) -> Subject:
    """A function of arrays on the device, one program, compiled as `make_sharded` does."""
    import jax

    from aedr_jax.compilation import compiler_options

    traced = jax.jit(function).trace(*arguments)
    started = time.perf_counter()
    program = traced.lower().compile(compiler_options=compiler_options(jax.default_backend()))
    seconds = time.perf_counter() - started
    memory = None
    if jax.default_backend() != "cpu" and (found := program.memory_analysis()) is not None:
        held = found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes
        memory = held / 2**20
    count = count_multiply_adds(traced.jaxpr, jax.default_backend())
    return Subject(lambda: jax.block_until_ready(program(*arguments)), seconds, count, memory)


def spread(function: Callable[..., Any], autoencoder: Any, images: Any) -> Subject:
    """By `make_sharded`, with padding and copies included; `compiled` where it makes one program of it."""
    import jax

    from aedr_jax import make_sharded

    sharded = make_sharded(function)
    devices, lanes = sharded.mesh.size, sharded.lanes
    if devices == 1 and (lanes == 1 or lanes > len(images)):
        return compiled(function, autoencoder, images)
    everywhere = sharded.replicate(autoencoder)
    count = count_multiply_adds(jax.jit(function).trace(autoencoder, images).jaxpr, jax.default_backend())
    parts = f"{devices} devices" if devices > 1 else f"{lanes} parts at once"
    note = f"{parts}; its first call is taken for its compiling"

    def run() -> Any:
        return jax.block_until_ready(sharded(everywhere, images))

    return Subject(run, timed(run)[1], count, note=note)


def subjects(case: Case, what: list[str], threads: int, *, once: bool = False) -> dict[str, Callable[[], Subject]]:
    """How each is made ready; nothing is compiled before it is called. `once`: PyTorch is called for nothing else."""
    import jax

    from aedr_jax import AlignmentConfig
    from aedr_jax.signal.losses import mse
    from aedr_jax.signal.texture import gray_levels, homogeneity

    lacking = find()
    reference: list[Authors] = []
    if not lacking and any(name.startswith("torch") for name in what):
        reference.append(Authors(case.fields, quantize=case.quantize, dtype=case.dtype, precision=case.precision))
    authors = reference[0] if reference else None
    ours = case.autoencoder(authors) if set(what) & {"paper", "tiled", "latenttracer"} else None
    images = jax.device_put(case.images())

    def by_torch(*, compiles: bool) -> Subject:
        if authors is None:
            return Subject(lambda: None, note=lacking)
        x = authors.to_device(case.images())
        run = authors.runner(x, compiled=compiles)
        if once and not compiles:
            return Subject(run, note=f"{authors.set_threads(threads)} threads, its first call")
        authors.set_threads(threads)
        first = timed(run)[1]
        # Compiled for this number of threads; for another it would be compiled anew.
        count = threads if compiles and authors.device == "cpu" else authors.set_best_threads(run, threads)
        note = f"{count} threads" if count else "cuDNN chooses"

        def run_with_them() -> Any:
            authors.set_threads(count or threads)
            return run()

        return Subject(run_with_them, first if compiles else 0.0, authors.multiply_adds(x), authors.peak_mib(run), note)

    def by_latenttracer() -> Subject:
        few, more = (compiled(lambda a, x, steps=steps: latenttracer(a, x, steps), ours, images) for steps in STEPS[:2])

        def run() -> float:
            seconds = [timed(one.run)[1] for one in (few, more)]
            return _extrapolated(*seconds)

        assert few.multiply_adds is not None
        assert more.multiply_adds is not None
        count = int(_extrapolated(few.multiply_adds, more.multiply_adds))
        note = f"{STEPS[2]} steps, extrapolated from {STEPS[0]} and {STEPS[1]}"
        return Subject(run, few.compile_seconds, count, few.peak_mib, note)

    def by_tiles() -> Subject:
        """Multiply-adds are those of the tiles that were looked at; the traced program holds the most."""
        every = spread(tiled, ours, images)
        most = min(AlignmentConfig().tiles, (case.size // AlignmentConfig().tile) ** 2)
        looked = int(every.run().tiles.max())
        count = (every.multiply_adds or 0) * looked // most
        note = "; ".join(filter(None, (every.note, f"{looked} of at most {most} tiles were looked at")))
        return every._replace(multiply_adds=count, note=note)

    def by_outside() -> Subject:
        from PIL import Image

        from aedr_jax import prepare, read_image

        folder = tempfile.TemporaryDirectory()  # as long as what runs
        paths = [Path(folder.name) / f"{i}.png" for i in range(case.batch)]
        for path, pixels in zip(paths, case.pixels(), strict=True):
            Image.fromarray(pixels).save(path)

        def losses(images: Any, first: Any, second: Any) -> Any:
            return mse(first, images), mse(second, first), homogeneity(gray_levels(images))

        beside = compiled(losses, images, images[:, ::-1], images[:, :, ::-1])

        def run() -> None:
            prepare(np.stack([read_image(path) for path in paths if folder]))
            beside.run()

        return Subject(run, beside.compile_seconds, note="PNG decoded, homogeneity, losses")

    return {
        "torch": lambda: by_torch(compiles=False),
        "paper": lambda: spread(paper, ours, images),
        "tiled": by_tiles,
        "outside": by_outside,
        "torch-compile": lambda: by_torch(compiles=True),
        "latenttracer": by_latenttracer,
    }


def _extrapolated(few: float, more: float) -> float:
    return more + (more - few) * (STEPS[2] - STEPS[1]) / (STEPS[1] - STEPS[0])


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the seconds that it took."""
    started = time.perf_counter()
    value = run()
    return value, time.perf_counter() - started


def ceiling(case: Case, authors: bool) -> float:
    """Multiply-adds a second of one large product."""
    import jax
    import jax.numpy as jnp

    side = CEILING_SIDE.get(jax.default_backend(), 2048)
    a = jax.random.uniform(jax.random.key(0), (side, side), case.dtype)  # equal numbers cost less
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=case.precision))

    def best(run: Callable[[], Any]) -> float:
        run()
        return min(timed(run)[1] for _ in range(5))

    found = side**3 / best(lambda: jax.block_until_ready(product(a)))
    if authors and not find():
        small = ARCHITECTURES["sd"] | {"block_out_channels": (32,) * 4}
        reference = Authors(small, quantize=False, dtype=case.dtype, precision=case.precision)
        found = max(found, reference.ceiling(side, best))
    return found


def measure_case(
    case: Case, what: list[str], args: argparse.Namespace, until: float, write: Callable[..., None]
) -> None:
    """Rows of one comparison: written after the first round, and again with the medians of all."""
    import jax

    ready: dict[str, Subject] = {}
    values: dict[str, Any] = {}
    times: dict[str, list[float]] = {}
    machine = f"{jax.devices()[0].device_kind}, {args.threads} threads"
    top = ceiling(case, any(name.startswith("torch") for name in what))

    def take(name: str) -> None:
        values[name], seconds = timed(ready[name].run)
        times.setdefault(name, []).append(values[name] if name == "latenttracer" else seconds)

    for name, make in subjects(case, what, args.threads, once=args.once).items():
        if name not in what:
            continue
        if time.monotonic() > until:
            write(case, name, machine, note="not measured: no time was left")
            continue
        try:
            subject = make()
            if "no PyTorch" in subject.note:
                write(case, name, machine, note=subject.note)
                continue
            ready[name] = subject
            if not args.once:
                subject.run()
            take(name)
            write_row(case, name, ready, values, times, machine, top, write)
        except Exception as error:  # one row must not cost the others: out of memory, no C++ compiler
            ready.pop(name, None)
            write(case, name, machine, note=f"failed: {type(error).__name__}: {str(error)[:150]}")
    for _ in range(1, 1 if args.once else args.repeats):
        if time.monotonic() > until:
            break
        for name in ready:
            take(name)
    for name in ready:
        write_row(case, name, ready, values, times, machine, top, write)


def write_row(
    case: Case,
    name: str,
    ready: Mapping[str, Subject],
    values: Mapping[str, Any],
    times: Mapping[str, list[float]],
    machine: str,
    top: float,
    write: Any,
) -> None:
    subject, medians = ready[name], {name: float(np.median(found)) for name, found in times.items()}
    seconds, count, note = medians[name], subject.multiply_adds, subject.note
    if name == "paper" and "torch" in ready:
        measured, theirs = values["paper"], values["torch"]
        mine = np.stack([measured.first_loss, measured.second_loss])
        equal = f"losses equal PyTorch's to {float(np.max(np.abs(mine / theirs - 1))):.0e}"
        note = "; ".join(filter(None, (note, equal)))
    write(
        case,
        name,
        machine,
        seconds=seconds,
        times=times[name],
        compile_seconds=subject.compile_seconds,
        peak_mib=subject.peak_mib,
        multiply_adds=count,
        ceiling=top,
        share_of_ceiling=None if count is None else count / seconds / top,
        times_torch=seconds / medians["torch"] if "torch" in medians else None,
        share_of_paper=seconds / medians["paper"] if name == "outside" and "paper" in medians else None,
        note=note,
    )


def resident_mib(case: Case, name: str, threads: int) -> float:
    """The largest resident size of a process that does this one thing, once."""
    with tempfile.NamedTemporaryFile() as out:
        call = [sys.executable, "-m", "benchmarks.speed", "alone", "--out", out.name, "--what", name]
        call += ["--threads", str(threads), "--case", json.dumps(dataclasses.asdict(case))]
        subprocess.run(call, check=True)
        return json.loads(Path(out.name).read_text())


def alone(args: argparse.Namespace) -> None:
    case, name = Case(**json.loads(args.case)), args.what
    if name == "torch":  # without JAX in the process
        authors = Authors(case.fields, quantize=case.quantize, dtype=case.dtype, precision=case.precision)
        authors.torch.set_num_threads(args.threads)
        authors.runner(authors.to_device(case.images()), compiled=False)()
    else:
        subjects(case, [name], args.threads)[name]().run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    Path(args.out).write_text(json.dumps(peak))


def measure_all(args: argparse.Namespace) -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU is shared with PyTorch here
    started = time.monotonic()
    what = [name for name in WHAT if name in args.what.split(",") or (name == "torch-compile" and args.torch_compile)]
    lists = (args.architectures, args.sizes, args.batches, args.dtypes, args.precisions)
    cases = [
        Case(architecture, int(size), int(batch), dtype, precision)
        for architecture, size, batch, dtype, precision in itertools.product(*(text.split(",") for text in lists))
    ]

    def write(case: Case, name: str, machine: str, **values: Any) -> None:
        row = {**dataclasses.asdict(case), "what": name, "machine": machine, **values}
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({key: value for key, value in row.items() if key != "times"}), flush=True)

    for i, case in enumerate(cases):
        left = args.seconds - (time.monotonic() - started)
        until = time.monotonic() + left / (len(cases) - i)
        if left <= 0:
            for name in what:
                write(case, name, "", note="not measured: no time was left")
        elif args.memory:
            for name in what:
                peak = resident_mib(case, name, args.threads)
                write(case, name, f"CPU, {args.threads} threads", resident_mib=peak)
        else:
            try:
                measure_case(case, what, args, until, write)
            except Exception as error:  # the other configurations are still worth having
                write(case, "all", "", note=f"failed: {type(error).__name__}: {error}"[:300])


def print_rows(args: argparse.Namespace) -> None:
    from aedr_jax.scoring.tables import to_markdown

    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in args.out.read_text().splitlines():
        row = json.loads(line)
        key = (*(row[field.name] for field in dataclasses.fields(Case)), row["what"])
        rows[key] = rows.get(key, {}) | row

    def figure(row: Mapping[str, Any], name: str, form: str, scale: float = 1.0) -> str:
        return format(row[name] * scale, form) if row.get(name) is not None else ""

    table = []
    for row in rows.values():
        rate = {"rate": row["batch"] / row["seconds"] if row.get("seconds") else None}
        share = figure(row, "share_of_paper", ".1%")
        note = "; ".join(filter(None, (row.get("note", ""), f"{share} of paper's seconds" if share else "")))
        table.append(
            [
                f"{row['architecture']}, {row['size']}², {row['batch']}, {row['dtype']}, {row['precision']}",
                row["what"],
                figure(row, "seconds", ".3g"),
                figure(row, "times_torch", ".2f"),
                figure(rate, "rate", ".3g"),
                figure(row, "compile_seconds", ".1f"),
                figure(row, "peak_mib", ".0f"),
                figure(row, "resident_mib", ".0f"),
                figure(row, "multiply_adds", ".4g", 1e-9),
                figure(row, "share_of_ceiling", ".0%"),
                note.replace("|", "/"),
            ]
        )
    header = ["network, size, images, dtype, precision", "what", "seconds", "× torch", "images a second"]
    header += ["to compile (s)", "GPU MiB", "resident MiB", "10⁹ multiply-adds", "of the ceiling", "note"]
    print(to_markdown(header, table), end="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("measure", "print", "alone"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--what", default="torch,paper,tiled,outside", help=f"of {', '.join(WHAT)}")
    parser.add_argument("--architectures", default="sd", help=f"{', '.join(ARCHITECTURES)} or a miniature model")
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--batches", default="1")
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--precisions", default="highest")
    parser.add_argument("--torch-compile", action="store_true")
    parser.add_argument("--memory", action="store_true", help="resident memory of one process each, and no times")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--once", action="store_true", help="one call of each, for what takes minutes")
    parser.add_argument("--seconds", type=float, default=3600.0, help="after which nothing more is begun")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of PyTorch, at most")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    {"measure": measure_all, "print": print_rows, "alone": alone}[args.command](args)


if __name__ == "__main__":
    main()
