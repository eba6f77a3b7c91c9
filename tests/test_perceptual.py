"""LPIPS: a distance, its layers, its gradient, and a loader that takes nothing in place of the published weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import aedr_jax as aedr
from aedr_jax.signal.perceptual import NETWORKS, Conv, lpips_from_state_dicts

# AlexNet's shape at a fraction of its width; the two published networks are compared with PyTorch in tests/parity.
TINY = (
    Conv(0, 3, 4, size=5, stride=2, padding=2, compared=True),
    Conv(3, 4, 6, pool=3, compared=True),
    Conv(6, 6, 8, pool=3, compared=True),
    Conv(8, 8, 8, compared=True),
    Conv(10, 8, 5, compared=True),
)


def random_state(network, seed=0):
    """Tensors under torchvision's names and those of the lpips package, which are not negative."""
    rng = np.random.default_rng(seed)
    backbone = {}
    for conv in NETWORKS[network]:
        shape = (conv.outputs, conv.inputs, conv.size, conv.size)
        backbone[f"features.{conv.number}.weight"] = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        backbone[f"features.{conv.number}.bias"] = 0.1 * rng.normal(size=conv.outputs)
    heads = [conv.outputs for conv in NETWORKS[network] if conv.compared]
    linear = {f"lin{i}.model.1.weight": rng.uniform(size=(1, channels, 1, 1)) for i, channels in enumerate(heads)}
    return tuple({name: value.astype(np.float32) for name, value in part.items()} for part in (backbone, linear))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", TINY)


@pytest.fixture
def state(tiny):
    return random_state("tiny")


@pytest.fixture
def params(state):
    return lpips_from_state_dicts("tiny", *state)


@pytest.fixture(scope="module")
def pair():
    a, b = jax.random.uniform(jax.random.key(1), (2, 3, 24, 20, 3), minval=-1.0, maxval=1.0)
    return a, b


def whole_and_layers(params, a, b):
    return aedr.lpips(params, a, b), [aedr.lpips(params, a, b, layer=layer) for layer in range(1, 6)]


distance = jax.jit(aedr.lpips)


def test_it_is_a_distance(params, pair):
    a, b = pair
    distances = distance(params, a, b)
    assert (distances.shape, distances.dtype) == ((3,), jnp.float32)
    assert (distances > 0).all()
    # The program has the network twice, and XLA may round the two differently: by one unit of float32 in a feature of
    # length 1, whose square is 1.4e-14; five layers of at most 8 features sum to 6e-13.
    np.testing.assert_allclose(distance(params, a, a), 0.0, atol=1e-12)
    np.testing.assert_allclose(distance(params, b, a), distances, rtol=1e-5)
    single = distance(params, a[1:2], b[1:2])
    np.testing.assert_allclose(single, distances[1:2], rtol=1e-5)
    half = distance(params, a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))  # computed in float32 all the same
    np.testing.assert_allclose(half, distances, rtol=5e-2)


def test_layers_sum_to_the_whole(params, pair):
    whole, layers = jax.jit(whole_and_layers)(params, *pair)
    np.testing.assert_allclose(sum(layers), whole, rtol=1e-5)
    assert all((layer > 0).all() for layer in layers)
    for wrong in (0, 6):
        with pytest.raises(ValueError, match=f"layer {wrong}: expected 1 to 5"):
            aedr.lpips(params, *pair, layer=wrong)


def test_gradient_is_finite_where_features_are_dead(params, pair):
    dead = aedr.Lpips(params.kernels, tuple(bias - 1e3 for bias in params.biases), params.heads, "tiny")
    gradient_of = jax.jit(jax.grad(lambda x, weights: aedr.lpips(weights, x, pair[1]).sum()))
    for weights in (params, dead):
        gradient = gradient_of(pair[0], weights)
        assert np.isfinite(gradient).all()


def test_files(state, params, pair, tmp_path):
    backbone, linear = state
    paths = {"backbone": tmp_path / "backbone.safetensors", "linear": tmp_path / "linear.safetensors"}
    save_file(backbone | {"classifier.1.weight": np.zeros((2, 2), np.float32)}, paths["backbone"])
    save_file(linear, paths["linear"])
    loaded = aedr.load_lpips("tiny", **paths)
    np.testing.assert_array_equal(distance(loaded, *pair), distance(params, *pair))
    with pytest.raises(aedr.BaselineError, match="not the weights of LPIPS vgg"):
        aedr.load_lpips("vgg", **paths)


def test_missing_and_damaged_files(state, tmp_path):
    good = tmp_path / "alex.safetensors"
    save_file(state[1], good)
    pickled = tmp_path / "alexnet.pth"
    pickled.write_bytes(b"\x80\x04.")
    for path, reason in ((tmp_path / "none.safetensors", "no such file"), (pickled, "nothing is unpickled here")):
        with pytest.raises(aedr.BaselineError, match=reason) as caught:
            aedr.load_lpips("alex", backbone=path, linear=good)
        for hint in ("alexnet-owt-7be5be79.pth", "lpips==0.1.4", "aedr convert --lpips"):
            assert hint in str(caught.value)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not safetensors")
    with pytest.raises(aedr.BaselineError, match=r"damaged\.safetensors: not a readable safetensors file"):
        aedr.load_lpips("alex", backbone=damaged, linear=good)
    with pytest.raises(aedr.BaselineError, match="network 'squeeze': expected one of vgg, alex"):
        aedr.load_lpips("squeeze", backbone=good, linear=good)


def test_every_tensor_has_its_place(state):
    backbone, linear = (dict(part) for part in state)
    del linear["lin3.model.1.weight"]
    backbone["features.99.bias"] = np.zeros(3, np.float32)
    backbone["features.0.weight"] = backbone["features.0.weight"][:, :1]
    with pytest.raises(aedr.BaselineError) as caught:
        lpips_from_state_dicts("tiny", backbone, linear, where="here")
    for part in ("here: not", "without a place: features.99", "without a tensor: lin3", "wrong shape: features.0"):
        assert part in str(caught.value)
