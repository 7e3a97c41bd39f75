"""Everything works on another device than the CPU: it is made there, goes there when moved, and mixes with nothing."""

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from promptgen.conditions import Condition
from promptgen.config.build import build_classifier, build_energies, load_model
from promptgen.config.energies import EnergySpec
from promptgen.config.models import ReaderSpec
from promptgen.energies.base import Sample
from promptgen.energies.moment import MomentEnergy
from promptgen.flows.chain_file import load_chain, save_chain
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.exact import chain_log_weights, correct
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.sampling import draw, latent_blocks, sweep
from promptgen.flows.training import TrainingConfig, train_flow
from promptgen.metrics.features import image_features
from promptgen.model_files.store import fetch
from promptgen.moments.ascent import MomentAscent
from promptgen.perception.arcface import ArcFace, ArcFaceConfig
from promptgen.perception.celeba import CelebaAttribute
from promptgen.perception.deca import DecaPose
from promptgen.perception.faceapi import FaceAPIAgeGender, FaceAPIExpression
from promptgen.perception.fairface import FairFace
from promptgen.perception.human import HumanEmotion
from promptgen.seeding import stream
from promptgen.tracking import NullTracker
from tests.generators import small
from tests.perception.made_graphs import emotion_graph
from tests.pretended_device import DEVICE, Pretended, move, pretended_device

GENERATORS = {
    "stylegan2": small.stylegan2,
    "biggan": small.biggan,
    "nvae": small.nvae,
    "diffae": small.diffae,
    "stylenerf": small.stylenerf,
    "stylegan3": small.stylegan3,
    "r3gan": small.r3gan,
    "r3gan with classes": lambda: small.r3gan(class_count=3, classes="uniform"),
    "dcgan": small.dcgan,
}
NETWORKS = {
    "fairface": lambda: FairFace(architecture="resnet18"),
    "celeba": lambda: CelebaAttribute("glasses", architecture="resnet18", hidden=8),
    "faceapi_expression": FaceAPIExpression,
    "faceapi_age_gender": FaceAPIAgeGender,
    "human_emotion": lambda: HumanEmotion(emotion_graph()),
    "arcface": lambda: ArcFace(ArcFaceConfig(input_side=16, dim=8)),
    "deca": lambda: DecaPose("resnet18", hidden=8),
}
WORLD = {
    "world-classifier": "classifier",
    "world-judge": "classifier",
    "world-identity": "identity",
    "world-pose": "pose",
}
SHORT = {"type": "classifier", "weight": 1.0, "classifier": "world-classifier", "labels": {"hair": "short"}}
TEXT = {"type": "clip_text", "weight": 9.0, "text": "a person without makeup", "models": {"world-clip": 1.0}}
ENERGIES = {
    "text": {**TEXT, "augmentations": 0},
    "augmented text": {**TEXT, "augmentations": 2},
    "text, augmented before it is resized": {**TEXT, "augmentations": 2, "resize_first": False},
    "classifier": SHORT,
    "pose": {"type": "pose", "weight": 1.0, "estimator": "world-pose"},
    "identity": {"type": "identity", "weight": 1.0, "embedder": "world-identity"},
    "one of two": {"type": "any_of", "weight": 1.0, "energies": {"text": {**TEXT, "augmentations": 0}, "short": SHORT}},
    "not": {"type": "not", "weight": 1.0, "bound": 5.0, "energy": SHORT},
}
ZERO_SHOT = {
    "type": "clip_labels",
    "model": "world-clip",
    "attributes": {"hair": {"short": "a person with short hair", "long": "a person with long hair"}},
}
POSE = Condition({"yaw": (-0.3, 0.3), "pitch": (-0.2, 0.2)})
TRAINING = TrainingConfig(
    steps=2, batch=4, micro_batch=2, validate_every=1, validation_samples=4, checkpoint_every=1, learning_rate=0.01
)


@pytest.fixture(autouse=True)
def device():
    with pretended_device():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project") / "models"
    for name in ("world-generator", "world-clip", *WORLD):
        fetch(name, folder)
    return folder


def there(*shape):
    return torch.rand(shape, generator=stream(0, "there")).to(DEVICE)


def parts_of(result):
    return list(result.values()) if isinstance(result, dict) else [result]


def energies(models, *names):
    specs = {name: TypeAdapter(EnergySpec).validate_python(ENERGIES[name]) for name in names}
    return move(build_energies(specs, models, POSE.names))


def generator(models):
    return move(load_model("world-generator", models, "generator", truncation=0.7))


def flow(condition=None):
    return move(Flow(64, FlowConfig(blocks=1, hidden=8), condition, seed=1))


def train(models, energy, condition=None, config=TRAINING, **options):
    return train_flow(generator(models), energy, flow(condition), config, seed=1, fit_samples=4, **options)


class Killed(Exception):
    """A training ended like that has had no time to tidy up."""


class Killer(NullTracker):
    def progress(self, done, total, note=""):
        raise Killed


def test_the_pretended_device_is_as_strict_as_a_gpu():
    zeros = torch.zeros(3, device=DEVICE)
    for mistake in (
        lambda: zeros + torch.ones(3),
        lambda: torch.cat([zeros, torch.ones(3)]),
        lambda: torch.ones(3)[zeros.long()],
        lambda: torch.rand(3, generator=stream(0, "mistake"), device=DEVICE),
        lambda: nn.Linear(3, 2)(zeros),
    ):
        with pytest.raises(RuntimeError, match="CPU"):
            mistake()
    with pytest.raises(TypeError, match="copy it to the CPU"):
        zeros.numpy()
    assert torch.equal((zeros + torch.tensor(2.0)).cpu(), torch.full((3,), 2.0))
    assert torch.equal(zeros[torch.tensor([0, 1])].cpu(), torch.zeros(2))
    assert zeros.new_tensor([1.0, 2.0]).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", GENERATORS)
def test_generators(name):
    made = move(GENERATORS[name]())
    latent = made.prior.sample(2, stream(0, "latent")).requires_grad_()
    image = made(latent)
    image.square().sum().backward()
    assert isinstance(image, Pretended)
    assert isinstance(latent.grad, Pretended)
    with torch.inference_mode():
        assert isinstance(made(latent.detach(), noise=stream(0, "noise")), Pretended)


def test_the_world_knows_its_truth(models):
    made = move(load_model("world-generator", models, "generator", truncation=1.0))
    truth = made.truth(made.prior.sample(2, stream(0, "latent")))
    assert all(isinstance(part, Pretended) for part in truth.values())


@pytest.mark.parametrize("name", [*WORLD, *NETWORKS])
def test_networks_that_look_at_images(models, name):
    network = move(load_model(name, models, WORLD[name]) if name in WORLD else NETWORKS[name]())
    image = there(2, 3, 64, 64).requires_grad_()
    parts = parts_of(network(image))
    sum(part.sum() for part in parts).backward()
    assert all(isinstance(part, Pretended) for part in [*parts, image.grad])


def test_labels_by_text(models):
    classifier = move(build_classifier(TypeAdapter(ReaderSpec).validate_python(ZERO_SHOT), models))
    assert isinstance(classifier(there(2, 3, 64, 64))["hair"], Pretended)


@pytest.mark.parametrize("name", ENERGIES)
def test_energies(models, name):
    image = there(2, 3, 64, 64).requires_grad_()
    sample = Sample(there(2, 64), image, there(2, 2), there(2, 3, 64, 64), stream(0, "energy"))
    energies(models, name)(sample).sum().backward()
    assert isinstance(image.grad, Pretended)


def test_an_energy_of_diversity_moves_with_the_network_whose_method_it_calls(models):
    spec = TypeAdapter(EnergySpec).validate_python({"type": "diversity", "weight": 1.0, "features": "world-judge"})
    energy = move(spec.build(models, ()))
    with torch.no_grad():
        energy.fit(torch.cat([energy.features(there(64, 3, 64, 64) * scale).cpu() for scale in torch.rand(8)]))
    image = there(2, 3, 64, 64).requires_grad_()
    energy(Sample(there(2, 64), image)).sum().backward()
    assert isinstance(image.grad, Pretended)


@pytest.mark.parametrize("method", ["on_policy", "plain"])
def test_training_goes_on_from_its_state(models, tmp_path, method):
    config, energy = TRAINING.model_copy(update={"method": method}), energies(models, "augmented text")
    with pytest.raises(Killed):
        train(models, energy, config=config, state_dir=tmp_path, tracker=Killer())
    training = train(models, energy, config=config, state_dir=tmp_path)
    assert len(training.history) == TRAINING.steps + 1
    assert isinstance(next(training.flow.parameters()), Pretended)


def test_multipliers_move_and_go_on_from_their_state(models, tmp_path):
    def ascent():
        energy = move(MomentEnergy(load_model("world-classifier", models, "classifier"), "hair", [0.1, -0.1]))
        return energy, MomentAscent(energy, [0.5, 0.5], steps=TRAINING.steps)

    energy, multipliers = ascent()
    with pytest.raises(Killed):
        train(models, energy, multipliers=multipliers, state_dir=tmp_path, tracker=Killer())
    energy, multipliers = ascent()
    train(models, energy, multipliers=multipliers, state_dir=tmp_path)
    assert multipliers.fixed
    torch.testing.assert_close(energy.beta.cpu().double(), multipliers.beta)


def test_a_conditional_chain(models, tmp_path):
    energy = energies(models, "pose", "identity")
    trained = train(models, energy, condition=POSE).flow
    chain = ChainedGenerator(generator(models), trained)
    for sample in draw(chain, 3, seed=1, stream="draw", batch=2, condition={"yaw": 0.1}):
        assert isinstance(sample.image, Pretended)
    images, _ = sweep(chain, 1, seed=1, stream="sweep", steps=2)
    assert isinstance(images, Pretended)
    latents = torch.cat(list(latent_blocks(chain.prior, 6, 1, "proposals")))
    asked = POSE.fix(torch.zeros(6, 2), {"yaw": 0.1}).to(latents)
    weights = chain_log_weights(chain, energy, latents, asked, seed=1, batch=4)
    for method in ("resample", "metropolis"):
        chosen = correct(weights, 2, method, stream(1, method)).chosen
        assert isinstance(latents[chosen], Pretended)
    save_chain(tmp_path / "chain.safetensors", [trained], {}, {})
    (loaded,) = load_chain(tmp_path / "chain.safetensors").flows
    assert all(torch.equal(value, trained.state_dict()[name].cpu()) for name, value in loaded.state_dict().items())


def test_features_come_to_the_cpu(models):
    judge = move(load_model("world-judge", models, "classifier"))
    (rows,) = image_features(judge.features, [there(2, 3, 64, 64)])
    assert not isinstance(rows, Pretended)
