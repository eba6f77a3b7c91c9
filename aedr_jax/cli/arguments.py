"""The arguments of `aedr`: one parser, which imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from aedr_jax import __version__
from aedr_jax.cli.examples import FIRST, examples_of
from aedr_jax.cli.values import names, positive, processing, resource, several, share
from aedr_jax.scoring.tables import for_terminal

if TYPE_CHECKING:
    from aedr_jax.rivals import Limits
    from aedr_jax.scoring.job import Setup

__all__ = ["PRESETS", "columns_of", "limits_of", "make_parser", "setup_of"]

PRESETS = ("default", "tiles", "paper", "official")
MODEL = "a name of the registry, a folder, a safetensors file or a hub path; NAME=SOURCE names it"


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


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command; `args.command` is its name."""
    parser = _Parser(
        prog="aedr",
        description="Which generative model made this image?",
        epilog=FIRST,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aedr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, add_arguments) in COMMANDS.items():
        command: _Parser = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=examples_of(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--json", action="store_true", help="print JSON")
        add_arguments(command)
    return parser


def _demo(parser: _Parser) -> None:
    parser.add_argument("-n", type=positive, default=3, metavar="N", help="images of each model (default 3)")
    parser.add_argument("--out", metavar="DIR", help="keep the images here (default: a folder that is deleted)")


def _models(parser: _Parser) -> None:
    parser.add_argument("--calibrations", help="a folder of JSON files from aedr calibrate (default: calibrations)")


def _convert(parser: _Parser) -> None:
    parser.add_argument(
        "source", help="a registry name, a diffusers folder, a safetensors file, or a hub path (org/repo/subfolder)"
    )
    parser.add_argument("out", help="the folder to write, such as weights/sd1.5")
    alone = parser.add_mutually_exclusive_group()
    alone.add_argument("--revision", help="commit, tag or branch of a hub path")
    alone.add_argument(
        "--pickle",
        action="store_true",
        help="SOURCE is a file of pickled PyTorch tensors that you trust (.bin, .pth), or a folder of diffusers': "
        "write them to the folder OUT, as NAME.safetensors (needs the extra convert)",
    )
    alone.add_argument("--lpips", action="store_true", help="likewise, of LPIPS: a backbone's classifier is left out")


def _generate(parser: _Parser) -> None:
    parser.add_argument("--model", required=True, metavar="M", help="a model of the registry")
    parser.add_argument("--out", required=True, help="the folder of the PNG files; what lies there already is kept")
    parser.add_argument("--prompts", metavar="FILE", help="one prompt a line; gone through again for more images")
    parser.add_argument("-n", type=int, metavar="N", help="how many images (default: one for each prompt)")
    parser.add_argument("--seed", type=int, default=0, help="of the first image; the next has the next (default 0)")
    parser.add_argument("--steps", type=int, help="of sampling (default: the paper's, or the pipeline's own)")
    parser.add_argument("--guidance", type=float, help="scale (default: the paper's, or the pipeline's own)")
    parser.add_argument("--size", type=int, help="side in pixels (default: the model's native size)")
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="images at once (default: 1; 8 miniature ones)"
    )
    parser.add_argument("--device", help="such as cuda:1 (default: the first GPU, or else the CPU)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights (default: the authors')"
    )
    parser.add_argument(
        "--pipeline", metavar="FOLDER", help="a diffusers folder or hub path in place of the model's own"
    )
    parser.add_argument("--revision", help="commit, tag or branch of the hub path")


def _score(parser: _Parser) -> None:
    _add_inputs(parser)
    parser.add_argument("--model", action="append", required=True, metavar="M", help=f"{MODEL}; may be repeated")
    parser.add_argument("--out", help="scores.parquet, .csv or .jsonl, or a folder for Parquet (default: print CSV)")
    _add_measuring(parser)
    _add_workers(_add_large(parser))


def _add_large(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    large = parser.add_argument_group("with a folder as --out: large sources, resumed (docs/large.md)")
    large.add_argument("--shard", type=share, metavar="I/N", help="this process's share; auto: as jax.distributed says")
    large.add_argument("--engine", choices=("local", "ray"), help="ray: a cluster (extra ray)")
    large.add_argument("--address", help="of the Ray cluster (default: the one that runs here, or a new one)")
    large.add_argument(
        "--resource", type=resource, metavar="NAME=N", help="what an actor takes, such as GPU=1 or TPU=4"
    )
    return large


def _add_workers(where: argparse._ActionsContainer) -> None:
    where.add_argument("--workers", type=int, metavar="N", help="decoder processes (default: one a CPU, at most 16)")


def _calibrate(parser: _Parser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="BELONGING", help="its own images: whatever score takes")
    _add_columns(parser)
    parser.add_argument("--model", required=True, metavar="M", help=MODEL)
    parser.add_argument("--out", required=True, help="FILE.json")
    parser.add_argument(
        "--alpha",
        type=float,
        help="share of its own images to turn away, kept as given (default: .05, or picked with --validation)",
    )
    parser.add_argument(
        "--processing",
        type=processing,
        default="none",
        metavar="P",
        help="do this to each image first: jpeg75, webp80, resize0.5, crop0.8, blur1, noise0.02 (default none)",
    )
    parser.add_argument(
        "--validation", action="append", metavar="DIR", help="images not its own: pick alpha on them unless it is given"
    )
    parser.add_argument(
        "--false-accepts", type=float, metavar="SHARE", help="of the validation images (default: pick for accuracy)"
    )
    parser.add_argument(
        "--rule",
        choices=("exact", "grid", "empirical", "conformal"),
        default="exact",
        help="exact: density estimate (default); grid: the authors' own rule",
    )
    _add_measuring(parser)


def _attribute(parser: _Parser) -> None:
    _add_inputs(parser, nargs="*")
    parser.add_argument(
        "--scores",
        metavar="SCORES",
        help="in place of INPUT: judge what aedr score wrote, a folder or a file; no image is decoded again",
    )
    _add_candidates(parser)
    parser.add_argument(
        "--out", help="verdicts.parquet, .csv or .jsonl, or a folder for Parquet, which the same command goes on with"
    )
    parser.add_argument("--record", metavar="FILE", help="also write versions, hashes and figures, for aedr verify")
    _add_measuring(parser, preset="tiles")
    _add_workers(parser)
    _add_large(parser)


def _report(parser: _Parser) -> None:
    _add_inputs(parser)
    _add_candidates(parser)
    parser.add_argument("--out", required=True, metavar="FILE.html", help="one file that loads nothing (extra report)")
    parser.add_argument(
        "--most-images", type=positive, default=20, metavar="N", help="how many are pictured, a MiB each (default 20)"
    )
    _add_measuring(parser, preset="tiles")


def _add_candidates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models",
        type=names,
        metavar="A,B",
        help=f"the candidates, each {MODEL}; all-here: all whose weights are here (default: those of the registry that "
        "have a folder here, but for mini-wan and mini-dc)",
    )
    parser.add_argument(
        "--calibrations",
        metavar="DIR",
        help="also turn away what is unlike a model's own images: JSON files from aedr calibrate, or shipped",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="look again at what no model accepts: mirrored, turned, cropped, resized (256 pixels and more, factor at "
        "most 16; dear)",
    )
    parser.add_argument(
        "--false-names", type=float, default=0.05, metavar="SHARE", help="of images of no candidate (default .05)"
    )


def _verify(parser: _Parser) -> None:
    parser.add_argument("record", help="a file of attribute --record, a page of aedr report, or a folder of attribute")
    _add_inputs(parser)
    parser.add_argument(
        "--models",
        type=names,
        metavar="NAME=SOURCE",
        help="where models of the record lie whose weights are not here by name",
    )
    parser.add_argument("--calibrations", metavar="DIR", help="where the record's verdicts are with calibrations")


def _evaluate(parser: _Parser) -> None:
    parser.add_argument("folder", metavar="DIR", help="a folder for each model, and one named real")
    parser.add_argument("--out", required=True, metavar="RESULTS", help="a folder; the same command goes on in it")
    parser.add_argument("--models", type=names, metavar="A,B", help=f"each {MODEL} (default: the miniature models)")
    parser.add_argument(
        "--methods",
        type=names,
        metavar="A,B",
        help="default: all but those that resize images first, such as latenttracer-512 (a wrong name lists all)",
    )
    parser.add_argument("--count", type=several, default=1000, metavar="N", help="images a source, half test (1000)")
    parser.add_argument(
        "--side", type=positive, metavar="N", help="crop to N pixels (default: the models' native size)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the order of the images, and so of the halves (default 0)"
    )
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="images at once (default 8)")
    parser.add_argument(
        "--robustness", type=int, default=0, metavar="N", help="AEDR on N test images a source, processed"
    )
    parser.add_argument("--lpips", nargs=2, metavar=("BACKBONE", "LINEAR"), help="VGG16's safetensors (aedr convert)")
    parser.add_argument("--no-plots", action="store_true", help="tables only (plots need the extra plots)")
    parser.complete = _add_limits


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """How far each dear rival goes, by its record."""
    from aedr_jax.rivals import RIVALS

    for name, rival in RIVALS.items():
        if (limits := rival.limits) is None:
            continue
        group = parser.add_argument_group(f"how far {name} goes, which is dear")
        every = "all" if limits.count is None else str(limits.count)
        asked = "all" if rival.first_models is None else f"the first {rival.first_models}"
        group.add_argument(f"--{name}-count", type=positive, metavar="N", help=f"images a source (default {every})")
        if limits.steps is not None:
            steps = f"of its descent (default {limits.steps}; published: {rival.published_steps or 'unknown'})"
            group.add_argument(f"--{name}-steps", type=positive, metavar="N", help=steps)
        group.add_argument(f"--{name}-models", type=names, metavar="A,B", help=f"asked about these (default: {asked})")


def _add_inputs(parser: argparse.ArgumentParser, *, nargs: str = "+") -> None:
    parser.add_argument(
        "inputs", nargs=nargs, metavar="INPUT", help="folders, patterns, image files, archives, tables (docs/large.md)"
    )
    _add_columns(parser)


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image-column", metavar="NAME", help="of a table or dataset, where it cannot be told")
    parser.add_argument("--id-column", metavar="NAME", help="likewise")


def _add_measuring(parser: argparse.ArgumentParser, *, preset: str = "default") -> None:
    parser.add_argument("--preset", choices=PRESETS, help=f"what to measure (default: {preset})")
    parser.set_defaults(usual_preset=preset)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="what to compute in")
    parser.add_argument("--precision", choices=("highest", "high", "default"), help="of products (default: highest)")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images at once (default: 1 a CPU, 8 a GPU)")
    parser.add_argument(
        "--multiple", type=positive, metavar="N", help="crop to a multiple of N pixels; 64 compiles less on many sizes"
    )
    parser.add_argument(
        "--most-pixels",
        type=positive,
        metavar="N",
        help="of an image with more, measure the middle (default: 2^20, such as 1024×1024)",
    )
    parser.add_argument(
        "--most-decoded", type=positive, metavar="N", help="an image with more pixels is an error row (default: 2^27)"
    )


def columns_of(args: argparse.Namespace) -> dict[str, Any]:
    """Of tables and datasets, by the arguments of `_add_columns`."""
    return {"image_column": args.image_column, "id_column": args.id_column}


def setup_of(args: argparse.Namespace) -> Setup:
    """How images are measured, by the arguments of `_add_measuring`."""
    from aedr_jax.scoring.job import Setup
    from aedr_jax.signal.measurement import SignalConfig

    options = ("batch_size", "multiple", "dtype", "precision", "most_pixels", "most_decoded")
    given = {name: value for name in options if (value := getattr(args, name)) is not None}
    return Setup(SignalConfig.preset(args.preset or args.usual_preset), **given)


def limits_of(args: argparse.Namespace) -> dict[str, Limits]:
    """How far each dear rival is to go, by the arguments of `_add_limits`."""
    from aedr_jax.rivals import RIVALS, Limits

    found = {}
    for name, rival in RIVALS.items():
        if rival.limits is not None:
            given = (f"{name}_{what}".replace("-", "_") for what in ("count", "steps", "models"))
            count, steps, models = (getattr(args, option, None) for option in given)
            found[name] = Limits(count, steps, tuple(models) if models else None)
    return found


COMMANDS: Mapping[str, tuple[str, Callable[[_Parser], None]]] = {
    "demo": ("the whole story offline: generate with the miniature models, and attribute it all", _demo),
    "models": ("list the models, and which weights and calibrations are on this machine", _models),
    "convert": ("write an autoencoder as Flax-ready safetensors that load offline", _convert),
    "generate": ("images that belong to a model, made by its own pipeline (to calibrate on)", _generate),
    "score": ("alignment, losses, ratio, homogeneity and signal of each image with each model", _score),
    "calibrate": ("a model's threshold from images known to belong to it", _calibrate),
    "attribute": ("a verdict for each image: a model, several, or none of the candidates", _attribute),
    "report": ("verdicts as one page to show: pictures, charts, facts, and the record", _report),
    "verify": ("compute what a record says again, and say whether it holds", _verify),
    "doctor": ("what is installed and whether it works: devices, weights, caches, a self-test", lambda parser: None),
    "evaluate": ("the paper's experiments on a folder of folders, tables and plots", _evaluate),
}
