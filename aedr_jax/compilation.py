"""How programs are compiled, and kept: in memory those used last, and on disk, so that only the first run on a machine
waits for its compiler."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aedr_jax.files import cache_folder

__all__ = ["MOST_BYTES", "Programs", "compiler_options", "cpus", "default_folder", "jit_network", "keep_programs"]

MOST_BYTES = 1 << 30  # of programs on disk; those not used for longest go first
MOST_PROGRAMS = 64  # in memory, of one `Programs`; likewise
LEAST_SECONDS = 0.1  # of compiling, below which a program is not kept

# YNNPACK does convolutions of few channels on one thread, so XLA's own are as fast or faster where a device has more:
# 1.2 times for eight images through a miniature model, 1.06 for one through Stable Diffusion's. With one thread they
# are slower by half, so they are left to it where as many programs run at once as there are CPUs. Products and sums
# always are, as by default.
ON_CPUS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
}


def compiler_options(platform: str, at_once: int = 1) -> dict[str, str]:
    """What `jax.jit(..., compiler_options=...)` is given for networks; nothing where this XLA does not know it.

    Args:
      platform: of the devices, such as `jax.default_backend()`.
      at_once: on how many devices the program runs, or how many such programs on one.

    >>> from aedr_jax.compilation import compiler_options
    >>> compiler_options("gpu")
    {}
    """
    if platform != "cpu" or cpus() <= at_once or not _is_known(tuple(ON_CPUS.items())):
        return {}
    return dict(ON_CPUS)


@functools.cache
def _is_known(options: tuple[tuple[str, str], ...]) -> bool:
    import jax

    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda: 0, compiler_options=dict(options))()
    except jax.errors.JaxRuntimeError:  # an XLA before or after it
        return False
    return True


def jit_network(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """`jax.jit` of a function that runs a network, with `compiler_options` of the default device's platform.

    Which that is is asked for at the first call: at import no device may be started. To be called as it is, not within
    another `jit` or `grad`, since options belong to the whole program.

    >>> from aedr_jax.compilation import jit_network
    >>> double = jit_network(lambda x, times: x * times, static_argnames="times")
    >>> float(double(1.5, times=2))
    3.0
    """

    @functools.cache
    def jitted() -> Any:
        import jax

        return jax.jit(function, compiler_options=compiler_options(jax.default_backend()), **settings)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return jitted()(*arguments, **named)

    return call


class Programs:
    """Compiled programs of jitted functions, to be called where `jax.jit` would look at its arguments again.

    >>> from aedr_jax.compilation import Programs
    >>> program, seconds = Programs().of(jax.jit(lambda x: 2 * x), [jnp.float32(3)])
    >>> float(program(jnp.float32(4))), seconds > 0
    (8.0, True)
    """

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[Callable[..., Any], float]] = {}  # the one used last at the end

    def of(self, jitted: Any, arguments: Sequence[Any], **static: Any) -> tuple[Callable[..., Any], float]:
        """The program for arguments like these, and the seconds that it took to compile.

        Args:
          jitted: a function of `jax.jit`.
          arguments: by place; pytrees of arrays.
          static: by name, what is static.
        """
        import jax

        # Compiled by the caller's thread: what a `with` tells JAX (a precision, 64 bits) holds for this thread alone.
        # It is known by the jaxpr of nothing, which JAX keeps, one for each of its states.
        leaves, structure = jax.tree.flatten(arguments)
        key = jitted, _nothing().trace().jaxpr, structure, *map(jax.typeof, leaves), *static.items()
        found = self._kept.pop(key, None)
        if found is None:
            started = time.perf_counter()
            compiled = jitted.lower(*arguments, **static).compile()
            found = compiled, time.perf_counter() - started
            if len(self._kept) == MOST_PROGRAMS:
                del self._kept[next(iter(self._kept))]
        self._kept[key] = found
        return found


@functools.cache
def _nothing() -> Any:
    import jax

    return jax.jit(lambda: None)


def cpus() -> int:
    """How many CPUs this process may use, which may be fewer than the machine has: those that it may run on, and no
    more than the time that its container is granted keeps busy.

    >>> from aedr_jax.compilation import cpus
    >>> cpus() >= 1
    True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _granted(Path("/sys/fs/cgroup")))


@functools.cache
def _granted(folder: Path) -> int:
    """CPUs' worth of time, rounded up, by Linux's control groups (2 or 1) as a container sees them: its own at the
    root. What is granted to a group below it, such as a service's, is not looked for."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):  # no such files; "max" is no number
            quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
            if quota > 0:
                return -(-quota // period)
    return sys.maxsize


def default_folder() -> Path:
    """Where programs lie by default: `programs` in the package's cache folder."""
    return cache_folder() / "programs"


def keep_programs(folder: Path | None = None) -> Path | None:
    """Have JAX keep what it compiles in a folder, and take it from there. The command line does this, no import does.

    Whoever can write there can have this user run their code, so the folder is readable and writable for its owner
    alone, and one of somebody else is not used. A cache that was chosen already (`JAX_COMPILATION_CACHE_DIR`), or
    switched off (`JAX_ENABLE_COMPILATION_CACHE=false`), stays as it is.

    Args:
      folder: None: `default_folder()`.

    Returns:
      The folder in use; None where there is none.
    """
    import jax

    chosen = jax.config.values  # of the environment, or of the caller's `jax.config.update`
    if not chosen["jax_enable_compilation_cache"]:
        return None
    if chosen["jax_compilation_cache_dir"]:
        return Path(chosen["jax_compilation_cache_dir"])
    try:
        folder = folder or default_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = folder.stat()
        if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            return None
    except (OSError, RuntimeError):  # no home, or nothing can be written there: it costs time and no more
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder
