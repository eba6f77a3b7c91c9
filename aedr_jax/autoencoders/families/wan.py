"""`AutoencoderKLWan`, `AutoencoderKLQwenImage` and `AutoencoderKLQwenImage21`: autoencoders of videos, on one frame.

Convolutions in time are causal and padded with zeros in front. So of a kernel only the last slice in time meets the
first frame, and that is all that is kept of it; the first frame takes no part in the resampling of time. What remains
is a network of images: 44.6M of 126.9M parameters (Wan 2.1, Qwen-Image), 252M of 704.7M (Wan 2.2).

Reference: `diffusers.AutoencoderKLWan` and `diffusers.AutoencoderKLQwenImage` 0.39.0. Qwen-Image 2.1's class came with
0.41 (read at commit 21b3a41): Wan 2.2's network, whose file holds no other slice of the kernels; its reference here is
Wan's class with these kernels as the last slice.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from aedr_jax.autoencoders.attention import attend
from aedr_jax.autoencoders.blocks import (
    Downsample,
    Numerics,
    Upsample,
    conv,
    from_squares,
    mean_of_runs,
    to_squares,
)
from aedr_jax.autoencoders.family import Architecture, Family, GaussianNetwork
from aedr_jax.autoencoders.norms import UnitNorm

__all__ = [
    "QWEN_IMAGE",
    "QWEN_IMAGE_21",
    "WAN",
    "QwenImage21Architecture",
    "QwenImageArchitecture",
    "WanArchitecture",
    "WanAutoencoder",
]


@dataclasses.dataclass(frozen=True)
class FrameArchitecture(Architecture):
    """The fields that the classes have in common, and what the network needs to know of the others."""

    base_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)

    @property
    @abc.abstractmethod
    def channels(self) -> tuple[int, int]:
        """Of the encoder's input and the decoder's output, images with their squares folded into channels."""

    @property
    def patch(self) -> int:
        """The side of these squares."""
        return 1

    @property
    def residual(self) -> bool:
        """Whether blocks have shortcuts around their resampling, as in Wan 2.2."""
        return False

    @property
    def decoder_width(self) -> int:
        """What `base_dim` is in the decoder."""
        return self.base_dim

    @property
    def factor(self) -> int:
        return self.patch * 2 ** (len(self.dim_mult) - 1)

    @property
    def image_channels(self) -> int:
        return self.channels[0] // self.patch**2

    @property
    def label(self) -> str:
        return f"{'Wan 2.2' if self.residual else 'Wan'}, {self.z_dim} channels"

    def problems(self) -> list[str]:
        problems = []
        if len(self.temperal_downsample) != len(self.dim_mult) - 1:
            problems.append(
                f"temperal_downsample has {len(self.temperal_downsample)} values, dim_mult one more or less"
            )
        elif self.residual and not self._shortcuts_fit():
            problems.append(f"dim_mult = {self.dim_mult}: shortcuts cannot share its widths out among channels")
        if self.channels not in ((3 * self.patch**2,) * 2, (4 * self.patch**2,) * 2):
            problems.append(
                f"{self.channels} channels in and out of squares of side {self.patch}: neither RGB nor RGBA"
            )
        return problems

    def _shortcuts_fit(self) -> bool:
        """Whether each width, times the pixels of all frames that are merged, is a multiple of the other side's."""
        pixels = [4 * (1 + twice) for twice in self.temperal_downsample]
        *down, last = itertools.pairwise((1, *self.dim_mult))
        up = itertools.pairwise((self.dim_mult[-1], *reversed(self.dim_mult)))
        return (
            last[0] % last[1] == 0
            and all(a * n % b == 0 for n, (a, b) in zip(pixels, down, strict=True))
            and all(b * n % a == 0 for n, (a, b) in zip(reversed(pixels), up, strict=False))
        )


@dataclasses.dataclass(frozen=True)
class WanArchitecture(FrameArchitecture):
    """The fields of a `diffusers.AutoencoderKLWan`."""

    decoder_base_dim: int | None = None
    is_residual: bool = False
    in_channels: int = 3
    out_channels: int = 3
    patch_size: int | None = None

    @property
    def residual(self) -> bool:
        return self.is_residual

    @property
    def patch(self) -> int:
        return self.patch_size or 1

    @property
    def channels(self) -> tuple[int, int]:
        return self.in_channels, self.out_channels

    @property
    def decoder_width(self) -> int:
        return self.decoder_base_dim or self.base_dim


@dataclasses.dataclass(frozen=True)
class QwenImageArchitecture(FrameArchitecture):
    """The fields of a `diffusers.AutoencoderKLQwenImage`: Wan 2.1's network."""

    input_channels: int = 3

    @property
    def channels(self) -> tuple[int, int]:
        return self.input_channels, self.input_channels


@dataclasses.dataclass(frozen=True)
class QwenImage21Architecture(WanArchitecture):
    """The fields of a `diffusers.AutoencoderKLQwenImage21`: Wan's with other defaults."""

    z_dim: int = 64
    dim_mult: tuple[int, ...] = (1, 2, 4, 8, 8)
    temperal_downsample: tuple[bool, ...] = (False, True, True, True)
    decoder_base_dim: int | None = 144
    is_residual: bool = True
    in_channels: int = 4
    out_channels: int = 4


class ResidualBlock(nnx.Module):
    """norm, silu, conv, twice, plus the input (through a 1×1 convolution where the width changes)."""

    def __init__(self, inputs: int, outputs: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.norm1 = UnitNorm(inputs, numerics)
        self.conv1 = conv(inputs, outputs, 3, numerics, rngs)
        self.norm2 = UnitNorm(outputs, numerics)
        self.conv2 = conv(outputs, outputs, 3, numerics, rngs)
        self.conv_shortcut = conv(inputs, outputs, 1, numerics, rngs) if inputs != outputs else None

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w o"]:
        h = self.conv1(nnx.silu(self.norm1(x)))
        h = self.conv2(nnx.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class AttentionBlock(nnx.Module):
    """Single-head self-attention over all positions, with a residual connection."""

    def __init__(self, channels: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        options = {"dtype": numerics.dtype, "precision": numerics.precision, "rngs": rngs}
        self.norm = UnitNorm(channels, numerics)
        self.to_qkv = nnx.Linear(channels, 3 * channels, **options)
        self.proj = nnx.Linear(channels, channels, **options)
        self.precision = numerics.precision

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, h, w, c = x.shape
        query, key, value = jnp.split(self.to_qkv(self.norm(x).reshape(n, h * w, c)), 3, axis=-1)
        return x + self.proj(attend(query, key, value, self.precision)).reshape(n, h, w, c)


class MidBlock(nnx.Module):
    """Two residual blocks with attention between them."""

    def __init__(self, channels: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        self.resnets = nnx.List([ResidualBlock(channels, channels, numerics, rngs) for _ in range(2)])
        self.attentions = nnx.List([AttentionBlock(channels, numerics, rngs)])

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


def residual_blocks(inputs: int, outputs: int, count: int, numerics: Numerics, rngs: nnx.Rngs) -> list[nnx.Module]:
    widths = [inputs, *[outputs] * count]
    return [ResidualBlock(a, b, numerics, rngs) for a, b in itertools.pairwise(widths)]


class ResidualDownBlock(nnx.Module):
    """Wan 2.2's: residual blocks, then half the size where `downsample`, with a shortcut around all of it.

    The shortcut averages runs of the channels of 2×2 pixels, and where a later frame would be merged with the one
    before it (`halves_time`), of two frames: the one before the first frame is zero, and counts in the mean.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        count: int,
        numerics: Numerics,
        rngs: nnx.Rngs,
        *,
        downsample: bool,
        halves_time: bool,
    ) -> None:
        self.resnets = nnx.List(residual_blocks(inputs, outputs, count, numerics, rngs))
        self.downsampler = Downsample(outputs, numerics, rngs) if downsample else None
        self.outputs, self.halves_time = outputs, halves_time

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww o"]:
        return self._main(x) + self._shortcut(x)

    def _main(self, x: Array) -> Array:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.downsampler is None else self.downsampler(x)

    def _shortcut(self, x: Array) -> Array:
        squares = to_squares(x, 1 if self.downsampler is None else 2)
        if self.halves_time:  # channel, frame, row, column
            squares = jnp.stack([jnp.zeros_like(squares), squares], axis=4)
        return mean_of_runs(squares.reshape(*squares.shape[:3], -1), self.outputs)


class UpBlock(nnx.Module):
    """Residual blocks, then twice the size where `upsampled` names a width; in Wan 2.2 with a shortcut around both.

    The shortcut repeats channels and spreads them over frames and 2×2 pixels; of two frames the last is the first's.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        count: int,
        numerics: Numerics,
        rngs: nnx.Rngs,
        *,
        upsampled: int | None,
        shortcut: bool,
        doubles_time: bool,
    ) -> None:
        self.resnets = nnx.List(residual_blocks(inputs, outputs, count, numerics, rngs))
        self.upsampler = None if upsampled is None else Upsample(outputs, upsampled, numerics, rngs)
        self.shortcut, self.frames = shortcut and upsampled is not None, 2 if doubles_time else 1
        self.outputs = outputs

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hh ww o"]:
        shortcut = self._shortcut(x) if self.shortcut else None
        for resnet in self.resnets:
            x = resnet(x)
        if self.upsampler is not None:
            x = self.upsampler(x)
        return x if shortcut is None else x + shortcut

    def _shortcut(self, x: Array) -> Array:
        n, h, w, c = x.shape
        spread = np.arange(self.outputs * self.frames * 4) // (self.outputs * self.frames * 4 // c)
        of_last_frame = spread.reshape(self.outputs, self.frames, 4)[:, -1].reshape(-1)
        return from_squares(x[..., of_last_frame].reshape(n, h, w, self.outputs, 2, 2))


class Encoder(nnx.Module):
    """Image to features at 1/factor of the size. Wan 2.1's blocks and downsamplings stand in one flat list."""

    def __init__(self, architecture: FrameArchitecture, outputs: int, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a = architecture
        widths = [a.base_dim * m for m in (1, *a.dim_mult)]
        last = len(a.dim_mult) - 1
        self.conv_in = conv(a.channels[0], widths[0], 3, numerics, rngs)
        blocks: list[nnx.Module] = []
        for i, (inputs, outs) in enumerate(itertools.pairwise(widths)):
            if a.residual:
                halves_time = i < last and a.temperal_downsample[i]
                options = {"downsample": i < last, "halves_time": halves_time}
                blocks.append(ResidualDownBlock(inputs, outs, a.num_res_blocks, numerics, rngs, **options))
            else:
                blocks += residual_blocks(inputs, outs, a.num_res_blocks, numerics, rngs)
                blocks += [Downsample(outs, numerics, rngs)] if i < last else []
        self.down_blocks = nnx.List(blocks)
        self.mid_block = MidBlock(widths[-1], numerics, rngs)
        self.norm_out = UnitNorm(widths[-1], numerics)
        self.conv_out = conv(widths[-1], outputs, 3, numerics, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.norm_out(self.mid_block(x))))


class Decoder(nnx.Module):
    """Latents to an image. Wan 2.1's upsamplings halve the width, Wan 2.2's keep it."""

    def __init__(self, architecture: FrameArchitecture, numerics: Numerics, rngs: nnx.Rngs) -> None:
        a = architecture
        widths = [a.decoder_width * m for m in (a.dim_mult[-1], *reversed(a.dim_mult))]
        last = len(a.dim_mult) - 1
        doubles_time = a.temperal_downsample[::-1]
        self.conv_in = conv(a.z_dim, widths[0], 3, numerics, rngs)
        self.mid_block = MidBlock(widths[0], numerics, rngs)
        self.up_blocks = nnx.List(
            [
                UpBlock(
                    inputs if i == 0 or a.residual else inputs // 2,
                    outputs,
                    a.num_res_blocks + 1,
                    numerics,
                    rngs,
                    upsampled=None if i == last else outputs if a.residual else outputs // 2,
                    shortcut=a.residual,
                    doubles_time=i < last and doubles_time[i],
                )
                for i, (inputs, outputs) in enumerate(itertools.pairwise(widths))
            ]
        )
        self.norm_out = UnitNorm(widths[-1], numerics)
        self.conv_out = conv(widths[-1], a.channels[1], 3, numerics, rngs)

    def __call__(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.norm_out(x)))


class WanAutoencoder(GaussianNetwork):
    """Encoder and decoder with a 1×1 convolution at either side of the latents. Decoded images are clipped to ±1: the
    second pass of a double reconstruction sees them so."""

    architecture: FrameArchitecture

    def make_layers(self, numerics: Numerics, rngs: nnx.Rngs) -> None:
        z = self.architecture.z_dim
        self.encoder = Encoder(self.architecture, 2 * z, numerics, rngs)
        self.decoder = Decoder(self.architecture, numerics, rngs)
        self.quant_conv = conv(2 * z, 2 * z, 1, numerics, rngs)
        self.post_quant_conv = conv(z, z, 1, numerics, rngs)

    def apply_encoder(self, x: Float[Array, "n h w c"]) -> Float[Array, "n hz wz z"]:
        squares = to_squares(x, self.architecture.patch).swapaxes(4, 5)  # channel, column, row
        return self.quant_conv(self.encoder(squares.reshape(*squares.shape[:3], -1)))

    def apply_decoder(self, z: Float[Array, "n hz wz z"]) -> Float[Array, "n h w c"]:
        x, side = self.decoder(self.post_quant_conv(z)), self.architecture.patch
        squares = x.reshape(*x.shape[:3], -1, side, side).swapaxes(4, 5)
        return jnp.clip(from_squares(squares), -1.0, 1.0)


def first_frame(key: str, value: np.ndarray) -> np.ndarray:
    """What of a tensor acts on the first frame: of a kernel the last slice in time; a norm's scale as a vector.

    Raises:
      ValueError: for a convolution of latents that is all zeros, as one published file is said to have: nothing would
        go through it.
    """
    if key.endswith("quant_conv.weight") and not value.any():
        raise ValueError("all zeros; the file is damaged: take another copy of this autoencoder")
    if key.endswith(".gamma"):
        return value.reshape(-1)
    return value[:, :, -1] if value.ndim == 5 else value


LATER_FRAMES = "acts on later frames only"
SHARED_FIELDS = {
    "dropout": "of the training",
    "scale_factor_temporal": LATER_FRAMES,
    "scale_factor_spatial": "for diffusers' tiles and pipelines",
    "clip_output": "not read by diffusers 0.39, which clips",
}
RULES = (
    (r"\.gamma$", ".scale"),
    (r"\.resample\.1\.", ".conv."),
    (r"\.upsamplers\.0\.", ".upsampler."),
)
WAN = Family(
    class_name="AutoencoderKLWan",
    architecture=WanArchitecture,
    network=WanAutoencoder,
    fixed_fields={"attn_scales": ([],)},  # with attention among its blocks diffusers' encoder raises
    ignored_fields=SHARED_FIELDS,
    key_rules=RULES,
    ignored_keys=((r"\.time_conv\.", LATER_FRAMES),),
    adapt=first_frame,
)
QWEN_IMAGE = dataclasses.replace(WAN, class_name="AutoencoderKLQwenImage", architecture=QwenImageArchitecture)
QWEN_IMAGE_21 = dataclasses.replace(WAN, class_name="AutoencoderKLQwenImage21", architecture=QwenImage21Architecture)
