"""Parts of a batch, computed at once on one CPU device, are what the whole is."""

import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, tiny_autoencoder

import aedr_jax as aedr
from aedr_jax import compilation
from aedr_jax.compilation import Programs
from aedr_jax.inputs.decoding import Decoded
from aedr_jax.scoring import engine as scoring_engine
from aedr_jax.scoring import lanes, sharding
from aedr_jax.scoring.engine import Engine
from aedr_jax.study import clock

ONE = mesh_of(1)


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    monkeypatch.setattr(compilation, "cpus", lambda: 2)
    monkeypatch.setattr(sharding, "cpus", lambda: 2)


def traced(fn):
    """A function, and the numbers of images that it was traced with."""
    sizes = []

    def noted(weights, x, **named):
        sizes.append(len(x))
        return fn(weights, x, **named)

    return noted, sizes


def decoded(pixels):
    side, number = len(pixels), pixels[0, 0, 0]
    return Decoded(str(number), "", f"{number:064x}", "PNG", side, side, pixels[..., 0], (pixels,))


def test_a_measurement_in_lanes_is_that_of_the_whole(images):
    ae = tiny_autoencoder("functions")
    keys = jax.random.split(jax.random.key(0), 5)
    in_lanes, sizes = traced(aedr.measure)
    found = aedr.make_sharded(in_lanes, mesh=ONE)(ae, images[:5], key=keys)
    assert set(sizes) == {3}  # 3 and 2, filled up
    whole = aedr.measure(ae, images[:5], key=keys)
    for column, one in zip(found, whole, strict=True):
        np.testing.assert_allclose(column, one, rtol=2e-5)  # another order of float32 sums, as in test_sharding.py


@pytest.mark.parametrize(("n", "part"), [(1, 1), (2, 1), (3, 2), (4, 2), (7, 4)])
def test_as_many_parts_as_cpus_and_fewer_images_whole(n, part):
    fn, sizes = traced(lambda w, x: {"sum": w * x.sum(1), "image": x})
    sharded = aedr.make_sharded(fn, mesh=ONE)
    x = np.arange(3.0 * n, dtype=np.float32).reshape(n, 3)
    for kind in (np.asarray, jnp.asarray):
        found = sharded(jnp.float32(2), kind(x))
        np.testing.assert_array_equal(found["sum"], 2 * x.sum(1))
        np.testing.assert_array_equal(found["image"], x)
    assert sizes == [part]  # a second call of the same shapes compiles nothing


@pytest.mark.parametrize("cpus", [3, 16])
def test_a_batch_that_fills_no_lane_for_each_cpu(cpus, monkeypatch):
    """Seventeen images for 16 CPUs are nine parts of two, none of them of padding alone."""
    monkeypatch.setattr(sharding, "cpus", lambda: cpus)
    x = np.arange(17.0, dtype=np.float32)
    fn, sizes = traced(lambda w, x: w * x)
    np.testing.assert_array_equal(aedr.make_sharded(fn, mesh=ONE)(jnp.float32(2), x), 2 * x)
    assert sizes == [{3: 6, 16: 2}[cpus]]


def test_parts_run_at_once(monkeypatch):
    """Each waits for the other, in vain where one runs after the other."""
    monkeypatch.setattr(sharding, "holds_a_callback", lambda jaxpr: False)  # or they would not
    both = threading.Barrier(2)

    def meet(x):
        both.wait(timeout=20)
        return x

    def fn(weights, x):
        return jax.pure_callback(meet, jax.ShapeDtypeStruct(x.shape, x.dtype), weights * x)

    found = aedr.make_sharded(fn, mesh=ONE)(jnp.float32(2), np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(found, np.full((2, 3), 2.0))


def test_lanes_compute_under_the_callers_settings():
    """A setting in a `with` holds for one thread; a program that was compiled under another is not taken."""
    sharded = aedr.make_sharded(lambda w, x: x.astype(float), mesh=ONE)
    x = np.ones(4, np.float32)
    for is_double in (False, True, False):
        with jax.enable_x64(is_double):
            assert sharded(jnp.float32(1), x).dtype == (np.float64 if is_double else np.float32)


def test_what_is_traced_is_left_to_its_tracer():
    fn, sizes = traced(lambda w, x: w * x.sum(1))
    found = jax.vmap(lambda x: aedr.make_sharded(fn, mesh=ONE)(jnp.float32(2), x))(jnp.ones((3, 4, 5)))
    np.testing.assert_array_equal(found, np.full((3, 4), 10.0))
    assert sizes == [4]


def test_on_several_devices_there_are_no_lanes():
    assert aedr.make_sharded(lambda w, x: x, mesh=mesh_of(2)).lanes == 1
    assert aedr.make_sharded(lambda w, x: x, mesh=ONE).lanes == 2


def test_a_clock_times_whole_batches(monkeypatch):
    monkeypatch.setattr(clock, "local_mesh", lambda: ONE)
    timed = clock.Clock(lambda w, x: w * x)
    np.testing.assert_array_equal(timed(jnp.float32(2), np.ones(4, np.float32)), np.full(4, 2.0))
    assert len(timed.times) == 1


def test_calls_beside_each_other_are_of_the_whole_program_and_take_lanes_in_turn(monkeypatch):
    threads = []

    def started_by(program, *arguments):
        threads.append(threading.current_thread().name)
        return program(*arguments)

    fn, sizes = traced(lambda w, x: w * x)
    sharded = aedr.make_sharded(fn, mesh=ONE)
    of = Programs.of
    monkeypatch.setattr(Programs, "of", lambda *given: (functools.partial(started_by, of(*given)[0]), 0.0))
    found = [sharded.beside(9, jnp.float32(i), np.ones((1, 3), np.float32)) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate(found)[:, 0], np.arange(4.0))
    assert threads[0] != threads[1]
    assert threads[:2] == threads[2:]
    assert sizes == [1]


@pytest.mark.parametrize(("side", "at_once"), [(8, 2), (1024, 1)])
def test_an_engine_computes_small_images_beside_each_other(side, at_once, monkeypatch):
    """Not large ones, which would take the memory of several; and in the order in which they come."""
    engine = Engine(aedr.make_sharded(lambda w, batch: w * batch.pixels[:, 0, 0, 0], mesh=ONE), [jnp.uint8(1)])
    monkeypatch.setattr(engine, "batch_size", 1)  # of one device, as a user's CPU is
    events = []
    start = engine._program._lanes.next
    monkeypatch.setattr(engine._program._lanes, "next", lambda *given: events.append(given[0]) or start(*given))
    fetch = scoring_engine._fetch
    monkeypatch.setattr(scoring_engine, "_fetch", lambda *given: events.append("fetch") or fetch(*given))
    stream = [decoded(np.full((side, side, 3), number, np.uint8)) for number in range(4)]
    found = [(photo.id, int(column)) for batch in engine(stream) for photo, column in batch.images()]
    assert found == [(str(number), number) for number in range(4)]
    # One more than are computed at once is sent, and waits for a lane.
    in_turn = {1: [1, 1, "fetch", 1, "fetch", 1, "fetch", "fetch"], 2: [2, 2, 2, "fetch", 2, "fetch", "fetch", "fetch"]}
    assert events == in_turn[at_once]


def identity_by_callback(x):
    return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="expand_dims")


@pytest.mark.parametrize(
    "called",
    [
        identity_by_callback,
        jax.vmap(identity_by_callback),
        lambda x: jax.lax.map(identity_by_callback, x),
        lambda x: jax.lax.cond(x[0, 0] > 0, identity_by_callback, lambda x: identity_by_callback(x), x),
        jax.checkpoint(jax.jit(identity_by_callback)),
        lambda x: jax.debug.print("{}", x) or x,
        lambda x: jax.debug.callback(lambda x: None, x) or x,
    ],
)
def test_a_program_that_calls_python_takes_no_lanes(called):
    """Two callbacks at once can take all threads of XLA's, and then wait for each other's arguments for ever."""
    fn, sizes = traced(lambda w, x: w * called(x))
    sharded = aedr.make_sharded(fn, mesh=ONE)
    x = np.ones((4, 3), np.float32)
    assert sharded.calls_back(jnp.float32(2), x)
    np.testing.assert_array_equal(sharded(jnp.float32(2), x), 2 * x)
    assert sizes[-1] == 4
    np.testing.assert_array_equal(sharded.beside(2, jnp.float32(2), x[:1]), 2 * x[:1])


def test_on_several_cpu_devices_it_takes_one():
    fn, sizes = traced(lambda w, x: w * identity_by_callback(x))
    sharded = aedr.make_sharded(fn, mesh=mesh_of(2))
    x = np.arange(9, dtype=np.float32).reshape(3, 3)
    for weights in (jnp.float32(2), sharded.replicate(jnp.float32(2))):
        found = sharded(weights, x)
        np.testing.assert_array_equal(found, 2 * x)
        assert len(found.devices()) == 1
    assert (sizes[0], sizes[-1]) == (2, 3)  # looked at as a device's part, run as a whole


@pytest.mark.parametrize("first", [0, 1])
def test_an_engine_runs_nothing_beside_a_program_that_calls_python(first, monkeypatch):
    """The other model's neither, whose threads the callback might wait for."""

    def fn(weights, batch):
        x = batch.pixels[:, 0, 0, 0]
        return weights["scale"] * (identity_by_callback(x) if "calls" in weights else x)

    models = [{"scale": jnp.uint8(1), "calls": jnp.uint8(0)}, {"scale": jnp.uint8(2)}]
    engine = Engine(aedr.make_sharded(fn, mesh=ONE), models[first:] + models[:first], batch_size=2)
    events = []
    ready = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: events.append("ready") or ready(x))
    monkeypatch.setattr(lanes.Lanes, "next", lambda *given: pytest.fail("a lane was taken"))
    together = lanes.Lanes.together
    monkeypatch.setattr(lanes.Lanes, "together", lambda *given: events.append("parts") or together(*given))
    stream = [decoded(np.full((8, 8, 3), number, np.uint8)) for number in range(4)]
    found = [[column.tolist() for column in batch.columns] for batch in engine(stream)]
    scales = [1, 2] if first == 0 else [2, 1]
    assert found == [[[scale * number for number in pair] for scale in scales] for pair in ((0, 1), (2, 3))]
    assert events == 2 * (["ready", "parts", "ready"] if first == 0 else ["parts", "ready", "ready"])


def test_a_callback_that_measures_waits_for_no_lane():
    inner = aedr.make_sharded(lambda w, x: w * x, mesh=ONE)

    def call(x):
        return np.asarray(inner(jnp.float32(3), np.asarray(x)))

    def fn(weights, x):
        return jax.pure_callback(call, jax.ShapeDtypeStruct(x.shape, x.dtype), weights * x)

    found = aedr.make_sharded(fn, mesh=ONE)(jnp.float32(2), np.ones((4, 3), np.float32))
    np.testing.assert_array_equal(found, np.full((4, 3), 6.0))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:os.fork")
def test_threads_are_not_those_of_a_parent():
    before = lanes._threads(3)
    child = os.fork()
    if not child:
        os._exit(lanes._threads(3) is before)
    assert os.waitpid(child, 0)[1] == 0
    assert lanes._threads(3) is before


@pytest.mark.parametrize("setting", [jax.disable_jit, jax.debug_nans, jax.debug_infs])
def test_who_looks_for_faults_gets_one_program(setting):
    fn, sizes = traced(lambda w, x: w * x)
    with setting(True):
        aedr.make_sharded(fn, mesh=ONE)(jnp.float32(2), np.ones((4, 3), np.float32))
    assert sizes[0] == 4


def test_other_threads_leave_the_lanes_alone():
    fn, sizes = traced(lambda w, x: w * x)
    sharded = aedr.make_sharded(fn, mesh=ONE)
    with ThreadPoolExecutor(1) as other:
        other.submit(sharded, jnp.float32(2), np.ones((4, 3), np.float32)).result()
        other.submit(sharded.beside, 2, jnp.float32(2), np.ones((1, 3), np.float32)).result()
    assert sizes == [4, 1]


@pytest.mark.parametrize("first", ["weak", "strong"])
def test_weak_types_have_programs_of_their_own(first):
    sharded = aedr.make_sharded(lambda w, x: w * x, mesh=ONE)
    x = jnp.ones((4, 3), jnp.bfloat16)
    weights = {"weak": jnp.asarray(2.0), "strong": jnp.float32(2)}
    expected = {"weak": jnp.bfloat16, "strong": jnp.float32}
    assert weights["weak"].weak_type
    with jax.numpy_dtype_promotion("standard"):
        for kind in (first, *(kind for kind in weights if kind != first)):
            assert sharded(weights[kind], x).dtype == expected[kind]


def test_arrays_on_the_device_are_cut_there():
    sharded = aedr.make_sharded(lambda w, x: w * x, mesh=ONE)
    weights, x = sharded.replicate(jnp.float32(2)), jax.device_put(jnp.ones((4, 3)), jax.devices()[0])
    sharded(weights, x)
    with jax.transfer_guard("disallow"):
        sharded(weights, x)


def test_few_programs_are_kept(monkeypatch):
    monkeypatch.setattr(compilation, "MOST_PROGRAMS", 3)
    sharded = aedr.make_sharded(lambda w, x: w * x, mesh=ONE)
    for side in range(1, 6):
        sharded(jnp.float32(2), np.ones((2, side), np.float32))
    assert len(sharded._lanes._programs._kept) == 3
