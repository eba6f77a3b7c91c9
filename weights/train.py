"""Train the miniature autoencoders on photographs, seeded and resumable.

    python weights/train.py mini-kl4-a --photos DIR --out weights/mini-kl4-a --work WORK

`DIR` holds photographs and an `INDEX.csv` with the columns `file, source, original`. Only rows whose source is
`dreambooth` are read (CC-BY-4.0), and of those only the subjects of the training split (`weights/photos.py`).

The models are diffusers' own `AutoencoderKL`, `VQModel`, `AutoencoderDC` and, on images, `AutoencoderKLWan`
(`autoencoder_wan.py`), and an `AutoencoderTiny` with group-normalised middle blocks (`autoencoder_tiny.py`). The
recipes are data (`recipes.py`). What is written is their layout: `config.json` and
`diffusion_pytorch_model.safetensors` in float16, the exponential moving average of the weights. The loss is that of
latent diffusion's autoencoders in small: L1 + MSE + L1 of the image's gradients + a tiny KL term or the codebook's
commitment, and after a quarter of the run a PatchGAN discriminator (hinge loss and feature matching). Without the
discriminator a miniature model's images become almost exact fixed points, and every attribution method is perfect on
them. `mini-kl4-b` is the encoder of `mini-kl4-a` (which must be trained first) with its decoder trained further on
another loss, as Stable Diffusion's fine-tuned decoders are.

Every random number comes from (seed, step), never from a running generator's state: a run that was interrupted and
resumed ends in the same weights as one that was not. On a GPU, which is used where there is one, that holds up to
the order in which its kernels add.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from tqdm import tqdm

from networks import Codebook, PatchDiscriminator, build, latents_of, load_trained
from photos import subjects_split, training_images
from recipes import RECIPES, Recipe

CHECKPOINT_EVERY, REPORT_EVERY = 250, 50


def sample_batch(
    images: list[np.ndarray], recipe: Recipe, step: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Random flipped crops for one step, [batch, 3, crop, crop] in [-1, 1]."""
    rng = np.random.default_rng([recipe.seed, step])
    crops = []
    for _ in range(recipe.batch):
        image = images[rng.integers(len(images))]
        top = rng.integers(image.shape[0] - recipe.crop + 1)
        left = rng.integers(image.shape[1] - recipe.crop + 1)
        crop = image[top : top + recipe.crop, left : left + recipe.crop]
        crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    batch = torch.from_numpy(np.stack(crops)).to(device).float().permute(0, 3, 1, 2) / 127.5 - 1
    return batch.contiguous(memory_format=torch.channels_last)


def gradient_l1(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    difference = a - b
    return difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()


def learning_rate(recipe: Recipe, step: int) -> float:
    warm_up = min(1.0, (step + 1) / 100)
    return recipe.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


class Trainer:
    """The state of a run and one step of it."""

    def __init__(
        self,
        recipe: Recipe,
        images: list[np.ndarray],
        start: AutoencoderKL | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.images, self.step, self.device = recipe, images, 0, torch.device(device)
        self.model = (build(recipe) if start is None else start).to(self.device)
        if not recipe.frame_blocks:  # whose kernels have five axes
            self.model.to(memory_format=torch.channels_last)
        self.codebook = Codebook(self.model.quantize.embedding).to(self.device) if recipe.codes else None
        if recipe.decoder_of:
            self.model.encoder.requires_grad_(False)
            self.model.quant_conv.requires_grad_(False)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.discriminator = PatchDiscriminator().to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad], betas=(0.9, 0.99), weight_decay=1e-4
        )
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=5e-4, betas=(0.5, 0.9), weight_decay=1e-4
        )

    def sampled_pass(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A KL model's reconstruction from a draw of its posterior, and the weighted KL term."""
        posterior = self.model.encode(x).latent_dist
        seed = self.recipe.seed * 2**32 + self.step
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
        y = self.model.decode(posterior.mean + posterior.std * noise.to(self.device)).sample
        return y, self.recipe.kl_weight * posterior.kl().mean()

    def quantized_pass(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A VQ model's straight-through reconstruction, and the weighted commitment; updates the codebook."""
        recipe = self.recipe
        z = self.model.encode(x).latents
        entries, indices = self.codebook.nearest(z.detach())
        self.codebook.update(z.detach(), indices, self.step, recipe)
        quantized = np.random.default_rng([recipe.seed, self.step, 2]).random(len(x)) < recipe.quantized_share
        quantized = torch.from_numpy(quantized).float().to(self.device)[:, None, None, None]
        latents = z + quantized * (entries - z.detach())
        y = self.model.decode(latents, force_not_quantize=True).sample
        return y, recipe.commitment_weight * F.mse_loss(z, entries)

    def plain_pass(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A deterministic model's reconstruction, and its latents' weighted mean square."""
        z = latents_of(self.model, x)
        return self.model.decode(z).sample, self.recipe.latent_weight * z.square().mean()

    def reconstruct(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.codebook:
            return self.quantized_pass(x)
        plain = self.recipe.tiny_blocks or self.recipe.attention_head
        return self.plain_pass(x) if plain else self.sampled_pass(x)

    def train_step(self) -> dict[str, torch.Tensor]:
        """One step; its loss and mean squared error are left on the device, so that nothing waits for them."""
        recipe, step = self.recipe, self.step
        x = sample_batch(self.images, recipe, step, self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bfloat16):
            y, loss = self.reconstruct(x)
        y, loss = y.float(), loss.float()
        loss = loss + recipe.l1_weight * F.l1_loss(y, x) + recipe.mse_weight * F.mse_loss(y, x)
        loss = loss + recipe.gradient_weight * gradient_l1(y, x)
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
            ramp = 2 * (step / recipe.steps - recipe.adversarial_start) / (1 - recipe.adversarial_start)
            strength = ramp if recipe.adversarial_ramp else 1.0
            loss = loss + strength * (recipe.feature_weight * matching - recipe.adversarial_weight * fake_logits.mean())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator.requires_grad_(True)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        decay = min(recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)
        self.step += 1
        return {"loss": loss.detach(), "mse": F.mse_loss(y.detach(), x)}

    def _parts(self) -> dict:
        names = ("model", "ema", "codebook", "discriminator", "optimizer", "discriminator_optimizer")
        return {name: part for name in names if (part := getattr(self, name)) is not None}

    def save(self, path: Path) -> None:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        partial = path.with_suffix(".partial")
        torch.save({**state, "step": self.step, "recipe": dataclasses.asdict(self.recipe)}, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True, map_location=self.device)
        if state["recipe"] != dataclasses.asdict(self.recipe):
            raise SystemExit(f"{path} was written by another recipe; delete it or choose another --work folder")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step = state["step"]


@torch.no_grad()
def export(trainer: Trainer, out: Path, name: str, split: dict[str, str]) -> None:
    """Write the averaged weights as float16 in diffusers' layout, with a manifest of how they were made."""
    model = copy.deepcopy(trainer.ema)
    if trainer.recipe.decoder_of is None:
        steps = trainer.recipe.steps
        batches = (sample_batch(trainer.images, trainer.recipe, steps + i, trainer.device) for i in range(32))
        latents = torch.cat([latents_of(model, batch) for batch in batches])
        if trainer.recipe.frame_blocks:  # whose config has a mean and a deviation a channel
            by_channel = latents.transpose(0, 1).flatten(1)
            mean, std = ([round(v, 4) for v in values.tolist()] for values in (by_channel.mean(1), by_channel.std(1)))
            model.register_to_config(latents_mean=mean, latents_std=std)
        else:
            model.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    if not trainer.recipe.frame_blocks:
        model.to(memory_format=torch.contiguous_format)
    model.cpu().half().save_pretrained(out)
    weights = (out / "diffusion_pytorch_model.safetensors").read_bytes()
    manifest = {
        "name": name,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "recipe": dataclasses.asdict(trainer.recipe),
        "steps_done": trainer.step,
        "photographs": len({k for k, v in split.items() if v == "train"}),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else "cpu",
        "licence": "Apache-2.0",
        "training_data": "google/dreambooth dataset/ (CC-BY-4.0), subjects of the train split",
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def planned(recipe: Recipe, step: int, seconds_left: float, seconds_a_step: float) -> Recipe:
    """The recipe with as many steps as fit into the time that is left; a twentieth of it is kept for the end."""
    return dataclasses.replace(recipe, steps=step + max(1, int(0.95 * seconds_left / seconds_a_step)))


def main() -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint to resume from")
    parser.add_argument("--until", type=int, help="stop (and write a checkpoint) at this step of the schedule")
    parser.add_argument(
        "--seconds",
        type=float,
        help="end the schedule in this time: its length follows the speed of the last steps, and stands in the manifest"
        " (such a run is not repeated to the bit: learning rates depend on the machine)",
    )
    args = parser.parse_args()
    recipe = RECIPES[args.name]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = True
    split = subjects_split(args.photos)
    start = load_trained(args.out.parent / recipe.decoder_of, recipe) if recipe.decoder_of else None
    images = training_images(args.photos, split, recipe.crop)
    trainer = Trainer(recipe, images, start, device)
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint = args.work / f"{args.name}.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    bar = tqdm(initial=trainer.step, total=min(args.until or recipe.steps, recipe.steps), desc=args.name, mininterval=5)
    planned_at = time.monotonic()
    while trainer.step < min(args.until or trainer.recipe.steps, trainer.recipe.steps):
        found = trainer.train_step()
        bar.update()
        over = args.seconds and time.monotonic() - begun > args.seconds
        if trainer.step % REPORT_EVERY == 0:
            psnr = 10 * math.log10(4 / found["mse"].item())
            bar.set_postfix(loss=f"{found['loss'].item():.4f}", psnr=f"{psnr:.2f}", refresh=False)
            if args.seconds:
                now = time.monotonic()
                left, share = begun + args.seconds - now, (now - planned_at) / REPORT_EVERY
                trainer.recipe, planned_at = planned(trainer.recipe, trainer.step, left, share), now
                bar.total = trainer.recipe.steps
        if trainer.step % CHECKPOINT_EVERY == 0:
            trainer.save(checkpoint)
        if over:
            break
    bar.close()
    trainer.save(checkpoint)
    export(trainer, args.out, args.name, split)


if __name__ == "__main__":
    main()
