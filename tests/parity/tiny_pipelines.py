"""Tiny random pipelines of every class that the registry's models are made by, built without a network."""

from __future__ import annotations

import diffusers
import torch
import transformers
from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import LearnedClassifierFreeSamplingEmbeddings
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"


def clip_tokenizer():
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def t5_tokenizer():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in LETTERS)]
    return transformers.T5TokenizerFast(vocab=pieces, extra_ids=0)


def xlm_tokenizer():
    special = [(word, 0.0) for word in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces = [*special, ("▁", -1.0), *((letter, -2.0) for letter in LETTERS), ("<mask>", 0.0)]
    return transformers.XLMRobertaTokenizerFast(vocab=pieces, model_max_length=77)


def clip_text(*, projection=False):
    config = transformers.CLIPTextConfig(
        vocab_size=74,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        projection_dim=32,
        bos_token_id=72,
        eos_token_id=73,
        pad_token_id=73,
    )
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config).eval()


def t5_encoder(width):
    config = transformers.T5Config(vocab_size=40, d_model=width, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    return transformers.T5EncoderModel(config).eval()


def kl(octaves=2, **options):
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * octaves,
        norm_num_groups=4,
        down_block_types=(DOWN,) * octaves,
        up_block_types=(UP,) * octaves,
        latent_channels=4,
        **options,
    ).eval()


def unet(**options):
    common = {
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "sample_size": 8,
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return diffusers.UNet2DConditionModel(**{**common, **options}).eval()


def stable_diffusion():
    return diffusers.StableDiffusionPipeline(
        vae=kl(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet(),
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl():
    return diffusers.StableDiffusionXLPipeline(
        vae=kl(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text(projection=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(
            cross_attention_dim=64,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=32 + 6 * 8,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(steps_offset=1),
    )


def stable_diffusion_3():
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=64,
            pooled_projection_dim=64,
            pos_embed_max_size=16,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl(shift_factor=0.06),
        text_encoder=clip_text(projection=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(projection=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(64),
        tokenizer_3=t5_tokenizer(),
    )


def flux():
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=kl(shift_factor=0.12),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_encoder(32),
        tokenizer_2=t5_tokenizer(),
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ).eval(),
    )


def vq_diffusion():
    embeddings = LearnedClassifierFreeSamplingEmbeddings(learnable=True, hidden_size=32, length=77)
    torch.nn.init.normal_(embeddings.embeddings)
    return diffusers.VQDiffusionPipeline(
        vqvae=diffusers.VQModel(
            block_out_channels=(32, 32),
            down_block_types=(DOWN,) * 2,
            up_block_types=(UP,) * 2,
            latent_channels=3,
            num_vq_embeddings=12,
            vq_embed_dim=3,
        ).eval(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        transformer=diffusers.Transformer2DModel(
            attention_bias=True,
            cross_attention_dim=32,
            attention_head_dim=32,
            num_attention_heads=1,
            num_vector_embeds=13,
            num_embeds_ada_norm=12,
            norm_type="ada_norm",
            sample_size=8,
            activation_fn="geglu-approximate",
        ).eval(),
        scheduler=diffusers.VQDiffusionScheduler(num_vec_classes=13, num_train_timesteps=12),
        learned_classifier_free_sampling_embeddings=embeddings,
    )


def kandinsky_decoder():
    text = MCLIPConfig(
        vocab_size=42,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=1,
        transformerDimSize=32,
        imageDimSize=32,
    )
    return diffusers.KandinskyPipeline(
        text_encoder=MultilingualCLIP(text).eval(),
        tokenizer=xlm_tokenizer(),
        unet=unet(
            out_channels=8,
            addition_embed_type="text_image",
            encoder_hid_dim=32,
            encoder_hid_dim_type="text_image_proj",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            resnet_time_scale_shift="scale_shift",
        ),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
        movq=diffusers.VQModel(
            block_out_channels=(32,) * 4,
            down_block_types=(DOWN,) * 4,
            up_block_types=(UP,) * 4,
            latent_channels=4,
            vq_embed_dim=4,
            num_vq_embeddings=16,
            norm_type="spatial",
        ).eval(),
    )


def kandinsky_prior():
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        image_size=32,
        patch_size=8,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=1,
        projection_dim=32,
    )
    return diffusers.KandinskyPriorPipeline(
        prior=diffusers.PriorTransformer(
            num_attention_heads=2, attention_head_dim=12, embedding_dim=32, num_layers=1
        ).eval(),
        image_encoder=transformers.CLIPVisionModelWithProjection(vision).eval(),
        text_encoder=clip_text(projection=True),
        tokenizer=clip_tokenizer(),
        scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample=True, clip_sample_range=5.0
        ),
        image_processor=transformers.CLIPImageProcessor(crop_size=32, size=32),
    )


def kandinsky():
    prior = {f"prior_{name}": part for name, part in kandinsky_prior().components.items()}
    return diffusers.KandinskyCombinedPipeline(**kandinsky_decoder().components, **prior)


# The model that stands for each class, its builder, and a small size that it can make.
PIPELINES = {
    "sd1.5": (stable_diffusion, 16),
    "sdxl": (stable_diffusion_xl, 16),
    "sd3.5": (stable_diffusion_3, 16),
    "flux": (flux, 16),
    "vqdm": (vq_diffusion, 16),
    "kandinsky2.1": (kandinsky, 64),
}


def save(pipeline_of, folder, seed=0):
    """Build with random weights of a seed and write the folder; gives its path."""
    torch.manual_seed(seed)
    pipeline_of().save_pretrained(folder)
    return folder
