"""How long a method takes: to compile, and for a batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax

from aedr_jax.compilation import Programs
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
        self._programs = Programs()
        self.jitted, self.lanes, self._alone = self._timed, 1, self

    def _timed(self, *args: Any) -> Any:
        program, compiling = self._programs.of(self._whole, args)  # models of one architecture share it
        started = time.perf_counter()
        out = jax.block_until_ready(program(*args))
        self.times.append((time.perf_counter() - started, compiling))
        return out
