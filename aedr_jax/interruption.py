"""Signals that ask a run to end, taken as Ctrl-C is: what is finished is written first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ENDING", "interruptible", "kept_handlers"]

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Within it SIGTERM and SIGHUP raise `KeyboardInterrupt`, the first that comes; later ones find rows being written.

    A handler that somebody else has set stays, as does what `nohup` has set; off the main thread nothing is done, since
    Python has handlers only there.

    Yields:
      What has come so far, empty or one signal.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.SIG_DFL for number in ENDING if signal.getsignal(number) == signal.SIG_DFL}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Afterwards this process has the handlers that it had: Ray and `jax.distributed` set their own, which end it."""
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # one that was not set from Python cannot be set again
                    signal.signal(number, handler)
