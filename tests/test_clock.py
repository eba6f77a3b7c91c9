"""Times of a compiled program: one for each call, and one compilation for each shape."""

import jax
import jax.numpy as jnp
import numpy as np

from aedr_jax.scoring.sharding import make_sharded
from aedr_jax.study.clock import Clock


def test_a_clock_is_a_program_that_takes_the_time():
    traces = []

    def fn(weight, batch):
        traces.append(batch.shape)
        return {"sum": weight * batch.sum(1)}

    clock = Clock(fn)
    large, small = np.arange(12.0, dtype=np.float32).reshape(4, 3), np.ones((2, 5), np.float32)
    for weight, batch in ((2.0, large), (3.0, large), (2.0, small)):
        found = clock(clock.replicate(jnp.float32(weight)), batch)
        np.testing.assert_array_equal(found["sum"], make_sharded(lambda w, x: w * x.sum(1))(jnp.float32(weight), batch))
    assert len(traces) == 2  # another weight of the same shape shares the program
    times = [clock.times.popleft() for _ in range(3)]
    assert all(seconds > 0 and compiling > 0 for seconds, compiling in times)
    assert times[0][1] == times[1][1] != times[2][1]
    assert not clock.times


def test_a_program_that_was_timed_is_taken_for_its_own_types_alone():
    """A number of Python's makes a weak type, which promotes otherwise; 64 bits are a state of JAX."""
    clock = Clock(lambda w, x: w * x)
    x = jnp.ones((4, 3), jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        for weight, dtype in ((jnp.float32(2), jnp.float32), (jnp.asarray(2.0), jnp.bfloat16)):
            assert clock(weight, x).dtype == dtype
    wide = Clock(lambda w, x: x.astype(float))
    for is_double in (False, True):
        with jax.enable_x64(is_double):
            assert wide(jnp.float32(1), np.ones(4, np.float32)).dtype == (np.float64 if is_double else np.float32)
