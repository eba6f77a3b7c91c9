"""Tiny random pipelines of further classes, as `tiny_pipelines_today`."""

from __future__ import annotations

import diffusers
import torch
import transformers

from .tiny_pipelines import LETTERS, kl, t5_encoder, t5_tokenizer
from .tiny_pipelines_today import gemma2, gemma_tokenizer, qwen3, qwen_tokenizer, shifted, umt5

# Messages in parts, as a processor takes them.
CHAT_IN_PARTS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>{% endfor %}"
)


def mistral3():
    config = transformers.Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": 120,
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 30,  # it is read at layers 10, 20 and 30
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": 8,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": 28,
            "patch_size": 14,
        },
    )
    return transformers.Mistral3ForConditionalGeneration(config).eval()


def glm():
    config = transformers.GlmConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
    )
    return transformers.GlmModel(config).eval()


def bert_tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=77)


def bert():
    config = transformers.BertConfig(
        vocab_size=80, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    return transformers.BertModel(config).eval()


def z_image():
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[600, 32, 32],
    ).eval()
    for token in (transformer.x_pad_token, transformer.cap_pad_token):  # as they are made, they hold anything
        torch.nn.init.normal_(token)
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl(shift_factor=0.12),
        text_encoder=qwen3(layers=2).model,
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
    )


def flux2():
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = CHAT_IN_PARTS
    return diffusers.Flux2Pipeline(
        scheduler=shifted(),
        vae=diffusers.AutoencoderKLFlux2(
            block_out_channels=(4, 4, 4, 4), norm_num_groups=2, layers_per_block=1, latent_channels=4
        ).eval(),
        text_encoder=mistral3(),
        tokenizer=tokenizer,
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
        ).eval(),
    )


def lumina2():
    return diffusers.Lumina2Pipeline(
        transformer=diffusers.Lumina2Transformer2DModel(
            sample_size=4,
            in_channels=4,
            hidden_size=24,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=2,
            axes_dim_rope=(4, 2, 2),
            axes_lens=(300, 32, 32),
            cap_feat_dim=16,
        ).eval(),
        scheduler=shifted(),
        vae=kl(shift_factor=0.12, octaves=4),
        text_encoder=gemma2(),
        tokenizer=gemma_tokenizer(),
    )


def cogview4():
    return diffusers.CogView4Pipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=glm(),
        vae=kl(),
        transformer=diffusers.CogView4Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=16,
            time_embed_dim=8,
            condition_dim=4,
            sample_size=8,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )


def aura_flow():
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pos_embed_max_size=64,
    ).eval()
    with torch.no_grad():  # as they are drawn, the prompt moves no grey level
        transformer.context_embedder.weight.mul_(20)
        transformer.proj_out.weight.mul_(20)
    return diffusers.AuraFlowPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=umt5(),
        vae=kl(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


def pixart_sigma():
    return diffusers.PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(32),
        vae=kl(),
        transformer=diffusers.PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            cross_attention_dim=16,
            caption_channels=32,
            sample_size=8,
            use_additional_conditions=False,
        ).eval(),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def ovis_image():
    return diffusers.OvisImagePipeline(
        scheduler=shifted(),
        vae=kl(shift_factor=0.12),
        text_encoder=qwen3(layers=2).model,
        tokenizer=qwen_tokenizer(),
        transformer=diffusers.OvisImageTransformer2DModel(
            in_channels=16,
            out_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 4, 8),
        ).eval(),
    )


def hunyuan_dit():
    return diffusers.HunyuanDiTPipeline(
        vae=kl(),
        text_encoder=bert(),
        tokenizer=bert_tokenizer(),
        transformer=diffusers.HunyuanDiT2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            patch_size=2,
            sample_size=8,
            hidden_size=16,
            num_layers=2,
            cross_attention_dim=16,
            cross_attention_dim_t5=32,
            pooled_projection_dim=16,
            use_style_cond_and_image_meta_size=False,
        ).eval(),
        scheduler=diffusers.DDPMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=t5_encoder(32),
        tokenizer_2=t5_tokenizer(),
    )


def bria():
    return diffusers.BriaPipeline(
        transformer=diffusers.BriaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=[4, 4, 8],
        ).eval(),
        scheduler=shifted(),
        vae=kl(shift_factor=0.0),
        text_encoder=t5_encoder(32),
        tokenizer=t5_tokenizer(),
    )


# The model that stands for each class, its builder, and a small size that it can make.
PIPELINES = {
    "z-image": (z_image, 16),
    "flux2": (flux2, 32),
    "lumina2": (lumina2, 32),
    "cogview4": (cogview4, 16),
    "auraflow": (aura_flow, 16),
    "pixart-sigma": (pixart_sigma, 16),
    "ovis-image": (ovis_image, 16),
    "hunyuandit": (hunyuan_dit, 16),
    "bria3.2": (bria, 16),
}
