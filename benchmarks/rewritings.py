"""Each exact rewriting of the networks beside what it replaces, alone: where it is faster, and by how much.

    python -m benchmarks.rewritings --out ROWS.jsonl [--dtypes float32,bfloat16] [--precisions highest,default]

Upsampling to the nearest and a 3×3 convolution: as written, as four convolutions of 2×2 (one for each phase), as one
that has the outputs around each corner, as nine products. A 3×3 convolution of many channels: as written, as sixteen
products. Attention: at once, and in blocks of queries as the networks have it. Each is compiled and called in turn with
the others of its kind, `--repeats` times; seconds are medians, and errors are the largest difference from the first
over its largest value. Prints Markdown; the file gets a line for each row as it is found.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aedr_jax.autoencoders import convolutions
from aedr_jax.autoencoders.attention import attend
from aedr_jax.scoring.tables import to_markdown

LAYOUT = convolutions.LAYOUT
# (side, channels) of the small image; of the image; of the map whose positions attend.
UPSAMPLED = ((64, 512), (128, 512), (256, 256), (64, 32), (32, 64))
CONVOLVED = ((32, 512), (64, 512), (128, 512), (128, 256), (256, 128))
ATTENDED = ((64, 512), (128, 512))


def as_written(x: Any, kernel: Any, precision: str) -> Any:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, precision=precision)


def upsampled_as_written(x: Any, kernel: Any, precision: str) -> Any:
    return as_written(convolutions.upsample_nearest(x, 2), kernel.astype(x.dtype), precision)


def four_phases(x: Any, kernel: Any, precision: str) -> Any:
    """Each pixel of a square of 2×2 sees 2×2 pixels of the small image, through kernels summed in float32."""

    def halves(g: Any, axis: int) -> list[Any]:
        a, b, c = jnp.split(g, 3, axis)
        return [jnp.concatenate([a, b + c], axis), jnp.concatenate([a + b, c], axis)]

    pads = ((1, 0), (0, 1))
    kernels = [halves(row, 1) for row in halves(kernel, 0)]
    phases = [
        [
            jax.lax.conv_general_dilated(
                x,
                kernels[i][j].astype(x.dtype),
                (1, 1),
                (pads[i], pads[j]),
                dimension_numbers=LAYOUT,
                precision=precision,
            )
            for j in range(2)
        ]
        for i in range(2)
    ]
    n, h, w, _ = x.shape
    return jnp.stack([jnp.stack(row, 3) for row in phases], 2).reshape(n, 2 * h, 2 * w, -1)


def products(function: Callable[..., Any], x: Any, kernel: Any, precision: str) -> Any:
    return function(x, kernel, precision=precision)


def attend_at_once(x: Any, kernel: Any, precision: str) -> Any:
    logits = jnp.einsum("nqc,nkc->nqk", x / x.shape[-1] ** 0.5, x, precision=precision)
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(x.dtype)
    return jnp.einsum("nqk,nkc->nqc", weights, x, precision=precision)


def attend_in_blocks(x: Any, kernel: Any, precision: str) -> Any:
    return attend(x, x, x, precision)


UPSAMPLING = {
    "as written": upsampled_as_written,
    "four phases": four_phases,
    "around corners": functools.partial(products, convolutions._around_corners),
    "nine products": functools.partial(products, convolutions._nine),
}
CONVOLVING = {"as written": as_written, "sixteen products": functools.partial(products, convolutions._sixteen)}
ATTENDING = {"at once": attend_at_once, "in blocks": attend_in_blocks}


def measure(
    forms: Mapping[str, Callable[..., Any]], x: Any, kernel: Any, precision: str, repeats: int
) -> list[dict[str, Any]]:
    ready, rows = {}, []
    for name, form in forms.items():
        try:
            program = jax.jit(functools.partial(form, precision=precision)).lower(x, kernel).compile()
            ready[name] = program, np.asarray(program(x, kernel), np.float32)
        except Exception as error:  # such as no memory for it at once
            rows.append({"form": name, "note": f"{type(error).__name__}: {str(error)[:80]}"})
    first = next(iter(ready.values()))[1] if ready else None
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(repeats):
        for name, (program, _out) in ready.items():
            started = time.perf_counter()
            jax.block_until_ready(program(x, kernel))
            times[name].append(time.perf_counter() - started)
    for name, (program, out) in ready.items():
        memory = program.memory_analysis()
        error = float(np.abs(out - first).max() / np.abs(first).max())
        seconds = float(np.median(times[name]))
        held = None if memory is None else memory.temp_size_in_bytes / 2**20
        rows.append({"form": name, "seconds": seconds, "error": error, "temporary_mib": held})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--precisions", default="highest")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=600.0, help="after which nothing more is begun")
    args = parser.parse_args()
    started, table = time.monotonic(), []
    kinds = (
        ("upsampled", UPSAMPLED, UPSAMPLING),
        ("convolved", CONVOLVED, CONVOLVING),
        ("attention", ATTENDED, ATTENDING),
    )
    for dtype in args.dtypes.split(","):
        for precision in args.precisions.split(","):
            for kind, shapes, forms in kinds:
                for side, channels in shapes:
                    if time.monotonic() - started > args.seconds:
                        continue
                    shape = (1, side * side, channels) if kind == "attention" else (1, side, side, channels)
                    x = jax.random.normal(jax.random.key(0), shape, dtype)
                    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels)) / (9 * channels) ** 0.5
                    kernel = kernel.astype(dtype) if kind == "convolved" else kernel
                    found = measure(forms, x, kernel, precision, args.repeats)
                    written = found[0].get("seconds")
                    for row in found:
                        row |= {"kind": kind, "side": side, "channels": channels, "dtype": dtype}
                        row |= {"precision": precision, "machine": jax.devices()[0].device_kind}
                        with args.out.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                        seconds = row.get("seconds")
                        table.append(
                            [
                                f"{kind}, {channels} at {side}², {dtype}, {precision}",
                                row["form"],
                                f"{1e3 * seconds:.2f}" if seconds else row["note"],
                                f"{written / seconds:.2f}" if seconds and written else "",
                                f"{row['error']:.0e}" if seconds else "",
                                f"{row['temporary_mib']:.0f}" if row.get("temporary_mib") is not None else "",
                            ]
                        )
    print(to_markdown(["what", "form", "milliseconds", "times as fast", "error", "temporary MiB"], table), end="")


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    main()
