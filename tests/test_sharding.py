"""Any number of devices gives the same measurement; that there is no communication is found as it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, tiny_autoencoder

import aedr_jax as aedr
from aedr_jax.errors import SourceError
from aedr_jax.scoring.sharding import pod_share

DEVICES = [1, 2, 4, 8]


def test_the_same_measurement_on_1_2_4_and_8_devices(images):
    """The same network: `test_autoencoders.py`, over all devices."""
    ae = tiny_autoencoder("functions")
    found = {}
    for devices in DEVICES:
        found[devices] = aedr.make_sharded(aedr.measure, mesh=mesh_of(devices))(ae, images)
    for devices in DEVICES[1:]:
        for column, one in zip(found[devices], found[1], strict=True):
            # The batch of a device is smaller: another order of float32 sums.
            np.testing.assert_allclose(column, one, rtol=2e-5)


def test_a_collective_would_be_seen(images):
    """The control of `test_no_collective...`: a function that looks at the other images has one."""
    sharded = aedr.make_sharded(lambda scale, x: x - scale * jax.lax.pmean(x.mean(), "data"))
    text = sharded.jitted.lower(sharded.replicate(np.float32(1)), (images,)).compile().as_text()
    assert "all-reduce" in text


@pytest.mark.parametrize("error", [ValueError("no coordinator."), RuntimeError("JAX runs already.")])
def test_where_there_is_no_pod_it_says_what_to_do(monkeypatch, error):
    def initialize(**options):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(SourceError, match=rf"jax\.distributed: {error} Give each process its share instead, as I/N"):
        pod_share()


def test_batches_may_be_given_by_name(images):
    ae = tiny_autoencoder("functions")
    gray = np.random.default_rng(0).integers(0, 256, (5, 16, 24), dtype=np.uint8)
    known = np.linspace(0.1, 0.5, 5, dtype=np.float32)
    measure = aedr.make_sharded(aedr.measure, mesh=mesh_of(2))
    of_gray = measure(ae, images[:5], gray=gray, key=jax.random.split(jax.random.key(0), 5))
    np.testing.assert_allclose(of_gray.homogeneity, aedr.homogeneity(gray), rtol=1e-6)
    given = measure(ae, images[:5], homogeneity=known, gray=None)
    np.testing.assert_array_equal(given.homogeneity, known)
    np.testing.assert_array_equal(given.first_loss, of_gray.first_loss)


def test_what_is_no_batch_is_told_what_to_do(images):
    ae = tiny_autoencoder("functions")
    measure = aedr.make_sharded(aedr.measure, mesh=mesh_of(2))
    for wrong, message in [
        (
            {"config": aedr.SignalConfig.paper()},
            r"config: SignalConfig has no axis of images\. Settings are",
        ),
        ({"key": jax.random.key(0)}, r"key: .*; a key is given for each image"),
        ({"homogeneity": np.ones(7, np.float32)}, r"different sizes, {'batch 0': 8, 'homogeneity': 7}"),
        ({"gray": [np.ones((8, 24), np.uint8), np.ones((9, 8), np.uint8)]}, "gray: an array of 9 images"),
    ]:
        with pytest.raises(aedr.ArgumentError, match=message):
            measure(ae, images, **wrong)
    with pytest.raises(aedr.ArgumentError, match="no batch"):
        measure(ae)


def test_cutting_back_brings_no_collective():
    """Many columns of a padded batch, sliced while they lay on eight devices, waited for each other without end."""
    sharded = aedr.make_sharded(lambda scale, x: [scale * x.sum((1, 2)) + i for i in range(20)])
    assert sharded.mesh.size == 8
    x = np.arange(3 * 4 * 4, dtype=np.float32).reshape(3, 4, 4)
    for _ in range(20):
        found = sharded(jnp.float32(2), x)
    for i, column in enumerate(found):
        assert len(column.sharding.device_set) == 1
        np.testing.assert_allclose(column, 2 * x.sum((1, 2)) + i)
