"""Every family of published generators, with random weights and a small size, through what params.yaml reaches."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from promptgen.config.build import build_chain, build_energies
from promptgen.config.energies import EnergySpec
from promptgen.config.generators import GeneratorSpec
from promptgen.config.params import load_params
from promptgen.energies.base import Sample
from promptgen.files import read_json
from promptgen.flows.chain_file import save_chain
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.sampling import generate
from promptgen.flows.training import TrainingConfig, train_flow
from promptgen.generators.base import GaussianPrior
from promptgen.model_files.store import fetch
from promptgen.seeding import stream
from promptgen.tracking import NullTracker
from steps import train_flow as step
from steps.shared.common import Pass, Project
from tests import tiny
from tests.generators import small

SMALL = {
    "stylegan2": {"model": "stylegan2-church-256", "truncation": 0.7, "arguments": small.STYLEGAN2},
    "stylegan3": {"model": "stylegan3-r-ffhqu-256", "truncation": 0.7, "arguments": small.STYLEGAN3},
    "r3gan": {"model": "r3gan-ffhq-64", "arguments": small.R3GAN_SHAPE},
    "biggan": {"model": "biggan-deep-128", "truncation": 0.4, "arguments": small.BIGGAN},
    "nvae": {"model": "nvae-ffhq-256", "temperature": 0.8, "groups": [0, 1], "arguments": small.NVAE},
    "diffae": {
        "model": "diffae-ffhq-128",
        "latent_steps": 2,
        "image_steps": 2,
        "arguments": small.DIFFAE | {"image_size": 16, "attention_resolutions": [8]},
    },
    "stylenerf": {
        "model": "stylenerf-ffhq-1024",
        "truncation": 0.7,
        "camera": {"yaw": 0.2},
        "arguments": small.STYLENERF,
    },
    "dcgan": {"model": "dcgan-faces", "arguments": small.DCGAN_SHAPE},
}
"""A small network of each family, by the `type` of its section in params.yaml."""

TEXT = {
    "type": "clip_text",
    "weight": 100.0,
    "text": "a person with glasses",
    "models": {"world-clip": 1.0},
    "augmentations": 0,
}
FLOW = FlowConfig(blocks=2, hidden=16)
TRAINING = TrainingConfig(steps=12, batch=16, learning_rate=0.02, clip=50.0, validate_every=3, validation_samples=32)

each_family = pytest.mark.parametrize("family", SMALL)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of weight files with the world's CLIP alone: random networks need none."""
    folder = tmp_path_factory.mktemp("project") / "models"
    fetch("world-clip", folder)
    return folder


def section(family, **changes):
    """The `generator` section of params.yaml for a small network with random weights."""
    return {"type": family, "weights": "random", **SMALL[family], **changes}


def spec(family, **changes) -> GeneratorSpec:
    return TypeAdapter(GeneratorSpec).validate_python(section(family, **changes))


def text_energy(models):
    return build_energies({"text": TypeAdapter(EnergySpec).validate_python(TEXT)}, models)


def trained(generator, energy, seed=0):
    flow = Flow(generator.prior.dim, FLOW, scale=generator.prior.scale, seed=seed)
    return train_flow(generator, energy, flow, TRAINING, seed=seed, fit_samples=16)


def images(generator, n=8):
    return torch.cat([image for _, image in generate(generator, n, seed=3, stream="sample", batch=4)])


@each_family
def test_a_random_network_gives_images(models, family):
    made = spec(family).build(models)
    assert isinstance(made.prior, GaussianPrior)
    image = images(made, 16)
    assert image.shape[1:] == made.image_shape
    assert image.isfinite().all()
    assert 0.3 < image.mean() < 0.7
    assert 0.05 < image.std() < 0.4
    assert ((image > 0.01) & (image < 0.99)).float().mean() > 0.85
    assert image.std(dim=0).mean() > 0.01  # latents make a difference
    assert spec(family).cards() == []


@each_family
def test_the_seed_decides_the_weights(models, family):
    arguments = SMALL[family]["arguments"]
    first, again = (images(spec(family).build(models), 2) for _ in range(2))
    assert torch.equal(first, again)
    other = spec(family, arguments=arguments | {"seed": 1}).build(models)
    assert not torch.allclose(images(other, 2), first)


@each_family
def test_the_gradient_reaches_every_latent(models, family):
    made = spec(family).build(models)
    latent = made.prior.sample(4, stream(0, "latents")).requires_grad_()
    (gradient,) = torch.autograd.grad(text_energy(models)(Sample(latent, made(latent))).sum(), latent)
    assert gradient.isfinite().all()
    assert (gradient.abs().sum(dim=1) > 0).all()
    assert (gradient.abs().sum(dim=0) > 0).all()


@pytest.mark.long
@pytest.mark.slow
@each_family
def test_a_chain_of_flows_is_trained_saved_and_loaded(models, family, tmp_path):
    made, energy = spec(family).build(models), text_energy(models)
    first = trained(made, energy)
    assert all(row["loss"] == row["loss"] and row["gradient_norm"] > 0 for row in first.history[:-1])
    losses = [row["validation/loss"] for row in first.history if "validation/loss" in row]
    assert min(losses) < losses[0] - 0.01
    assert first.best_step > 0
    fresh = Flow(made.prior.dim, FLOW, scale=made.prior.scale, seed=0)
    assert any(not torch.equal(*pair) for pair in zip(first.flow.parameters(), fresh.parameters(), strict=True))

    controlled = ChainedGenerator(made, first.flow)
    second = trained(controlled, energy, seed=1)
    path = tmp_path / "chain.safetensors"
    save_chain(path, [first.flow, second.flow], spec(family).model_dump(), {})
    again = build_chain(path, models)
    assert again.image_shape == made.image_shape
    assert torch.equal(images(again), images(ChainedGenerator(controlled, second.flow)))


def test_sampling_takes_its_own_steps(models, tmp_path):
    given = spec("diffae", sampling_image_steps=5)
    training, sampling = (given.build(models, sampling=choice) for choice in (False, True))
    assert (training.config.latent_steps, training.config.image_steps) == (2, 2)
    assert (sampling.config.latent_steps, sampling.config.image_steps) == (2, 5)
    path = tmp_path / "chain.safetensors"
    save_chain(path, [], given.model_dump(), {})
    assert torch.equal(images(build_chain(path, models)), images(training))
    assert torch.equal(images(build_chain(path, models, sampling=True)), images(sampling))
    with pytest.raises(ValidationError, match="no stride gives 300 steps"):
        spec("diffae", sampling_image_steps=300)


def test_a_step_trains_a_random_network(models, tmp_path):
    """From a params.yaml to the file of a chain, which is loaded without CLIP."""
    content = tiny.params() | {"generator": section("nvae")}
    content["control"] = {"energies": {"text": TEXT}, "measure": {}, "training": TRAINING.model_dump()}
    content["evaluation"] |= {"fit_samples": 32}
    path = tiny.write_params(tmp_path, content)
    assert load_params(path).generator.cards() == []
    fetch("world-clip", tmp_path / "models")
    this = Pass(Project.load(path), 1)
    result = step.run(this, NullTracker())["result"]
    assert 0 < result["fit"]["ess_fraction"]["value"] <= 1
    assert len(read_json(this.folder("train_flow") / step.HISTORY_NAME)) == TRAINING.steps + 1
    chain = build_chain(this.chain, tmp_path / "nowhere")
    assert images(chain).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "published"}, "arguments can only be given with `weights: random`"),
        ({"arguments": {"truncation": 0.5}}, "truncation belongs beside `model`, not into arguments"),
    ],
)
def test_misplaced_arguments_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        spec("stylegan2", **changes)
