"""3×3 convolutions written otherwise, exactly: after nearest upsampling, between many channels, and between few.

Over pixels (a, a, b, b), an upsampled row, the kernel (g₀, g₁, g₂) has the two outputs

    a (g₀ + g₁) + b g₂  and  a g₀ + b (g₁ + g₂)

on both sides of the corner between a and b: four products in place of six, so 16 in place of 36 in two dimensions, by
one convolution with a 2×2 kernel and four times the channels, and none of the upsampled pixels is ever made. Over
(a, b, b, c), a pixel b and both of its outputs, three will do,

    (a − b) g₀ + b (g₀ + g₁ + g₂)  and  b (g₀ + g₁ + g₂) + (c − b) g₂,

and nine in two dimensions, but the differences are written and read. Over any four pixels Winograd's F(2, 3) takes four
in place of six, so 16 in place of 36 for a square of 2×2 outputs, but reads and writes four times the image. These two
are matrix products, and gain where channels are many. Kernels are summed in float32. All three agree with the
convolution to 1e-6 of the largest value; Winograd's F(4, 3), to 2e-5 only, is not used.

Between few channels it is the width of the products that is lacking: a few pixels of a row are made at once, as so many
times the channels, by a kernel that holds itself as often, each a pixel further on: (p + 2) / 3 times as many
multiply-adds for p pixels, in less time.

All of this in float32 and on CPUs; elsewhere, and in half precision, to which sums and differences would do no good, it
is XLA's convolution of the upsampled image.

Reference: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["LAYOUT", "convolve_few", "convolve_some", "convolve_upsampled", "convolver", "upsample_nearest"]

MANY = 512  # channels, on both sides, from which F(2, 3) is surely faster, 1.3 to 1.5 times, and nine products are kept
SOME = 256  # channels, on both sides, from which F(2, 3) is faster as well, but of small images only: of no more than
NEAR = 2**21  # numbers, before or after; of 2**22 it was slower
FEW = 256  # channels of one side times those of the other, up to which a few pixels are made at once: 1.5 to 4 times
WHOLE = 2**20  # numbers that one product reads or writes, up to which nothing is cut: a loop and its copies cost more
STRIP = 2**18  # such numbers at a time where it is: what stays in a cache. Of many channels there are
ROWS = 2**11  # pixels at least, or the kernels would be what is read
LAYOUT = ("NHWC", "HWIO", "NHWC")

Terms = list[list[Array]]  # by row and column of the transformed square


def upsample_nearest(x: Float[Array, "n h w c"], times: int) -> Float[Array, "n hh ww c"]:
    """Each pixel `times` × `times` times."""
    return jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2)


def convolve_upsampled(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "3 3 c o"],
    precision: Any,
    convolution: Callable[..., Any] = jax.lax.conv_general_dilated,
) -> Float[Array, "n hh ww o"]:
    """The image upsampled to the nearest, twice as high and wide, and convolved to the same size.

    Args:
      x: the small image; the result has its dtype.
      kernel: float32.
      precision: of the products.
      convolution: what does the one with a 2×2 kernel, such as with another gradient.
    """

    def plain(x: Array, kernel: Array) -> Array:
        return _plain(upsample_nearest(x, 2), kernel.astype(x.dtype), precision)

    few = functools.partial(_around_corners, convolution=convolution)
    form = _nine if min(kernel.shape[2:]) >= MANY else few
    return _on_cpus(functools.partial(form, precision=precision), plain, x, kernel)


def convolver(inputs: int, outputs: int) -> Callable[..., Any]:
    """Of a 3×3 convolution that keeps the size, between so many channels: what `nnx.Conv` is to call.

    It is `jax.lax.conv_general_dilated`, or does the same.
    """
    if min(inputs, outputs) >= MANY:
        return _convolve_many
    if min(inputs, outputs) >= SOME:
        return convolve_some
    return convolve_few if inputs * outputs <= FEW else jax.lax.conv_general_dilated


def _convolve_many(x: Array, kernel: Array, *arguments: Any, precision: Any, **options: Any) -> Array:
    plain = functools.partial(_as_it_is, arguments=arguments, precision=precision, **options)
    return _on_cpus(functools.partial(_sixteen, precision=precision), plain, x, kernel)


def convolve_some(x: Array, kernel: Array, *arguments: Any, precision: Any, **options: Any) -> Array:
    """`jax.lax.conv_general_dilated` of a 3×3 kernel to the same size, by sixteen products where images are small."""
    _, h, w, _ = x.shape
    if h * w * max(kernel.shape[2:]) > NEAR:
        return _as_it_is(x, kernel, arguments=arguments, precision=precision, **options)
    return _convolve_many(x, kernel, *arguments, precision=precision, **options)


def convolve_few(x: Array, kernel: Array, *arguments: Any, precision: Any, **options: Any) -> Array:
    """`jax.lax.conv_general_dilated` of a 3×3 kernel to the same size, a few pixels at once where the CPU computes."""
    plain = functools.partial(_as_it_is, arguments=arguments, precision=precision, **options)
    return _on_cpus(functools.partial(_side_by_side, precision=precision), plain, x, kernel)


def _as_it_is(x: Array, kernel: Array, *, arguments: tuple[Any, ...], **options: Any) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, *arguments, **options)


def _on_cpus(form: Callable[..., Array], plain: Callable[..., Array], x: Array, kernel: Array) -> Array:
    if x.dtype != jnp.float32:
        return plain(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=form, default=plain)


def _plain(x: Array, kernel: Array, precision: Any) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, precision=precision)


def _around_corners(
    x: Array, kernel: Array, *, precision: Any, convolution: Callable[..., Any] = jax.lax.conv_general_dilated
) -> Array:
    """Of every corner between pixels, the four outputs around it, which see no pixels but the four around it."""

    def along(g: Sequence[Array]) -> list[Array]:  # by pixel, before and after the corner, and likewise by output
        return [g[0] + g[1], g[0], g[2], g[1] + g[2]]

    (n, h, w, _), o = x.shape, kernel.shape[-1]
    terms = _transformed(kernel, along)
    square = [
        [jnp.concatenate([row[j] for row in terms[i : i + 2] for j in (k, k + 1)], axis=-1) for k in (0, 2)]
        for i in (0, 2)
    ]
    around = ((1, 1), (1, 1))
    out = convolution(x, jnp.array(square), (1, 1), around, dimension_numbers=LAYOUT, precision=precision)
    out = out.reshape(n, h + 1, w + 1, 2, 2, o).transpose(0, 1, 3, 2, 4, 5)
    return out.reshape(n, 2 * h + 2, 2 * w + 2, o)[:, 1:-1, 1:-1]


def _nine(x: Array, kernel: Array, *, precision: Any) -> Array:
    def of_kernel(g: Sequence[Array]) -> list[Array]:
        return [g[0], g[0] + g[1] + g[2], g[2]]

    def of_strip(strip: Array, kernels: Terms) -> Array:
        h, w = strip.shape[1] - 2, strip.shape[2] - 2
        rows = _differences([strip[:, i : i + h] for i in range(3)])
        inputs = [_differences([row[:, :, j : j + w] for j in range(3)]) for row in rows]
        return _outputs(_products(inputs, kernels, precision), lambda m: [m[0] + m[1], m[1] + m[2]])

    return _in_strips(of_strip, x, _transformed(kernel, of_kernel), step=1)


def _differences(d: Sequence[Array]) -> list[Array]:
    return [d[0] - d[1], d[1], d[2] - d[1]]


def _sixteen(x: Array, kernel: Array, *, precision: Any) -> Array:
    def of_kernel(g: Sequence[Array]) -> list[Array]:
        return [g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]]

    def of_input(d: Sequence[Array]) -> list[Array]:
        return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]

    def of_strip(strip: Array, kernels: Terms) -> Array:
        h, w = strip.shape[1] - 2, strip.shape[2] - 2
        rows = of_input([strip[:, i : i + h : 2] for i in range(4)])
        inputs = [of_input([row[:, :, j : j + w : 2] for j in range(4)]) for row in rows]
        return _outputs(_products(inputs, kernels, precision), lambda m: [m[0] + m[1] + m[2], m[1] - m[2] - m[3]])

    h, w = x.shape[1:3]
    even = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    return _in_strips(of_strip, even, _transformed(kernel, of_kernel), step=2)[:, :h, :w]


def _side_by_side(x: Array, kernel: Array, *, precision: Any) -> Array:
    (n, h, w, c), o = x.shape, kernel.shape[-1]
    pixels = 4 if 4 * c * o <= FEW else 2
    times = -(-w // pixels)
    each = [jnp.pad(kernel, ((0, 0), (i, pixels - 1 - i), (0, 0), (0, 0))) for i in range(pixels)]
    out = jax.lax.conv_general_dilated(
        x,
        jnp.stack(each, axis=3).reshape(3, pixels + 2, c, pixels * o),
        (1, pixels),
        ((1, 1), (1, 1 + times * pixels - w)),
        dimension_numbers=LAYOUT,
        precision=precision,
    )
    return out.reshape(n, h, times * pixels, o)[:, :, :w]


def _transformed(kernel: Array, along: Callable[[Sequence[Array]], list[Array]]) -> Terms:
    return [along([row[j] for j in range(3)]) for row in along([kernel[i] for i in range(3)])]


def _products(inputs: Terms, kernels: Terms, precision: Any) -> Terms:
    return [
        [jnp.einsum("nhwc,co->nhwo", x, kernel, precision=precision) for x, kernel in zip(*pair, strict=True)]
        for pair in zip(inputs, kernels, strict=True)
    ]


def _outputs(terms: Terms, along: Callable[[Sequence[Array]], list[Array]]) -> Array:
    """Squares of 2×2 outputs, put beside each other."""
    columns = [along(row) for row in terms]
    left, right = (along([row[j] for row in columns]) for j in range(2))
    squares = jnp.stack([jnp.stack([left[i], right[i]], axis=3) for i in range(2)], axis=2)
    n, h, _, w, _, o = squares.shape
    return squares.reshape(n, 2 * h, 2 * w, o)


def _in_strips(of_strip: Callable[[Array, Terms], Array], x: Array, kernels: Terms, *, step: int) -> Array:
    """A few images at a time, or of a large one strips of rows: what the products read and write is made in one place.

    Every strip has a pixel of its neighbours around it, and zeros at the image's edges.
    """
    n, h, w, c = x.shape
    outputs, scale = kernels[0][0].shape[-1], 2 // step
    pixels, widest = h * w // step**2, max(c, outputs)
    most = max(n, 1) * pixels if n * pixels * widest <= WHOLE else max(STRIP // widest, ROWS)
    rows = -(-h // max(-(-pixels // most), 1) // step) * step
    count = -(-h // rows)
    images = max((d for d in range(1, n + 1) if n % d == 0 and d * pixels <= most), default=1)
    padded = jnp.pad(x, ((0, 0), (1, 1 + count * rows - h), (1, 1), (0, 0)))
    strips = padded if count == 1 else jnp.stack([padded[:, i * rows : (i + 1) * rows + 2] for i in range(count)], 1)
    strips = strips.reshape(n * count // images, images, rows + 2, w + 2, c)
    if len(strips) == 1:
        out = of_strip(strips[0], kernels)
    else:
        out = jax.lax.map(lambda strip: of_strip(strip, kernels), strips)
    return out.reshape(n, count * rows * scale, w * scale, outputs)[:, : h * scale]
