"""A few-step pipeline as params.yaml names it: built, planned, identified, trained on, and handed back to diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from promptgen.config.build import build_chain, identities
from promptgen.config.generators import generator_spec
from promptgen.energies.base import Term, WeightedSum
from promptgen.errors import ConfigError, ModelFileError
from promptgen.evaluations.objective import control_objective
from promptgen.evaluations.store import EvaluationStore
from promptgen.evaluations.training import Trainer
from promptgen.flows.chain_file import load_chain, save_chain
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.latent_sampler import LATENTS_NAME, load_sampler
from promptgen.flows.sampling import latent_blocks
from promptgen.seeding import stream

pytest.importorskip("diffusers")

from tests.generators import tiny_pipelines as tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers and transformers warn of their own deprecations


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project's folder with a pipeline in it, and the pipeline."""
    root = tmp_path_factory.mktemp("project")
    pipeline = tiny.build("sd-turbo", text=True)
    pipeline.save_pretrained(root / "turbo")
    save_file(tiny.embeddings("sd-turbo"), root / "prompt.safetensors")
    return root, pipeline


def spec(**keys):
    return generator_spec({"type": "diffusers", "model": "./turbo", "prompt": "a cat", **keys})


def test_its_size_is_known_before_it_is_built(project):
    models = project[0] / "models"
    shape = spec(height=16, width=24).own_shape(models)
    assert (shape.image_size, shape.width, shape.dim) == (16, 24, 4 * 8 * 12)
    generator = spec(height=16, width=24).build(models)
    assert (generator.image_shape, generator.prior.dim) == ((3, 16, 24), shape.dim)
    assert spec(model="./not-there-yet").own_shape(models) is None
    with pytest.raises(ConfigError, match="a hub id needs a revision"):
        spec(model="stabilityai/sd-turbo").own_shape(models)
    several = spec(height=16, width=24, prompt=None, prompts={"a cat": 0.5, "a dog": 0.5})
    assert (several.own_shape(models).dim, several.own_shape(models).held) == (shape.dim + 1, 1)
    generator = several.build(models)
    assert (generator.prior.dim, generator.held) == (shape.dim + 1, 1)
    assert several.latent_form(models) == {"shape": [4, 8, 12], "patch": 1, "prompts": {"a cat": 0.5, "a dog": 0.5}}


def test_its_files_identify_it(project):
    models = project[0] / "models"
    sums = identities([spec()], models)
    assert {"./turbo/model_index.json", "./turbo/unet/diffusion_pytorch_model.safetensors"} <= sums.keys()
    config = project[0] / "turbo/scheduler/scheduler_config.json"
    before = config.read_text()
    config.write_text(json.dumps(json.loads(before) | {"beta_end": 0.011}))
    try:
        changed = {name for name, value in identities([spec()], models).items() if value != sums[name]}
    finally:
        config.write_text(before)
    assert changed == {"./turbo/scheduler/scheduler_config.json"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"model": "stabilityai/sd-turbo"}, "a hub id needs a revision"),
        ({"model": "./turbo", "revision": "0" * 40}, "a revision goes with a hub id"),
        ({"model": "stabilityai/sd-turbo", "revision": "main"}, "revision"),
        ({"prompt": None}, "either a prompt or a file of embeddings"),
        ({"height": 17}, "multiple of 2"),
        ({"model": "./nowhere"}, "is not a folder"),
        ({"prompt": None, "embeddings": "missing.safetensors"}, "cannot be read as safetensors"),
    ],
)
def test_mistakes_are_told_in_one_line(project, keys, words):
    with pytest.raises((ConfigError, ModelFileError), match=words) as error:
        spec(**keys).build(project[0] / "models")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("fewer_steps")
def test_a_flow_that_was_trained_on_it_works_in_the_pipeline(project, tmp_path):
    """A redder corner, which the pipeline itself then makes of the latents that are handed out."""
    root, pipeline = project
    request = spec(height=16, width=16)
    generator = request.build(root / "models")
    call = {"num_inference_steps": 1, "guidance_scale": 0.0, "height": 16, "width": 16, "output_type": "pt"}

    def red(image):
        return image[:, 0, :8, :8].mean(dim=(1, 2))

    def seen(latents):
        return red(pipeline(["a cat"] * len(latents), latents=latents, **call).images)

    plain = seen(generator.pipeline_latents(generator.prior.sample(256, stream(0, "plain"))))
    weight = 2 / float(plain.std())  # so that the target is about two standard deviations away
    energy = WeightedSum({"red": Term(lambda sample: -red(sample.image), weight)})
    objective, outputs = control_objective(energy, {"red": "red@1"})
    store = EvaluationStore(generator, outputs, tmp_path / "store", seed=1)
    trainer = Trainer(generator, store, objective, FlowConfig(blocks=2, hidden=16), seed=1)
    trained = trainer.train(256, goal=0.0, fit_samples=64)  # a single round, which takes half the time
    assert 0 < trained.flow.directions.shape[1] < generator.prior.dim / 2
    path = tmp_path / "chain.safetensors"
    save_chain(path, [trained.flow], request.model_dump(), {"latents": request.latent_form(root / "models")})
    assert generator_spec(load_chain(path).generator_spec) == request

    moved = seen(load_sampler(path).latents(256, seed=1))
    half_width = 1.96 * ((plain.var() + moved.var()) / 256).sqrt()  # of the 95 % interval of the difference
    assert float(moved.mean() - plain.mean() - half_width) > 0.7 * float(plain.std())


@torch.no_grad()
def test_latents_of_several_prompts_work_in_the_pipeline_with_their_prompts(project, tmp_path):
    root, pipeline = project
    request = spec(height=16, width=16, prompt=None, prompts={"a cat": 0.5, "blue": 0.5})
    generator = request.build(root / "models")
    flow, rng = Flow(generator.prior.dim, FlowConfig(blocks=1, hidden=8), held=1), stream(1, "weights")
    for value in flow.parameters():
        value.add_(0.05 * torch.randn(value.shape, generator=rng))
    path = tmp_path / "chain.safetensors"
    save_chain(path, [flow], request.model_dump(), {"latents": request.latent_form(root / "models")})
    sampler = load_sampler(path)
    prompts = sampler.prompts(8, seed=1)
    assert set(prompts) == {"a cat", "blue"}
    call = {"num_inference_steps": 1, "guidance_scale": 0.0, "height": 16, "width": 16, "output_type": "pt"}
    theirs = pipeline(prompts, latents=sampler.latents(8, seed=1), **call).images
    (eps,) = latent_blocks(generator.prior, 8, 1, LATENTS_NAME)
    ours = build_chain(path, root / "models")(eps).clamp(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_page_names_every_family():
    page = (Path(__file__).parents[2] / "docs" / "diffusers.md").read_text()
    from promptgen.generators.pipeline.folder import FAMILIES

    assert [name for name in FAMILIES if f"`{name}`" not in page] == []
