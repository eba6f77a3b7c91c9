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

__all__ = ["ENDING", "deferred", "interruptible", "kept_handlers"]

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


_held = 0  # how many `deferred` are open, and which signals have come since
_waiting: list[int] = []


@contextmanager
def deferred() -> Iterator[None]:
    """Within it, inside `interruptible`, a signal that asks the run to end waits, and is raised at its end.

    Around calls of native code, so that no exception of a handler passes through it, and nothing that was sent to a
    device is forgotten. A second Ctrl-C does not wait.

    Raises:
      KeyboardInterrupt: at the end, where one came.
    """
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if _waiting and not _held:
        _waiting.clear()
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Within it SIGTERM and SIGHUP raise `KeyboardInterrupt`, the first that comes; later ones find rows being written.
    Where `deferred` is open, they and Ctrl-C wait for its end.

    One that falls into a callback of the garbage collector (JAX has one) or into a `__del__`, where Python ignores
    exceptions, is raised again a moment later, Ctrl-C too. A handler that somebody else has set stays, as does what
    `nohup` has set; off the main thread nothing is done, since Python has handlers only there.

    Yields:
      What has come so far, empty or one signal.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if received:
            return
        received.append(number)
        if not _held:
            raise KeyboardInterrupt
        _waiting.append(number)

    def control_c(number: int, frame: FrameType | None) -> None:
        if not _held or _waiting:
            raise KeyboardInterrupt
        _waiting.append(number)

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
    own_control_c = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if own_control_c:
        signal.signal(signal.SIGINT, control_c)
    hook, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield received
    finally:
        sys.unraisablehook = hook
        _waiting.clear()
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        if own_control_c:
            signal.signal(signal.SIGINT, signal.default_int_handler)


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
