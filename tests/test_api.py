"""What the command line does, Python does in one call: the same numbers, and what went wrong as data."""

import argparse
import csv
import dataclasses
import inspect
import json
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from make_tiny import QUICK, make_tensors, textured, write_folder

import aedr_jax as aedr
from aedr_jax.cli import arguments
from aedr_jax.cli.main import main
from aedr_jax.decision.domain import Domain
from aedr_jax.errors import CalibrationWarning, RunError, SourceError
from aedr_jax.generate import folder
from aedr_jax.inputs.sources import Files, Source
from aedr_jax.scoring.tables import as_record, to_json
from aedr_jax.signal import measurement

api = aedr.api
pytestmark = pytest.mark.usefixtures("two_devices", "decoded_here", "one_scorer_for_each_setup")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, six images that shall be its own, and a file that is none."""
    root = tmp_path_factory.mktemp("world")
    write_folder(root / "m1", QUICK, make_tensors(QUICK))
    rng = np.random.default_rng(0)
    (root / "own").mkdir()
    for i in range(6):
        textured(rng).save(root / "own" / f"{i}.png")
    (root / "bad.png").write_text("no image")
    return root


@pytest.fixture(scope="module")
def calibration(world):
    with pytest.warns(CalibrationWarning, match="6 belonging images"):
        return api.calibrate(world / "own", str(world / "m1"), out=world / "api" / "m1.json")


class Breaking(Source):
    """Two images, and then nothing can be read."""

    def __init__(self, folder):
        self.files = Files([folder])

    def __iter__(self):
        yield from list(self.files)[:2]
        raise RunError("the disk went away")


@contextmanager
def impatient(total, what):
    """Progress that presses Ctrl-C once an image is done."""

    def advance(done):
        if done:
            raise KeyboardInterrupt

    yield advance


def test_score(world, tmp_path, capsys):
    inputs = [str(world / "own"), str(world / "bad.png")]
    run = api.score(inputs, {"m1": str(world / "m1")}, out=tmp_path / "api.csv")
    assert main(["score", *inputs, "--model", f"m1={world / 'm1'}", "--out", str(tmp_path / "cli.csv")]) == 0
    assert (tmp_path / "api.csv").read_bytes() == (tmp_path / "cli.csv").read_bytes()
    assert run.counts == (7, 1, 0, 7)
    assert (run.complete, run.nothing_scored, run.wanted, dict(run.passed_over)) == (True, False, 7, {})
    assert [row.path for row in run.good] == [str(world / "own" / f"{i}.png") for i in range(6)]
    assert main(["score", *inputs, "--model", f"m1={world / 'm1'}", "--json"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [to_json(as_record(row)) for row in run.rows]


def test_what_ends_a_run_early_is_data(world, tmp_path):
    broken = api.score(Breaking(world / "own"), str(world / "m1"))
    assert (len(broken.rows), broken.problems, broken.complete) == (2, ("the disk went away",), False)
    assert broken.wanted is None
    batch = api.Setup(batch_size=1)
    stopped = api.score(world / "own", str(world / "m1"), setup=batch, out=tmp_path / "s.csv", progress=impatient)
    assert (stopped.interrupted, len(stopped.rows), stopped.wanted, stopped.complete) == (True, 1, 6, False)
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 2
    unread = api.score(world / "bad.png", str(world / "m1"))
    assert (unread.complete, unread.nothing_scored) == (True, True)
    with pytest.raises(SourceError, match="no such file"):
        api.score(world / "missing", str(world / "m1"))
    with pytest.raises(SourceError, match="score_dataset writes folders"):
        api.score(world / "own", str(world / "m1"), out=tmp_path / "folder")


def test_calibrate(world, calibration, tmp_path):
    out = tmp_path / "cli.json"
    assert main(["calibrate", str(world / "own"), "--model", str(world / "m1"), "--out", str(out)]) == 0
    by_hand, printed = (aedr.Calibration.load(path) for path in (world / "api" / "m1.json", out))
    assert by_hand == calibration
    assert printed.provenance.command == f"aedr calibrate {world / 'own'} --model {world / 'm1'} --out {out}"
    when = dataclasses.replace(printed.provenance, created=calibration.provenance.created, command=None)
    assert dataclasses.replace(printed, provenance=when) == calibration


def test_no_threshold_comes_of_a_part_of_the_images(world, tmp_path):
    runs = []
    call = {"model": str(world / "m1"), "out": tmp_path / "c.json", "on_run": runs.append}
    for inputs in (Breaking(world / "own"), world / "bad.png"):
        with pytest.raises(RunError, match="a part of the images"):
            api.calibrate(inputs, **call)
    with pytest.raises(KeyboardInterrupt):
        api.calibrate(world / "own", **call, progress=impatient, setup=api.Setup(batch_size=1))
    assert [(bool(run.problems), run.nothing_scored, run.interrupted) for run in runs] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    assert not (tmp_path / "c.json").exists()


def test_attribute(world, calibration, tmp_path, capsys):
    inputs = [str(world / "own"), str(world / "bad.png")]
    found = api.attribute(inputs, calibrations={"m1": calibration}, out=tmp_path / "v.csv")
    assert main(["attribute", *inputs, "--calibrations", str(world / "api"), "--json"]) == 0
    assert capsys.readouterr().out.splitlines() == [to_json(vars(verdict)) for verdict in found.verdicts]
    with open(tmp_path / "v.csv", newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == [verdict.verdict for verdict in found.verdicts]
    assert found.run.counts.unreadable == 1
    alone = api.attribute(inputs, models=[str(world / "m1")])
    assert main(["attribute", *inputs, "--models", str(world / "m1"), "--json"]) == 0
    assert capsys.readouterr().out.splitlines() == [to_json(vars(verdict)) for verdict in alone.verdicts]
    assert [v.foreign_p_values for v in alone.verdicts] == [v.foreign_p_values for v in found.verdicts]
    with pytest.raises(aedr.CalibrationError, match="settings 'paper' have no alignment"):
        api.attribute(inputs, models=[str(world / "m1")], setup=api.Setup(aedr.SignalConfig.paper()))
    assert list(api.load_calibrations(world / "api" / "m1.json")) == ["m1"]


def test_what_no_score_can_mend_is_said_before_images_are_scored(world, calibration, tmp_path, monkeypatch):
    own, model = world / "own", str(world / "m1")
    with pytest.raises(SourceError, match="no model to score with"):
        api.score(own, [])

    def never(self, models, **options):
        raise AssertionError("models are loaded")

    monkeypatch.setattr(api.Setup, "scorer", never)
    settings = aedr.SignalConfig.paper().describe()  # where alignments decide, sizes and values are not asked
    protocol = dataclasses.replace(calibration.protocol, settings=settings)
    silent = dataclasses.replace(calibration, domain=Domain(), protocol=protocol)
    for made, false_names, message in (
        ([silent], 0.05, "calibration of m1: does not say which sizes and values its images had"),
        ([], 0.05, "no calibration for m1"),
        ([calibration], 5.0, r"false names 5\.0: expected a share"),
    ):
        with pytest.raises(aedr.CalibrationError, match=message):
            api.attribute(own, calibrations={"m1": made}, false_names=false_names)
    for choices, message in (
        ({"alpha": 5.0}, r"alpha 5\.0: expected a share"),
        ({"false_accepts": 0.05}, r"a target of 0\.05 false accepts needs validation images"),
        ({"false_accepts": 5.0, "validation": own}, r"false accepts 5\.0: expected a share in \[0, 1\)"),
        ({"false_accepts": 0.05, "alpha": 0.1, "validation": own}, "there is none to pick"),
    ):
        with pytest.raises(aedr.CalibrationError, match=message):
            api.calibrate(own, model, **choices)
    with pytest.raises(ValueError, match="rule 'median'"):
        api.calibrate(own, model, rule="median")
    with pytest.raises(SourceError, match="is a folder; expected the name of a file"):
        api.calibrate(own, model, out=tmp_path)
    with pytest.raises(SourceError, match="attribute_dataset writes folders"):
        api.attribute(own, calibrations={"m1": [calibration]}, out=tmp_path / "scores")


def test_models(world, calibration, tmp_path, capsys):
    assert main(["models", "--json", "--calibrations", str(world / "api")]) == 0
    found = api.models(world / "api")
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(list(map(dataclasses.asdict, found.models))))
    assert (found.models[-1].model, found.models[-1].weights) == ("m1", str(world / "m1"))
    assert found.no_calibrations == []
    values = json.loads((world / "api" / "m1.json").read_text())
    values["provenance"]["source"] = 5
    (tmp_path / "odd.json").write_text(json.dumps(values))
    assert api.models(tmp_path).no_calibrations == [tmp_path / "odd.json"]


def test_models_with_a_broken_file_beside_their_weights(tmp_path, monkeypatch):
    folder = tmp_path / "sd1.5"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("AEDR_WEIGHTS", str(tmp_path))
    for text in ('{"format":', "[]", '{"weights_hash": 5}', "[" * 100_000):
        (folder / "manifest.json").write_text(text)
        record = next(record for record in api.models().models if record.model == "sd1.5")
        assert (record.weights, record.family) == (str(folder), None)
    (folder / "manifest.json").write_text('{"weights_hash": "ab"}')
    (folder / "calibration.json").write_text("{")
    found = api.models()
    record = next(record for record in found.models if record.model == "sd1.5")
    assert (record.family, record.calibrations) == ("ab", ())
    assert found.no_calibrations == [folder / "calibration.json"]


def test_a_list_of_models_and_the_api_itself_need_no_jax():
    code = "import sys, aedr_jax as aedr; aedr.api.models(); print([m for m in ('jax', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_convert(world, tmp_path, capsys):
    made = api.convert(world / "m1", tmp_path / "api")
    assert main(["convert", str(world / "m1"), str(tmp_path / "cli"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == made
    assert aedr.weights_hash(aedr.load_autoencoder(tmp_path / "api")) == made["weights_hash"]


def test_generate(tmp_path, capsys, monkeypatch):
    def paint(model, seeds, *, size):
        return np.stack([np.full((*size, 3), seed, np.uint8) for seed in seeds])

    monkeypatch.setattr("aedr_jax.generate.miniature.sample_images", paint)
    options = {"n": 2, "seed": 7, "size": 64}
    assert api.generate("mini-vq", tmp_path / "api", **options) == folder.Generated(made=2, kept=0)
    call = ["generate", "--model", "mini-vq", "-n", "2", "--seed", "7", "--size", "64", "--json", "--out"]
    assert main([*call, str(tmp_path / "cli")]) == 0
    assert json.loads(capsys.readouterr().out)["made"] == 2
    for name in ("00000.png", "00001.png", "generated.json"):
        assert (tmp_path / "api" / name).read_bytes() == (tmp_path / "cli" / name).read_bytes()
    assert api.generate("mini-vq", tmp_path / "api", **options).kept == 2


# What a command calls otherwise than the function does.
RENAMED = {
    "score": {"model": "models", "preset": "config", "resource": "resources"},
    "calibrate": {"preset": "config"},
    "attribute": {"preset": "config", "resource": "resources", "scores": "inputs"},
    "report": {"preset": "config"},
    "convert": {"source": "model"},
    "evaluate": {"folder": "inputs", "no_plots": "plots"},
}


def test_every_argument_of_a_command_is_a_parameter():
    (commands,) = (a for a in arguments.make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    functions = {
        "score": [api.score, api.score_dataset],
        "attribute": [api.attribute, api.attribute_dataset],
        "convert": [api.convert],
    }
    for name, command in commands.choices.items():
        signatures = map(inspect.signature, functions.get(name, [getattr(api, name)]))
        known = {parameter for signature in signatures for parameter in signature.parameters}
        if "setup" in known:
            known |= {field.name for field in dataclasses.fields(api.Setup)}
        # Each of the last two calls `convert_pickles`.
        options = {action.dest for action in command._actions} - {"help", "json", "pickle", "lpips"}
        assert {RENAMED.get(name, {}).get(option, option) for option in options} <= known, name
    assert tuple(measurement.PRESETS) == arguments.PRESETS


def test_public_names_are_documented():
    values = {name: getattr(api, name) for name in api.__all__}
    assert [name for name, value in values.items() if callable(value) and not inspect.getdoc(value)] == ["Progress"]
