"""Any number of devices gives the same measurement; that there is no communication is found as it should be."""

import jax
import numpy as np
import pytest
from conftest import tiny_autoencoder

import aedr_jax as aedr
from aedr_jax.errors import SourceError
from aedr_jax.sharding import pod_share

DEVICES = [1, 2, 4, 8]


def mesh(devices):
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((devices,), ("data",), axis_types=auto, devices=jax.devices()[:devices])


def test_the_same_measurement_on_1_2_4_and_8_devices(images):
    ae = tiny_autoencoder("kl")
    found = {}
    for devices in DEVICES:
        found[devices] = aedr.make_sharded(aedr.measure, mesh=mesh(devices))(ae, images)
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
