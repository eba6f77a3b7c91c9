"""Every family of autoencoders: how far from its reference, how large, how long and how much memory an image takes.

    python -m benchmarks.families parity              # PyTorch and diffusers 0.39 (transformers for the tokenizers)
                                                      # beside; --tiny: the narrow networks
    python -m benchmarks.families cost --side 1024    # one image through encoder and decoder, random weights

Each network has a process and a time limit of its own, and gives JSON lines as they come; a table follows. `cost`
compiles first, several networks at once (`--workers`), and then times one after the other from the cache. Seconds are
the median of `--calls` calls on the first device; memory is what the compiled program asks for: weights, images and
everything between. On CPUs, where a call of 1024 pixels takes minutes: `--calls 1 --limit 1200`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aedr_jax.scoring.tables import to_markdown
from tests.parity.family_configs import FULL, FULL_TOKENIZERS, TINY, TINY_TOKENIZERS

_FOUR = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
}
OLDER: dict[str, tuple[str, dict[str, Any]]] = {  # the paper's, and the preview autoencoders
    "kl": ("AutoencoderKL", _FOUR),
    "kl16": (
        "AutoencoderKL",
        _FOUR | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
    ),
    "movq": (
        "VQModel",
        _FOUR
        | {
            "down_block_types": ["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
            "up_block_types": ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3,
            "block_out_channels": [128, 256, 256, 512],
            "latent_channels": 4,
            "num_vq_embeddings": 16384,
            "norm_type": "spatial",
        },
    ),
    "tiny": ("AutoencoderTiny", {"latent_channels": 16}),
}
NETWORKS = OLDER | FULL | FULL_TOKENIZERS
NARROW = TINY | TINY_TOKENIZERS
LATENTS = ((4, 6), (7, 5))  # of the parity check
DTYPES = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("parity", "cost", "one-parity", "one-cost"))
    parser.add_argument("--only", type=lambda text: text.split(","), help="networks, by their names in the table")
    parser.add_argument("--tiny", action="store_true", help="parity of the narrow networks of the tests")
    parser.add_argument("--side", type=int, default=1024, help="of the image, in pixels")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one network")
    parser.add_argument("--calls", type=int, default=3, help="that are timed of each network and dtype")
    parser.add_argument("--workers", type=int, default=1, help="networks that are compiled at once")
    parser.add_argument("--compile-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.what.startswith("one-"):  # in a process of its own
        measure = parity if args.what == "one-parity" else cost
        for found in measure(args.only[0], args):
            print(json.dumps(found), flush=True)
        return
    names = args.only or list(NARROW if args.tiny else NETWORKS)
    with tempfile.TemporaryDirectory() as cache:
        if args.what == "cost":
            with ThreadPoolExecutor(args.workers) as pool:
                list(pool.map(lambda name: in_process(name, args, cache, compile_only=True), names))
        rows = []
        for name in names:
            for found in in_process(name, args, cache):
                print(json.dumps(found), flush=True)
                rows.append(found)
    print_table(rows)


def in_process(name: str, args: argparse.Namespace, cache: str, *, compile_only: bool = False) -> list[dict[str, Any]]:
    """What a network's own process prints; a line that says why where it fails or takes too long."""
    call = [sys.executable, "-m", "benchmarks.families", f"one-{args.what}", "--only", name, "--side", str(args.side)]
    call += ["--calls", str(args.calls)] + ["--tiny"] * args.tiny + ["--compile-only"] * compile_only
    settings = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=args.limit, env=os.environ | settings)
        output = done.stdout
        failed = None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]
    except subprocess.TimeoutExpired as error:
        output, failed = (error.stdout or b"").decode(), f"more than {args.limit:.0f} s"
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [*rows, {"network": name, "failed": failed}] if failed else rows


def parity(name: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The largest difference from the reference over the largest value, of latents and of images, at two sizes.

    Latents are decoded as they are, without a codebook.
    """
    import diffusers
    import jax
    import torch
    from flax import nnx

    import aedr_jax
    from tests.parity import family_references as further
    from tests.parity import references

    class_name, config = (NARROW if args.tiny else NETWORKS)[name]
    older = name in OLDER
    if older:
        reference = references.random_network(getattr(diffusers, class_name), config)
    else:
        reference = further.random_network(class_name, config, seed=list(NARROW).index(name))
    with tempfile.TemporaryDirectory() as folder:
        model = further.saved(reference, class_name, Path(folder))
        in_the_file = parameters_in(next(Path(folder).glob("*.safetensors")), reference)
        autoencoder = aedr_jax.load_autoencoder(model)
    encode, decode = jax.jit(lambda ae, x: ae.encode(x)), jax.jit(lambda ae, z: ae.decode(z, quantize=False))
    latents_apart = images_apart = 0.0
    sizes = []
    for height, width in LATENTS:
        height, width = height * autoencoder.factor, width * autoencoder.factor
        images = references.random_images(8 * -(-height // 8), 8 * -(-width // 8))[:, :height, :width]
        options = {"force_not_quantize": True} if class_name == "VQModel" else {}
        with torch.no_grad():
            if older:
                encoded = reference.encode(references.nchw(images))
                latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
                latents = references.nhwc(latents)
                decoded = references.nhwc(reference.decode(references.nchw(latents), **options).sample)
            else:
                latents = further.reference_latents(reference, images)
                decoded = further.reference_images(reference, latents)
        latents_apart = max(latents_apart, references.relative_error(encode(autoencoder, images), latents))
        images_apart = max(images_apart, references.relative_error(decode(autoencoder, latents), decoded))
        sizes.append(f"{height}×{width}")
    yield {
        "network": name,
        "class": class_name,
        "parameters": sum(value.size for value in jax.tree.leaves(nnx.state(autoencoder, nnx.Param))),
        "in the file": in_the_file,
        "latents apart": f"{latents_apart:.1e}",
        "images apart": f"{images_apart:.1e}",
        "sizes": " and ".join(sizes),
    }


def parameters_in(file: Path, reference: Any) -> int:
    """How many parameters a file of weights holds, without the reference's buffers."""
    from aedr_jax.autoencoders.tensors import read_header

    buffers = {name for name, _ in reference.named_buffers()}
    return sum(math.prod(shape) for name, (_, shape) in read_header(file).items() if name not in buffers)


def cost(name: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Seconds and memory of one image's reconstruction, of which the paper's signal takes two, in each dtype."""
    import jax
    import numpy as np
    from flax import nnx

    from aedr_jax.autoencoders.blocks import Numerics
    from aedr_jax.autoencoders.config import parse_config
    from aedr_jax.autoencoders.family import build
    from aedr_jax.autoencoders.loading import dtype_of
    from aedr_jax.compilation import compiler_options

    class_name, fields = NETWORKS[name]
    config = parse_config({"_class_name": class_name, **json.loads(json.dumps(fields))})
    images = np.random.default_rng(0).uniform(-1, 1, (1, args.side, args.side, 3)).astype(np.float32)
    weights: dict[tuple[Any, ...], Any] = {}
    options = compiler_options(jax.default_backend())
    for dtype in DTYPES:
        abstract = nnx.eval_shape(lambda dtype=dtype: build(config, Numerics(dtype_of(dtype)), nnx.Rngs(0)))
        step = jax.jit(lambda network, images: network.decode(network.encode(images)), compiler_options=options)
        begun = time.monotonic()
        compiled = step.lower(abstract, images).compile()
        compile_s = time.monotonic() - begun
        if args.compile_only:
            continue
        graph, state = nnx.split(abstract)
        flat = dict(nnx.to_flat_state(state))
        weights = weights or {path: jax.device_put(drawn(path, leaf.shape)) for path, leaf in flat.items()}
        filled = {path: leaf.replace(weights[path]) for path, leaf in flat.items()}
        autoencoder = nnx.merge(graph, nnx.from_flat_state(filled))
        seconds, finite = [], True
        for _ in range(args.calls):
            begun = time.monotonic()
            reconstructed = jax.block_until_ready(compiled(autoencoder, images))
            seconds.append(time.monotonic() - begun)
            finite = bool(np.isfinite(reconstructed).all())
        asked = compiled.memory_analysis()
        total = asked.argument_size_in_bytes + asked.output_size_in_bytes + asked.temp_size_in_bytes
        yield {
            "network": name,
            "class": class_name,
            "parameters": sum(math.prod(leaf.shape) for _, leaf in nnx.to_flat_state(nnx.state(abstract, nnx.Param))),
            "side": args.side,
            "dtype": dtype,
            "seconds": round(statistics.median(seconds), 4),
            "MiB": round(total / 2**20),
            "compiled in s": round(compile_s, 1),
            "finite": finite,
            "device": jax.devices()[0].device_kind,
        }


def drawn(path: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    """Random values that leave a signal about as large as it was: kernels by what they sum, scales near 1."""
    import numpy as np

    rng = np.random.default_rng(len(shape))
    if path[-1] == "bias":
        return 0.1 * rng.standard_normal(shape, np.float32)
    if len(shape) < 2:
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    return rng.standard_normal(shape, np.float32) / math.sqrt(math.prod(shape[:-1]))


def print_table(rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print("\n" + to_markdown(columns, [[str(row.get(column, "-")) for column in columns] for row in rows]), end="")


if __name__ == "__main__":
    main()
