"""Programs side by side on one CPU device, each handed over by a thread of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["Lanes"]


class Lanes:
    """A jitted function of batches, parts of which are computed at once.

    XLA's CPU client runs the programs of one thread one after the other, and those of several threads side by side. So
    each lane is a thread, which does no more than start its programs.

    Args:
      jitted: its result is a pytree of arrays [n, ...].
      count: how many lanes.
    """

    def __init__(self, jitted: Any, count: int) -> None:
        self.count = count
        self._jitted, self._joined = jitted, jax.jit(_join, static_argnames="n")
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def __call__(self, parts: Sequence[tuple[Any, ...]], n: int) -> Any:
        """The first n images of the parts' results, still being computed.

        Args:
          parts: the function's arguments for each part, of the same shapes; at most as many as there are lanes.
          n: how many images; what is beyond filled up the last part.
        """
        *lanes, joining = _threads(self.count + 1)  # joined on a lane, a part of the next batch would wait for all
        program = self._program(self._jitted, parts[0])
        started: list[Future[Any]] = [lane.submit(program, *part) for lane, part in zip(lanes, parts, strict=False)]
        found = [one.result() for one in started]
        return joining.submit(self._program(self._joined, tuple(found), n=n), *found).result()

    def _program(self, jitted: Any, arguments: tuple[Any, ...], **static: Any) -> Callable[..., Any]:
        # Compiled by the caller's thread: what a `with` tells JAX (a precision, 64 bits) holds for this thread alone.
        # It is known by the jaxpr of nothing, which JAX keeps, one for each of its states.
        leaves, structure = jax.tree.flatten(arguments)
        key = jitted, _nothing.trace().jaxpr, structure, *((leaf.shape, leaf.dtype) for leaf in leaves), *static.items()
        if key not in self._compiled:
            self._compiled[key] = jitted.lower(*arguments, **static).compile()
        return self._compiled[key]


def _join(*parts: Any, n: int) -> Any:
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays)[:n], *parts)


@jax.jit
def _nothing() -> None:
    pass


@functools.cache
def _threads(count: int) -> tuple[ThreadPoolExecutor, ...]:
    return tuple(ThreadPoolExecutor(1, f"aedr-lane-{i}") for i in range(count))
