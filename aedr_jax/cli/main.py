"""`aedr`: the command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from aedr_jax import __version__
from aedr_jax.errors import AedrError, RunError, SourceError
from aedr_jax.interruption import interruptible
from aedr_jax.scoring.tables import for_terminal, to_json, write_csv

if TYPE_CHECKING:
    from aedr_jax.decision.calibration import Calibration
    from aedr_jax.images.processing import Processing
    from aedr_jax.inputs.sources import Item, Source
    from aedr_jax.rivals import Limits
    from aedr_jax.scoring.rows import Row
    from aedr_jax.scoring.scorer import Scorer
    from aedr_jax.scoring.verdicts import Verdict

__all__ = ["main"]

PRESETS = ("default", "paper", "official")
MODEL = "a name of the registry, a folder or a hub path; NAME=SOURCE names it"
LIMITED = ("count", "steps", "models")  # of a dear rival
OK, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    The exit code is 0 when every image got a row, 1 for a failed run, such as one in which no image could be scored, 2
    for a wrong call, 130 after Ctrl-C, and 128 + its number after SIGTERM or SIGHUP, which write what is finished too.
    """
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    with interruptible() as received:
        code = _run(args)
    return 128 + received[0] if received and code == INTERRUPTED else code


def _run(args: argparse.Namespace) -> int:
    try:
        return int(args.run(args))
    except AedrError as error:
        _complain(f"aedr {args.command}: {error}")
        return FAILED if isinstance(error, RunError) else WRONG_CALL
    except KeyboardInterrupt:
        _complain(f"aedr {args.command}: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if os.environ.get("AEDR_DEBUG"):
            raise
        _complain(f"aedr {args.command}: failed: {type(error).__name__}: {error}")
        print("(AEDR_DEBUG=1 shows where)", file=sys.stderr)
        return FAILED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(for_terminal(message))  # a pattern that the shell has filled in brings names too

    # What follows from records whose modules import JAX is added once its command is called.
    complete: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        complete, self.complete = self.complete, None
        if complete:
            complete(self)
        return super().parse_known_args(*args, **options)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="aedr", description="Which generative model made this image?")
    parser.add_argument("--version", action="version", version=f"aedr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> _Parser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    sub = command("demo", _demo, "the whole story offline: generate with the miniature models, and attribute it all")
    sub.add_argument("-n", type=_positive, default=3, metavar="N", help="images of each model (default 3)")
    sub.add_argument("--out", metavar="DIR", help="keep the images here (default: a folder that is deleted)")

    sub = command("models", _models, "list the models, and which weights and calibrations are on this machine")
    sub.add_argument("--calibrations", help="a folder of JSON files from aedr calibrate (default: calibrations)")

    sub = command("convert", _convert, "write an autoencoder as Flax-ready safetensors that load offline")
    sub.add_argument("source", help="a registry name, a diffusers folder, or a hub path (org/repo/subfolder)")
    sub.add_argument("out", help="the folder to write, such as weights/sd1.5")
    alone = sub.add_mutually_exclusive_group()
    alone.add_argument("--revision", help="commit, tag or branch of a hub path")
    alone.add_argument(
        "--pickle",
        action="store_true",
        help="SOURCE is a file of pickled PyTorch tensors that you trust (.bin, .pth), or a folder of diffusers': "
        "write them to the folder OUT, as NAME.safetensors (needs the extra convert)",
    )
    alone.add_argument("--lpips", action="store_true", help="likewise, of LPIPS: a backbone's classifier is left out")

    sub = command("generate", _generate, "images that belong to a model, made by its own pipeline (to calibrate on)")
    sub.add_argument("--model", required=True, metavar="M", help="a model of the registry")
    sub.add_argument("--out", required=True, help="the folder of the PNG files; what lies there already is kept")
    sub.add_argument("--prompts", metavar="FILE", help="one prompt a line; gone through again for more images")
    sub.add_argument("-n", type=int, metavar="N", help="how many images (default: one for each prompt)")
    sub.add_argument("--seed", type=int, default=0, help="of the first image; the next has the next (default 0)")
    sub.add_argument("--steps", type=int, help="of sampling (default: the paper's)")
    sub.add_argument("--guidance", type=float, help="scale (default: the paper's)")
    sub.add_argument("--size", type=int, help="side in pixels (default: the model's native size)")
    sub.add_argument("--batch-size", type=_positive, metavar="N", help="images at once (default: 1; 8 miniature ones)")
    sub.add_argument("--device", help="such as cuda:1 (default: the first GPU, or else the CPU)")
    sub.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights (default: the authors')"
    )
    sub.add_argument("--pipeline", metavar="FOLDER", help="a diffusers folder or hub path in place of the model's own")
    sub.add_argument("--revision", help="commit, tag or branch of the hub path")

    sub = command("score", _score, "losses, ratio, homogeneity and signal of each image with each model")
    _add_inputs(sub)
    sub.add_argument("--model", action="append", required=True, metavar="M", help=f"{MODEL}; may be repeated")
    sub.add_argument("--out", help="scores.parquet, .csv or .jsonl, or a folder for Parquet (default: print CSV)")
    _add_measuring(sub)
    large = sub.add_argument_group("with a folder as --out: large sources, resumed by the same command (docs/large.md)")
    large.add_argument(
        "--shard", type=_share, metavar="I/N", help="this process's share; auto: as jax.distributed says"
    )
    large.add_argument("--workers", type=int, metavar="N", help="decoder processes (default: one a CPU, at most 16)")
    large.add_argument("--engine", choices=("local", "ray"), help="ray: a cluster (extra ray)")
    large.add_argument("--address", help="of the Ray cluster (default: the one that runs here, or a new one)")
    large.add_argument(
        "--resource", type=_resource, metavar="NAME=N", help="what an actor takes, such as GPU=1 or TPU=4"
    )

    sub = command("calibrate", _calibrate, "a model's threshold from images known to belong to it")
    sub.add_argument("inputs", nargs="+", metavar="BELONGING", help="its own images: whatever score takes")
    _add_columns(sub)
    sub.add_argument("--model", required=True, metavar="M", help=MODEL)
    sub.add_argument("--out", required=True, help="FILE.json")
    sub.add_argument(
        "--alpha",
        type=float,
        help="share of its own images to turn away, kept as given (default: .05, or picked with --validation)",
    )
    sub.add_argument(
        "--processing",
        type=_processing,
        default="none",
        metavar="P",
        help="do this to each image first: jpeg75, webp80, resize0.5, crop0.8, blur1, noise0.02 (default none)",
    )
    sub.add_argument(
        "--validation", action="append", metavar="DIR", help="images not its own: pick alpha on them unless it is given"
    )
    sub.add_argument(
        "--false-accepts", type=float, metavar="SHARE", help="of the validation images (default: pick for accuracy)"
    )
    sub.add_argument(
        "--rule",
        choices=("exact", "grid", "empirical", "conformal"),
        default="exact",
        help="exact: density estimate (default); grid: the authors' own rule",
    )
    _add_measuring(sub)

    sub = command("attribute", _attribute, "a verdict for each image: a model, several, or none of the candidates")
    _add_inputs(sub)
    sub.add_argument(
        "--models",
        type=_list,
        metavar="A,B",
        help="the candidates, by their calibrations' names; NAME=SOURCE where one lies elsewhere than its calibration "
        "says (default: every model with a calibration here)",
    )
    sub.add_argument("--calibrations", help="a folder of JSON files from aedr calibrate (default: those that ship)")
    sub.add_argument("--out", help="verdicts.parquet, .csv or .jsonl, or a folder for Parquet")
    sub.add_argument(
        "--false-names", type=float, metavar="SHARE", help="of images of no candidate; needs --validation calibrations"
    )
    _add_measuring(sub)

    sub = command("evaluate", _evaluate, "the paper's experiments on a folder of folders, tables and plots")
    sub.add_argument("folder", metavar="DIR", help="a folder for each model, and one named real")
    sub.add_argument("--out", required=True, metavar="RESULTS", help="a folder; the same command goes on in it")
    sub.add_argument("--models", type=_list, metavar="A,B", help=f"each {MODEL} (default: the miniature models)")
    sub.add_argument(
        "--methods",
        type=_list,
        metavar="A,B",
        help="default: all but those that resize images first, such as latenttracer-512 (a wrong name lists all)",
    )
    sub.add_argument("--count", type=_positive, default=1000, metavar="N", help="images a source, half test (1000)")
    sub.add_argument("--side", type=_positive, metavar="N", help="crop to N pixels (default: the models' native size)")
    sub.add_argument("--seed", type=int, default=0, help="of the order of the images, and so of the halves (default 0)")
    sub.add_argument("--batch-size", type=_positive, default=8, metavar="N", help="images at once (default 8)")
    sub.add_argument("--robustness", type=int, default=0, metavar="N", help="AEDR on N test images a source, processed")
    sub.add_argument("--lpips", nargs=2, metavar=("BACKBONE", "LINEAR"), help="VGG16's safetensors (aedr convert)")
    sub.add_argument("--no-plots", action="store_true", help="tables only (plots need the extra plots)")
    sub.complete = _add_limits
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """How far each dear rival goes, by its record."""
    from aedr_jax.rivals import RIVALS

    for name, rival in RIVALS.items():
        if (limits := rival.limits) is None:
            continue
        group = parser.add_argument_group(f"how far {name} goes, which is dear")
        every = "all" if limits.count is None else str(limits.count)
        asked = "all" if rival.first_models is None else f"the first {rival.first_models}"
        group.add_argument(f"--{name}-count", type=_positive, metavar="N", help=f"images a source (default {every})")
        if limits.steps is not None:
            steps = f"of its descent (default {limits.steps}; published: {rival.published_steps or 'unknown'})"
            group.add_argument(f"--{name}-steps", type=_positive, metavar="N", help=steps)
        group.add_argument(f"--{name}-models", type=_list, metavar="A,B", help=f"asked about these (default: {asked})")


def _limits(args: argparse.Namespace, models: Sequence[str]) -> dict[str, Limits]:
    """What was asked of each dear rival; else what its record says."""
    from aedr_jax.rivals import RIVALS, Limits

    found = {}
    for name, rival in RIVALS.items():
        if (limits := rival.limits) is None:
            continue
        count, steps, asked = (getattr(args, f"{name}_{what}".replace("-", "_"), None) for what in LIMITED)
        if unknown := [model for model in asked or () if model not in models]:
            raise SourceError(f"--{name}-models {', '.join(unknown)}: expected some of {', '.join(models)}")
        first = None if rival.first_models is None else tuple(models[: rival.first_models])
        found[name] = Limits(
            count=count or limits.count,
            steps=steps or limits.steps,
            models=tuple(asked) if asked else first,
        )
    return found


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="folders, patterns, image files, archives, tables (docs/large.md)"
    )
    _add_columns(parser)


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image-column", metavar="NAME", help="of a table or dataset, where it cannot be told")
    parser.add_argument("--id-column", metavar="NAME", help="likewise")


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=PRESETS, default="default", help="what to measure (default: default)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="what to compute in")
    parser.add_argument("--precision", choices=("highest", "high", "default"), default="highest", help="of products")
    parser.add_argument("--batch-size", type=_positive, metavar="N", help="images at once (default: 1 a CPU, 8 a GPU)")
    parser.add_argument(
        "--multiple", type=_positive, metavar="N", help="crop to a multiple of N pixels; 64 compiles less on many sizes"
    )
    parser.add_argument(
        "--most-pixels",
        type=_positive,
        metavar="N",
        help="of an image with more, measure the middle (default: 2^22, such as 2048×2048)",
    )
    parser.add_argument(
        "--most-decoded", type=_positive, metavar="N", help="an image with more pixels is an error row (default: 2^27)"
    )


def _processing(text: str) -> Processing:
    from aedr_jax.images.processing import Processing

    try:
        return Processing.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a positive number")
    return value


def _list(text: str) -> list[str]:
    from aedr_jax.autoencoders.names import split_list

    names = split_list(text)
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r}: expected names with commas between them")
    return names


def _share(text: str) -> tuple[int, int] | str:
    if text == "auto":
        return text
    try:
        index, shares = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected I/N, such as 0/4, or auto") from None
    return index, shares


def _resource(text: str) -> dict[str, float]:
    name, _, amount = text.partition("=")
    try:
        return {name: float(amount)}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=N, such as GPU=1") from None


def _demo(args: argparse.Namespace) -> int:
    import tempfile

    if args.out:
        return _demo_in(Path(args.out), args)
    with tempfile.TemporaryDirectory(prefix="aedr-demo-") as folder:
        return _demo_in(Path(folder), args)


def _demo_in(out: Path, args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from aedr_jax.cli.demo import attribute_folder, miniature_models, outcome, photograph_files, write_images
    from aedr_jax.decision.attribution import CAVEAT

    models, photographs = miniature_models(), photograph_files()
    if not photographs:
        print('no photographs: pip install "aedr-jax[demo]" brings some', file=sys.stderr)
    total = args.n * len(models) + len(photographs)
    with tqdm(total=total, unit="image", desc="generate", disable=None, file=sys.stderr) as bar:
        _plain(f"generating {total} images")
        for _ in write_images(out, models, args.n):
            bar.update()
    with tqdm(total=total, unit="image", desc="attribute", disable=None, file=sys.stderr) as bar:
        _plain(f"attributing {total} images to {len(models)} models")
        verdicts = attribute_folder(out, models, bar.update)
    result = outcome(verdicts)
    _print_verdicts(args, verdicts)
    _say(
        args,
        f"\n{result.right} of {total} right, {result.ambiguous} more name the right model beside another, "
        f"{result.wrong} wrong\n{_least(verdicts)}{CAVEAT}",
    )
    return OK


def _plain(text: str) -> None:
    """A line in place of a progress bar, where there is no terminal to draw one on."""
    if not sys.stderr.isatty():
        _complain(text)


def _complain(text: str) -> None:
    """A message on the standard error. It may hold the name of a file, which is a stranger's text: that cannot begin a
    line. (Lists of several faults are indented by two.)"""
    with contextlib.suppress(OSError):  # the terminal is gone: no reason to lose rows
        print("\n  ".join(map(for_terminal, text.split("\n  "))), file=sys.stderr)


def _models(args: argparse.Namespace) -> int:
    from aedr_jax.autoencoders.registry import REGISTRY, calibration_file, local_folder

    made = _calibration_files(args.calibrations)
    rows: list[dict[str, Any]] = []
    for name, entry in REGISTRY.items():
        folder, shipped = local_folder(name), calibration_file(name)
        files = [shipped] if shipped else []
        files += made.pop(name, [])
        rows.append(
            {
                "model": name,
                "source": f"{entry.repository}/{entry.subfolder}" if entry.repository else "ships with the package",
                "gated": entry.gated,
                "native_size": entry.native_size,
                "quantize": entry.quantize,
                "weights": str(folder) if folder else None,
                "family": _family(folder, files),
                "calibration": str(files[0]) if files else None,
                "calibrations": list(map(str, files)),
            }
        )
    for name, files in made.items():  # of models that are not in the registry: folders, hub paths
        known = dict.fromkeys(rows[0])
        source = _read_calibration(files[0])["source"]
        here = source if source and Path(source).is_dir() else None
        family, calibrations = _family(None, files), list(map(str, files))
        known |= {"model": name, "source": source, "weights": here, "family": family, "calibration": calibrations[0]}
        rows.append({**known, "gated": False, "calibrations": calibrations})
    if args.json:
        print(json.dumps(rows, indent=1))
        return OK
    for row in rows:
        row["family"] = (row["family"] or "")[:12]
        named = row["model"] in REGISTRY
        row["weights"] = "here" if row["weights"] else "gated" if row["gated"] else "to download" if named else "-"
        row["native_size"], row["source"] = row["native_size"] or "-", row["source"] or "-"
        beside = str(calibration_file(row["model"]))
        row["calibration"] = ", ".join("here" if file == beside else file for file in row["calibrations"]) or "-"
    _print_table(rows, ("model", "native_size", "weights", "calibration", "family", "source"))
    return OK


def _calibration_files(folder: str | None) -> dict[str, list[Path]]:
    """For each model the calibrations in a folder; what is none is named and passed over.

    Raises:
      SourceError: where a folder that was asked for does not exist.
    """
    where = Path(folder or "calibrations")
    if folder and not where.is_dir():
        raise SourceError(f"{where}: no such folder")
    found: dict[str, list[Path]] = {}
    for file in sorted(where.glob("*.json")):
        try:
            found.setdefault(_read_calibration(file)["model"] or file.stem, []).append(file)
        except (OSError, ValueError, KeyError, TypeError):
            _complain(f"{file}: no calibration")
    return found


def _read_calibration(file: Path) -> dict[str, Any]:
    """What a list needs of a calibration: `Calibration.load`, which checks all of it, brings JAX."""
    values = json.loads(file.read_text(encoding="utf-8"))
    identity = values["protocol"]["identity"]
    source = values["provenance"]["source"]
    return {"model": identity["name"], "weights_hash": identity["weights_hash"], "source": source}


def _family(folder: Path | None, calibrations: Sequence[Path]) -> str | None:
    """The weights' hash as written beside them by `aedr convert` or `aedr calibrate`: no network is loaded for it."""
    if calibrations:
        return _read_calibration(calibrations[0])["weights_hash"]
    manifest = folder / "manifest.json" if folder else None
    return json.loads(manifest.read_text()).get("weights_hash") if manifest and manifest.is_file() else None


def _convert(args: argparse.Namespace) -> int:
    if args.pickle or args.lpips:
        from aedr_jax.autoencoders.pickled import convert_pickles

        for file, names in convert_pickles(args.source, args.out, leave_out=("classifier.",) if args.lpips else ()):
            print(json.dumps({"file": str(file), "tensors": names}) if args.json else f"{file}: {len(names)} tensors")
        return OK
    from aedr_jax.autoencoders.loading import convert

    manifest = convert(args.source, args.out, revision=args.revision)
    if args.json:
        print(json.dumps(manifest, indent=1))
    else:
        file, family = manifest["source_file"], manifest["weights_hash"][:12]
        print(f"{args.out}: {manifest['source']} ({file}), family {family}; loads offline from here")
    return OK


def _generate(args: argparse.Namespace) -> int:
    from aedr_jax.generate.folder import generate, plan_images, read_prompts
    from aedr_jax.generate.pipelines import RECIPES, choose_settings

    names = ("model", "steps", "guidance", "size", "seed", "dtype", "pipeline", "revision")
    settings = choose_settings(**{name: getattr(args, name) for name in names})
    if args.prompts and args.model not in RECIPES:
        print(f"{args.model} takes no text: the prompts are ignored", file=sys.stderr)
    prompts = read_prompts(args.prompts) if args.prompts and args.model in RECIPES else []
    plan = plan_images(settings, prompts, args.n)

    from tqdm import tqdm

    with tqdm(total=len(plan), unit="image", disable=None, file=sys.stderr) as bar:
        _plain(f"{len(plan)} images of {args.model}")
        try:
            options = {"batch_size": args.batch_size, "device": args.device}
            result = generate(settings, plan, args.out, **options, on_progress=bar.update)
        except KeyboardInterrupt:
            _complain("interrupted: finished images are kept; the same command makes the rest")
            return INTERRUPTED
    summary = {"out": args.out, "model": args.model, "images": len(plan), **result._asdict()}
    text = f"{args.out}: {len(plan)} images of {args.model}, {result.made} made, {result.kept} there already"
    print(json.dumps(summary) if args.json else text)
    return OK


def _score(args: argparse.Namespace) -> int:
    from aedr_jax.autoencoders.names import name_models
    from aedr_jax.scoring.tables import as_record, check_output, write_rows

    out = check_output(args.out) if args.out else None
    if out and out.suffix == "":
        return _score_folder(args, out)
    names = ("shard", "workers", "engine", "address", "resource")
    if alone := [name for name in names if getattr(args, name) is not None]:
        raise SourceError(f"--{alone[0].replace('_', '-')} needs a folder as --out (a name without an ending)")
    source = _source(args, args.inputs)
    rows, code = _scored(_scorer(args, name_models(args.model)), source)
    records = [as_record(row) for row in rows]
    if out:
        write_rows(rows, out)
        print(json.dumps({"out": str(out), **_counts(rows)}) if args.json else f"{out}: {_counted(rows)}")
    elif args.json:
        for record in records:
            print(to_json(record))
    else:
        _print_csv(records)
    return code


def _score_folder(args: argparse.Namespace, out: Path) -> int:
    from aedr_jax.autoencoders.names import name_models
    from aedr_jax.scoring.dataset import score_dataset
    from aedr_jax.scoring.sharding import pod_share
    from aedr_jax.signal.measurement import SignalConfig

    source = _source(args, args.inputs)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where Ray passes on what other processes print
            done = score_dataset(
                source,
                name_models(args.model),
                out,
                config=SignalConfig.preset(args.preset),
                batch_size=args.batch_size,
                multiple=args.multiple,
                **_caps(args),
                dtype=args.dtype,
                precision=args.precision,
                workers=args.workers,
                shard=pod_share() if args.shard == "auto" else args.shard or (0, 1),
                engine=args.engine or "local",
                address=args.address,
                resources=args.resource,
                progress=True,
            )
    except KeyboardInterrupt:
        _complain("interrupted: finished images are kept; the same command goes on with the rest")
        return INTERRUPTED
    finally:
        _say_passed_over(source)
    text = f"{out}: {done.scored} images scored, {done.unreadable} of them unreadable, {done.skipped} there already"
    if done.not_finite:
        text += f"; on {done.not_finite} a model is not finite (see their rows' error)"
    summary = {"out": str(out), **done._asdict(), "passed_over": source.passed_over()}
    print(json.dumps(summary) if args.json else text)
    if done.scored and done.unreadable == done.scored and not done.skipped:
        raise RunError(f"none of the {done.scored} images could be scored: the rows in {out} say why")
    return OK


def _calibrate(args: argparse.Namespace) -> int:
    import hashlib
    import warnings

    import numpy as np

    from aedr_jax.autoencoders.names import name_models
    from aedr_jax.decision.calibration import calibrate
    from aedr_jax.errors import CalibrationWarning
    from aedr_jax.scoring.rows import rows_to_measurement

    ((name, wanted),) = name_models([args.model]).items()
    own = _source(args, args.inputs)
    foreign = _source(args, args.validation) if args.validation else None
    scorer = _scorer(args, {name: wanted})

    def measured(source: Source) -> tuple[list[Row], int]:
        rows, code = _scored(scorer, source)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        for row in rows:
            if row.status != "ok":
                _complain(f"left out: {row.error}")
        if code != OK:
            raise RunError("no calibration is made of a part of the images")
        good = [row for row in rows if row.status == "ok"]
        return good, len(rows) - len(good)

    good, left_out = measured(own)
    others, others_left_out = measured(foreign) if foreign else ([], 0)
    images = hashlib.sha256("\n".join(sorted(row.sha256 for row in good)).encode()).hexdigest()
    (candidate,) = scorer.candidates
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        calibration = calibrate(
            rows_to_measurement(good),
            config=scorer.config,
            autoencoder=candidate.autoencoder,
            alpha=args.alpha,
            validation=rows_to_measurement(others) if others else None,
            false_accepts=args.false_accepts,
            model=candidate.name,
            rule=args.rule,
            source=wanted,
            images_hash=images,
            size_rule=scorer.protocol(candidate).size_rule,
            processing=str(scorer.processing),
            sizes=np.array([(row.used_height, row.used_width) for row in good]),
        )
    for warning in caught:
        _complain(f"warning: {warning.message}")
    calibration.save(args.out)
    summary = {
        "out": args.out,
        "model": candidate.name,
        "images": len(good),
        "left_out": left_out + others_left_out,
        "alpha": calibration.alpha,
        "threshold": calibration.threshold,
        "threshold_interval": calibration.threshold_interval,
        "acceptance_interval": calibration.acceptance_interval,
    }
    low, high = calibration.acceptance_interval
    text = (
        f"{args.out}: {candidate.name}, {len(good)} images, alpha {calibration.alpha:g}, "
        f"threshold {calibration.threshold:.6f}, accepts {low:.1%} to {high:.1%} of its own images (95 % interval)"
    )
    if validation := calibration.validation:
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


def _attribute(args: argparse.Namespace) -> int:
    from aedr_jax.decision.attribution import CAVEAT
    from aedr_jax.scoring.tables import check_output, write_rows
    from aedr_jax.scoring.verdicts import verdict_rows

    out = check_output(args.out) if args.out else None
    calibrations, given = _calibrations(args)
    sources = {name: given[name] or pasts[0].trusted_source(args.models or ()) for name, pasts in calibrations.items()}
    source = _source(args, args.inputs)
    rows, code = _scored(_scorer(args, sources, calibrations), source)
    verdicts = verdict_rows(rows, calibrations, false_names=args.false_names)
    if out:
        write_rows(verdicts, out)
    if not out:
        _print_verdicts(args, verdicts)
    elif args.json:
        counts = collections.Counter(verdict.verdict for verdict in verdicts)
        print(to_json({"out": str(out), **_counts(rows), "verdicts": dict(counts.most_common()), "caveat": CAVEAT}))
    _say(args, f"\n{_counted(rows)}\n{_least(verdicts)}{CAVEAT}")
    return code


def _evaluate(args: argparse.Namespace) -> int:
    from aedr_jax.autoencoders.names import name_models
    from aedr_jax.cli.demo import miniature_models
    from aedr_jax.rivals.registry import make_methods
    from aedr_jax.signal.perceptual import load_lpips
    from aedr_jax.study.comparison import read_scores
    from aedr_jax.study.evaluation import evaluate
    from aedr_jax.study.plots import check_plots, write_plots
    from aedr_jax.study.tables import tables, write_tables

    if not args.no_plots:
        check_plots()
    models = args.models or list(miniature_models())
    perceptual = load_lpips("vgg", backbone=args.lpips[0], linear=args.lpips[1]) if args.lpips else None
    methods = make_methods(_limits(args, list(name_models(models))), perceptual)
    default = [name for name, method in methods.items() if method.resize is None]
    chosen = args.methods or default
    if unknown := [name for name in chosen if name not in methods]:
        raise SourceError(f"method {', '.join(unknown)}: expected some of {', '.join(methods)}")
    sources = evaluate(
        args.folder,
        args.out,
        models,
        methods={name: methods[name] for name in chosen},
        count=args.count,
        side=args.side,
        seed=args.seed,
        robustness=args.robustness,
        batch_size=args.batch_size,
        say=_plain,
    )
    for reason in sources.left_out:
        _complain(f"left out: {reason}")
    out = Path(args.out)
    scores = read_scores(out / "scores.parquet")
    found = tables(scores)
    written = write_tables(found, out / "tables")
    if not args.no_plots:
        written += write_plots(scores, found, out / "plots")
    counts = {source: len(images) for source, images in sources.images.items()}
    summary = {"out": args.out, "images": counts, "left_out": len(sources.left_out), "files": list(map(str, written))}
    if args.json:
        print(json.dumps(summary))
    else:
        print((out / "tables" / "summary.md").read_text(encoding="utf-8"))  # written by write_tables, which escapes
        print(f"{args.out}: scores.parquet, {len(written)} tables and plots")
    return OK


def _calibrations(args: argparse.Namespace) -> tuple[dict[str, list[Calibration]], dict[str, str | None]]:
    """For each model its calibrations, one for each past of the images that they were made of; and where the user says
    that it is."""
    from aedr_jax.autoencoders.names import match_models
    from aedr_jax.autoencoders.registry import calibration_file, list_models
    from aedr_jax.decision.calibration import Calibration

    found: dict[str, list[Calibration]] = {}
    if args.calibrations:
        folder = Path(args.calibrations)
        files = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
        if not files:
            raise SourceError(f"{folder}: no calibration (*.json) there; make one with aedr calibrate")
        for file in files:
            calibration = Calibration.load(file)
            name = calibration.model or file.stem
            pasts = found.setdefault(name, [])
            past = calibration.protocol.processing
            if past in (other.protocol.processing for other in pasts):
                raise SourceError(f"{folder}: two calibrations of {name} (processing {past}); keep one of them there")
            pasts.append(calibration)
    else:
        shipped = {name: calibration_file(name) for name in list_models()}
        found = {name: [Calibration.load(path)] for name, path in shipped.items() if path}
    given = match_models(args.models or found, {name: pasts[0].provenance.source for name, pasts in found.items()})
    return {name: found[name] for name in given}, given


def _scorer(
    args: argparse.Namespace, models: Mapping[str, str], calibrations: dict[str, list[Calibration]] | None = None
) -> Scorer:
    """Models (name -> source) and settings, checked against the calibrations that are to judge."""
    from aedr_jax.images.processing import Processing
    from aedr_jax.scoring.scorer import Scorer, load_candidate
    from aedr_jax.signal.measurement import SignalConfig

    config = SignalConfig.preset(args.preset)
    options = {"config": config, "dtype": args.dtype, "precision": args.precision}
    candidates = [load_candidate(source, name=name, **options) for name, source in models.items()]
    scorer = Scorer(
        candidates,
        config=config,
        batch_size=args.batch_size,
        multiple=args.multiple,
        **_caps(args),
        processing=getattr(args, "processing", Processing("none")),
    )
    for candidate in candidates:
        if calibrations is not None:
            where = f"calibration of {candidate.name}"
            for calibration in calibrations[candidate.name]:
                calibration.check_against(scorer.protocol(candidate), where=where)
    return scorer


def _caps(args: argparse.Namespace) -> dict[str, int]:
    """Those that were given."""
    return {name: value for name in ("most_pixels", "most_decoded") if (value := getattr(args, name)) is not None}


def _source(args: argparse.Namespace, inputs: Sequence[str]) -> Source:
    from aedr_jax.inputs.containers import open_source

    return open_source(inputs, image_column=args.image_column, id_column=args.id_column)


def _scored(scorer: Scorer, source: Source) -> tuple[list[Row], int]:
    """Rows in the order of the images, and the exit code: of a run that was interrupted, that could not read all of the
    source, or that could score nothing, which is said."""
    from tqdm import tqdm

    from aedr_jax.inputs.sources import until_failure

    total, code = source.count(), OK
    rows: list[Row] = []
    order: dict[tuple[str, str], int] = {}
    failures: list[Exception] = []
    with tqdm(total=total, unit="image", disable=None, file=sys.stderr) as bar:
        _plain(f"{'images' if total is None else f'{total} images'}, {len(scorer.candidates)} models")
        try:
            for row in scorer.score(until_failure(_numbered(source, order), failures), on_progress=bar.update):
                rows.append(row)
        except KeyboardInterrupt:
            code = INTERRUPTED
    _say_passed_over(source)
    for failure in failures:
        if not isinstance(failure, RunError):
            raise failure
        _complain(str(failure))
        code = code or FAILED
    if code == INTERRUPTED:
        wanted = "" if total is None else f" of {total * len(scorer.candidates)}"
        _complain(f"interrupted: {len(rows)}{wanted} rows are done and kept")
    elif rows and all(row.status != "ok" for row in rows):  # an error row is a row, but there is nothing else
        _complain(f"none of the {_counts(rows)['images']} images could be scored; the first: {rows[0].error}")
        code = FAILED
    return sorted(rows, key=lambda row: order[row.id, row.path]), code


def _numbered(source: Source, order: dict[tuple[str, str], int]) -> Iterator[Item]:
    """The items of a source, each of which takes its number in `order`; their rows come as batches fill up."""
    doubles = []
    for item in source:
        key = (item.id, str(item.path))
        if key in order:
            doubles.append(item.id)
        else:
            order[key] = len(order)
            yield item
    if doubles:
        raise RunError(f"{len(doubles)} images have another's id and path, such as {doubles[0]}; the first has its row")


def _say_passed_over(source: Source) -> None:
    from aedr_jax.inputs.sources import said_of_passed_over

    if said := said_of_passed_over(source.passed_over()):
        _complain(said)


def _three(p: float, belonging: int) -> str:
    """Three decimals; "<" where p is the least that so many belonging images can tell, 1 / (n + 1)."""
    if p <= (1 + 1e-6) / (belonging + 1):
        return f"<{-(-1000 // (belonging + 1)) / 1000:.3f}"
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def _least(verdicts: Sequence[Verdict]) -> str:
    """The line that says what "<" is beside a p-value, or nothing where there is no p-value."""
    belonging = {name: n for v in verdicts for name, n in v.belonging.items()}
    if not belonging:
        return ""
    alike = len(set(belonging.values())) == 1
    counts = str(next(iter(belonging.values()))) if alike else ", ".join(f"{n} ({m})" for m, n in belonging.items())
    return f'"<" before a p-value: the least that n belonging images can tell, 1/(n + 1); n = {counts}\n'


def _counted(rows: Sequence[Row]) -> str:
    counts = _counts(rows)
    words = {"not_finite": "on which a model is not finite"}
    return ", ".join(f"{n} {words.get(what, what)}" for what, n in counts.items() if n or what not in words)


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    failed = [row for row in rows if row.status != "ok"]
    return {
        "images": len({(row.id, row.path) for row in rows}),
        "unreadable": len({(row.id, row.path) for row in failed if not row.sha256}),
        "not_finite": len({(row.id, row.path) for row in failed if row.sha256}),
        "rows": len(rows),
    }


def _say(args: argparse.Namespace, text: str) -> None:
    print(text, file=sys.stderr if args.json else sys.stdout)


def _why_not(verdict: Verdict) -> str:
    """Why there is no verdict, or "" where there is one: p-values beside "not assessable" would mean nothing."""
    from aedr_jax.decision.attribution import NOT_ASSESSABLE

    why = verdict.error or verdict.reason
    return why or ("a model gives it no defined score" if verdict.verdict == NOT_ASSESSABLE else "")


def _print_verdicts(args: argparse.Namespace, verdicts: Sequence[Verdict]) -> None:
    """A table, or with `--json` a line each."""
    if args.json:
        for verdict in verdicts:
            print(to_json(vars(verdict)))
        return
    rows = [
        {
            "image": v.id,
            "verdict": v.verdict,
            "p-values": _why_not(v)
            or ", ".join(f"{name} {_three(p, v.belonging[name])}" for name, p in v.p_values.items()),
        }
        for v in verdicts
    ]
    _print_table(rows, ("image", "verdict", "p-values"))


def _print_csv(records: Sequence[dict[str, Any]]) -> None:
    if records:
        write_csv(records, sys.stdout, printed=True, ending="\n")


def _print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    cells = [list(columns), *([for_terminal(str(row[column])) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
