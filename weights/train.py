"""Train a miniature autoencoder on photographs, seeded and resumable.

    python weights/train.py mini-kl4-a --photos DIR --out weights/mini-kl4-a --work WORK

`DIR` holds photographs and an `INDEX.csv` with the columns `file, source, original`. Only rows whose source is
`dreambooth` are read (CC-BY-4.0), and of those only the subjects of the training split (`weights/photos.py`).

The model is diffusers' own `AutoencoderKL`, so what is written is its own layout: `config.json` and
`diffusion_pytorch_model.safetensors` in float16, the exponential moving average of the weights. The loss is that of
latent diffusion's autoencoders in small: L1 + MSE + L1 of the image's gradients + a tiny KL term, and after a quarter
of the run a PatchGAN discriminator (hinge loss and feature matching). Without the discriminator a miniature model's
images become almost exact fixed points, and every attribution method is perfect on them.

Every random number comes from (seed, step), never from a running generator's state: a run that was interrupted and
resumed ends in the same weights as one that was not.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from tqdm import trange

from photos import subjects_split, training_images

CHECKPOINT_EVERY = 250


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a run is made of. Widths are the encoder's from full resolution to 1/8."""

    widths: tuple[int, ...] = (16, 32, 64, 64)
    latent_channels: int = 4
    norm_num_groups: int = 8
    quant_convs: bool = True
    steps: int = 4000
    batch: int = 8
    crop: int = 64
    learning_rate: float = 2e-3
    gradient_weight: float = 0.5
    kl_weight: float = 1e-6
    adversarial_weight: float = 0.04
    feature_weight: float = 0.08
    adversarial_start: float = 0.25  # as a share of the run
    ema: float = 0.999
    seed: int = 0


RECIPES = {"mini-kl4-a": Recipe()}


class PatchDiscriminator(torch.nn.Module):
    """A three-layer PatchGAN; `forward` returns the features of each layer and the patch logits last."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(
            [
                torch.nn.Conv2d(3, width, 4, 2, 1),
                torch.nn.Conv2d(width, 2 * width, 4, 2, 1),
                torch.nn.Conv2d(2 * width, 2 * width, 3, 1, 1),
            ]
        )
        self.norms = torch.nn.ModuleList([torch.nn.GroupNorm(8, 2 * width), torch.nn.GroupNorm(8, 2 * width)])
        self.out = torch.nn.Conv2d(2 * width, 1, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i:
                x = self.norms[i - 1](x)
            x = F.leaky_relu(x, 0.2)
            features.append(x)
        return [*features, self.out(x)]


def build(recipe: Recipe) -> AutoencoderKL:
    levels = len(recipe.widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=recipe.widths,
        layers_per_block=1,
        latent_channels=recipe.latent_channels,
        norm_num_groups=recipe.norm_num_groups,
        sample_size=128,
        use_quant_conv=recipe.quant_convs,
        use_post_quant_conv=recipe.quant_convs,
        scaling_factor=1.0,  # replaced by 1 / std of the training latents at the end
    )


def sample_batch(images: list[np.ndarray], recipe: Recipe, step: int) -> torch.Tensor:
    """Random flipped crops for one step, [batch, 3, crop, crop] in [-1, 1]."""
    rng = np.random.default_rng([recipe.seed, step])
    crops = []
    for _ in range(recipe.batch):
        image = images[rng.integers(len(images))]
        top = rng.integers(image.shape[0] - recipe.crop + 1)
        left = rng.integers(image.shape[1] - recipe.crop + 1)
        crop = image[top : top + recipe.crop, left : left + recipe.crop]
        crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    batch = torch.from_numpy(np.stack(crops)).float().permute(0, 3, 1, 2) / 127.5 - 1
    return batch.contiguous(memory_format=torch.channels_last)


def gradient_l1(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    difference = a - b
    return difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()


def learning_rate(recipe: Recipe, step: int) -> float:
    warm_up = min(1.0, (step + 1) / 100)
    return recipe.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


class Trainer:
    """The state of a run and one step of it."""

    def __init__(self, recipe: Recipe, images: list[np.ndarray]) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.images, self.step = recipe, images, 0
        self.model = build(recipe).to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.discriminator = PatchDiscriminator().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=5e-4, betas=(0.5, 0.9), weight_decay=1e-4
        )

    def train_step(self) -> dict[str, float]:
        recipe, step = self.recipe, self.step
        x = sample_batch(self.images, recipe, step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        posterior = self.model.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(recipe.seed * 2**32 + step))
        y = self.model.decode(posterior.mean + posterior.std * noise).sample
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + recipe.gradient_weight * gradient_l1(y, x)
        loss = loss + recipe.kl_weight * posterior.kl().mean()
        adversarial = step >= recipe.adversarial_start * recipe.steps and recipe.adversarial_weight > 0
        if adversarial:
            *real_features, real_logits = self.discriminator(x)
            *fake_features, fake_logits = self.discriminator(y.detach())
            critic_loss = (F.relu(1 - real_logits) + F.relu(1 + fake_logits)).mean()
            self.discriminator_optimizer.zero_grad(set_to_none=True)
            critic_loss.backward()
            self.discriminator_optimizer.step()
            self.discriminator.requires_grad_(False)
            *fake_features, fake_logits = self.discriminator(y)
            matching = sum(F.l1_loss(f, r.detach()) for f, r in zip(fake_features, real_features, strict=True))
            loss = loss + recipe.adversarial_weight * -fake_logits.mean() + recipe.feature_weight * matching
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator.requires_grad_(True)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        decay = min(recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for average, value in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                average.lerp_(value, 1 - decay)
        self.step += 1
        return {"loss": loss.item(), "psnr": 10 * math.log10(4 / F.mse_loss(y, x).item())}

    def _parts(self) -> dict:
        names = ("model", "ema", "discriminator", "optimizer", "discriminator_optimizer")
        return {name: getattr(self, name) for name in names}

    def save(self, path: Path) -> None:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        partial = path.with_suffix(".partial")
        torch.save({**state, "step": self.step, "recipe": dataclasses.asdict(self.recipe)}, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        if state["recipe"] != dataclasses.asdict(self.recipe):
            raise SystemExit(f"{path} was written by another recipe; delete it or choose another --work folder")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step = state["step"]


@torch.no_grad()
def export(trainer: Trainer, out: Path, name: str, split: dict[str, str]) -> None:
    """Write the averaged weights as float16 in diffusers' layout, with a manifest of how they were made."""
    model = copy.deepcopy(trainer.ema).to(memory_format=torch.contiguous_format)
    latents = [
        model.encode(sample_batch(trainer.images, trainer.recipe, trainer.recipe.steps + i)).latent_dist.mean
        for i in range(16)
    ]
    model.register_to_config(scaling_factor=round(1 / torch.cat(latents).std().item(), 5))
    model.half().save_pretrained(out)
    weights = (out / "diffusion_pytorch_model.safetensors").read_bytes()
    manifest = {
        "name": name,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "recipe": dataclasses.asdict(trainer.recipe),
        "steps_done": trainer.step,
        "photographs": len({k for k, v in split.items() if v == "train"}),
        "torch": torch.__version__,
        "licence": "Apache-2.0",
        "training_data": "google/dreambooth dataset/ (CC-BY-4.0), subjects of the train split",
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint to resume from")
    parser.add_argument("--until", type=int, help="stop (and write a checkpoint) at this step of the schedule")
    args = parser.parse_args()
    recipe = RECIPES[args.name]
    split = subjects_split(args.photos)
    trainer = Trainer(recipe, training_images(args.photos, split))
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint = args.work / f"{args.name}.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    stop = min(args.until or recipe.steps, recipe.steps)
    bar = trange(trainer.step, stop, initial=trainer.step, total=stop, desc=args.name, mininterval=5)
    for _ in bar:
        bar.set_postfix({k: f"{v:.4f}" for k, v in trainer.train_step().items()}, refresh=False)
        if trainer.step % CHECKPOINT_EVERY == 0 or trainer.step == stop:
            trainer.save(checkpoint)
    export(trainer, args.out, args.name, split)


if __name__ == "__main__":
    main()
