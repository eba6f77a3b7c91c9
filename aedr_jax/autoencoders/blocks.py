"""The layers that autoencoders share, in Flax NNX, named as in diffusers so that a checkpoint's keys are their paths.

Arrays are NHWC. Parameters stay float32 as they were read; `Numerics.dtype` is what is computed in, and `precision`
is handed to every convolution and matrix product (float32 products run in TF32 or bfloat16 on GPU and TPU otherwise).

References: `ResnetBlock2D`, `Attention`, `SpatialNorm`, `UNetMidBlock2D` and the encoder and decoder blocks of
diffusers 0.39.0; equal in float32 to 1e-4 of the largest value (`tests/parity`).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.attention import attend
from aedr_jax.autoencoders.convolutions import LAYOUT, convolve_upsampled, convolver, upsample_nearest

__all__ = [
    "Attention",
    "DownBlock",
    "Downsample",
    "MidBlock",
    "Numerics",
    "ResnetBlock",
    "SpatialNorm",
    "UpBlock",
    "Upsample",
    "conv",
    "fold",
    "from_squares",
    "group_norm",
    "mean_of_runs",
    "to_squares",
    "unfold",
    "upsampled",
]

EPSILON = 1e-6
SPATIAL_NORM_GROUPS = 32  # whatever norm_num_groups says


@dataclasses.dataclass(frozen=True)
class Numerics:
    """How to compute: `dtype` of activations, `precision` of products ("highest", "high", "default").

    Statistics of norms and the softmax of attention are float32 whatever `dtype` is. What the precisions are on which
    backend: `load_autoencoder`.
    """

    dtype: Any = jnp.float32
    precision: str | None = "highest"


def conv(
    inputs: int,
    outputs: int,
    size: int,
    numerics: Numerics,
    rngs: nnx.Rngs,
    *,
    stride: int = 1,
    padding: int | None = None,
    bias: bool = True,
    rewritten: bool = True,
) -> nnx.Conv:
    """A square convolution. Without `padding` it keeps the size (stride 1) or expects its input padded (stride 2).

    `rewritten`: whether a 3×3 one may be done otherwise (`convolutions`); what `upsampled` calls is by that already.
    """
    if padding is None:
        padding = size // 2 if stride == 1 else 0
    rewritten = rewritten and (size, stride, padding) == (3, 1, 1)
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=padding,
        use_bias=bias,
        dtype=numerics.dtype,
        precision=numerics.precision,
        conv_general_dilated=convolver(inputs, outputs) if rewritten else jax.lax.conv_general_dilated,
        rngs=rngs,
    )


class GroupNorm(nnx.GroupNorm):
    """`nnx.GroupNorm` with the two-pass variance: E[x²] − E[x]² loses everything where |mean| is far above the spread.

    Means are taken over pixels first and then over the channels of a group, and so are variances: about the channel's
    own mean, to which the variance of these means is added. XLA's CPU backend is several times as fast at that as at
    both together, and reads the image three times and writes it once; x − mean for both uses would be written too.
    """

    def __call__(self, x: Float[Array, "n h w c"], shift: Float[Array, " c"] | None = None) -> Float[Array, "n h w c"]:
        """Of x + `shift`, such as the bias of the convolution before, for which no image is written."""
        x = x.astype(jnp.float32)
        means = x.mean((1, 2))
        variances = jnp.square(x - means[:, None, None]).mean((1, 2))
        shift = jnp.zeros((), jnp.float32) if shift is None else shift
        center = self._of_groups(means + shift)
        variance = self._of_groups(variances + jnp.square(means + shift - center))
        scale = jax.lax.rsqrt(variance + self.epsilon) * self.scale[...]
        return ((x - (center - shift)[:, None, None]) * scale[:, None, None] + self.bias[...]).astype(self.dtype)

    def _of_groups(self, x: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """The mean of its group in place of each channel."""
        means = x.reshape(len(x), self.num_groups, self.group_size).mean(2)
        return jnp.repeat(means, self.group_size, axis=1)


def group_norm(channels: int, groups: int, numerics: Numerics, rngs: nnx.Rngs) -> GroupNorm:
    """A group norm with diffusers' epsilon."""
    return GroupNorm(channels, groups, epsilon=EPSILON, dtype=numerics.dtype, rngs=rngs)


def to_squares(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n hs ws c s s"]:
    """The image cut into squares of `side` × `side` pixels; the last axes are channel, row and column in a square.

    Families of autoencoders disagree about the order of the three where these become channels.
    """
    n, h, w, c = x.shape
    return x.reshape(n, h // side, side, w // side, side, c).transpose(0, 1, 3, 5, 2, 4)


def from_squares(x: Float[Array, "n hs ws c s s"]) -> Float[Array, "n h w c"]:
    """What `to_squares` cut."""
    n, h, w, c, side, _ = x.shape
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(n, h * side, w * side, c)


def fold(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n hs ws d"]:
    """Squares of pixels into channels, in the order channel, row, column (PyTorch's `pixel_unshuffle`)."""
    squares = to_squares(x, side)
    return squares.reshape(*squares.shape[:3], -1)


def unfold(x: Float[Array, "n hs ws d"], side: int) -> Float[Array, "n h w c"]:
    """Channels into squares of pixels, in the same order (PyTorch's `pixel_shuffle`)."""
    return from_squares(x.reshape(*x.shape[:3], -1, side, side))


def mean_of_runs(x: Float[Array, "n h w c"], outputs: int) -> Float[Array, "n h w o"]:
    """Channels averaged in `outputs` runs of equal length: a shortcut to fewer channels without parameters."""
    return x.reshape(*x.shape[:-1], outputs, -1).mean(-1)


class SpatialNorm(nnx.Module):
    """Group norm whose scale and shift are read from the latents: GroupNorm(f) · conv_y(zq↑) + conv_b(zq↑)."""

    def __init__(self, channels: int, latent_channels: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.norm_layer = group_norm(channels, SPATIAL_NORM_GROUPS, numerics, rngs)
        self.conv_y = conv(latent_channels, channels, 1, numerics, rngs)
        self.conv_b = conv(latent_channels, channels, 1, numerics, rngs)

    def __call__(
        self, x: Float[Array, "n h w c"], latents: Float[Array, "n hz wz z"], shift: Float[Array, " c"] | None = None
    ) -> Float[Array, "n h w c"]:
        # A 1×1 convolution commutes with nearest upsampling, and costs less before it.
        times = x.shape[1] // latents.shape[1]
        scale = upsample_nearest(self.conv_y(latents), times)
        return self.norm_layer(x, shift) * scale + upsample_nearest(self.conv_b(latents), times)


def make_norm(channels: int, groups: int, latent_channels: int | None, numerics: Numerics, rngs: nnx.Rngs) -> Any:
    """A `SpatialNorm` where `latent_channels` is given, else a group norm."""
    if latent_channels is None:
        return group_norm(channels, groups, numerics, rngs)
    return SpatialNorm(channels, latent_channels, numerics, rngs)


def apply_norm(norm: Any, x: Array, latents: Array | None, shift: Array | None = None) -> Array:
    """The norm of x + `shift`."""
    if isinstance(norm, SpatialNorm):
        assert latents is not None
        return norm(x, latents, shift)
    return norm(x, shift)


class ResnetBlock(nnx.Module):
    """norm, silu, conv, twice, plus the input (through a 1×1 convolution where the width changes)."""

    def __init__(
        self, inputs: int, outputs: int, groups: int, latent_channels: int | None, numerics: Numerics, rngs: nnx.Rngs
    ) -> None:
        self.norm1 = make_norm(inputs, groups, latent_channels, numerics, rngs)
        self.conv1 = conv(inputs, outputs, 3, numerics, rngs)
        self.norm2 = make_norm(outputs, groups, latent_channels, numerics, rngs)
        self.conv2 = conv(outputs, outputs, 3, numerics, rngs)
        self.conv_shortcut = conv(inputs, outputs, 1, numerics, rngs) if inputs != outputs else None

    def __call__(self, x: Array, latents: Array | None = None) -> Array:
        h = without_bias(self.conv1, nnx.silu(apply_norm(self.norm1, x, latents)))
        h = self.conv2(nnx.silu(apply_norm(self.norm2, h, latents, self.conv1.bias[...])))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nnx.Module):
    """Single-head self-attention over all positions, with a residual connection."""

    def __init__(
        self, channels: int, groups: int, latent_channels: int | None, numerics: Numerics, rngs: nnx.Rngs
    ) -> None:
        self.precision = numerics.precision
        if latent_channels is None:
            self.group_norm = group_norm(channels, groups, numerics, rngs)
        else:
            self.spatial_norm = SpatialNorm(channels, latent_channels, numerics, rngs)

        def linear() -> nnx.Linear:
            return nnx.Linear(channels, channels, dtype=numerics.dtype, precision=numerics.precision, rngs=rngs)

        self.to_q, self.to_k, self.to_v, self.to_out = linear(), linear(), linear(), linear()

    def __call__(self, x: Float[Array, "n h w c"], latents: Array | None = None) -> Float[Array, "n h w c"]:
        n, h, w, c = x.shape
        norm = self.spatial_norm if hasattr(self, "spatial_norm") else self.group_norm
        tokens = apply_norm(norm, x, latents).reshape(n, h * w, c)
        attended = attend(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens), self.precision)
        return x + self.to_out(attended).reshape(n, h, w, c)


def without_bias(conv: nnx.Conv, x: Float[Array, "n h w c"]) -> Float[Array, "n h w o"]:
    """A 3×3 convolution that keeps the size, for a norm that adds the bias."""
    kernel = conv.kernel[...].astype(conv.dtype)
    padding = ((1, 1), (1, 1))
    return conv.conv_general_dilated(
        x.astype(conv.dtype), kernel, (1, 1), padding, dimension_numbers=LAYOUT, precision=conv.precision
    )


def upsampled(conv: nnx.Conv, x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww o"]:
    """A 3×3 convolution with a bias of the image upsampled to the nearest, ×2."""
    out = convolve_upsampled(x.astype(conv.dtype), conv.kernel[...], conv.precision, conv.conv_general_dilated)
    return out + conv.bias[...].astype(out.dtype)


class Downsample(nnx.Module):
    """Stride-2 convolution of the input padded by one on the right and at the bottom only."""

    def __init__(self, channels: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.conv = conv(channels, channels, 3, numerics, rngs, stride=2)

    def __call__(self, x: Array) -> Array:
        return self.conv(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))))


class Upsample(nnx.Module):
    """Nearest ×2, then a 3×3 convolution."""

    def __init__(self, inputs: int, outputs: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.conv = conv(inputs, outputs, 3, numerics, rngs, rewritten=False)

    def __call__(self, x: Array) -> Array:
        return upsampled(self.conv, x)


class _Block(nnx.Module):
    """Residual blocks, each followed by attention where the block has it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layers: int,
        groups: int,
        latent_channels: int | None,
        numerics: Numerics,
        rngs: nnx.Rngs,
        *,
        attention: bool,
    ) -> None:
        widths = [inputs, *[outputs] * layers]
        self.resnets = nnx.List(
            [ResnetBlock(a, b, groups, latent_channels, numerics, rngs) for a, b in itertools.pairwise(widths)]
        )
        self.attentions = nnx.List(
            [Attention(outputs, groups, latent_channels, numerics, rngs) for _ in range(layers if attention else 0)]
        )

    def __call__(self, x: Array, latents: Array | None = None) -> Array:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, latents)
            if self.attentions:
                x = self.attentions[i](x, latents)
        return x


class DownBlock(_Block):
    """An encoder block; halves the size at its end where `downsample`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layers: int,
        groups: int,
        numerics: Numerics,
        rngs: nnx.Rngs,
        *,
        attention: bool,
        downsample: bool,
    ) -> None:
        super().__init__(inputs, outputs, layers, groups, None, numerics, rngs, attention=attention)
        self.downsamplers = nnx.List([Downsample(outputs, numerics, rngs)] if downsample else [])

    def __call__(self, x: Array, latents: Array | None = None) -> Array:
        x = super().__call__(x, latents)
        for downsample in self.downsamplers:
            x = downsample(x)
        return x


class UpBlock(_Block):
    """A decoder block; doubles the size at its end where `upsample`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layers: int,
        groups: int,
        latent_channels: int | None,
        numerics: Numerics,
        rngs: nnx.Rngs,
        *,
        attention: bool,
        upsample: bool,
    ) -> None:
        super().__init__(inputs, outputs, layers, groups, latent_channels, numerics, rngs, attention=attention)
        self.upsamplers = nnx.List([Upsample(outputs, outputs, numerics, rngs)] if upsample else [])

    def __call__(self, x: Array, latents: Array | None = None) -> Array:
        x = super().__call__(x, latents)
        for upsample in self.upsamplers:
            x = upsample(x)
        return x


class MidBlock(nnx.Module):
    """Two residual blocks with attention between them (or without it)."""

    def __init__(
        self,
        channels: int,
        groups: int,
        latent_channels: int | None,
        numerics: Numerics,
        rngs: nnx.Rngs,
        *,
        attention: bool,
    ) -> None:
        self.resnets = nnx.List(
            [ResnetBlock(channels, channels, groups, latent_channels, numerics, rngs) for _ in range(2)]
        )
        self.attentions = nnx.List([Attention(channels, groups, latent_channels, numerics, rngs)] if attention else [])

    def __call__(self, x: Array, latents: Array | None = None) -> Array:
        x = self.resnets[0](x, latents)
        for attention in self.attentions:
            x = attention(x, latents)
        return self.resnets[1](x, latents)
