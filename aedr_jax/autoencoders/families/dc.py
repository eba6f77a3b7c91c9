"""`AutoencoderDC`: the deep-compression autoencoder of SANA, 32 times smaller at 32 channels; deterministic.

Residual blocks at high resolution, linear attention at low resolution, and between levels shortcuts without parameters
that fold pixels into channels.

Reference: `diffusers.AutoencoderDC` 0.39.0.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.blocks import Numerics, conv, fold, mean_of_runs, unfold, upsampled
from aedr_jax.autoencoders.family import Architecture, Family, Network
from aedr_jax.autoencoders.grouped import DepthwiseConv, GroupedConv
from aedr_jax.autoencoders.norms import BatchNorm, RMSNorm

__all__ = ["DC", "AutoencoderDC", "DCArchitecture"]

LEAST_WEIGHT = 1e-15  # beside the sum of a token's attention weights
ACTIVATIONS = {"silu": nnx.silu, "relu": nnx.relu}
BLOCKS = ("ResBlock", "EfficientViTBlock")
NORMS = ("rms_norm", "batch_norm")
WIDTHS = (128, 256, 512, 512, 1024, 1024)
EMPTY: dict[str, Any] = {"empty": True}


@dataclasses.dataclass(frozen=True)
class DCArchitecture(Architecture):
    """The fields of a `diffusers.AutoencoderDC`. What is one for all levels there is one a level here."""

    in_channels: int = 3
    latent_channels: int = 32
    attention_head_dim: int = 32
    encoder_block_types: str | tuple[str, ...] = "ResBlock"
    decoder_block_types: str | tuple[str, ...] = "ResBlock"
    encoder_block_out_channels: tuple[int, ...] = WIDTHS
    decoder_block_out_channels: tuple[int, ...] = WIDTHS
    encoder_layers_per_block: tuple[int, ...] = dataclasses.field(default=(2, 2, 2, 3, 3, 3), metadata={"least": 0})
    decoder_layers_per_block: tuple[int, ...] = dataclasses.field(default=(3, 3, 3, 3, 3, 3), metadata={"least": 0})
    encoder_qkv_multiscales: tuple[tuple[int, ...], ...] = dataclasses.field(
        default=((), (), (), (5,), (5,), (5,)), metadata=EMPTY
    )
    decoder_qkv_multiscales: tuple[tuple[int, ...], ...] = dataclasses.field(
        default=((), (), (), (5,), (5,), (5,)), metadata=EMPTY
    )
    upsample_block_type: str = "pixel_shuffle"
    downsample_block_type: str = "pixel_unshuffle"
    decoder_norm_types: str | tuple[str, ...] = "rms_norm"
    decoder_act_fns: str | tuple[str, ...] = "silu"
    encoder_out_shortcut: bool = True
    decoder_in_shortcut: bool = True
    decoder_conv_act_fn: str = "relu"

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> DCArchitecture:
        made = cls(**fields)
        levels = {"encoder": len(made.encoder_block_out_channels), "decoder": len(made.decoder_block_out_channels)}
        values: dict[str, Any] = {
            name: (getattr(made, name),) * levels[name.partition("_")[0]]
            for name in ("encoder_block_types", "decoder_block_types", "decoder_norm_types", "decoder_act_fns")
            if isinstance(getattr(made, name), str)
        }
        return dataclasses.replace(made, **values)

    @property
    def factor(self) -> int:
        return 2 ** (len(self.encoder_block_out_channels) - 1)

    @property
    def label(self) -> str:
        return f"DC, {self.latent_channels} channels"

    @property
    def levels(self) -> dict[str, tuple[Level, ...]]:
        """Encoder's and decoder's, from high resolution to low."""
        encoder: tuple[Any, ...] = (
            self.encoder_block_types,
            self.encoder_block_out_channels,
            self.encoder_layers_per_block,
            self.encoder_qkv_multiscales,
            ("rms_norm",) * len(self.encoder_block_out_channels),
            ("silu",) * len(self.encoder_block_out_channels),
        )
        decoder: tuple[Any, ...] = (
            self.decoder_block_types,
            self.decoder_block_out_channels,
            self.decoder_layers_per_block,
            self.decoder_qkv_multiscales,
            self.decoder_norm_types,
            self.decoder_act_fns,
        )
        return {
            side: tuple(Level(self.attention_head_dim, *values) for values in zip(*lists, strict=True))
            for side, lists in (("encoder", encoder), ("decoder", decoder))
        }

    def problems(self) -> list[str]:
        try:
            levels = self.levels
        except ValueError:
            return ["the lists of the levels' types, channels, layers and scales have different lengths"]
        problems = [
            f"{side}: {problem}"
            for side, several in levels.items()
            for level in several
            for problem in level.problems()
        ]
        problems += [
            f"{side}: no layers in a level other than the first"
            for side, several in levels.items()
            if not all(level.layers for level in several[1:])
        ]
        if len(levels["encoder"]) != len(levels["decoder"]) or len(levels["encoder"]) < 2:
            problems.append("encoder and decoder have different numbers of levels, or fewer than two")
        elif not problems:
            problems += self._shortcut_problems(levels)
        for name, known in (
            ("upsample_block_type", ("pixel_shuffle", "interpolate")),
            ("downsample_block_type", ("pixel_unshuffle", "conv", "Conv")),  # SANA's files have the capital
            ("decoder_conv_act_fn", tuple(ACTIVATIONS)),
        ):
            if getattr(self, name) not in known:
                problems.append(f"{name} = {getattr(self, name)!r}; only {' or '.join(map(repr, known))} is supported")
        return problems + self.not_rgb("in_channels")

    def _shortcut_problems(self, levels: Mapping[str, tuple[Level, ...]]) -> list[str]:
        """Widths that the shortcuts, which average or repeat channels, cannot bring to each other."""
        resampled = {
            side: [(one.width, other.width) for one, other in itertools.pairwise(several) if one.layers]
            for side, several in levels.items()
        }
        wrong = [f"encoder: {a} to {b} channels" for a, b in resampled["encoder"] if 4 * a % b or b % 4]
        wrong += [f"decoder: {b} to {a} channels" for a, b in resampled["decoder"] if 4 * a % b]
        lowest = {side: several[-1].width for side, several in levels.items()}
        if self.encoder_out_shortcut and lowest["encoder"] % self.latent_channels:
            wrong.append(f"encoder: {lowest['encoder']} channels to {self.latent_channels}")
        if self.decoder_in_shortcut and lowest["decoder"] % self.latent_channels:
            wrong.append(f"decoder: {self.latent_channels} channels to {lowest['decoder']}")
        return [f"{text}: no shortcut fits" for text in wrong]


@dataclasses.dataclass(frozen=True)
class Level:
    """The blocks at one resolution."""

    head: int
    block: str
    width: int
    layers: int
    scales: tuple[int, ...]
    norm: str
    activation: str

    def problems(self) -> list[str]:
        problems = [
            f"unknown {what} {value!r}; known are {', '.join(known)}"
            for what, value, known in (
                ("block type", self.block, BLOCKS),
                ("norm type", self.norm, NORMS),
                ("activation", self.activation, tuple(ACTIVATIONS)),
            )
            if value not in known
        ]
        if self.block == "EfficientViTBlock" and self.width % self.head:
            problems.append(f"{self.width} channels are no heads of {self.head}")
        if any(scale % 2 == 0 for scale in self.scales):
            problems.append(f"scales {self.scales}: kernels of even size do not keep the size")
        return problems

    def blocks(self, numerics: Numerics, rngs: nnx.Rngs) -> list[nnx.Module]:
        make = {"ResBlock": ResBlock, "EfficientViTBlock": EfficientViTBlock}[self.block]
        return [make(self, numerics, rngs) for _ in range(self.layers)]


def make_norm(name: str, channels: int, numerics: Numerics) -> RMSNorm | BatchNorm:
    return RMSNorm(channels, numerics) if name == "rms_norm" else BatchNorm(channels, numerics)


class ResBlock(nnx.Module):
    """conv, activation, conv, norm, plus the input."""

    def __init__(self, level: Level, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.conv1 = conv(level.width, level.width, 3, numerics, rngs)
        self.conv2 = conv(level.width, level.width, 3, numerics, rngs, bias=False)
        self.norm = make_norm(level.norm, level.width, numerics)
        self.activation = level.activation

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return x + self.norm(self.conv2(ACTIVATIONS[self.activation](self.conv1(x))))


class Scale(nnx.Module):
    """Queries, keys and values gathered from `size` × `size` positions: each channel alone, then head by head."""

    def __init__(self, channels: int, heads: int, size: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.proj_in = DepthwiseConv(channels, size, numerics, rngs, bias=False)
        self.proj_out = GroupedConv(channels, 3 * heads, numerics, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return self.proj_out(self.proj_in(x))


class LinearAttention(nnx.Module):
    """Attention with weights ReLU(q)·ReLU(k), which is linear in the number of positions; plus the input.

    The projections, and a copy of them for every scale, stand side by side and are *then* cut into heads of 3·d
    channels: a head's query, key and value are not from the projections of these names. For at most d positions the
    reference adds up in the other order, which changes nothing but rounding.
    """

    def __init__(self, level: Level, numerics: Numerics, rngs: nnx.Rngs) -> None:
        width, heads = level.width, level.width // level.head

        def linear(inputs: int) -> nnx.Linear:
            options = {"dtype": numerics.dtype, "precision": numerics.precision, "rngs": rngs}
            return nnx.Linear(inputs, width, use_bias=False, **options)

        self.to_q, self.to_k, self.to_v = linear(width), linear(width), linear(width)
        self.to_qkv_multiscale = nnx.List([Scale(3 * width, heads, size, numerics, rngs) for size in level.scales])
        self.to_out = linear(width * (1 + len(level.scales)))
        self.norm_out = make_norm(level.norm, width, numerics)
        self.head, self.precision = level.head, numerics.precision

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, h, w, _ = x.shape
        projected = jnp.concatenate([self.to_q(x), self.to_k(x), self.to_v(x)], axis=-1)
        scales = [projected, *(scale(projected) for scale in self.to_qkv_multiscale)]
        heads = jnp.concatenate(scales, axis=-1).reshape(n, h * w, -1, 3, self.head).astype(jnp.float32)
        query, key, value = nnx.relu(heads[..., 0, :]), nnx.relu(heads[..., 1, :]), heads[..., 2, :]
        value = jnp.pad(value, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1.0)  # the last: sums of the weights
        scores = jnp.einsum("ntgv,ntgk->ngvk", value, key, precision=self.precision)
        sums = jnp.einsum("ngvk,ntgk->ntgv", scores, query, precision=self.precision)
        attended = (sums[..., :-1] / (sums[..., -1:] + LEAST_WEIGHT)).reshape(n, h, w, -1).astype(x.dtype)
        return x + self.norm_out(self.to_out(attended))


class GatedConv(nnx.Module):
    """Four times wider, each channel with its neighbours, half of it as the other's gate, and back; plus the input."""

    def __init__(self, channels: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        hidden = 8 * channels
        self.conv_inverted = conv(channels, hidden, 1, numerics, rngs)
        self.conv_depth = DepthwiseConv(hidden, 3, numerics, rngs)
        self.conv_point = conv(hidden // 2, channels, 1, numerics, rngs, bias=False)
        self.norm = RMSNorm(channels, numerics)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        h, gate = jnp.split(self.conv_depth(nnx.silu(self.conv_inverted(x))), 2, axis=-1)
        return x + self.norm(self.conv_point(h * nnx.silu(gate)))


class EfficientViTBlock(nnx.Module):
    """Linear attention, then a gated convolution."""

    def __init__(self, level: Level, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.attn = LinearAttention(level, numerics, rngs)
        self.conv_out = GatedConv(level.width, numerics, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return self.conv_out(self.attn(x))


class Down(nnx.Module):
    """Half the size: a strided convolution, or one of a quarter of the channels that are then folded."""

    def __init__(
        self, inputs: int, outputs: int, numerics: Numerics, rngs: nnx.Rngs, *, folds: bool, shortcut: bool = True
    ) -> None:
        self.folds, self.outputs = folds, outputs if shortcut else None
        if folds:
            self.conv = conv(inputs, outputs // 4, 3, numerics, rngs)
        else:
            self.conv = conv(inputs, outputs, 3, numerics, rngs, stride=2, padding=1)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww d"]:
        h = fold(self.conv(x), 2) if self.folds else self.conv(x)
        return h if self.outputs is None else h + mean_of_runs(fold(x, 2), self.outputs)


class Up(nnx.Module):
    """Twice the size: a convolution of the enlarged image, or one of four times the channels that are then unfolded."""

    def __init__(
        self, inputs: int, outputs: int, numerics: Numerics, rngs: nnx.Rngs, *, unfolds: bool, shortcut: bool = True
    ) -> None:
        self.unfolds, self.repeats = unfolds, 4 * outputs // inputs if shortcut else None
        self.conv = conv(inputs, 4 * outputs if unfolds else outputs, 3, numerics, rngs, rewritten=unfolds)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww d"]:
        h = unfold(self.conv(x), 2) if self.unfolds else upsampled(self.conv, x)
        return h if self.repeats is None else h + unfold(jnp.repeat(x, self.repeats, axis=-1), 2)


class Encoder(nnx.Module):
    """Image to latents."""

    def __init__(self, architecture: DCArchitecture, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, levels = architecture, architecture.levels["encoder"]
        options = {"folds": a.downsample_block_type == "pixel_unshuffle"}
        if levels[0].layers:
            self.conv_in = conv(a.in_channels, levels[0].width, 3, numerics, rngs)
        else:
            self.conv_in = Down(a.in_channels, levels[1].width, numerics, rngs, **options, shortcut=False)
        blocks = [level.blocks(numerics, rngs) for level in levels]
        for below, level, of_level in zip(levels[1:], levels, blocks, strict=False):
            if level.layers:
                of_level.append(Down(level.width, below.width, numerics, rngs, **options))
        self.down_blocks = nnx.List([nnx.List(of_level) for of_level in blocks])
        self.conv_out = conv(levels[-1].width, a.latent_channels, 3, numerics, rngs)
        self.outputs = a.latent_channels if a.encoder_out_shortcut else None

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        x = apply(self.down_blocks, self.conv_in(x))
        return self.conv_out(x) if self.outputs is None else self.conv_out(x) + mean_of_runs(x, self.outputs)


class Decoder(nnx.Module):
    """Latents to an image. Levels are kept from high resolution to low, as in the encoder, and run in reverse."""

    def __init__(self, architecture: DCArchitecture, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a, levels = architecture, architecture.levels["decoder"]
        options = {"unfolds": a.upsample_block_type == "pixel_shuffle"}
        self.conv_in = conv(a.latent_channels, levels[-1].width, 3, numerics, rngs)
        self.repeats = levels[-1].width // a.latent_channels if a.decoder_in_shortcut else None
        blocks = [level.blocks(numerics, rngs) for level in levels]
        for below, level, of_level in zip(levels[1:], levels, blocks, strict=False):
            if level.layers:
                of_level.insert(0, Up(below.width, level.width, numerics, rngs, **options))
        self.up_blocks = nnx.List([nnx.List(of_level) for of_level in blocks])
        width = levels[0].width if levels[0].layers else levels[1].width
        self.norm_out = RMSNorm(width, numerics)
        if levels[0].layers:
            self.conv_out = conv(width, a.in_channels, 3, numerics, rngs)
        else:
            self.conv_out = Up(width, a.in_channels, numerics, rngs, **options, shortcut=False)
        self.activation = a.decoder_conv_act_fn

    def __call__(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        x = self.conv_in(z)
        if self.repeats is not None:
            x = x + jnp.repeat(z, self.repeats, axis=-1)
        x = apply(self.up_blocks[::-1], x)
        return self.conv_out(ACTIVATIONS[self.activation](self.norm_out(x)))


def apply(levels: Sequence[Sequence[Any]], x: Array) -> Array:
    """Every block of every level, in their order."""
    for level in levels:
        for block in level:
            x = block(x)
    return x


class AutoencoderDC(Network):
    """Encoder and decoder, with nothing between them."""

    architecture: DCArchitecture

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.encoder = Encoder(self.architecture, numerics, rngs)
        self.decoder = Decoder(self.architecture, numerics, rngs)


DC = Family(class_name="AutoencoderDC", architecture=DCArchitecture, network=AutoencoderDC)
