"""How the models of the registry are run in diffusers: data, read by `pipelines`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["RECIPES", "WITHOUT", "Recipe"]

DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model of the registry is run.

    Attributes:
      pipeline: its class in diffusers.
      steps: of the AEDR authors' generation (AAAI 2026) where they ran the model, else its pipeline's own default.
      guidance: likewise.
      guidance_name: what its pipeline calls the scale.
      negative: the prompt that guidance leads away from, where the pipeline is guided by none on its own.
      call: what else its pipeline is called with.
      multiple: the side in pixels that the pipeline's own source asks for a multiple of.
      options: what its class is loaded with.
      dtypes: of the weights, that its source can run.
      batched: whether it takes a generator for each image; if not, images are made one at a time, and their noise is
        drawn on the pipeline's device.
      sized: whether it takes a size; if not, the size is that of its transformer.
      whole: whether diffusers can load it from its folder; if not, its parts are loaded one by one.
      prior: the repository of the pipeline that makes its image embeddings.
      elsewhere: whether the registry's repository holds the autoencoder alone, so that a pipeline has to be named.
    """

    pipeline: str
    steps: int = 50
    guidance: float = 7.5
    guidance_name: str = "guidance_scale"
    negative: str | None = None
    call: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    multiple: int = 8
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dtypes: tuple[str, ...] = DTYPES
    batched: bool = True
    sized: bool = True
    whole: bool = True
    prior: str | None = None
    elsewhere: bool = False


_NO_CHECKER = {"safety_checker": None, "requires_safety_checker": False}

# Steps and guidance of the paper's eight are the paper's. What it does not give stays as each pipeline's __call__ has
# it: Kandinsky's prior (25 steps, guidance 4), VQ-Diffusion's truncation rate (1) and the longest prompt of T5 (256
# tokens for SD3.5, 512 for FLUX). FLUX.1-dev is distilled: its guidance is an input of the transformer, with no second
# pass.
RECIPES: dict[str, Recipe] = {
    "sd1.5": Recipe("StableDiffusionPipeline", options=_NO_CHECKER),
    "sd2-base": Recipe("StableDiffusionPipeline", options=_NO_CHECKER),
    "sd2.1": Recipe("StableDiffusionPipeline", options=_NO_CHECKER),
    "sdxl": Recipe("StableDiffusionXLPipeline", options={"add_watermarker": False}),
    # Latents are cut into 2×2 patches: 8 × 2 pixels, in both pipelines.
    "sd3.5": Recipe("StableDiffusion3Pipeline", steps=35, multiple=16),
    "flux": Recipe("FluxPipeline", steps=35, multiple=16),
    # Its scheduler draws with one generator for the whole batch, on the device of the logits. diffusers 0.39 keeps it
    # among its deprecated pipelines, where neither download nor from_pretrained finds the class of its embeddings. Its
    # images become NumPy arrays as they are, and NumPy has no bfloat16.
    "vqdm": Recipe("VQDiffusionPipeline", dtypes=("float32", "float16"), batched=False, sized=False, whole=False),
    # Other sizes are rounded up to 8 × 8 pixels (get_new_h_w).
    "kandinsky2.1": Recipe("KandinskyCombinedPipeline", multiple=64, prior="kandinsky-community/kandinsky-2-1-prior"),
    # From here on steps and guidance are the defaults of each pipeline's __call__ in diffusers 0.39, or where stated of
    # its example.
    "playground2.5": Recipe("StableDiffusionXLPipeline", guidance=5.0, options={"add_watermarker": False}),
    "sd3-medium": Recipe("StableDiffusion3Pipeline", steps=28, guidance=7.0, multiple=16),
    "sd3.5-medium": Recipe("StableDiffusion3Pipeline", steps=28, guidance=7.0, multiple=16),
    "flux-schnell": Recipe("FluxPipeline", steps=4, guidance=0.0, multiple=16),  # its example
    "flux-krea": Recipe("FluxPipeline", steps=28, guidance=3.5, multiple=16),
    "chroma": Recipe("ChromaPipeline", steps=35, guidance=5.0, multiple=16),
    "kandinsky3": Recipe("Kandinsky3Pipeline", steps=25, guidance=3.0, multiple=64),
    # Codes are drawn with one generator for the whole batch.
    "amused-256": Recipe("AmusedPipeline", steps=12, guidance=10.0, multiple=16, batched=False),
    "amused-512": Recipe("AmusedPipeline", steps=12, guidance=10.0, multiple=16, batched=False),
    "flux2-klein-9b": Recipe("Flux2KleinPipeline", guidance=4.0, multiple=16),
    # Distilled, for four steps; its pipeline then passes any guidance by.
    "flux2-klein-4b": Recipe("Flux2KleinPipeline", steps=4, guidance=1.0, multiple=16),
    # Guidance takes a negative prompt, if an empty one; it is not the input of a distilled model.
    "qwen-image": Recipe("QwenImagePipeline", guidance=4.0, guidance_name="true_cfg_scale", negative=" ", multiple=16),
    "qwen-image-2512": Recipe(
        "QwenImagePipeline", guidance=4.0, guidance_name="true_cfg_scale", negative=" ", multiple=16
    ),
    "wan2.1": Recipe("WanPipeline", guidance=5.0, multiple=16, call={"num_frames": 1}),  # an image: a video of a frame
    # Its bins would make another size than asked and resize, which takes images off the decoder's grid.
    "sana-1.0": Recipe(
        "SanaPipeline", steps=20, guidance=4.5, multiple=32, call={"use_resolution_binning": False}, elsewhere=True
    ),
    "sana-1.1": Recipe(
        "SanaPipeline", steps=20, guidance=4.5, multiple=32, call={"use_resolution_binning": False}, elsewhere=True
    ),
    "flux2": Recipe("Flux2Pipeline", guidance=4.0, multiple=16),
    # Turbo's example. Several images at once do not come out the same twice in diffusers 0.39.
    "z-image": Recipe("ZImagePipeline", steps=8, guidance=0.0, multiple=16, batched=False),
    "lumina2": Recipe("Lumina2Pipeline", steps=30, guidance=4.0, multiple=16),
    # It fills prompts up to the longest of a batch, and its encoder sees what they are filled up with.
    "cogview4": Recipe("CogView4Pipeline", guidance=5.0, multiple=16, batched=False),
    "auraflow": Recipe("AuraFlowPipeline", guidance=3.5, multiple=16),
    # Captions are cleaned where a package is installed, and not elsewhere.
    "pixart-sigma": Recipe(
        "PixArtSigmaPipeline",
        steps=20,
        guidance=4.5,
        multiple=16,
        call={"use_resolution_binning": False, "clean_caption": False},
        elsewhere=True,
    ),
    "ovis-image": Recipe("OvisImagePipeline", guidance=5.0, multiple=16),
    "hunyuandit": Recipe(
        "HunyuanDiTPipeline",
        guidance=5.0,
        multiple=16,
        call={"use_resolution_binning": False},
        options=_NO_CHECKER,
    ),
    "bria3.2": Recipe("BriaPipeline", steps=30, guidance=5.0, multiple=16),
}

_ALONE = "its repository holds an autoencoder alone"
_NONE = "diffusers 0.39 has no pipeline of it"
_IMAGE = "its pipeline takes an image beside the prompt"
_UNTRIED = "no tiny pipeline of its class was tried yet"
# Why an entry of the registry has no line above.
WITHOUT: dict[str, str] = {
    **dict.fromkeys(("sd-ft-mse", "sd-ft-ema", "sdxl-1.0", "sdxl-fp16-fix", "sdxl-vae", "flux2-small"), _ALONE),
    **dict.fromkeys(("omnigen2", "meissonic", "qwen-image-2.1", "janus", "emu3"), _NONE),
    **dict.fromkeys(("flux-kontext", "flux-fill", "qwen-image-edit", "qwen-image-layered"), _IMAGE),
    "longcat": "its pipeline lets the text encoder write the prompt anew first",
    "hidream": "its pipeline takes a text encoder from another repository",
    "cosmos-predict2": "its pipeline needs a package that judges prompts and alters images",
    "hunyuanimage2.1": "with the refiner its pixels come from another autoencoder",
    **dict.fromkeys(("kandinsky2.2", "wuerstchen", "stable-cascade"), "its prior is a pipeline of its own"),
    **dict.fromkeys(("kolors", "omnigen", "kandinsky5", "ideogram4", "nucleus-image", "wan2.2-5b"), _UNTRIED),
}
