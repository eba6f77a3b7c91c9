"""Compiled programs are kept where nobody else can put some."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of

import aedr_jax as aedr
from aedr_jax import compilation
from aedr_jax.compilation import Programs, compiler_options, default_folder, keep_programs

COMPILE = """
import sys
from pathlib import Path
from aedr_jax.compilation import keep_programs
print(keep_programs(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: jnp.sort(x) @ jnp.cos(x))(jnp.ones(9)).block_until_ready()
"""


def run(*arguments, **environment):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")} | environment
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, *map(str, arguments)],
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_programs_are_kept_in_the_users_cache_for_its_owner_alone(tmp_path):
    folder = tmp_path / "caches" / "aedr_jax" / "programs"
    assert run(XDG_CACHE_HOME=str(tmp_path / "caches")) == str(folder)
    assert any(file.name.startswith("jit_") for file in folder.iterdir())
    assert folder.stat().st_mode & 0o077 == 0


def test_a_cache_that_others_can_write_is_not_used(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert run(shared) == "None"
    assert not list(shared.iterdir())


@pytest.mark.parametrize(
    ("environment", "used"),
    [({"JAX_ENABLE_COMPILATION_CACHE": "false"}, "None"), ({"JAX_COMPILATION_CACHE_DIR": "/tmp/of-the-user"}, None)],
)
def test_what_the_user_chose_stays(tmp_path, monkeypatch, environment, used):
    chosen = {**jax.config.values, "jax_compilation_cache_dir": None}
    values = {"JAX_ENABLE_COMPILATION_CACHE": "jax_enable_compilation_cache"}
    for name, value in environment.items():
        chosen[values.get(name, name.lower())] = False if value == "false" else value
    monkeypatch.setattr(type(jax.config), "values", chosen, raising=False)
    expected = used or environment.get("JAX_COMPILATION_CACHE_DIR")
    assert str(keep_programs(tmp_path / "programs")) == expected
    assert not (tmp_path / "programs").exists()


def test_no_home_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "caches"))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(
        type(jax.config), "values", {**jax.config.values, "jax_compilation_cache_dir": None}, raising=False
    )
    assert default_folder() == tmp_path / "file" / "caches" / "aedr_jax" / "programs"
    assert keep_programs() is None


def convolution(kernel, x):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.skipif(not compiler_options("cpu"), reason="one CPU, or an XLA that knows no such option")
@pytest.mark.parametrize("devices", [1, 2])
def test_convolutions_are_left_to_one_thread_where_a_device_has_no_more(devices, monkeypatch):
    """Where YNNPACK has a convolution, it has none of `make_sharded` on fewer devices than CPUs."""
    monkeypatch.setattr(compilation, "cpus", lambda: 2)
    kernel, x = jnp.ones((3, 3, 64, 64)), jnp.ones((devices, 8, 8, 64))
    if "ynn" not in jax.jit(convolution).lower(kernel, x).compile().as_text():
        pytest.skip("this XLA does all convolutions itself")
    sharded = aedr.make_sharded(convolution, mesh=mesh_of(devices))
    program = sharded.jitted.lower(sharded.replicate(kernel), (x,)).compile().as_text()
    assert ("ynn" in program) == (devices == 2)


def test_an_option_that_is_not_known_is_not_given(monkeypatch):
    monkeypatch.setattr(compilation, "ON_CPUS", {"xla_cpu_no_such_option": "1"})
    monkeypatch.setattr(compilation, "cpus", lambda: 2)
    assert compiler_options("cpu") == {}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "?"}, None),
        ({}, None),
    ],
)
def test_a_container_may_use_as_many_cpus_as_its_time_keeps_busy(tmp_path, files, expected):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert compilation._granted(tmp_path) == (expected or sys.maxsize)


@pytest.mark.parametrize(("allowed", "granted", "expected"), [(4, 2, 2), (2, 4, 2), (3, sys.maxsize, 3)])
def test_cpus_are_those_allowed_and_no_more_than_are_granted(monkeypatch, allowed, granted, expected):
    monkeypatch.setattr(compilation.os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    monkeypatch.setattr(compilation, "_granted", lambda folder: granted)
    assert compilation.cpus() == expected


def test_of_programs_in_memory_those_used_last_are_kept(monkeypatch):
    monkeypatch.setattr(compilation, "MOST_PROGRAMS", 2)
    programs, double = Programs(), jax.jit(lambda x: 2 * x)

    def of(length):
        program, seconds = programs.of(double, [np.ones(length, np.float32)])
        np.testing.assert_array_equal(program(np.ones(length, np.float32)), np.full(length, 2.0))
        assert seconds > 0
        return program, seconds

    first, second = of(1), of(2)
    assert of(1) == first
    of(3)
    assert of(1) == first  # used after the second one
    assert of(2) != second


def test_a_program_is_of_its_static_arguments_too():
    programs, scaled = Programs(), jax.jit(lambda x, times: x * times, static_argnames="times")
    found = [programs.of(scaled, [jnp.ones(3)], times=times)[0](jnp.ones(3))[0] for times in (2, 3, 2)]
    assert [float(one) for one in found] == [2.0, 3.0, 2.0]
