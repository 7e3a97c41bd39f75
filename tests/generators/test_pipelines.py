"""Few-step pipelines of diffusers: the same images as the pipeline's own call, with a gradient."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import promptgen
from promptgen.errors import ConfigError, DataError, ModelFileError
from promptgen.generators.pipeline.generator import load_pipeline
from promptgen.generators.pipeline.networks import pack, unpack
from promptgen.networks.torchvision_ops import import_diffusers
from promptgen.seeding import stream
from tests.generators.small import saved_bytes

pytest.importorskip("diffusers")

from tests.generators import tiny_pipelines as tiny
from tests.generators.tiny_pipelines import load, noise

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers and transformers warn of their own deprecations

FAMILIES = list(tiny.FAMILIES)
GUIDANCE = {"lcm": 8.5, "sana-sprint": 4.5, "flux-schnell": 3.5}


def own_images(pipeline, family, generator, latent, /, *, steps=1, guidance=None, prompt=None, **options):
    """Return the images that the pipeline's own call makes of latents."""
    height, width = generator.image_shape[1:]
    given = {"prompt": [prompt] * len(latent)} if prompt is not None else rows(tiny.embeddings(family), len(latent))
    if family == "sana-sprint":
        options |= {"use_resolution_binning": False, "intermediate_timesteps": 1.3 if steps == 2 else None}
    return pipeline(
        latents=generator.pipeline_latents(latent),
        num_inference_steps=steps,
        guidance_scale=GUIDANCE.get(family, 0.0) if guidance is None else guidance,
        height=height,
        width=width,
        output_type="pt",
        **given,
        **options,
    ).images


def rows(embeddings, n):
    return {name: value.expand(n, *value.shape[1:]) for name, value in embeddings.items()}


def same(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours.clamp(0, 1), theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_the_pipelines_own(saved, family):
    folder, pipeline = saved(family)
    generator = load(folder, family)
    latent = noise(generator)
    image = generator(latent)
    assert image.shape == (3, *generator.image_shape)
    assert image.std() > 0.05
    same(image, own_images(pipeline, family, generator, latent))


VARIATIONS = {
    "euler": ("sdxl-turbo", {"scheduler": "EulerDiscreteScheduler"}, {}),
    "velocity": ("sd-turbo", {"scheduler": ("EulerDiscreteScheduler", {"prediction_type": "v_prediction"})}, {}),
    "other betas, leading": (
        *("sd-turbo", {"scheduler": ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "beta_end": 0.02})}, {}),
    ),
    "four steps": ("sd-turbo", {}, {"steps": 4}),
    "guided": ("sd-turbo", {"text": True}, {"guidance": 3.0, "negative_prompt": "red cat", "prompt": "a doctor"}),
    "guided xl": ("sdxl-turbo", {"text": True}, {"guidance": 3.0, "negative_prompt": "red", "prompt": "a doctor"}),
    "guided xl, nothing negative": ("sdxl-turbo", {"text": True}, {"guidance": 3.0, "prompt": "a doctor"}),
    "merged adapters": ("sd-turbo", {"scheduler": "LCMScheduler"}, {"guidance": 1.0}),
    "clipped": ("lcm", {"scheduler": ("LCMScheduler", {"clip_sample": True, "clip_sample_range": 0.5})}, {}),
    "other guidance": ("lcm", {}, {"guidance": 1.5}),
    "eight channels": ("sd-turbo", {"channels": 8, "blocks": 3, "sample_size": 6}, {}),
    "other decoder": (
        *("sdxl-turbo", {"decoder": {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 1.1, 1.2, 1.3]}}, {}),
    ),
    "four straight steps": ("flux-schnell", {"channels": 2}, {"steps": 4}),
    "shifted levels": (
        *("flux-schnell", {"scheduler": ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True})}),
        {"steps": 3},
    ),
    "guidance as an input": ("flux-schnell", {"guidance_embeds": True}, {"guidance": 2.5}),
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_other_configurations_give_the_pipelines_own_images(saved, name):
    family, options, asked = VARIATIONS[name]
    if "scheduler" in options:
        kind, settings = options["scheduler"], {}
        kind, settings = kind if isinstance(kind, tuple) else (kind, settings)
        options = options | {"scheduler": tiny.schedule(kind, **settings)}
    folder, pipeline = saved(family, name, **options)
    generator = load(folder, family, **asked)
    latent = noise(generator)
    given = {key: value for key, value in asked.items() if key != "negative_prompt"}
    if "negative_prompt" in asked:
        given["negative_prompt"] = [asked["negative_prompt"]] * len(latent)
    same(generator(latent), own_images(pipeline, family, generator, latent, **given))


@pytest.mark.parametrize(("family", "steps"), [("lcm", 4), ("sana-sprint", 2), ("sdxl-turbo", 3)])
def test_noise_between_steps_is_fixed_or_drawn(saved, family, steps):
    folder, pipeline = saved(family)
    generator = load(folder, family, steps=steps)
    latent = noise(generator)
    fixed = [torch.Generator().manual_seed(0) for _ in latent]
    same(generator(latent), own_images(pipeline, family, generator, latent, steps=steps, generator=fixed))
    fresh = generator(latent, noise=stream(3, "noise"))
    assert torch.equal(generator(latent, noise=stream(3, "noise")), fresh)
    assert not torch.allclose(generator(latent), fresh, atol=1e-2)
    torch.testing.assert_close(generator(latent[1:2]), generator(latent)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prompt", ["a photo of a nurse", "", "red cat red cat of blue " * 9])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_read_by_the_pipelines_own_encoders(saved, family, prompt):
    folder, pipeline = saved(family, "text", text=True)
    generator = load(folder, family, prompt=prompt)
    latent = noise(generator)
    image = generator(latent)
    same(image, own_images(pipeline, family, generator, latent, prompt=prompt))
    assert not torch.allclose(load(folder, family, prompt="blue")(latent), image, atol=1e-4)


@pytest.mark.parametrize("family", [*FAMILIES, "guided"])
def test_each_image_has_the_prompt_that_was_drawn_for_it(saved, family):
    asked = {"guidance": 3.0, "negative_prompt": "red"} if family == "guided" else {}
    family = "sd-turbo" if family == "guided" else family
    folder, pipeline = saved(family, "text", text=True)
    generator = load(folder, family, prompts={"red cat": 0.5, "blue": 0.5}, **asked)
    assert (generator.held, generator.prior.dim) == (1, load(folder, family, prompt="blue").prior.dim + 1)
    latent = noise(generator, 4)
    latent[:, -1] = torch.tensor([-1.0, 2.0, -0.1, 0.1])  # in alphabetical order: blue below the median
    image = generator(latent)
    for rows_of, prompt in (([0, 2], "blue"), ([1, 3], "red cat")):
        alone = load(folder, family, prompt=prompt, **asked)
        same(alone(latent[rows_of, :-1]), image[rows_of].clamp(0, 1))
        given = {"negative_prompt": ["red", "red"], "guidance": 3.0} if asked else {}
        same(image[rows_of], own_images(pipeline, family, generator, latent[rows_of], prompt=prompt, **given))
    assert not torch.allclose(generator(latent.index_fill(1, torch.tensor([latent.shape[1] - 1]), 1.0))[0], image[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_agree_with_finite_differences_in_double(saved, family):
    generator = load(saved(family)[0], family).double()
    latent = noise(generator, 2).requires_grad_()
    weight = torch.randn(2, *generator.image_shape, generator=stream(0, "weight"), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weight * generator(latent)).sum(), latent)
    direction, step = torch.randn(latent.shape, generator=stream(1, "direction"), dtype=torch.float64), 1e-7
    with torch.no_grad():
        ends = [(weight * generator(latent + sign * step * direction)).sum() for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert gradient.isfinite().all()
    assert float(((gradient * direction).sum() / slope - 1).abs()) < 1e-4
    assert float(slope.abs()) > 1e-2


@pytest.mark.parametrize("family", ["sd-turbo", "flux-schnell", "sana-sprint"])
def test_the_backward_pass_recomputes(saved, family):
    kept, gradients = [], []
    for steps in (1, 2):
        generator = load(saved(family)[0], family, steps=steps)
        latent = noise(generator, 2).requires_grad_()
        total, gradient, image = saved_bytes(generator, latent)
        kept.append(total)
        gradients.append((gradient, image))
        assert total < 40 * image.nbytes * (1 if family != "sana-sprint" else 2)
        for part in (generator.denoiser, generator):
            part.recompute = part.recompute_decoder = False
        for network in (generator.denoiser.network, generator.decoder):
            network.disable_gradient_checkpointing()
        everything, same_gradient, _ = saved_bytes(generator, latent)
        assert everything > 3 * total
        torch.testing.assert_close(same_gradient, gradient, rtol=1e-4, atol=1e-6)


def test_sizes_follow_from_the_configs(saved):
    generator = load_pipeline(saved("sd-turbo")[0], embeddings=saved("sd-turbo")[0] / "prompt.safetensors")
    assert (generator.image_shape, generator.latent_shape) == ((3, 16, 16), (4, 8, 8))
    folder, _ = saved("sd-turbo", "eight channels", channels=8, blocks=3, sample_size=6)
    other = load_pipeline(folder, embeddings=folder / "prompt.safetensors", height=32)
    assert (other.image_shape, other.latent_shape, other.prior.dim) == ((3, 32, 24), (8, 8, 6), 384)


def test_patches_are_packed_as_by_the_pipeline(saved):
    _, pipeline = saved("flux-schnell")
    latent = torch.randn(2, 4, 8, 6, generator=stream(0, "patches"))
    assert torch.equal(pack(latent), pipeline._pack_latents(latent, 2, 4, 8, 6))
    assert torch.equal(unpack(pack(latent), 8, 6), latent)


def test_latents_of_a_wrong_shape_are_refused(saved):
    generator = load(saved("lcm")[0], "lcm")
    with pytest.raises(DataError, match="of shape"):
        generator(torch.zeros(2, 5))


FOLDER_FAULTS = {
    "no index": (lambda folder: (folder / "model_index.json").unlink(), ModelFileError, "model_index.json is missing"),
    "another pipeline": (
        lambda folder: edit(folder / "model_index.json", _class_name="KandinskyPipeline"),
        ConfigError,
        "KandinskyPipeline, which is not a known family",
    ),
    "another network": (
        lambda folder: edit(folder / "model_index.json", unet=["diffusers", "UNet1DModel"]),
        ConfigError,
        "unet is UNet1DModel",
    ),
    "another scheduler": (
        lambda folder: edit(folder / "model_index.json", scheduler=["diffusers", "DDPMScheduler"]),
        ConfigError,
        "scheduler is DDPMScheduler",
    ),
    "a pickle": (
        lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").rename(
            folder / "unet/diffusion_pytorch_model.bin"
        ),
        ModelFileError,
        "has no diffusion_pytorch_model.safetensors, found diffusion_pytorch_model.bin",
    ),
    "cut off": (
        lambda folder: cut(folder / "vae/diffusion_pytorch_model.safetensors"),
        ModelFileError,
        "cannot be read",
    ),
    "no JSON": (lambda folder: (folder / "vae/config.json").write_text("{"), ModelFileError, "as JSON"),
    "other weights": (
        lambda folder: edit(folder / "unet/config.json", time_cond_proj_dim=4),
        ModelFileError,
        "do not fit its config: 1 missing",
    ),
    "other sizes": (
        lambda folder: edit(folder / "unet/config.json", cross_attention_dim=8),
        ModelFileError,
        "width 16",
    ),
    "a prediction": (
        lambda folder: edit(folder / "scheduler/scheduler_config.json", prediction_type="sample"),
        ConfigError,
        "prediction_type sample",
    ),
}


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", FOLDER_FAULTS)
def test_a_bad_folder_is_refused_in_one_line(saved, tmp_path, name):
    damage, kind, words = FOLDER_FAULTS[name]
    folder = shutil.copytree(saved("sd-turbo")[0], tmp_path / "pipeline")
    damage(folder)
    with pytest.raises(kind, match=words) as error:
        load(folder, "sd-turbo")
    assert "\n" not in str(error.value)


REQUEST_FAULTS = {
    "height": ({"height": 17}, ConfigError, "height: .* multiple of 2, got 17; the nearest are 16 and 18"),
    "no encoder": ({"prompt": "a doctor"}, ConfigError, "has no text_encoder, so it cannot read a prompt"),
    "neither": ({}, ConfigError, "needs one of `prompt`, `prompts` and `embeddings`"),
    "both": ({"prompt": "a", "embeddings": "x"}, ConfigError, "needs one of `prompt`, `prompts` and `embeddings`"),
    "prompts and a file": ({"prompts": {"a": 0.5, "b": 0.5}, "embeddings": "x"}, ConfigError, "needs one of"),
    "prompts and a prompt": ({"prompts": {"a": 0.5, "b": 0.5}, "prompt": "c"}, ConfigError, "needs one of"),
    "no embeddings": ({"embeddings": "missing.safetensors"}, ModelFileError, "cannot be read"),
    "no negative": ({"embeddings": "prompt", "guidance": 3.0}, ModelFileError, "lacks negative_prompt_embeds"),
    "too many steps": ({"embeddings": "prompt", "steps": 2000}, ConfigError, "steps: 2000 is not possible"),
}


@pytest.mark.parametrize("name", REQUEST_FAULTS)
def test_a_bad_request_is_refused_in_one_line(saved, name):
    options, kind, words = REQUEST_FAULTS[name]
    family = "lcm" if name == "too many steps" else "sd-turbo"
    folder, _ = saved(family)
    if options.get("embeddings") == "prompt":
        options = options | {"embeddings": folder / "prompt.safetensors"}
    with pytest.raises(kind, match=words) as error:
        load_pipeline(folder, **options)
    assert "\n" not in str(error.value)


def test_sizes_of_patches_are_told(saved):
    folder, _ = saved("flux-schnell")
    with pytest.raises(ConfigError, match="multiple of 4, got 18; the nearest are 16 and 20"):
        load_pipeline(folder, embeddings=folder / "prompt.safetensors", height=16, width=18)


def test_what_has_no_effect_is_said(saved, caplog):
    load(saved("lcm", "text", text=True)[0], "lcm", prompt="a cat", negative_prompt="red")
    assert "negative_prompt has no effect" in caplog.text
    folder, _ = saved("sd-turbo", "linspace", scheduler=tiny.schedule(timestep_spacing="linspace"))
    load(folder, "sd-turbo")
    assert "few-step models need trailing" in caplog.text


def test_a_missing_library_is_named_with_its_command(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "diffusers" else real(name))
    with pytest.raises(ConfigError, match=r"pip install -r requirements-diffusers\.txt"):
        import_diffusers()


@pytest.mark.long
def test_diffusers_is_imported_whatever_torchvision_does(tmp_path):
    """In a fresh process, beside a torchvision that fails in a way of its own."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('undefined symbol')")
    code = (
        "from promptgen.networks.torchvision_ops import import_diffusers; import_diffusers().StableDiffusionXLPipeline"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(promptgen.__file__).parents[1])])
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": path})
