"""Signals that ask a run to end, taken as Ctrl-C is: what is finished is written first."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["ENDING", "interruptible", "kept_handlers"]

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Within it SIGTERM and SIGHUP raise `KeyboardInterrupt`, the first that comes; later ones find rows being written.

    One that falls into a callback of the garbage collector (JAX has one) or into a `__del__`, where Python ignores
    exceptions, is raised again a moment later, Ctrl-C too. A handler that somebody else has set stays, as does what
    `nohup` has set; off the main thread nothing is done, since Python has handlers only there.

    Yields:
      What has come so far, empty or one signal.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    def again(ignored: Any) -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            hook(ignored)
            return
        number = received.pop() if received else signal.SIGINT
        later = threading.Timer(0.1, _signal_main_thread, (number,))
        later.daemon = True
        later.start()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = [number for number in ENDING if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, interrupt)
    hook, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield received
    finally:
        sys.unraisablehook = hook
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _signal_main_thread(number: int) -> None:
    if hasattr(signal, "pthread_kill"):  # wakes a call that waits, too
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:  # Windows
        _thread.interrupt_main(signal.Signals(number))


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
