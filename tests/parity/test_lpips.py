"""LPIPS against PyTorch on random weights.

Two references: the network rebuilt below in `torch.nn` from the published architectures, and the `lpips` package
0.1.4 where it is installed (`pip install lpips==0.1.4 --no-deps`), around those same backbones: of torchvision it
needs only them, so that torchvision itself need not be there.
"""

import sys
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

import aedr_jax as aedr
from aedr_jax.cli.main import main

from .references import nchw, random_images

# torchvision's `features` up to what is compared last: channels of 3×3 convolutions, M a max pool.
VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
COMPARED = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}  # places of the ReLUs whose features are compared
CHANNELS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
# Both are float32 at full precision; sums of up to 4608 products come in another order.
TOLERANCE = 1e-5


def backbone(network):
    if network == "alex":
        return nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )
    layers, channels = [], 3
    for width in VGG16:
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


class Rebuilt(nn.Module):
    """LPIPS 0.1 as published: scaled input, features at unit length, squared differences, weighted, averaged."""

    def __init__(self, network):
        super().__init__()
        self.features, self.compared = backbone(network), COMPARED[network]
        self.lin = nn.ModuleList(nn.Conv2d(channels, 1, 1, bias=False) for channels in CHANNELS[network])

    def compared_features(self, x):
        shift, scale = (torch.tensor(v)[:, None, None] for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
        x = (x - shift) / scale
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.compared:
                yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)

    def forward(self, a, b):
        both = zip(self.compared_features(a), self.compared_features(b), strict=True)
        return [lin((f - g) ** 2).mean((1, 2, 3)) for lin, (f, g) in zip(self.lin, both, strict=True)]


@pytest.fixture(scope="module", params=COMPARED)
def case(request, tmp_path_factory):
    """The network's name, the rebuilt reference, and the weights through the converter and `load_lpips`."""
    network, folder = request.param, tmp_path_factory.mktemp(request.param)
    torch.manual_seed(4)
    reference = Rebuilt(network).requires_grad_(False)
    for module in reference.features:
        if isinstance(module, nn.Conv2d):  # PyTorch's default would let features fade from layer to layer
            nn.init.kaiming_normal_(module.weight)
    for lin in reference.lin:
        nn.init.uniform_(lin.weight)
    features = {f"features.{name}": value for name, value in reference.features.state_dict().items()}
    torch.save(features | {"classifier.0.weight": torch.zeros(3, 3)}, folder / "backbone.pth")
    heads = {f"lin{i}.model.1.weight": lin.weight for i, lin in enumerate(reference.lin)}
    torch.save(heads, folder / "heads.pth")
    for name in ("backbone", "heads"):
        assert main(["convert", "--lpips", str(folder / f"{name}.pth"), str(folder)]) == 0
    assert not any("classifier" in name for name in load_file(folder / "backbone.safetensors"))
    params = aedr.load_lpips(network, backbone=folder / "backbone.safetensors", linear=folder / "heads.safetensors")
    return network, reference, params


@pytest.fixture(scope="module")
def images():
    return random_images(64, 48, count=2, seed=1), random_images(64, 48, count=2, seed=2)


@jax.jit
def whole_and_layers(params, a, b):
    return aedr.lpips(params, a, b), [aedr.lpips(params, a, b, layer=layer) for layer in range(1, 6)]


def test_rebuilt(case, images):
    """Reference: `Rebuilt`; the sum and every layer alone (AEROBLADE's is VGG16's second) to 1e-5 (see the top)."""
    _, reference, params = case
    expected = [layer.numpy() for layer in reference(*map(nchw, images))]
    whole, layers = whole_and_layers(params, *map(jnp.asarray, images))
    np.testing.assert_allclose(whole, sum(expected), rtol=TOLERANCE)
    for actual, layer in zip(layers, expected, strict=True):
        np.testing.assert_allclose(actual, layer, rtol=TOLERANCE)


def test_package(case, images, monkeypatch):
    """Reference: `lpips.LPIPS` 0.1.4 itself; the sum and every layer alone to 1e-5 (see the top)."""
    network, reference, params = case
    made = types.SimpleNamespace(features=reference.features)
    models = types.ModuleType("torchvision.models")
    models.alexnet = models.vgg16 = lambda pretrained: made
    torchvision = types.ModuleType("torchvision")
    torchvision.models = models
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its invalid escapes and old imports
        lpips = pytest.importorskip("lpips", reason="pip install lpips==0.1.4 --no-deps")
    monkeypatch.setattr(lpips.pretrained_networks, "tv", models)  # imported once, for both networks
    metric = lpips.LPIPS(net=network, pretrained=False, verbose=False)
    for mine, theirs in zip(reference.lin, metric.lins, strict=True):
        theirs.model[-1].weight.data.copy_(mine.weight)
    with torch.no_grad():
        total, per_layer = metric(*map(nchw, images), retPerLayer=True)
    whole, layers = whole_and_layers(params, *map(jnp.asarray, images))
    np.testing.assert_allclose(whole, total.flatten().numpy(), rtol=TOLERANCE)
    for actual, layer in zip(layers, per_layer, strict=True):
        np.testing.assert_allclose(actual, layer.flatten().numpy(), rtol=TOLERANCE)
