"""Train the latent flow with which a miniature model generates, seeded and resumable.

    python weights/train_sampler.py mini-kl4-a --photos DIR --work WORK

The training data are the latents of random 128-pixel crops of the training photographs; for a model that generates
from codebook entries, the nearest entries. Every random number comes from (seed, step), as in `train.py`. Writes
`sampler.json` and `sampler.safetensors` beside the autoencoder's weights, and their sha256 into its manifest.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import trange

from aedr_jax import load_autoencoder
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.generate.miniature import FlowConfig, LatentFlow, save_flow
from photos import random_crop, subjects_split

CHECKPOINT_EVERY = 250


@dataclasses.dataclass(frozen=True)
class Recipe:
    crops: int = 1536
    side: int = 128
    steps: int = 2000
    batch: int = 16
    learning_rate: float = 2e-3
    ema: float = 0.998
    seed: int = 0


RECIPES = {"mini-kl4-a": Recipe(steps=3000)}  # which mini-kl4-b shares; every other model: Recipe()


def training_latents(model: str, photos: Path, recipe: Recipe) -> np.ndarray:
    """Latents of random crops, half of them mirrored, as the decoder sees them when it generates: [crops, h, w, c]."""
    autoencoder = load_autoencoder(model)
    quantized = bool(REGISTRY[model].quantize)

    @jax.jit
    def latents_of(autoencoder, pixels):
        latents = autoencoder.encode(pixels.astype(jnp.float32) / 127.5 - 1)
        return autoencoder.quantize(latents) if quantized else latents

    files = sorted(file for file, part in subjects_split(photos).items() if part == "train")
    latents = []
    for start in trange(0, recipe.crops, 16, desc=f"{model}: latents", mininterval=5):
        crops = []
        for i in range(start, start + 16):
            rng = np.random.default_rng([recipe.seed, i])
            crop = random_crop(photos / files[i % len(files)], recipe.side, rng)
            crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
        latents.append(np.asarray(latents_of(autoencoder, jnp.asarray(np.stack(crops)))))
    return np.concatenate(latents)


class Trainer:
    """The state of a run and one step of it; `latents` are normalized."""

    def __init__(self, recipe: Recipe, config: FlowConfig, latents: np.ndarray) -> None:
        self.recipe, self.step = recipe, 0
        self.latents = jnp.asarray((latents - np.float32(config.mean)) / np.float32(config.std))
        self.graph, self.params = nnx.split(LatentFlow(config, nnx.Rngs(recipe.seed)))
        schedule = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, recipe.steps // 20, recipe.steps)
        self.optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99))
        self.optimizer_state = self.optimizer.init(self.params)
        self.ema = self.params
        self._update = jax.jit(self._step)

    def _step(self, params, ema, optimizer_state, latents, step):
        recipe = self.recipe
        chosen, noise_key, time_key = jax.random.split(jax.random.fold_in(jax.random.key(recipe.seed), step), 3)
        x = latents[jax.random.randint(chosen, (recipe.batch,), 0, len(latents))]
        noise = jax.random.normal(noise_key, x.shape)
        t = jax.nn.sigmoid(jax.random.normal(time_key, (recipe.batch,)))  # logit-normal: the hard middle more often
        mixed = (1 - t[:, None, None, None]) * noise + t[:, None, None, None] * x

        def loss_of(params):
            return jnp.mean((nnx.merge(self.graph, params)(mixed, t) - (x - noise)) ** 2)

        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, optimizer_state = self.optimizer.update(gradient, optimizer_state, params)
        params = optax.apply_updates(params, updates)
        done = jnp.float32(step)
        decay = jnp.minimum(recipe.ema, (1 + done) / (10 + done))
        ema = jax.tree.map(lambda average, value: decay * average + (1 - decay) * value, ema, params)
        return params, ema, optimizer_state, loss

    def train_step(self) -> float:
        self.params, self.ema, self.optimizer_state, loss = self._update(
            self.params, self.ema, self.optimizer_state, self.latents, self.step
        )
        self.step += 1
        return float(loss)

    def save(self, path: Path) -> None:
        leaves = jax.tree.leaves((self.params, self.ema, self.optimizer_state))
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, *map(np.asarray, leaves), step=self.step, recipe=json.dumps(dataclasses.asdict(self.recipe)))
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        with np.load(path) as file:
            if json.loads(str(file["recipe"])) != dataclasses.asdict(self.recipe):
                raise SystemExit(f"{path} was written by another recipe; delete it or choose another --work folder")
            treedef = jax.tree.structure((self.params, self.ema, self.optimizer_state))
            leaves = [jnp.asarray(file[f"arr_{i}"]) for i in range(treedef.num_leaves)]
            self.params, self.ema, self.optimizer_state = jax.tree.unflatten(treedef, leaves)
            self.step = int(file["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a miniature model whose autoencoder is trained")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="folder to write to (default: weights/NAME)")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint to resume from")
    args = parser.parse_args()
    recipe = RECIPES.get(args.name, Recipe())
    args.work.mkdir(parents=True, exist_ok=True)
    cache = args.work / f"{args.name}-latents.npy"
    if not cache.exists():
        np.save(cache, training_latents(args.name, args.photos, recipe))
    latents = np.load(cache)
    mean, std = (getattr(latents, f)((0, 1, 2)).round(5).tolist() for f in ("mean", "std"))
    trainer = Trainer(recipe, FlowConfig(tuple(mean), tuple(std)), latents)
    checkpoint = args.work / f"{args.name}-sampler.npz"
    if checkpoint.exists():
        trainer.load(checkpoint)
    losses = []
    bar = trange(trainer.step, recipe.steps, initial=trainer.step, total=recipe.steps, desc=args.name, mininterval=5)
    for _ in bar:
        losses.append(trainer.train_step())
        if trainer.step % CHECKPOINT_EVERY == 0 or trainer.step == recipe.steps:
            bar.set_postfix(loss=f"{np.mean(losses[-CHECKPOINT_EVERY:]):.4f}")
            trainer.save(checkpoint)
    out = args.out or Path(__file__).parent / args.name
    path = save_flow(nnx.merge(trainer.graph, trainer.ema), out)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["sampler"] = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "recipe": dataclasses.asdict(recipe),
        "jax": jax.__version__,
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
