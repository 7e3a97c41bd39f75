"""Tiny pipelines of every family with random weights, built from configuration alone and saved as diffusers does."""

from __future__ import annotations

import torch

from promptgen.generators.pipeline.generator import load_pipeline
from promptgen.networks.torchvision_ops import import_diffusers
from promptgen.seeding import stream

WIDTH, POOLED = 16, 12
"""Widths of a prompt's embedding and of the pooled one."""

WORDS = ["a", "photo", "of", "doctor", "nurse", "red", "blue", "cat"]


def schedule(kind="EulerDiscreteScheduler", **options):
    diffusers = import_diffusers()
    if kind == "SCMScheduler":
        return diffusers.SCMScheduler(prediction_type="trigflow", sigma_data=0.5, **options)
    if kind == "FlowMatchEulerDiscreteScheduler":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, **options)
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    if kind != "LCMScheduler":
        betas |= {"steps_offset": 1, "timestep_spacing": "trailing"}
    return getattr(diffusers, kind)(**{**betas, **options})


def kl_decoder(channels=4, blocks=2, flux=False, **options):
    if flux:
        options |= {"use_quant_conv": False, "use_post_quant_conv": False}
    return import_diffusers().AutoencoderKL(
        latent_channels=channels,
        block_out_channels=(8, 16, 16)[:blocks],
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        sample_size=32,
        **options,
    )


def unet(channels=4, **options):
    return import_diffusers().UNet2DConditionModel(
        **{
            "sample_size": 8,
            "in_channels": channels,
            "out_channels": channels,
            "layers_per_block": 1,
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "cross_attention_dim": WIDTH,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
            **options,
        }
    )


def sd_turbo(scheduler=None, channels=4, blocks=2, text=False, **options):
    return import_diffusers().StableDiffusionPipeline(
        vae=kl_decoder(channels, blocks, scaling_factor=0.18215),
        unet=unet(channels, **options),
        scheduler=scheduler or schedule(),
        **clip_text("text_encoder", "tokenizer", text),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_turbo(scheduler=None, text=False, decoder=None, **options):
    diffusers = import_diffusers()
    network = unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + POOLED,
        transformer_layers_per_block=(1, 1),
        **options,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=kl_decoder(scaling_factor=0.13025, **(decoder or {})),
        unet=network,
        scheduler=scheduler or schedule("EulerAncestralDiscreteScheduler"),
        **clip_text("text_encoder", "tokenizer", text, WIDTH // 2),
        **clip_text("text_encoder_2", "tokenizer_2", text, WIDTH // 2, projection=POOLED),
        add_watermarker=False,
    )


def lcm(scheduler=None, text=False, **options):
    return import_diffusers().LatentConsistencyModelPipeline(
        vae=kl_decoder(scaling_factor=0.18215),
        unet=unet(time_cond_proj_dim=8, **options),
        scheduler=scheduler or schedule("LCMScheduler"),
        **clip_text("text_encoder", "tokenizer", text),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sana_sprint(scheduler=None, text=False, **options):
    diffusers = import_diffusers()
    decoder = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types=("rms_norm", "rms_norm"),
        decoder_act_fns=("silu", "silu"),
        scaling_factor=0.41407,
    )
    network = diffusers.SanaTransformer2DModel(
        **{
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 8,
            "cross_attention_dim": WIDTH,
            "caption_channels": WIDTH,
            "mlp_ratio": 2.0,
            "sample_size": 32,
            "patch_size": 1,
            "qk_norm": "rms_norm_across_heads",
            "guidance_embeds": True,
            "guidance_embeds_scale": 0.1,
            "timestep_scale": 1000.0,
            **options,
        }
    )
    return diffusers.SanaSprintPipeline(
        vae=decoder, transformer=network, scheduler=scheduler or schedule("SCMScheduler"), **gemma_text(text)
    )


def flux_schnell(scheduler=None, text=False, channels=4, **options):
    diffusers = import_diffusers()
    network = diffusers.FluxTransformer2DModel(
        **{
            "patch_size": 1,
            "in_channels": 4 * channels,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": WIDTH,
            "pooled_projection_dim": POOLED,
            "axes_dims_rope": (2, 2, 4),
            "guidance_embeds": False,
            **options,
        }
    )
    return diffusers.FluxPipeline(
        vae=kl_decoder(channels, flux=True, scaling_factor=0.3611, shift_factor=0.1159),
        transformer=network,
        scheduler=scheduler or schedule("FlowMatchEulerDiscreteScheduler"),
        **clip_text("text_encoder", "tokenizer", text, POOLED),
        **t5_text(text),
    )


FAMILIES = {
    "sd-turbo": sd_turbo,
    "sdxl-turbo": sdxl_turbo,
    "lcm": lcm,
    "sana-sprint": sana_sprint,
    "flux-schnell": flux_schnell,
}


def build(family, seed=0, **options):
    """Return a pipeline whose random weights depend on the seed alone; the global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = FAMILIES[family](**options)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()
                for parameter in part.parameters():  # biases and zero-initialised layers count, too
                    parameter += 0.02 * torch.randn_like(parameter)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def clip_text(encoder, tokenizer, text, width=WIDTH, projection=None):
    """Return a text encoder of CLIP and its tokenizer by the names of their parts; None for both without text."""
    if not text:
        return {encoder: None, tokenizer: None}
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    letters = sorted(set("".join(WORDS)))
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=20,
        projection_dim=projection or width,
        bos_token_id=len(vocabulary) - 2,
        eos_token_id=len(vocabulary) - 1,
    )
    model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    return {encoder: model, tokenizer: CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=20)}


def t5_text(text):
    if not text:
        return {"text_encoder_2": None, "tokenizer_2": None}
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((f"\u2581{word}", -1.0) for word in WORDS)]
    config = T5Config(vocab_size=200, d_model=WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return {"text_encoder_2": T5EncoderModel(config), "tokenizer_2": T5Tokenizer(vocab=vocabulary, model_max_length=32)}


def gemma_text(text):
    if not text:
        return {"text_encoder": None, "tokenizer": None}
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "\u2581", *sorted(set("".join(WORDS)))]
    config = Gemma2Config(
        vocab_size=len(pieces),
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=512,
    )
    tokenizer = GemmaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[])
    return {"text_encoder": Gemma2Model(config), "tokenizer": tokenizer}


def embeddings(family, seed=0, length=5):
    """Return embeddings of a made-up prompt by the names of the pipeline's arguments."""
    rng = torch.Generator().manual_seed(seed)
    found = {"prompt_embeds": torch.randn(1, length, WIDTH, generator=rng)}
    if family == "sana-sprint":
        found["prompt_attention_mask"] = torch.ones(1, length)
        found["prompt_attention_mask"][:, -1] = 0
    if family in ("sdxl-turbo", "flux-schnell"):
        found["pooled_prompt_embeds"] = torch.randn(1, POOLED, generator=rng)
    return found


SIDES = {"sana-sprint": (64, 32)}
"""Height and width of the images, pixels; for the others (16, 24)."""


def load(folder, family, **options):
    """Return the generator of a saved pipeline; with the embeddings beside it, unless a prompt is given."""
    height, width = SIDES.get(family, (16, 24))
    given = {} if {"prompt", "prompts"} & options.keys() else {"embeddings": folder / "prompt.safetensors"}
    return load_pipeline(folder, height=height, width=width, **given, **options)


def noise(generator, n=3):
    """Return latents of a generator."""
    return generator.prior.sample(n, stream(5, "noise"))
