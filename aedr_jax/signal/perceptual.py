"""LPIPS, the distance between deep features of two images, on VGG16 or AlexNet.

Images are float32 NHWC in [-1, 1]; one distance for each image. The weights are torchvision's and the `lpips`
package's; they are not distributed here, and nothing stands in for them where they are missing.

Reference: `lpips.LPIPS` 0.1.4 (version "0.1"), to 1e-5 of the distance on random weights.
Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, arXiv 1801.03924.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aedr_jax.autoencoders.tensors import read_tensors
from aedr_jax.errors import AutoencoderError, BaselineError
from aedr_jax.images.arrays import check_pair

__all__ = ["NETWORKS", "Conv", "Lpips", "load_lpips", "lpips", "lpips_from_state_dicts"]

SHIFT = (-0.030, -0.088, -0.188)  # ImageNet's mean and deviation of images in [-1, 1]
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10


class Conv(NamedTuple):
    """One convolution of a backbone, with the ReLU after it and the max pool before it.

    Attributes:
      number: its place among torchvision's `features`.
      inputs, outputs: channels.
      size, stride, padding: of its square kernel.
      pool: the window of a max pool of stride 2 that comes first; 0: none.
      compared: whether LPIPS compares its features.
    """

    number: int
    inputs: int
    outputs: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    compared: bool = False


NETWORKS: dict[str, tuple[Conv, ...]] = {
    "vgg": (
        Conv(0, 3, 64),
        Conv(2, 64, 64, compared=True),
        Conv(5, 64, 128, pool=2),
        Conv(7, 128, 128, compared=True),
        Conv(10, 128, 256, pool=2),
        Conv(12, 256, 256),
        Conv(14, 256, 256, compared=True),
        Conv(17, 256, 512, pool=2),
        Conv(19, 512, 512),
        Conv(21, 512, 512, compared=True),
        Conv(24, 512, 512, pool=2),
        Conv(26, 512, 512),
        Conv(28, 512, 512, compared=True),
    ),
    "alex": (
        Conv(0, 3, 64, size=11, stride=4, padding=2, compared=True),
        Conv(3, 64, 192, size=5, padding=2, pool=3, compared=True),
        Conv(6, 192, 384, pool=3, compared=True),
        Conv(8, 384, 256, compared=True),
        Conv(10, 256, 256, compared=True),
    ),
}
BACKBONES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lpips:
    """The weights of LPIPS, a pytree; `load_lpips` reads them from files.

    Attributes:
      kernels: of each convolution, float32 [k,k,inputs,outputs].
      biases: of each convolution, float32 [outputs].
      heads: the weight of each compared channel, float32 [outputs] for each compared convolution.
      network: "vgg" or "alex" (static).

    >>> from aedr_jax.signal.perceptual import NETWORKS
    >>> convs = NETWORKS["alex"]
    >>> kernels = tuple(jnp.ones((c.size, c.size, c.inputs, c.outputs)) for c in convs)
    >>> ones = tuple(jnp.ones(c.outputs) for c in convs)
    >>> params = aedr.Lpips(kernels, biases=ones, heads=ones, network="alex")  # ones for an example; not the published
    >>> len(jax.tree.leaves(params))
    15
    """

    kernels: tuple[Array, ...]
    biases: tuple[Array, ...]
    heads: tuple[Array, ...]
    network: str = dataclasses.field(metadata={"static": True})


def lpips(
    params: Lpips, a: Float[Array, "n h w 3"], b: Float[Array, "n h w 3"], *, layer: int | None = None
) -> Float[Array, " n"]:
    """The perceptual distance of each pair of images; 0 where they are equal.

    Σ over layers of the mean over pixels of Σ over channels c of head[c] · (φa[c] − φb[c])², where φ are a layer's
    features, scaled to length 1 at each pixel.

    Args:
      params: what `load_lpips` returns.
      a, b: images in [-1, 1]; sides of at least 16 (VGG16) or 31 (AlexNet) pixels.
      layer: one compared layer alone, 1 to 5; AEROBLADE takes VGG16's second. None: the sum over all five.

    Raises:
      ArgumentError: on integers, and on batches of different shapes.
      ValueError: on another layer.

    >>> from aedr_jax.signal.perceptual import NETWORKS
    >>> convs = NETWORKS["alex"]
    >>> kernels = tuple(jnp.ones((c.size, c.size, c.inputs, c.outputs)) for c in convs)
    >>> ones = tuple(jnp.ones(c.outputs) for c in convs)
    >>> params = aedr.Lpips(kernels, biases=ones, heads=ones, network="alex")  # for real ones see `load_lpips`
    >>> images = jnp.linspace(-1, 1, 2 * 32 * 32 * 3).reshape(2, 32, 32, 3)
    >>> aedr.lpips(params, images, images, layer=1)
    Array([0., 0.], dtype=float32)
    """
    if layer is not None and not 1 <= layer <= len(params.heads):
        raise ValueError(f"layer {layer}: expected 1 to {len(params.heads)}, or None for their sum")
    check_pair(a, b)
    features = [_features(params, images, layer) for images in (a, b)]
    distances = [
        jnp.mean(jnp.sum(head * jnp.square(_unit(of_a) - _unit(of_b)), axis=-1), axis=(1, 2))
        for head, of_a, of_b in zip(params.heads, *features, strict=layer is None)
    ]
    return distances[layer - 1] if layer is not None else sum(distances[1:], distances[0])


def _features(params: Lpips, images: Float[Array, "n h w 3"], layer: int | None) -> list[Array]:
    """The compared features, up to the `layer`-th; what lies behind that need not be computed."""
    x = (images.astype(jnp.float32) - np.asarray(SHIFT, np.float32)) / np.asarray(SCALE, np.float32)
    compared: list[Array] = []
    for conv, kernel, bias in zip(NETWORKS[params.network], params.kernels, params.biases, strict=True):
        if conv.pool:
            window = (1, conv.pool, conv.pool, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 2, 2, 1), "VALID")
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (conv.stride, conv.stride),
            [(conv.padding, conv.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        x = jax.nn.relu(x + bias)
        if conv.compared:
            compared.append(x)
        if len(compared) == layer:
            break
    return compared


def _unit(features: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Each pixel's features at length 1, or 0 where all are."""
    squared = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # The inner where keeps the gradient finite: that of a root is infinite at 0, and dead pixels are common after ReLU.
    length = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
    return features / (length + EPSILON)


def load_lpips(network: str, *, backbone: str | os.PathLike[str], linear: str | os.PathLike[str]) -> Lpips:
    """LPIPS from two safetensors files; `aedr convert --lpips` makes them from the published `.pth` files.

    Args:
      network: "vgg" (VGG16) or "alex" (AlexNet).
      backbone: torchvision's ImageNet weights of that network (a classifier in it is not read).
      linear: the `lpips` package's weights of its linear layers.

    Raises:
      BaselineError: on another network, and with the file that is missing, damaged, or another network's.

    >>> aedr.load_lpips("alex", backbone="alexnet.safetensors", linear="alex.safetensors")
    Traceback (most recent call last):
    aedr_jax.errors.BaselineError: alexnet.safetensors: ...
    """
    _check_network(network)
    tensors = []
    for path in map(Path, (backbone, linear)):
        if path.suffix != ".safetensors" or not path.is_file():
            raise BaselineError(_missing(path, network))
        try:
            tensors.append(read_tensors(path))
        except AutoencoderError as error:
            raise BaselineError(str(error)) from error
    return lpips_from_state_dicts(network, *tensors, where=f"{backbone}, {linear}")


def lpips_from_state_dicts(
    network: str, backbone: Mapping[str, np.ndarray], linear: Mapping[str, np.ndarray], *, where: str = "checkpoint"
) -> Lpips:
    """LPIPS from tensors under the names and in the layouts of torchvision and of the `lpips` package.

    Every tensor is used, but for the backbone's `classifier`; every slot is filled, and shapes agree.

    Raises:
      BaselineError: one error with every tensor without a place, unfilled slot and wrong shape.
    """
    _check_network(network)
    convs = NETWORKS[network]
    slots: dict[str, tuple[int, ...]] = {}
    for conv in convs:
        slots[f"features.{conv.number}.weight"] = (conv.outputs, conv.inputs, conv.size, conv.size)
        slots[f"features.{conv.number}.bias"] = (conv.outputs,)
    heads = [conv.outputs for conv in convs if conv.compared]
    slots |= {f"lin{i}.model.1.weight": (1, channels, 1, 1) for i, channels in enumerate(heads)}
    tensors = {name: value for name, value in backbone.items() if not name.startswith("classifier.")} | dict(linear)

    problems = [f"tensor without a place: {name}" for name in sorted(tensors.keys() - slots.keys())]
    problems += [f"place without a tensor: {name}" for name in sorted(slots.keys() - tensors.keys())]
    problems += [
        f"wrong shape: {name} {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in slots.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        raise BaselineError(f"{where}: not the weights of LPIPS {network}:\n  " + "\n  ".join(problems))

    values = {name: jnp.asarray(np.asarray(value, np.float32)) for name, value in tensors.items()}
    return Lpips(
        kernels=tuple(values[f"features.{conv.number}.weight"].transpose(2, 3, 1, 0) for conv in convs),
        biases=tuple(values[f"features.{conv.number}.bias"] for conv in convs),
        heads=tuple(values[f"lin{i}.model.1.weight"].reshape(-1) for i in range(len(heads))),
        network=network,
    )


def _check_network(network: str) -> None:
    if network not in NETWORKS:
        raise BaselineError(f"network {network!r}: expected one of {', '.join(NETWORKS)}")


def _missing(path: Path, network: str) -> str:
    problem = "no such file" if path.suffix == ".safetensors" else "not a .safetensors file; nothing is unpickled here"
    return (
        f"{path}: {problem}. LPIPS ({network}) needs two files, which are not distributed with this package:\n"
        f"  the backbone: https://download.pytorch.org/models/{BACKBONES[network]}\n"
        f"  the linear layers: weights/v0.1/{network}.pth of the lpips package (pip download lpips==0.1.4 --no-deps)\n"
        "Convert both in an environment with PyTorch (extra convert), and pass the .safetensors files:\n"
        f"  aedr convert --lpips {BACKBONES[network]} .\n  aedr convert --lpips {network}.pth ."
    )
