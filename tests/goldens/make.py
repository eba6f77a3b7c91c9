"""Write the golden fixtures of this folder from the reference libraries alone: `python tests/goldens/make.py`.

Made with torch 2.13.0, diffusers 0.39.0, scikit-image 0.26.0 and scipy 1.17.1. Tiny random networks: a folder each
with `config.json`, weights as diffusers saves them and `expected.npz` (images and latents NHWC). `movq` would be
large, since spatial norm needs 32 channels: only the names and shapes of its tensors are kept, and `drawn.py` draws
them anew.
"""

import json
from pathlib import Path

import diffusers
import numpy as np
import scipy.stats
import skimage.feature
import skimage.metrics
import torch
from drawn import draw

HERE = Path(__file__).parent
DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
ATTENTION_DOWN, ATTENTION_UP = "AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"

THREE_LEVELS = {
    "block_out_channels": (4, 8, 8),
    "norm_num_groups": 2,
    "layers_per_block": 1,
    "down_block_types": (DOWN,) * 3,
    "up_block_types": (UP,) * 3,
}
LAST_WITH_ATTENTION = {
    "down_block_types": (DOWN, DOWN, ATTENTION_DOWN),
    "up_block_types": (ATTENTION_UP, UP, UP),
}
KL, VQ = diffusers.AutoencoderKL, diffusers.VQModel
NETWORKS = {
    "kl": (KL, THREE_LEVELS | {"latent_channels": 4, "scaling_factor": 0.13025}),
    "kl16": (
        KL,
        THREE_LEVELS
        | {
            "latent_channels": 16,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "mid_block_add_attention": False,
            "scaling_factor": 0.3611,
            "shift_factor": 0.1159,
        },
    ),
    "kl-attention": (KL, THREE_LEVELS | LAST_WITH_ATTENTION | {"latent_channels": 4}),
    "vq": (
        VQ,
        THREE_LEVELS | LAST_WITH_ATTENTION | {"latent_channels": 6, "vq_embed_dim": 5, "num_vq_embeddings": 48},
    ),
    "movq": (
        VQ,
        {
            "block_out_channels": (32, 32),
            "norm_num_groups": 8,
            "layers_per_block": 1,
            "down_block_types": (DOWN, ATTENTION_DOWN),
            "up_block_types": (ATTENTION_UP, UP),
            "latent_channels": 4,
            "vq_embed_dim": 4,
            "num_vq_embeddings": 64,
            "norm_type": "spatial",
        },
    ),
}
HALF = ("kl16", "kl-attention", "vq")  # saved in float16; the reference computes in float32 from the rounded weights
DRAWN = ("movq",)
LATENT_SIZES = {"even": (6, 6), "odd": (7, 5)}


def nchw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))


def nhwc(tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.numpy().transpose(0, 2, 3, 1))


@torch.no_grad()
def write_network(name: str, seed: int) -> None:
    cls, config = NETWORKS[name]
    model = cls(**config).eval()
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    tensors = draw(shapes, seed)
    if name in HALF:
        tensors = {key: value.astype(np.float16).astype(np.float32) for key, value in tensors.items()}
    model.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})

    folder = HERE / name
    folder.mkdir(exist_ok=True)
    if name in DRAWN:
        model.save_config(folder)
        (folder / "shapes.json").write_text(json.dumps({"seed": seed, "shapes": shapes}, indent=1) + "\n")
    elif name in HALF:
        model.half().save_pretrained(folder, variant="fp16")
        model.float()
    else:
        model.save_pretrained(folder)

    factor = 2 ** (len(config["block_out_channels"]) - 1)
    random = np.random.RandomState(seed + 1)
    expected = {}
    for size, (height, width) in LATENT_SIZES.items():
        pixels = random.randint(0, 256, (1, height * factor, width * factor, 3)).astype(np.uint8)
        images = nchw(pixels.astype(np.float32) / np.float32(127.5) - np.float32(1))
        expected[f"{size}_pixels"] = pixels
        if cls is KL:
            latents = model.encode(images).latent_dist.mode()
            expected[f"{size}_decoded"] = nhwc(model.decode(latents).sample)
        else:
            latents = model.encode(images).latents
            expected[f"{size}_indices"] = model.quantize(latents)[2][2].reshape(1, height, width).numpy()
            expected[f"{size}_decoded"] = nhwc(model.decode(latents).sample)
            expected[f"{size}_decoded_unquantized"] = nhwc(model.decode(latents, force_not_quantize=True).sample)
            vectors = latents.permute(0, 2, 3, 1).flatten(0, 2)
            two = torch.cdist(vectors, model.quantize.embedding.weight).topk(2, largest=False).values
            assert (two[:, 1] - two[:, 0]).min() > 1e-4, "two codes almost equally near: take another seed"
        expected[f"{size}_latents"] = nhwc(latents)
    np.savez_compressed(folder / "expected.npz", **expected)


def write_texture() -> None:
    """Counts of `graycomatrix` for one offset (rows, columns) at a time, and homogeneity of `graycoprops`."""
    random = np.random.RandomState(7)
    smooth = np.clip(np.cumsum(random.randint(-9, 10, (21, 26)), axis=1) + 128, 0, 255)
    gray = smooth.astype(np.uint8)
    arrays = {"gray": gray}
    cases = [  # rows, columns, the same as an angle, levels, symmetric
        (0, 1, 0.0, 32, True),
        (0, 1, 0.0, 256, False),
        (1, 0, np.pi / 2, 8, True),
        (1, 1, np.pi / 4, 32, False),
        (1, -1, 3 * np.pi / 4, 32, True),
    ]
    for rows, columns, angle, levels, symmetric in cases:
        options = {"distances": [1], "angles": [angle], "levels": levels, "symmetric": symmetric}
        scaled = gray // (256 // levels)
        case = f"{rows},{columns},{levels},{int(symmetric)}"
        counts = skimage.feature.graycomatrix(scaled, **options)
        arrays[f"counts,{case}"] = counts[:, :, 0, 0].astype(np.uint16)
        shares = skimage.feature.graycomatrix(scaled, **options, normed=True)
        arrays[f"homogeneity,{case}"] = skimage.feature.graycoprops(shares, "homogeneity")[0, 0]
    np.savez_compressed(HERE / "texture.npz", **arrays)


def write_losses() -> None:
    random = np.random.RandomState(8)
    a = random.randint(0, 256, (2, 24, 20, 3)).astype(np.uint8)
    b = np.clip(a + random.randint(-40, 41, a.shape), 0, 255).astype(np.uint8)
    metrics = {"mse": [], "mae": [], "psnr": [], "ssim": []}
    for pair in zip(a, b, strict=True):
        x, y = (pixels.astype(np.float64) / 127.5 - 1 for pixels in pair)
        metrics["mse"].append(skimage.metrics.mean_squared_error(x, y))
        metrics["mae"].append(np.abs(x - y).mean())
        metrics["psnr"].append(skimage.metrics.peak_signal_noise_ratio(x, y, data_range=2.0))
        metrics["ssim"].append(
            skimage.metrics.structural_similarity(
                x,
                y,
                data_range=2.0,
                channel_axis=-1,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
        )
    np.savez_compressed(HERE / "losses.npz", a=a, b=b, **{name: np.array(values) for name, values in metrics.items()})


def write_threshold() -> None:
    samples = np.random.RandomState(9).lognormal(0.0, 0.2, 60)
    density = scipy.stats.gaussian_kde(samples)
    x = np.linspace(0.2, 2.2, 41)
    cdf = np.array([density.integrate_box_1d(-np.inf, value) for value in x])
    bandwidth = np.sqrt(density.covariance[0, 0])
    np.savez_compressed(HERE / "threshold.npz", samples=samples, bandwidth=bandwidth, x=x, cdf=cdf)


if __name__ == "__main__":
    for seed, name in enumerate(NETWORKS, start=1):
        write_network(name, 100 * seed)
    write_texture()
    write_losses()
    write_threshold()
