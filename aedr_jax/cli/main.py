"""`aedr`: the command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
from collections.abc import Sequence

from aedr_jax.cli.arguments import make_parser
from aedr_jax.cli.codes import FAILED, INTERRUPTED, OK, WRONG_CALL
from aedr_jax.cli.commands import COMMANDS
from aedr_jax.cli.printing import complain
from aedr_jax.compilation import keep_programs
from aedr_jax.errors import AedrError, RunError
from aedr_jax.interruption import interruptible

__all__ = ["console", "main"]

COMPUTING = ("attribute", "calibrate", "demo", "doctor", "evaluate", "report", "score", "verify")  # they compile much


def console() -> None:
    """`aedr` as a program: `main`, and an end that does not wait for what was interrupted.

    A batch that a device still computes can crash the interpreter while it is taken down; all that is finished is
    written by then. Where it was started without an output (`>&-`), for which Python has None, it says nothing there.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 -- as long as the program runs
    code = main()
    if code > 128:  # and the number of a signal
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    The exit code is 0 when every image got a row, 1 for a failed run, such as one in which no image could be scored, 2
    for a wrong call, 130 after Ctrl-C, and 128 + its number after SIGTERM or SIGHUP, which write what is finished too.
    """
    args = make_parser().parse_args(argv)
    args.typed = shlex.join(["aedr", *(sys.argv[1:] if argv is None else argv)])
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    with interruptible() as received:
        code = _run(args)
    return 128 + received[0] if received and code == INTERRUPTED else code


def _run(args: argparse.Namespace) -> int:
    try:
        if args.command in COMPUTING:
            keep_programs()
        return COMMANDS[args.command](args)
    except AedrError as error:
        complain(f"aedr {args.command}: {error}")
        return FAILED if isinstance(error, RunError) else WRONG_CALL
    except KeyboardInterrupt:
        complain(f"aedr {args.command}: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if os.environ.get("AEDR_DEBUG"):
            raise
        complain(f"aedr {args.command}: failed: {type(error).__name__}: {error}")
        print("(AEDR_DEBUG=1 shows where)", file=sys.stderr)
        return FAILED
