"""The training script: the same seed gives the same weights, and an interrupted run those of an uninterrupted one.

Both exactly: every random number comes from (seed, step), and a checkpoint holds the whole state.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "weights"))

import train

STEPS = 8  # the discriminator joins at the second, codes start again at the first


def small(name):
    return dataclasses.replace(train.RECIPES[name], steps=STEPS, batch=2, crop=32)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 48, 3), np.uint8) for _ in range(3)]


def trainer(name, images):
    recipe = small(name)
    start = None
    if recipe.decoder_of:
        torch.manual_seed(99)
        start = train.build(train.RECIPES[recipe.decoder_of])
    return train.Trainer(recipe, images, start)


def weights(run):
    return {
        f"{part}.{name}": value for part in ("model", "ema") for name, value in getattr(run, part).state_dict().items()
    }


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.mark.parametrize("name", train.RECIPES)
def test_same_seed_and_resumed_runs_end_in_the_same_weights(name, images, tmp_path):
    whole, again, interrupted = (trainer(name, images) for _ in range(3))
    before = {key: value.clone() for key, value in weights(whole).items()}
    losses = [[run.train_step() for _ in range(STEPS)] for run in (whole, again)]
    assert losses[0] == losses[1]
    assert_equal(weights(whole), weights(again))

    for _ in range(3):
        interrupted.train_step()
    interrupted.save(tmp_path / "checkpoint.pt")
    resumed = trainer(name, images)
    resumed.load(tmp_path / "checkpoint.pt")
    for _ in range(STEPS - 3):
        resumed.train_step()
    assert_equal(weights(whole), weights(resumed))
    moved = {key for key, value in weights(whole).items() if not torch.equal(value, before[key])}
    frozen = {key for key in before if ".encoder." in key or ".quant_conv." in key}
    assert moved, "nothing was trained"
    assert bool(moved & frozen) != bool(small(name).decoder_of), "a fine-tuned decoder keeps its encoder, no other does"


def test_another_seed_gives_other_weights(images):
    recipe = small("mini-kl4-a")
    runs = [train.Trainer(dataclasses.replace(recipe, seed=seed), images) for seed in (0, 1)]
    for run in runs:
        run.train_step()
    assert not torch.equal(*(run.model.decoder.conv_in.weight for run in runs))


def test_a_checkpoint_of_another_recipe_is_refused(images, tmp_path):
    run = trainer("mini-kl4-a", images)
    run.save(tmp_path / "checkpoint.pt")
    other = train.Trainer(dataclasses.replace(run.recipe, steps=STEPS + 1), images)
    with pytest.raises(SystemExit, match="another recipe"):
        other.load(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("name", ["mini-kl4-a", "mini-vq", "mini-tiny32", "mini-wan", "mini-dc"])
def test_export_is_a_checkpoint_of_its_own_hash(name, images, tmp_path):
    import hashlib
    import json

    run = trainer(name, images)
    run.train_step()
    train.export(run, tmp_path, name, {"a.png": "train", "b.png": "test"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    data = (tmp_path / "diffusion_pytorch_model.safetensors").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(data).hexdigest()
    assert (manifest["steps_done"], manifest["photographs"]) == (1, 1)
    assert len(data) < 2.5e6


def test_dead_codes_start_again_from_latents():
    embedding = torch.nn.Embedding(4, 2)
    torch.nn.init.constant_(embedding.weight, 100.0)
    codebook = train.Codebook(embedding)
    z = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    codebook.update(z, codebook.nearest(z)[1], 0, small("mini-vq"))
    assert embedding.weight.abs().max() < 10
    entries, indices = codebook.nearest(z)
    assert len(indices.unique()) > 1
    assert torch.equal(entries[0, :, 0, 0], embedding.weight[indices[0]])
