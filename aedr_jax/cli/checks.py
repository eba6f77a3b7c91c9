"""The commands that show and check again: `aedr report`, `aedr verify` and `aedr doctor`."""

from __future__ import annotations

import argparse
from typing import Any

from aedr_jax import api
from aedr_jax.cli.arguments import columns_of, setup_of
from aedr_jax.cli.codes import FAILED, OK
from aedr_jax.cli.printing import bar, counted, plain, tell_run
from aedr_jax.cli.verdicts import wrapped
from aedr_jax.scoring.tables import to_json

__all__ = ["CHECKS"]


def verify(args: argparse.Namespace) -> int:
    """`aedr verify`."""
    from aedr_jax.scoring.recorded import MOST_NAMED  # here: with it comes JAX, which no --help waits for

    found = api.verify(
        args.record,
        args.inputs,
        models=args.models,
        calibrations=args.calibrations,
        **columns_of(args),
        progress=bar,
        on_run=tell_run,
    )
    if args.json:
        values: dict[str, Any] = {**found._asdict(), "differences": [one._asdict() for one in found.differences]}
        print(to_json(values))
        return OK if found.holds else FAILED
    for difference in found.differences:
        print(wrapped(str(difference), "  | "))
    for note in found.notes:
        print(wrapped(f"note: {note}", "  | "))
    if found.unchecked:
        shown = found.unchecked[:MOST_NAMED]
        more = f" and {found.unchecked_count - len(shown)} more" if found.unchecked_count > len(shown) else ""
        print(wrapped(f"not given, so not checked: {', '.join(shown)}{more}", "  | "))
    count = f"{found.images} image{'s' if found.images != 1 else ''}"
    held = f"the record holds for {count}, alignments within {found.tolerance:g}"
    print(held if found.holds else f"the record does not hold ({count} measured again)")
    return OK if found.holds else FAILED


def doctor(args: argparse.Namespace) -> int:
    """`aedr doctor`."""
    if not args.json:
        plain("looking, and asking a miniature model about two images: ten seconds, most of them compiling")
    found = api.doctor()
    if args.json:
        checks = [check._asdict() for check in found.checks]
        print(to_json({"healthy": found.healthy, "seconds": found.seconds, "checks": checks}))
        return OK if found.healthy else FAILED
    signs = {True: "ok", False: "WRONG", None: "-"}
    for check in found.checks:
        print(wrapped(f"{signs[check.ok]:5}  {check.what}: {check.said}", "       "))
    print(f"\n{'all is well' if found.healthy else 'something is wrong'}; the self-test took {found.seconds:.0f} s")
    return OK if found.healthy else FAILED


def report(args: argparse.Namespace) -> int:
    """`aedr report`."""
    from aedr_jax.api.inventory import miniature_only

    made = api.report(
        args.inputs,
        args.out,
        models=args.models,
        calibrations=args.calibrations,
        false_names=args.false_names,
        search=args.search,
        most_images=args.most_images,
        setup=setup_of(args),
        command=args.typed,
        **columns_of(args),
        progress=bar,
        on_run=tell_run,
    )
    size = made.out.stat().st_size
    summary = {"out": str(made.out), **made.run.counts._asdict(), "pictured": made.pictured, "bytes": size}
    if args.json:
        print(to_json(summary))
    else:
        if first := miniature_only(made.run.rows):
            print(first)
        print(wrapped(f"{made.out}: {counted(made.run.counts)}, {made.pictured} pictured, {size / 2**20:.1f} MiB"))
    return FAILED if made.run.problems or made.run.nothing_scored else OK


CHECKS = (report, verify, doctor)
