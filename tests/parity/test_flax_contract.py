"""`from_flax_diffusers` under the very tests that this package's own autoencoders pass: jit, vmap, grad, shard_map,
pmap and measure.

Those tests compare an autoencoder with itself, so that diffusers' fast variance needs no looser tolerance here; where
it does is in `test_flax_diffusers.py`.
"""

import diffusers
import jax
import numpy as np
import pytest
from conftest import tiny_architecture
from test_autoencoders import (  # noqa: F401
    test_gradients,
    test_jit_vmap_and_single_images_agree,
    test_protocol_and_shapes,
)
from test_signal import (  # noqa: F401
    test_a_score_does_not_depend_on_its_company,
    test_double_reconstruction_is_two_passes,
    test_gradient_of_the_signal_is_finite,
    test_measurement_by_hand,
    test_sharded_measure_has_no_collective,
)

import aedr_jax as aedr


@pytest.fixture(scope="session")
def autoencoder():
    config = {name: value for name, value in tiny_architecture("kl").items() if not name.startswith("_")}
    model = diffusers.FlaxAutoencoderKL(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})
    shapes = jax.eval_shape(lambda: model.init_weights(jax.random.key(0)))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        spread = 0.3 if name in ("bias", "scale") else 1 / np.sqrt(np.prod(leaf.shape[:-1]))
        return jax.numpy.asarray(spread * rng.normal(size=leaf.shape) + (name == "scale"), "float32")

    return aedr.from_flax_diffusers(model, jax.tree_util.tree_map_with_path(draw, shapes))


def test_shard_map_and_pmap(autoencoder, images):
    """Eight images over eight devices, as one program each way: additions in another order."""

    def reconstruct(ae, x):
        return ae.decode(ae.encode(x))

    expected = jax.jit(reconstruct)(autoencoder, images)
    np.testing.assert_allclose(aedr.make_sharded(reconstruct)(autoencoder, images), expected, atol=1e-5)
    mapped = jax.pmap(reconstruct, in_axes=(None, 0))(autoencoder, images[:, None])
    np.testing.assert_allclose(mapped[:, 0], expected, atol=1e-5)
