"""Train the miniature autoencoders on photographs, seeded and resumable.

    python weights/train.py mini-kl4-a --photos DIR --out weights/mini-kl4-a --work WORK

`DIR` holds photographs and an `INDEX.csv` with the columns `file, source, original`. Only rows whose source is
`dreambooth` are read (CC-BY-4.0), and of those only the subjects of the training split (`weights/photos.py`).

The models are diffusers' own `AutoencoderKL` and `VQModel`, and an `AutoencoderTiny` with group-normalised middle
blocks (`autoencoder_tiny.py`). What is written is their layout: `config.json` and
`diffusion_pytorch_model.safetensors` in float16, the exponential moving average of the weights. The loss is that of
latent diffusion's autoencoders in small: L1 + MSE + L1 of the image's gradients + a tiny KL term or the codebook's
commitment, and after a quarter of the run a PatchGAN discriminator (hinge loss and feature matching). Without the
discriminator a miniature model's images become almost exact fixed points, and every attribution method is perfect on
them. `mini-kl4-b` is the encoder of `mini-kl4-a` (which must be trained first) with its decoder trained further on
another loss, as Stable Diffusion's fine-tuned decoders are.

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
from diffusers import AutoencoderKL, VQModel
from tqdm import trange

from autoencoder_tiny import AutoencoderTiny
from photos import subjects_split, training_images

CHECKPOINT_EVERY = 250


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a run is made of. Widths are the encoder's from full resolution to 1/8."""

    widths: tuple[int, ...] = (16, 32, 64, 64)
    latent_channels: int = 4
    norm_num_groups: int = 8
    quant_convs: bool = True
    codes: int = 0  # entries of the codebook: 0 makes an AutoencoderKL, more a VQModel
    tiny_blocks: tuple[int, ...] = ()  # of the encoder's stages, the decoder mirrors them: any makes an AutoencoderTiny
    norm_type: str = "group"  # of a VQModel's decoder: "group" or "spatial"
    quantized_share: float = 1.0  # of the images that train the decoder on codebook entries
    decoder_of: str | None = None  # the model whose encoder is kept and whose decoder is trained further
    steps: int = 4000
    batch: int = 8
    crop: int = 64
    learning_rate: float = 2e-3
    l1_weight: float = 1.0
    mse_weight: float = 1.0
    gradient_weight: float = 0.5
    kl_weight: float = 1e-6
    log_variance: float | None = None  # of the posterior at the start; None: as the layer is drawn
    commitment_weight: float = 0.25
    latent_weight: float = 0.0  # of the latents' mean square: a tiny decoder sees nothing beyond ±3
    adversarial_weight: float = 0.04
    feature_weight: float = 0.08
    adversarial_start: float = 0.25  # as a share of the run
    adversarial_ramp: bool = False  # grow from 0 there to twice the weights at the end: strong from the start collapses
    ema: float = 0.999
    bfloat16: bool = False  # convolutions under autocast: a third of the time where the processor has AMX
    seed: int = 0


RECIPES = {
    "mini-kl4-a": Recipe(),
    "mini-kl4-b": Recipe(
        decoder_of="mini-kl4-a",
        steps=1000,
        batch=4,
        learning_rate=5e-4,
        l1_weight=0.0,
        mse_weight=10.0,
        gradient_weight=0.0,
        adversarial_weight=0.0,
        feature_weight=0.0,
        seed=1,
    ),
    "mini-kl16": Recipe(
        latent_channels=16,
        quant_convs=False,
        log_variance=-6.0,
        kl_weight=1e-10,  # the other losses are means over 12,288 values of a crop, the KL term is a sum
        steps=5000,
        adversarial_weight=0.03,
        feature_weight=0.06,
        seed=2,
    ),
    "mini-vq": Recipe(
        latent_channels=4,
        codes=2048,
        steps=3200,
        batch=4,
        learning_rate=1.5e-3,
        ema=0.99,
        commitment_weight=0.1,
        adversarial_weight=0.08,
        feature_weight=0.16,
        adversarial_ramp=True,
        seed=3,
    ),
    "mini-movq": Recipe(
        widths=(32, 32, 64, 64),
        codes=1024,
        norm_type="spatial",
        quantized_share=0.5,
        steps=2400,
        batch=4,
        learning_rate=1.5e-3,
        ema=0.99,
        adversarial_weight=0.06,
        feature_weight=0.12,
        adversarial_ramp=True,
        seed=4,
    ),
    "mini-tiny32": Recipe(
        widths=(32,) * 4,
        latent_channels=32,
        tiny_blocks=(1, 2, 2, 3),
        latent_weight=1e-3,
        steps=5000,
        batch=4,
        learning_rate=1.5e-3,
        ema=0.995,
        adversarial_weight=0.02,
        feature_weight=0.04,
        bfloat16=True,
        seed=5,
    ),
}


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


def build(recipe: Recipe) -> AutoencoderKL | VQModel | AutoencoderTiny:
    levels = len(recipe.widths)
    if recipe.tiny_blocks:
        model = AutoencoderTiny(
            encoder_block_out_channels=recipe.widths,
            decoder_block_out_channels=recipe.widths,
            num_encoder_blocks=recipe.tiny_blocks,
            num_decoder_blocks=recipe.tiny_blocks[::-1],
            latent_channels=recipe.latent_channels,
            midblock_group_norm=True,
        )
        start_as_thumbnail(model)
        return model
    common = {
        "block_out_channels": recipe.widths,
        "layers_per_block": 1,
        "latent_channels": recipe.latent_channels,
        "norm_num_groups": recipe.norm_num_groups,
        "sample_size": 128,
        "scaling_factor": 1.0,  # replaced by 1 / std of the training latents at the end
    }
    if recipe.codes:
        return VQModel(
            down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
            num_vq_embeddings=recipe.codes,
            vq_embed_dim=recipe.latent_channels,
            norm_type=recipe.norm_type,
            **common,
        )
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        use_quant_conv=recipe.quant_convs,
        use_post_quant_conv=recipe.quant_convs,
        **common,
    )
    # A wide posterior teaches the latents to repeat each other: in a first run two components of sixteen held 63 %.
    if recipe.log_variance is not None:
        moments = model.quant_conv if recipe.quant_convs else model.encoder.conv_out
        torch.nn.init.constant_(moments.bias[recipe.latent_channels :], recipe.log_variance)
    return model


@torch.no_grad()
def start_as_thumbnail(model: AutoencoderTiny) -> None:
    """Let three channels carry the colours through: shrunk by the encoder, enlarged by the decoder.

    Without norms a tiny model as PyTorch draws it passes on little but its biases, and spends a tenth of a short run on
    finding the mean colours. From here it learns details at once; all other channels are drawn at He's scale.
    """
    for layers in (model.encoder.layers, model.decoder.layers):
        for layer in layers:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                layer.weight[:3] = 0.0
                for channel in range(3):
                    if layer.stride == (2, 2):
                        layer.weight[channel, channel] = 1 / 9
                    else:
                        layer.weight[channel, channel, 1, 1] = 1.0
                if layer.bias is not None:
                    layer.bias.zero_()
            elif hasattr(layer, "conv"):
                layer.conv[-1].weight.mul_(0.1)
                layer.conv[-1].bias.zero_()
                if hasattr(layer, "pool"):
                    layer.pool[-1].weight.zero_()


def load_trained(folder: Path, recipe: Recipe) -> AutoencoderKL:
    """A model that was exported, in float32; its config says nothing of where it was loaded from."""
    trained = AutoencoderKL.from_pretrained(folder).float()
    model = build(recipe)
    model.load_state_dict(trained.state_dict())
    model.register_to_config(scaling_factor=trained.config.scaling_factor)
    return model


class Codebook(torch.nn.Module):
    """Running counts and sums of the vectors nearest to each entry: entries follow them, dead ones start again."""

    DECAY, RESTART_EVERY, RESTART_UNTIL = 0.99, 25, 0.75

    def __init__(self, embedding: torch.nn.Embedding) -> None:
        super().__init__()
        self.entries = [embedding.weight]  # in a list: the model's own parameter, not one of this module
        embedding.weight.requires_grad_(False)
        self.register_buffer("counts", torch.zeros(embedding.num_embeddings))
        self.register_buffer("sums", torch.zeros_like(embedding.weight))

    def nearest(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest entry of each vector of [n, c, h, w], and the vectors' indices [n * h * w]."""
        flat = z.permute(0, 2, 3, 1)
        indices = torch.cdist(flat.reshape(-1, flat.shape[-1]), self.entries[0]).argmin(1)
        return self.entries[0][indices].reshape(flat.shape).permute(0, 3, 1, 2), indices

    @torch.no_grad()
    def update(self, z: torch.Tensor, indices: torch.Tensor, step: int, recipe: Recipe) -> None:
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        counts = torch.bincount(indices, minlength=len(self.counts)).float()
        sums = torch.zeros_like(self.sums).index_add_(0, indices, flat)
        self.counts.lerp_(counts, 1 - self.DECAY)
        self.sums.lerp_(sums, 1 - self.DECAY)
        if step % self.RESTART_EVERY == 0 and step < self.RESTART_UNTIL * recipe.steps:
            fair = len(flat) / len(self.counts)
            dead = (self.counts < 0.1 * fair).nonzero()[:, 0]
            rng = np.random.default_rng([recipe.seed, step, 1])
            fresh = flat[torch.from_numpy(rng.integers(len(flat), size=len(dead)))]
            fresh = fresh + 0.05 * flat.std() * torch.from_numpy(rng.standard_normal(fresh.shape)).float()
            self.counts[dead] = fair
            self.sums[dead] = fair * fresh
        self.entries[0].copy_(self.sums / self.counts.clamp_min(1e-12)[:, None])


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

    def __init__(self, recipe: Recipe, images: list[np.ndarray], start: AutoencoderKL | None = None) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.images, self.step = recipe, images, 0
        self.model = build(recipe) if start is None else start
        self.model.to(memory_format=torch.channels_last)
        self.codebook = Codebook(self.model.quantize.embedding) if recipe.codes else None
        if recipe.decoder_of:
            self.model.encoder.requires_grad_(False)
            self.model.quant_conv.requires_grad_(False)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.discriminator = PatchDiscriminator().to(memory_format=torch.channels_last)
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
        y = self.model.decode(posterior.mean + posterior.std * noise).sample
        return y, self.recipe.kl_weight * posterior.kl().mean()

    def quantized_pass(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A VQ model's straight-through reconstruction, and the weighted commitment; updates the codebook."""
        recipe = self.recipe
        z = self.model.encode(x).latents
        entries, indices = self.codebook.nearest(z.detach())
        self.codebook.update(z.detach(), indices, self.step, recipe)
        quantized = np.random.default_rng([recipe.seed, self.step, 2]).random(len(x)) < recipe.quantized_share
        quantized = torch.from_numpy(quantized).float()[:, None, None, None]
        latents = z + quantized * (entries - z.detach())
        y = self.model.decode(latents, force_not_quantize=True).sample
        return y, recipe.commitment_weight * F.mse_loss(z, entries)

    def plain_pass(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A tiny model's reconstruction, and its latents' weighted mean square."""
        z = self.model.encode(x).latents
        return self.model.decode(z).sample, self.recipe.latent_weight * z.square().mean()

    def reconstruct(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.codebook:
            return self.quantized_pass(x)
        return self.plain_pass(x) if self.recipe.tiny_blocks else self.sampled_pass(x)

    def train_step(self) -> dict[str, float]:
        recipe, step = self.recipe, self.step
        x = sample_batch(self.images, recipe, step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
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
            for average, value in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                average.lerp_(value, 1 - decay)
        self.step += 1
        return {"loss": loss.item(), "psnr": 10 * math.log10(4 / F.mse_loss(y, x).item())}

    def _parts(self) -> dict:
        names = ("model", "ema", "codebook", "discriminator", "optimizer", "discriminator_optimizer")
        return {name: part for name in names if (part := getattr(self, name)) is not None}

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
    if trainer.recipe.decoder_of is None:
        steps = trainer.recipe.steps
        encoded = [model.encode(sample_batch(trainer.images, trainer.recipe, steps + i)) for i in range(32)]
        latents = [e.latent_dist.mean if isinstance(model, AutoencoderKL) else e.latents for e in encoded]
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
    start = load_trained(args.out.parent / recipe.decoder_of, recipe) if recipe.decoder_of else None
    trainer = Trainer(recipe, training_images(args.photos, split), start)
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
