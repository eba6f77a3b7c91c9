"""The weights, calibration and examples that ship: whole, matching each other, and true verdicts from them."""

import hashlib
import json
from pathlib import Path

import pytest

import aedr_jax as aedr
from aedr_jax.autoencoders.registry import REGISTRY, calibration_file, local_folder
from aedr_jax.cli import main

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = [name for name, entry in REGISTRY.items() if entry.repository is None]


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_manifest_and_calibration_belong_together(name):
    folder = local_folder(name)
    manifest = json.loads((folder / "manifest.json").read_text())
    weights = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == manifest["sha256"]
    assert manifest["steps_done"] == manifest["recipe"]["steps"]
    calibration = aedr.Calibration.load(calibration_file(name))
    calibration.check_against(aedr.weights_hash(aedr.load_autoencoder(name)), aedr.SignalConfig())
    assert len(calibration.scores) >= 200
    again = aedr.kde_threshold(calibration.scores, alpha=calibration.alpha)
    assert calibration.threshold == pytest.approx(again, rel=1e-9)


def test_attribute_tells_own_images_from_photographs(capsys):
    own, photographs = ROOT / "examples" / "own", ROOT / "examples" / "photographs"
    assert main(["attribute", str(own), str(photographs), "--multiple", "128", "--json"]) == 0
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_folder = {
        folder: [v["verdict"] for v in verdicts if Path(v["path"]).parent == folder] for folder in (own, photographs)
    }
    assert by_folder == {own: ["mini-kl4-a"] * 6, photographs: ["none"] * 6}


def test_examples_have_the_native_size():
    for path in (ROOT / "examples").rglob("*.png"):
        assert aedr.read_image(path).shape == (128, 128, 3)
