"""The weights, calibration and examples that ship: whole, matching each other, and true verdicts from them."""

import csv
import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import aedr_jax as aedr
from aedr_jax.autoencoders.checkpoints import to_flat_dict
from aedr_jax.autoencoders.registry import REGISTRY, calibration_file, local_folder, miniature_models
from aedr_jax.cli.main import main
from aedr_jax.decision.threshold import threshold
from aedr_jax.generate import demo
from aedr_jax.generate.miniature import load_flow
from aedr_jax.scoring.scorer import Scorer, load_candidate

pytestmark = pytest.mark.usefixtures("two_devices")
ROOT = Path(__file__).resolve().parents[1]
SHIPPED = miniature_models()
STUDIED = [name for name, entry in REGISTRY.items() if entry.repository is None and not entry.by_default]


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_manifest_and_calibration_belong_together(name):
    folder = local_folder(name)
    manifest = json.loads((folder / "manifest.json").read_text())
    weights = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == manifest["sha256"]
    assert manifest["steps_done"] == manifest["recipe"]["steps"]
    sampler = (folder / "sampler.safetensors").read_bytes()
    assert hashlib.sha256(sampler).hexdigest() == manifest["sampler"]["sha256"]
    assert len(weights) <= 2.5e6
    assert "/" not in json.loads((folder / "config.json").read_text()).get("_name_or_path", "")
    calibration = aedr.Calibration.load(calibration_file(name))
    scorer = Scorer([load_candidate(name)])
    calibration.check_against(scorer.protocol(scorer.candidates[0]))
    assert calibration.aligned
    assert len(calibration.scores) >= 196  # of 200: of at most 2 % nothing can be said
    again = threshold(calibration.scores, alpha=calibration.alpha, rule=calibration.rule)
    assert calibration.threshold == pytest.approx(again, rel=1e-9)


@pytest.mark.parametrize("name", STUDIED)
def test_weights_of_the_studied_decoders_belong_to_their_manifest(name):
    folder, entry = local_folder(name), REGISTRY[name]
    manifest = json.loads((folder / "manifest.json").read_text())
    weights = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == manifest["sha256"]
    assert len(weights) <= 2.5e6
    assert calibration_file(name) is None
    autoencoder = aedr.load_autoencoder(name)
    assert autoencoder.factor == entry.factor
    assert json.loads((folder / "config.json").read_text())["_class_name"] == entry.family
    with pytest.raises(aedr.AutoencoderError, match="no sampler beside its weights"):
        load_flow(name)


def test_a_fine_tuned_decoder_keeps_its_encoder():
    a, b = (to_flat_dict(aedr.load_autoencoder(f"mini-kl4-{letter}")) for letter in "ab")
    differs = {name.split(".")[0] for name in a if not np.array_equal(a[name], b[name])}
    assert differs == {"decoder", "post_quant_conv"}


@pytest.fixture
def one_device(monkeypatch):
    """A batch is one image; over two devices it would be filled up to two."""
    monkeypatch.setattr(jax, "local_devices", lambda **_: jax.devices()[:1])
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)


@pytest.mark.usefixtures("one_device")
def test_attribute_tells_the_examples_apart(capsys):
    """One image of each folder; README's first command, which `.ci/run` compares with what README has, prints all."""
    folders = [folder for folder in sorted((ROOT / "examples").iterdir()) if folder.is_dir()]
    images = [str(min(folder.glob("*.png"))) for folder in folders]
    assert main(["attribute", *images, "--json"]) == 0
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    photographs = [v for v in verdicts if Path(v["path"]).parent.name == "photographs"]
    assert [v["verdict"] for v in photographs] == ["none"]
    generated = [(Path(v["path"]).parent.name, v) for v in verdicts if v not in photographs]
    assert sorted({source for source, _ in generated}) == sorted(SHIPPED)
    named = {v["verdict"] for source, v in generated if not v["accepted"][source]}
    assert named <= {"none"}, "an image was given to other models only"
    # alpha turns away one in twenty of a model's own
    assert sum(v["accepted"][source] for source, v in generated) >= len(generated) - 1


def test_examples_are_what_the_demo_writes(tmp_path):
    """Within one grey level: a machine may round the last bit of a float32 sum the other way."""
    written = next(iter(demo.write_images(tmp_path, SHIPPED[:1], 1)))
    shipped = aedr.read_image(ROOT / "examples" / written.relative_to(tmp_path))
    assert np.abs(aedr.read_image(written).astype(int) - shipped).max() <= 1


def test_examples_have_the_native_size():
    for path in (ROOT / "examples").rglob("*.png"):
        assert aedr.read_image(path).shape == (128, 128, 3)


def test_the_list_of_photographs_is_that_of_the_split():
    photos = ROOT.parent / "shared" / "data" / "photos"
    if not photos.is_dir():
        pytest.skip("the photographs are not beside the project (../shared/data/photos)")
    with open(ROOT / "weights" / "photos.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(photos / "INDEX.csv", newline="") as file:
        index = {row["file"]: row for row in csv.DictReader(file) if row["source"] == "dreambooth"}
    assert [row["file"] for row in rows] == list(index)
    subjects = {"train": set(), "calibration": set(), "test": set()}
    for row in rows:
        assert hashlib.sha256((photos / row["file"]).read_bytes()).hexdigest() == row["sha256"]
        assert index[row["file"]]["original"].endswith(row["path"])
        subjects[row["split"]].add(row["path"].split("/")[1])
    assert not subjects["train"] & subjects["calibration"]
    assert not subjects["test"] & (subjects["train"] | subjects["calibration"])
    assert sum(row["split"] == "train" for row in rows) == 106
