"""What each miniature autoencoder is made of and how it is trained: data, read by `train.py`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a run is made of. Widths are the encoder's from full resolution to the latents', a halving apart."""

    widths: tuple[int, ...] = (16, 32, 64, 64)
    latent_channels: int = 4
    norm_num_groups: int = 8
    quant_convs: bool = True
    codes: int = 0  # entries of the codebook: 0 makes an AutoencoderKL, more a VQModel
    tiny_blocks: tuple[int, ...] = ()  # of the encoder's stages, the decoder mirrors them: any makes an AutoencoderTiny
    frame_blocks: int = 0  # residual blocks a level: any makes an AutoencoderKLWan, on images
    attention_head: int = 0  # channels of a head in the three lowest levels: any makes an AutoencoderDC
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
    "mini-wan": Recipe(
        widths=(16, 32, 32, 32),
        latent_channels=16,
        frame_blocks=2,
        log_variance=-6.0,
        kl_weight=1e-10,  # as in mini-kl16
        steps=20_000,
        batch=16,
        crop=128,
        learning_rate=4e-4,  # at 1.5e-3 it learns nothing
        adversarial_weight=0.03,
        feature_weight=0.06,
        seed=6,
    ),
    "mini-dc": Recipe(
        widths=(16, 32, 64, 64, 64, 64),
        latent_channels=32,
        attention_head=32,
        latent_weight=1e-3,
        steps=20_000,
        batch=16,
        crop=256,  # 8 cells of the latents
        learning_rate=6e-4,
        adversarial_weight=0.03,
        feature_weight=0.06,
        seed=7,
    ),
}
