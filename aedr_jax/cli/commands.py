"""The commands of `aedr`: each is a call of `aedr_jax.api`, and what is printed of its result."""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aedr_jax import api
from aedr_jax.cli.arguments import columns_of, limits_of, setup_of
from aedr_jax.cli.checks import CHECKS
from aedr_jax.cli.codes import FAILED, INTERRUPTED, OK
from aedr_jax.cli.printing import (
    bar,
    complain,
    counted,
    plain,
    print_table,
    said_warnings,
    tell_passed_over,
    tell_run,
)
from aedr_jax.cli.verdicts import legend, print_verdicts, wrapped
from aedr_jax.errors import RunError, SourceError
from aedr_jax.scoring.tables import as_record, check_output, for_terminal, to_json, write_csv

if TYPE_CHECKING:
    from aedr_jax.api import Run
    from aedr_jax.scoring.job import Finished

__all__ = ["COMMANDS"]

FOLDER = ("shard", "engine", "address", "resource")  # options of runs into a folder


def demo(args: argparse.Namespace) -> int:
    """`aedr demo`."""
    from aedr_jax.api.inventory import MINIATURE_ONLY
    from aedr_jax.decision.attribution import CAVEAT

    found = api.demo(args.n, out=args.out, progress=bar)
    if not found.photographs:
        print('no photographs: pip install "aedr-jax[demo]" brings some', file=sys.stderr)
    _say(args, f"{MINIATURE_ONLY}\n")
    print_verdicts(found.verdicts, as_json=args.json)
    result = found.outcome
    counts = (
        f"{result.right} of {len(found.verdicts)} right, {result.ambiguous} more name the right model beside another, "
        f"{result.wrong} wrong"
    )
    _say(args, f"\n{wrapped(counts)}\n{legend(found.verdicts)}{wrapped(CAVEAT)}")
    return OK


def models(args: argparse.Namespace) -> int:
    """`aedr models`."""
    from aedr_jax.autoencoders.registry import REGISTRY, calibration_file

    found = api.models(args.calibrations)
    for file in found.no_calibrations:
        complain(f"{file}: no calibration")
    if args.json:
        print(json.dumps([dataclasses.asdict(record) for record in found.models], indent=1))
        return OK
    rows = []
    classes = list(dict.fromkeys(record.autoencoder or "-" for record in found.models))
    for record in sorted(found.models, key=lambda record: classes.index(record.autoencoder or "-")):
        missing = "to download" if record.model in REGISTRY else "-"
        missing = "gated" if record.gated else "to save apart" if record.saved_apart else missing
        beside = str(calibration_file(record.model))
        files = ["here" if file == beside else file for file in record.calibrations]
        rows.append(
            {
                "autoencoder": record.autoencoder or "-",
                "latents": f"{record.latent_channels}c /{record.factor}" if record.factor else "-",
                "model": record.model,
                "native_size": record.native_size or "-",
                "weights": "here" if record.weights else missing,
                "calibration": ", ".join(files) or "-",
                "family": (record.family or "")[:12] or (f"{record.same_as}'s?" if record.same_as else "-"),
                "source": record.source or "-",
            }
        )
    print_table(rows, tuple(rows[0]))
    print("\nfamily: of the weights that are here; x's?: somebody says they are x's, and only equal families show it")
    print("source: of the weights; what the facts about a model are from is in --json (facts)")
    if any(record.saved_apart and not record.weights for record in found.models):
        print("to save apart: a part of a whole model, which docs/families.md says how to save; it is not downloaded")
    return OK


def convert(args: argparse.Namespace) -> int:
    """`aedr convert`."""
    if args.pickle or args.lpips:
        leave_out = ("classifier.",) if args.lpips else ()
        for file, names in api.convert_pickles(args.source, args.out, leave_out=leave_out):
            print(json.dumps({"file": str(file), "tensors": names}) if args.json else f"{file}: {len(names)} tensors")
        return OK
    manifest = api.convert(args.source, args.out, revision=args.revision)
    if args.json:
        print(json.dumps(manifest, indent=1))
    else:
        file, family = manifest["source_file"], manifest["weights_hash"][:12]
        print(f"{args.out}: {manifest['source']} ({file}), family {family}; loads offline from here")
    return OK


def generate(args: argparse.Namespace) -> int:
    """`aedr generate`."""
    from aedr_jax.api.making import takes_prompts
    from aedr_jax.autoencoders.registry import REGISTRY

    if args.prompts and args.model in REGISTRY and not takes_prompts(args.model):
        print(f"{args.model} takes no text: the prompts are ignored", file=sys.stderr)
    names = ("n", "steps", "guidance", "size", "seed", "dtype", "pipeline", "revision", "batch_size", "device")
    options: dict[str, Any] = {name: getattr(args, name) for name in names}
    try:
        made = api.generate(args.model, args.out, prompts=args.prompts or (), **options, progress=bar)
    except KeyboardInterrupt:
        complain("interrupted: finished images are kept; the same command makes the rest")
        return INTERRUPTED
    images = made.made + made.kept
    summary = {"out": args.out, "model": args.model, "images": images, **made._asdict()}
    text = f"{args.out}: {images} images of {args.model}, {made.made} made, {made.kept} there already"
    print(json.dumps(summary) if args.json else text)
    return OK


def score(args: argparse.Namespace) -> int:
    """`aedr score`."""
    out = check_output(args.out) if args.out else None
    if out and out.suffix == "":
        return _score_folder(args, out)
    _refuse(args, (*FOLDER, "workers"), "needs a folder as --out (a name without an ending)")
    options: dict[str, Any] = {"setup": setup_of(args), "out": out, "command": args.typed, **columns_of(args)}
    run = api.score(args.inputs, args.model, **options, progress=bar)
    tell_run(run)
    records = [as_record(row) for row in run.rows]
    if out:
        summary = {"out": str(out), **run.counts._asdict()}
        print(json.dumps(summary) if args.json else f"{out}: {counted(run.counts)}")
    elif args.json:
        for record in records:
            print(to_json(record))
    elif records:
        write_csv(records, sys.stdout, printed=True, ending="\n")
    return _code(run)


def _score_folder(args: argparse.Namespace, out: Path) -> int:
    from aedr_jax.autoencoders.names import name_models

    source = api.open_source(args.inputs, **columns_of(args))
    models, setup = name_models(args.model), vars(setup_of(args))
    return _fill(
        args, out, source, "scored", lambda running: api.score_dataset(source, models, out, **setup, **running)
    )


def _fill(
    args: argparse.Namespace,
    out: Path,
    source: Any,
    what: str,
    run: Callable[[dict[str, Any]], Finished],
    found: Callable[[], dict[str, Any]] = dict,
) -> int:
    """A run into a folder, and what is said of it; `found` is what the folder then holds, for the summary."""
    running = {
        "workers": args.workers,
        "shard": args.shard or (0, 1),
        "engine": args.engine or "local",
        "address": args.address,
        "resources": args.resource,
        "progress": True,
        "command": args.typed,
    }
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where Ray passes on what other processes print
            done = run(running)
    except KeyboardInterrupt:
        complain("interrupted: finished images are kept; the same command goes on with the rest")
        return INTERRUPTED
    finally:
        tell_passed_over(source.passed_over())
    text = f"{out}: {done.scored} images {what}, {done.unreadable} of them unreadable, {done.skipped} there already"
    if done.not_finite:
        text += f"; on {done.not_finite} a model is not finite (see their rows' error)"
    summary = {"out": str(out), **done._asdict(), "passed_over": source.passed_over(), **found()}
    lines = [text, *(f"{count} {for_terminal(name)}" for name, count in summary.get("verdicts", {}).items())]
    print(to_json(summary) if args.json else "\n".join([*lines, *([summary["caveat"]] if "caveat" in summary else [])]))
    if done.scored and done.unreadable == done.scored and not done.skipped:
        raise RunError(f"none of the {done.scored} images could be scored: the rows in {out} say why")
    return OK


def calibrate(args: argparse.Namespace) -> int:
    """`aedr calibrate`."""
    runs: list[Run] = []

    def on_run(run: Run) -> None:
        runs.append(run)
        tell_run(run)
        for row in run.rows if not run.interrupted else ():
            if row.status != "ok":
                complain(f"left out: {row.error}")

    with said_warnings():
        made = api.calibrate(
            args.inputs,
            args.model,
            validation=args.validation,
            alpha=args.alpha,
            false_accepts=args.false_accepts,
            rule=args.rule,
            processing=args.processing,
            setup=setup_of(args),
            out=args.out,
            command=args.typed,
            **columns_of(args),
            progress=bar,
            on_run=on_run,
        )
    summary = {
        "out": args.out,
        "model": made.model,
        "images": len(made.scores),
        "left_out": sum(len(run.rows) - len(run.good) for run in runs),
        "alpha": made.alpha,
        "threshold": made.threshold,
        "threshold_interval": made.threshold_interval,
        "acceptance_interval": made.acceptance_interval,
    }
    low, high = made.acceptance_interval
    text = (
        f"{args.out}: {made.model}, {len(made.scores)} images, alpha {made.alpha:g}, "
        f"threshold {made.threshold:.6f}, accepts {low:.1%} to {high:.1%} of its own images (95 % interval)"
    )
    if validation := made.validation:
        summary["validation"] = {
            "images": len(validation.scores),
            "accuracy": validation.accuracy,
            "held_out_accuracy": validation.held_out_accuracy,
            "false_accepts": validation.false_accepts,
            "false_accepts_interval": validation.false_accepts_interval,
        }
        low, high = validation.false_accepts_interval
        text += (
            f"\n{len(validation.scores)} validation images: {validation.false_accepts:.1%} accepted ({low:.1%} to "
            f"{high:.1%}), accuracy {validation.accuracy:.1%}, {validation.held_out_accuracy:.1%} held out"
        )
    print(json.dumps(summary) if args.json else text)
    return OK


def attribute(args: argparse.Namespace) -> int:
    """`aedr attribute`."""
    from aedr_jax.api.inventory import miniature_only
    from aedr_jax.decision.attribution import CAVEAT

    out, inputs = check_output(args.out) if args.out else None, _judged(args)
    if out and out.suffix == "":
        _refuse(args, ("record",), "is of no use here: a folder is its own record (aedr verify FOLDER IMAGE...)")
        return _attribute_folder(args, inputs, out)
    _refuse(args, FOLDER, "needs a folder as --out (a name without an ending)")
    told: list[str] = []  # before the search, which may find more to tell

    def tell(run: Run) -> None:
        tell_run(run)
        told.extend(run.problems)

    with said_warnings():
        verdicts, run = api.attribute(
            inputs,
            models=args.models,
            calibrations=args.calibrations,
            false_names=args.false_names,
            search=args.search,
            setup=setup_of(args),
            out=args.out,
            record=args.record,
            command=args.typed,
            workers=args.workers,
            **columns_of(args),
            progress=bar,
            on_run=tell,
        )
    for problem in run.problems[len(told) :]:
        complain(problem)
    if first := miniature_only(run.rows):
        _say(args, f"{first}\n")
    if not args.out:
        print_verdicts(verdicts, as_json=args.json)
    elif args.json:
        found = collections.Counter(verdict.verdict for verdict in verdicts)
        summary = {
            "out": str(Path(args.out)),
            **run.counts._asdict(),
            "verdicts": dict(found.most_common()),
            "caveat": CAVEAT,
        }
        print(to_json(summary))
    _say(args, f"\n{counted(run.counts)}\n{legend(verdicts)}{wrapped(CAVEAT)}")
    return _code(run)


def _judged(args: argparse.Namespace) -> Any:
    """What verdicts are asked on: images, or scores."""
    if bool(args.inputs) == bool(args.scores):
        raise SourceError("expected either INPUT or --scores")
    if not args.scores:
        return args.inputs
    measuring = ("preset", "dtype", "precision", "batch_size", "multiple", "most_pixels", "most_decoded", "workers")
    _refuse(args, (*measuring, "image_column", "id_column"), "is of images, and --scores have none")
    return api.Scores(args.scores)


def _attribute_folder(args: argparse.Namespace, inputs: Any, out: Path) -> int:
    from aedr_jax.decision.attribution import CAVEAT
    from aedr_jax.scoring.verdict_table import count_verdicts

    source = inputs if args.scores else api.open_source(inputs, **columns_of(args))
    names = ("models", "calibrations", "false_names", "search")
    asked: dict[str, Any] = {name: getattr(args, name) for name in names}
    setup = setup_of(args)
    return _fill(
        args,
        out,
        source,
        "judged",
        lambda running: api.attribute_dataset(source, out, **asked, setup=setup, **running),
        lambda: {"verdicts": dict(count_verdicts(out).most_common()), "caveat": CAVEAT},
    )


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Refuse the first of these options that was given."""
    if given := [name for name in names if getattr(args, name) is not None]:
        raise SourceError(f"--{given[0].replace('_', '-')} {why}")


def evaluate(args: argparse.Namespace) -> int:
    """`aedr evaluate`."""
    names = ("methods", "count", "side", "seed", "robustness", "batch_size")
    options: dict[str, Any] = {name: getattr(args, name) for name in names}
    found = api.evaluate(
        args.folder,
        args.out,
        args.models,
        limits=limits_of(args),
        lpips=tuple(args.lpips) if args.lpips else None,
        plots=not args.no_plots,
        command=args.typed,
        say=plain,
        **options,
    )
    for reason in found.left_out:
        complain(f"left out: {reason}")
    summary = {"out": args.out, "images": found.images, "left_out": len(found.left_out)}
    if args.json:
        print(json.dumps({**summary, "files": list(map(str, found.files))}))
    else:
        print(found.summary.read_text(encoding="utf-8"))  # written by write_tables, which escapes
        print(f"{args.out}: scores.parquet, {len(found.files)} tables and plots")
    return OK


def _code(run: Run) -> int:
    if run.interrupted:
        return INTERRUPTED
    return FAILED if run.problems or run.nothing_scored else OK


def _say(args: argparse.Namespace, text: str) -> None:
    print(text, file=sys.stderr if args.json else sys.stdout)


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = MappingProxyType(
    {run.__name__: run for run in (demo, models, convert, generate, score, calibrate, attribute, *CHECKS, evaluate)}
)
