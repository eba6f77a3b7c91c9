"""`aedr`: the command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aedr_jax import __version__
from aedr_jax.errors import AedrError, RunError, SourceError

if TYPE_CHECKING:
    from aedr_jax.calibration import Calibration
    from aedr_jax.processing import Processing
    from aedr_jax.scoring import Row, Scorer
    from aedr_jax.sources import Item
    from aedr_jax.verdicts import Verdict

__all__ = ["main"]

PRESETS = ("default", "paper", "official")
OK, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0 when every image got a row, 2 for a wrong call, 1 for a failed run."""
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return args.run(args)
    except AedrError as error:
        print(f"aedr {args.command}: {error}", file=sys.stderr)
        return FAILED if isinstance(error, RunError) else WRONG_CALL
    except KeyboardInterrupt:
        print(f"aedr {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if os.environ.get("AEDR_DEBUG"):
            raise
        print(f"aedr {args.command}: failed: {type(error).__name__}: {error}", file=sys.stderr)
        print("(AEDR_DEBUG=1 shows where)", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aedr", description="Which generative model made this image?")
    parser.add_argument("--version", action="version", version=f"aedr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    sub = command("demo", _demo, "the whole story offline: generate with the miniature models, and attribute it all")
    sub.add_argument("-n", type=_positive, default=3, metavar="N", help="images of each model (default 3)")
    sub.add_argument("--out", metavar="DIR", help="keep the images here (default: a folder that is deleted)")

    command("models", _models, "list the models, and which weights and calibrations are on this machine")

    sub = command("convert", _convert, "write an autoencoder as Flax-ready safetensors that load offline")
    sub.add_argument("source", help="a registry name, a diffusers folder, or a hub path (org/repo/subfolder)")
    sub.add_argument("out", help="the folder to write, such as weights/sd1.5")
    sub.add_argument("--revision", help="commit, tag or branch of a hub path")

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
    sub.add_argument("--model", action="append", required=True, metavar="M", help="a model; may be repeated")
    sub.add_argument("--out", help="scores.parquet, .csv or .jsonl, or a folder for Parquet (default: print CSV)")
    _add_measuring(sub)
    large = sub.add_argument_group("with a folder as --out: large sources, resumed by the same command (docs/large.md)")
    large.add_argument(
        "--shard", type=_share, metavar="I/N", help="this process's share; auto: as jax.distributed says"
    )
    large.add_argument("--workers", type=int, metavar="N", help="decoder processes (default: one a CPU, at most 16)")
    large.add_argument("--image-column", metavar="NAME", help="of a table or dataset, where it cannot be told")
    large.add_argument("--id-column", metavar="NAME", help="likewise")
    large.add_argument("--engine", choices=("local", "ray"), help="ray: a cluster (extra ray)")
    large.add_argument("--address", help="of the Ray cluster (default: the one that runs here, or a new one)")
    large.add_argument(
        "--resource", type=_resource, metavar="NAME=N", help="what an actor takes, such as GPU=1 or TPU=4"
    )

    sub = command("calibrate", _calibrate, "a model's threshold from images known to belong to it")
    sub.add_argument("inputs", nargs="+", metavar="BELONGING", help="folders, patterns or files of its own images")
    sub.add_argument("--model", required=True, metavar="M")
    sub.add_argument("--out", required=True, help="FILE.json")
    sub.add_argument("--alpha", type=float, default=0.05, help="share of its own images to turn away (default .05)")
    sub.add_argument(
        "--processing",
        type=_processing,
        default="none",
        metavar="P",
        help="do this to each image first: jpeg75, webp80, resize0.5, crop0.8, blur1, noise0.02 (default none)",
    )
    sub.add_argument("--validation", action="append", metavar="DIR", help="images not its own: pick alpha on them")
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
    sub.add_argument("--models", help="A,B: the candidates (default: every model with a calibration here)")
    sub.add_argument("--calibrations", help="a folder of JSON files from aedr calibrate (default: those that ship)")
    sub.add_argument("--out", help="verdicts.parquet, .csv or .jsonl, or a folder for Parquet")
    sub.add_argument(
        "--false-names", type=float, metavar="SHARE", help="of images of no candidate; needs --validation calibrations"
    )
    _add_measuring(sub)

    sub = command("evaluate", _evaluate, "the paper's experiments on a folder of folders, tables and plots")
    sub.add_argument("folder", metavar="DIR", help="a folder for each model, and one named real")
    sub.add_argument("--out", required=True, metavar="RESULTS", help="a folder; the same command goes on in it")
    sub.add_argument("--models", metavar="A,B", help="names or folders (default: the miniature models)")
    sub.add_argument(
        "--methods",
        metavar="A,B",
        help="default: all but latenttracer-512, which enlarges images (a wrong name lists all)",
    )
    sub.add_argument("--count", type=_positive, default=1000, metavar="N", help="images a source, half test (1000)")
    sub.add_argument("--side", type=_positive, metavar="N", help="crop to N pixels (default: the models' native size)")
    sub.add_argument("--seed", type=int, default=0, help="of the order of the images, and so of the halves (default 0)")
    sub.add_argument("--batch-size", type=_positive, default=8, metavar="N", help="images at once (default 8)")
    sub.add_argument("--robustness", type=int, default=0, metavar="N", help="AEDR on N test images a source, processed")
    sub.add_argument(
        "--latenttracer-count", type=_positive, default=20, metavar="N", help="images a source (default 20)"
    )
    sub.add_argument("--ronan-count", type=_positive, default=10, metavar="N", help="images a source (default 10)")
    sub.add_argument("--ronan-steps", type=_positive, default=300, metavar="N", help="default 300; the paper's: 1500")
    sub.add_argument("--ronan-models", metavar="A,B", help="default: the first two models")
    sub.add_argument(
        "--lpips", nargs=2, metavar=("BACKBONE", "LINEAR"), help="VGG16's safetensors (weights/convert_lpips.py)"
    )
    sub.add_argument("--no-plots", action="store_true", help="tables only (plots need the extra plots)")
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="folders, patterns or image files")


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=PRESETS, default="default", help="what to measure (default: default)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="what to compute in")
    parser.add_argument("--precision", choices=("highest", "high", "default"), default="highest", help="of products")
    parser.add_argument("--batch-size", type=_positive, metavar="N", help="images at once (default: 1 a CPU, 8 a GPU)")
    parser.add_argument(
        "--multiple", type=_positive, metavar="N", help="crop to a multiple of N pixels; 64 compiles less on many sizes"
    )


def _processing(text: str) -> Processing:
    from aedr_jax.processing import Processing

    try:
        return Processing.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a positive number")
    return value


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

    from aedr_jax.attribution import CAVEAT
    from aedr_jax.demo import attribute_folder, miniature_models, outcome, photograph_files, write_images

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
        f"{result.wrong} wrong\n{CAVEAT}",
    )
    return OK


def _plain(text: str) -> None:
    """A line in place of a progress bar, where there is no terminal to draw one on."""
    if not sys.stderr.isatty():
        print(text, file=sys.stderr)


def _models(args: argparse.Namespace) -> int:
    from aedr_jax.autoencoders.registry import REGISTRY, calibration_file, local_folder

    rows: list[dict[str, Any]] = []
    for name, entry in REGISTRY.items():
        folder, calibration = local_folder(name), calibration_file(name)
        rows.append(
            {
                "model": name,
                "source": f"{entry.repository}/{entry.subfolder}" if entry.repository else "ships with the package",
                "gated": entry.gated,
                "native_size": entry.native_size,
                "quantize": entry.quantize,
                "weights": str(folder) if folder else None,
                "family": _family(folder, calibration),
                "calibration": str(calibration) if calibration else None,
            }
        )
    if args.json:
        print(json.dumps(rows, indent=1))
        return OK
    for row in rows:
        row["family"] = (row["family"] or "")[:12]
        row["weights"] = "here" if row["weights"] else "gated" if row["gated"] else "to download"
        row["calibration"] = "here" if row["calibration"] else "-"
    _print_table(rows, ("model", "native_size", "weights", "calibration", "family", "source"))
    return OK


def _family(folder: Path | None, calibration: Path | None) -> str | None:
    """The weights' hash as written beside them by `aedr convert` or `aedr calibrate`: no network is loaded for it."""
    if calibration:
        known = json.loads(calibration.read_text()).get("protocol", {})  # absent from an older format
        return known.get("identity", {}).get("weights_hash")
    manifest = folder / "manifest.json" if folder else None
    return json.loads(manifest.read_text()).get("weights_hash") if manifest and manifest.is_file() else None


def _convert(args: argparse.Namespace) -> int:
    from aedr_jax.autoencoders.loading import convert

    manifest = convert(args.source, args.out, revision=args.revision)
    if args.json:
        print(json.dumps(manifest, indent=1))
    else:
        print(f"{args.out}: {manifest['source']}, family {manifest['weights_hash'][:12]}; loads offline from here")
    return OK


def _generate(args: argparse.Namespace) -> int:
    from aedr_jax.generation import generate, plan_images, read_prompts
    from aedr_jax.pipelines import RECIPES, choose_settings

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
            print("interrupted: finished images are kept; the same command makes the rest", file=sys.stderr)
            return INTERRUPTED
    summary = {"out": args.out, "model": args.model, "images": len(plan), **result._asdict()}
    text = f"{args.out}: {len(plan)} images of {args.model}, {result.made} made, {result.kept} there already"
    print(json.dumps(summary) if args.json else text)
    return OK


def _score(args: argparse.Namespace) -> int:
    from aedr_jax.sources import find_images
    from aedr_jax.tables import check_output, to_json, write_rows

    out = check_output(args.out) if args.out else None
    if out and out.suffix == "":
        return _score_folder(args, out)
    names = ("shard", "workers", "image_column", "id_column", "engine", "address", "resource")
    if alone := [name for name in names if getattr(args, name) is not None]:
        raise SourceError(f"--{alone[0].replace('_', '-')} needs a folder as --out (a name without an ending)")
    items = find_images(args.inputs)
    rows, complete = _scored(_scorer(args, args.model), items)
    records = [vars(row) for row in rows]
    if out:
        write_rows(rows, out)
        _say(args, f"{out}: {_counted(rows)}")
    elif args.json:
        for record in records:
            print(to_json(record))
    else:
        _print_csv(records)
    return OK if complete else INTERRUPTED


def _score_folder(args: argparse.Namespace, out: Path) -> int:
    from aedr_jax.containers import open_source
    from aedr_jax.dataset import score_dataset
    from aedr_jax.sharding import pod_share
    from aedr_jax.signal import SignalConfig

    models = {Path(model).name if os.path.isdir(model) else model: model for model in args.model}
    if len(models) < len(args.model):
        raise SourceError(f"two models of one name: {', '.join(args.model)}")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where Ray passes on what other processes print
            done = score_dataset(
                open_source(args.inputs, image_column=args.image_column, id_column=args.id_column),
                models,
                out,
                config=SignalConfig.preset(args.preset),
                batch_size=args.batch_size,
                multiple=args.multiple,
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
        print("interrupted: finished images are kept; the same command goes on with the rest", file=sys.stderr)
        return INTERRUPTED
    text = f"{out}: {done.scored} images scored, {done.unreadable} of them unreadable, {done.skipped} there already"
    print(json.dumps({"out": str(out), **done._asdict()}) if args.json else text)
    return OK


def _calibrate(args: argparse.Namespace) -> int:
    import hashlib
    import warnings

    import numpy as np

    from aedr_jax.calibration import calibrate
    from aedr_jax.errors import CalibrationWarning
    from aedr_jax.scoring import rows_to_measurement
    from aedr_jax.sources import find_images

    own = find_images(args.inputs)
    foreign = find_images(args.validation) if args.validation else []
    scorer = _scorer(args, [args.model])

    def measured(items: Sequence[Item]) -> tuple[list[Row], int]:
        rows, complete = _scored(scorer, items)
        if not complete:
            raise KeyboardInterrupt
        for row in rows:
            if row.status != "ok":
                print(f"left out: {row.error}", file=sys.stderr)
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
            source=args.model,
            images_hash=images,
            size_rule=scorer.protocol(candidate).size_rule,
            processing=str(scorer.processing),
            sizes=np.array([(row.used_height, row.used_width) for row in good]),
        )
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
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
    from aedr_jax.attribution import CAVEAT
    from aedr_jax.sources import find_images
    from aedr_jax.tables import check_output, write_rows
    from aedr_jax.verdicts import verdict_rows

    out = check_output(args.out) if args.out else None
    calibrations = _calibrations(args)
    asked = args.models.split(",") if args.models else []
    sources = [pasts[0].trusted_source(asked) for pasts in calibrations.values()]
    items = find_images(args.inputs)
    rows, complete = _scored(_scorer(args, sources, calibrations), items)
    verdicts = verdict_rows(rows, calibrations, false_names=args.false_names)
    if out:
        write_rows(verdicts, out)
    if args.json or not out:
        _print_verdicts(args, verdicts)
    _say(args, f"\n{_counted(rows)}\n{CAVEAT}")
    return OK if complete else INTERRUPTED


def _evaluate(args: argparse.Namespace) -> int:
    from aedr_jax.comparison import read_scores
    from aedr_jax.demo import miniature_models
    from aedr_jax.evaluation import evaluate
    from aedr_jax.methods import Limits, make_methods
    from aedr_jax.perceptual import load_lpips
    from aedr_jax.plots import check_plots, write_plots
    from aedr_jax.report import tables, write_tables

    if not args.no_plots:
        check_plots()
    models = args.models.split(",") if args.models else list(miniature_models())
    of_ronan = args.ronan_models.split(",") if args.ronan_models else [Path(model).name for model in models[:2]]
    limits = Limits(
        latenttracer_count=args.latenttracer_count,
        ronan_count=args.ronan_count,
        ronan_steps=args.ronan_steps,
        ronan_models=tuple(of_ronan),
    )
    perceptual = load_lpips("vgg", backbone=args.lpips[0], linear=args.lpips[1]) if args.lpips else None
    methods = make_methods(limits, perceptual)
    default = [name for name, method in methods.items() if not method.official_size]
    chosen = args.methods.split(",") if args.methods else default
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
        print(f"left out: {reason}", file=sys.stderr)
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
        print((out / "tables" / "summary.md").read_text(encoding="utf-8"))
        print(f"{args.out}: scores.parquet, {len(written)} tables and plots")
    return OK


def _calibrations(args: argparse.Namespace) -> dict[str, list[Calibration]]:
    """For each model its calibrations, one for each past of the images that they were made of."""
    from aedr_jax.autoencoders.registry import calibration_file, list_models
    from aedr_jax.calibration import Calibration

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
    if args.models:
        named = {pasts[0].provenance.source: name for name, pasts in found.items()}
        wanted = [name if name in found else named.get(name, name) for name in args.models.split(",")]
        if missing := [name for name in wanted if name not in found]:
            raise SourceError(f"no calibration of {', '.join(missing)}; make one with aedr calibrate --model NAME")
        found = {name: found[name] for name in wanted}
    return found


def _scorer(
    args: argparse.Namespace, models: Sequence[str], calibrations: dict[str, list[Calibration]] | None = None
) -> Scorer:
    """Models and settings, checked against the calibrations that are to judge."""
    from aedr_jax.processing import Processing
    from aedr_jax.scoring import Scorer, load_candidate

    options = {"preset": args.preset, "dtype": args.dtype, "precision": args.precision}
    candidates = [load_candidate(name, **options) for name in models]
    scorer = Scorer(
        candidates,
        preset=args.preset,
        batch_size=args.batch_size,
        multiple=args.multiple,
        processing=getattr(args, "processing", Processing("none")),
    )
    for candidate in candidates:
        if calibrations is not None:
            where = f"calibration of {candidate.name}"
            for calibration in calibrations[candidate.name]:
                calibration.check_against(scorer.protocol(candidate), where=where)
    return scorer


def _scored(scorer: Scorer, items: Sequence[Item]) -> tuple[list[Row], bool]:
    """Rows in the order of the images, and whether the run was not interrupted."""
    from tqdm import tqdm

    rows: list[Row] = []
    complete = True
    with tqdm(total=len(items), unit="image", disable=None, file=sys.stderr) as bar:
        _plain(f"{len(items)} images, {len(scorer.candidates)} models")
        try:
            for row in scorer.score(items, on_progress=bar.update):
                rows.append(row)
        except KeyboardInterrupt:
            complete = False
    if not complete:
        print(
            f"interrupted: {len(rows)} of {len(items) * len(scorer.candidates)} rows are done and kept", file=sys.stderr
        )
    order = {str(item.path): i for i, item in enumerate(items)}
    return sorted(rows, key=lambda row: order[row.path]), complete


def _three(p: float) -> str:
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def _counted(rows: Sequence[Row]) -> str:
    images = {row.path for row in rows}
    unreadable = {row.path for row in rows if row.status != "ok"}
    return f"{len(images)} images, {len(unreadable)} unreadable, {len(rows)} rows"


def _say(args: argparse.Namespace, text: str) -> None:
    print(text, file=sys.stderr if args.json else sys.stdout)


def _print_verdicts(args: argparse.Namespace, verdicts: Sequence[Verdict]) -> None:
    """A table, or with `--json` a line each."""
    from aedr_jax.tables import to_json

    if args.json:
        for verdict in verdicts:
            print(to_json(vars(verdict)))
        return
    rows = [
        {
            "image": v.id,
            "verdict": v.verdict,
            "p-values": v.error or ", ".join(f"{name} {_three(p)}" for name, p in v.p_values.items()),
        }
        for v in verdicts
    ]
    _print_table(rows, ("image", "verdict", "p-values"))


def _print_csv(records: Sequence[dict[str, Any]]) -> None:
    import csv

    if records:
        writer = csv.DictWriter(sys.stdout, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def _print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    cells = [list(columns), *([str(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
