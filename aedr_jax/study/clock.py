"""How long a method takes: to compile, and for a batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax

from aedr_jax.scoring.sharding import Sharded, local_mesh

__all__ = ["Clock"]


class Clock(Sharded):
    """A compiled per-image function, as `make_sharded` gives it, that waits for its results and takes the time.

    Attributes:
      times: for each call, in order: the seconds that it took, and those that its program had taken to compile. Whoever
        calls takes them off.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__(fn, local_mesh())
        self.times: deque[tuple[float, float]] = deque()
        self._program, self.jitted, self.lanes = self.jitted, self._timed, 1
        self._compiled: dict[Any, tuple[Any, float]] = {}

    def _timed(self, *args: Any) -> Any:
        key = jax.tree.structure(args), *((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(args))
        if key not in self._compiled:  # models of one architecture share a program
            started = time.perf_counter()
            compiled = self._program.lower(*args).compile()
            self._compiled[key] = compiled, time.perf_counter() - started
        compiled, compiling = self._compiled[key]
        started = time.perf_counter()
        out = jax.block_until_ready(compiled(*args))
        self.times.append((time.perf_counter() - started, compiling))
        return out
