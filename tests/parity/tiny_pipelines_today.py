"""Tiny random pipelines of the classes that today's models are made by, built without a network.

The autoencoders are as small as their classes allow, with the real ones' layout of latents.
"""

from __future__ import annotations

import diffusers
import torch
import transformers
from transformers.models.gemma.tokenization_gemma import GemmaTokenizer

from .tiny_pipelines import LETTERS, clip_text, clip_tokenizer, kl, t5_encoder, t5_tokenizer

CHAT = "{% for message in messages %}<|im_start|>{{ message['role'] }} {{ message['content'] }}<|im_end|>{% endfor %}"


def shifted():
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def qwen_tokenizer():
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = [*LETTERS, *LETTERS.upper(), "Ġ", "Ċ", *".,:;!?()-_<>|'"]
    vocabulary = {word: i for i, word in enumerate([*special, *dict.fromkeys(letters)])}
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=[], chat_template=CHAT)
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    return tokenizer


def qwen3(layers=28):  # which FLUX.2-klein reads at layers 9, 18 and 27
    config = transformers.Qwen3Config(
        vocab_size=120,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return transformers.Qwen3ForCausalLM(config).eval()


def qwen_vl():
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 120,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config).eval()


def gemma2():
    config = transformers.Gemma2Config(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return transformers.Gemma2Model(config).eval()


def gemma_tokenizer():
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *LETTERS]
    return GemmaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])


def umt5():
    config = transformers.UMT5Config(vocab_size=40, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    return transformers.UMT5EncoderModel(config).eval()


def wan_autoencoder(cls=diffusers.AutoencoderKLWan):
    autoencoder = cls(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval()
    with torch.no_grad():  # as it is drawn, its images are nearly grey
        autoencoder.decoder.conv_out.weight.mul_(4)
    return autoencoder


def wan():
    return diffusers.WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=umt5(),
        vae=wan_autoencoder(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=16,
            ffn_dim=32,
            num_layers=1,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        ).eval(),
    )


def qwen_image():
    return diffusers.QwenImagePipeline(
        scheduler=shifted(),
        vae=wan_autoencoder(diffusers.AutoencoderKLQwenImage),
        text_encoder=qwen_vl(),
        tokenizer=qwen_tokenizer(),
        transformer=diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=64,
            out_channels=16,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 4, 8),
        ).eval(),
    )


def flux2_klein():
    return diffusers.Flux2KleinPipeline(
        scheduler=shifted(),
        vae=diffusers.AutoencoderKLFlux2(
            block_out_channels=(4, 4, 4, 4), norm_num_groups=2, layers_per_block=1, latent_channels=4
        ).eval(),
        text_encoder=qwen3(),
        tokenizer=qwen_tokenizer(),
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ).eval(),
    )


def sana():
    types = ("ResBlock", "EfficientViTBlock")
    return diffusers.SanaPipeline(
        tokenizer=gemma_tokenizer(),
        text_encoder=gemma2(),
        vae=diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=4,
            encoder_block_types=types,
            decoder_block_types=types,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            upsample_block_type="interpolate",
            downsample_block_type="conv",
            scaling_factor=0.41407,
        ).eval(),
        transformer=diffusers.SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=32,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def amused():
    return diffusers.AmusedPipeline(
        vqvae=diffusers.VQModel(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=8,
            num_vq_embeddings=32,
            lookup_from_codebook=True,
        ).eval(),
        tokenizer=clip_tokenizer(),
        text_encoder=clip_text(projection=True),
        transformer=diffusers.UVit2DModel(
            hidden_size=8,
            use_bias=False,
            cond_embed_dim=32,
            encoder_hidden_size=32,
            micro_cond_encode_dim=2,
            micro_cond_embed_dim=10,
            block_out_channels=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=16,
            codebook_size=32,
            vocab_size=33,
            block_num_heads=1,
            in_channels=8,
            sample_size=8,
        ).eval(),
        scheduler=diffusers.AmusedScheduler(mask_token_id=31),
    )


def chroma():
    return diffusers.ChromaPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl(shift_factor=0.12),
        text_encoder=t5_encoder(32),
        tokenizer=t5_tokenizer(),
        transformer=diffusers.ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 4, 8),
            approximator_hidden_dim=16,
            approximator_layers=1,
            approximator_num_channels=16,
        ).eval(),
    )


def kandinsky_3():
    return diffusers.Kandinsky3Pipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(32),
        unet=diffusers.Kandinsky3UNet(
            in_channels=4,
            time_embedding_dim=4,
            groups=2,
            attention_head_dim=4,
            layers_per_block=3,
            block_out_channels=(32, 64),
            cross_attention_dim=4,
            encoder_hid_dim=32,
        ).eval(),
        scheduler=diffusers.DDPMScheduler(),
        movq=diffusers.VQModel(
            block_out_channels=(32,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            vq_embed_dim=4,
            num_vq_embeddings=16,
            norm_type="spatial",
        ).eval(),
    )


# The model that stands for each class, its builder, and a small size that it can make.
PIPELINES = {
    "wan2.1": (wan, 32),
    "qwen-image": (qwen_image, 32),
    "flux2-klein-9b": (flux2_klein, 32),
    "sana-1.1": (sana, 32),
    "amused-512": (amused, 16),
    "chroma": (chroma, 16),
    "kandinsky3": (kandinsky_3, 64),
}
