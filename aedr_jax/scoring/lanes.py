"""Programs side by side on one CPU device, each handed over by a thread of its own.

Only the main thread has others start programs, and only while the interpreter runs: a callback of a program, which XLA
calls on a thread of its own or on a lane, would wait for the lane that it keeps busy.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, subjaxprs

from aedr_jax.compilation import Programs

__all__ = ["Lanes", "holds_a_callback", "may_be_taken"]

WATCHING = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")  # settings that compiled programs do not heed


def may_be_taken() -> bool:
    """Whether the caller may have lanes start programs: not from a callback, nor at the interpreter's end, nor where
    JAX is asked to run operation by operation or to look for NaN.

    >>> from aedr_jax.scoring.lanes import may_be_taken
    >>> with jax.disable_jit():
    ...     may_be_taken()
    False
    """
    main = threading.main_thread()
    watched = any(getattr(jax.config, name) for name in WATCHING)
    return threading.current_thread() is main and main.is_alive() and not watched


def holds_a_callback(jaxpr: Jaxpr) -> bool:
    """Whether a traced function calls Python somewhere, in a loop or a branch as well.

    >>> from aedr_jax.scoring.lanes import holds_a_callback
    >>> printing = lambda x: jax.lax.map(lambda y: jax.debug.print("{}", y), x)
    >>> [holds_a_callback(jax.make_jaxpr(fn)(jnp.ones(3)).jaxpr) for fn in (printing, jnp.sin)]
    [True, False]
    """
    names = {equation.primitive.name for equation in jaxpr.eqns}
    return any("callback" in name or name == "debug_print" for name in names) or any(
        map(holds_a_callback, subjaxprs(jaxpr))
    )


class Lanes:
    """Threads that start programs, each its own one after the other.

    XLA's CPU client runs what one thread starts in turn, and what several start side by side.

    Args:
      count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count, self._started, self._programs = count, 0, Programs()

    def next(self, most: int, jitted: Any, *arguments: Any) -> Any:
        """What a jitted function gives, still being computed on the one of so many lanes whose turn it is."""
        self._started += 1
        lane = _threads(self._count + 1)[self._started % most]
        program, _ = self._programs.of(jitted, arguments)
        return lane.submit(program, *arguments).result()

    def together(self, jitted: Any, parts: Sequence[tuple[Any, ...]], n: int) -> Any:
        """The first n images of a batch whose parts are computed at once, still being computed.

        Args:
          jitted: its result is a pytree of arrays [n, ...].
          parts: its arguments for each part, of the same shapes; at most as many as there are lanes.
          n: how many images; what is beyond filled up the last part.
        """
        *lanes, joining = _threads(self._count + 1)  # joined on a lane, the next batch's part there would wait for all
        program, _ = self._programs.of(jitted, parts[0])
        started: list[Future[Any]] = [lane.submit(program, *part) for lane, part in zip(lanes, parts, strict=False)]
        found = [one.result() for one in started]
        join, _ = self._programs.of(_join, found, n=n)
        return joining.submit(join, *found).result()


@functools.partial(jax.jit, static_argnames="n")
def _join(*parts: Any, n: int) -> Any:
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays)[:n], *parts)


@functools.cache
def _threads(count: int) -> tuple[ThreadPoolExecutor, ...]:
    return tuple(ThreadPoolExecutor(1, f"aedr-lane-{i}") for i in range(count))


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_threads.cache_clear)
