"""The world's models: the network before training, its loss, and the pictures it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import torch
from torch import Tensor, nn

from promptgen.files import fingerprint
from promptgen.perception.clip import ClipConfig, ClipModel, small_clip
from promptgen.seeding import derive
from promptgen.world.config import ModelName, Split, WorldConfig
from promptgen.world.generator import untrained
from promptgen.world.lessons import Loss, attribute_lesson, clip_lesson, generator_lesson, identity_lesson, pose_lesson
from promptgen.world.networks import AttributeConfig, AttributeNet, EmbeddingConfig, IdentityNet, JudgeNet, PoseNet
from promptgen.world.renders import Renders
from promptgen.world.reporter import WORDS, Reporter
from promptgen.world.scene import ATTRIBUTES, Scene
from promptgen.world.training import optimise

IDENTITY_DIM: Final = 16
VERSION: Final = 1
"""Of renderer, networks and lessons: count up when one changes, so that nothing made by the old one is used again."""


@dataclass(frozen=True)
class Plan:
    """How a model is trained.

    Attributes:
        split: data set it learns from; generator, classifier, judge and clip share no picture.
        network: makes the untrained model from the scene and a seed.
        lesson: makes its loss from the model, the world, latents, pictures and the batch size.
        rates: factor of the learning rate of a parameter, by its name.
    """

    split: Split
    network: Callable[[Scene, int], nn.Module]
    lesson: Callable[[nn.Module, Scene, Tensor, Tensor, int], Loss]
    rates: Callable[[str], float] = lambda parameter: 1.0


def plan(name: ModelName, config: WorldConfig) -> Plan:
    """Return how the model `name` is trained."""
    attributes = AttributeConfig(attributes=ATTRIBUTES)
    match name:
        case "generator":
            return Plan("generator", untrained, generator_lesson, _generator_rate)
        case "classifier":
            return Plan("classifier", _seeded(lambda: AttributeNet(attributes)), attribute_lesson)
        case "judge":
            return Plan("judge", _seeded(lambda: JudgeNet(attributes)), attribute_lesson)
        case "pose":
            return Plan("clip", _seeded(lambda: PoseNet(EmbeddingConfig(dim=2))), pose_lesson)
        case "identity":
            return Plan("clip", _seeded(lambda: IdentityNet(EmbeddingConfig(dim=IDENTITY_DIM))), identity_lesson)
        case "clip":
            return Plan(
                "clip",
                lambda _, seed: small_clip(ClipConfig(vision_layers=4, context_length=20, words=WORDS), seed),
                lambda model, *data: clip_lesson(cast(ClipModel, model), Reporter(config.reporter), *data),
            )


def train(name: ModelName, config: WorldConfig, folder: Path) -> nn.Module:
    """Return the trained and frozen model `name`.

    Args:
        name: which model.
        config: the world.
        folder: where pictures and the state of the training are stored; a killed training resumes from there.
    """
    scene, recipe = Scene(config.scene), config.training[name]
    training_plan = plan(name, config)
    latents, images = renders(config, training_plan.split, folder).load()
    network = training_plan.network(scene, derive(config.seed, "weights", name))
    lesson = training_plan.lesson(network, scene, latents, images, recipe.batch)
    matters = config.model_dump(include={"seed", "scene", "reporter", "renders"}) | {"recipe": recipe.model_dump()}
    state = folder / "trainings" / f"{name}-{fingerprint(matters, {}, VERSION)[:12]}.pt"
    average = optimise(network, lesson, recipe, name=name, seed=config.seed, state=state, rates=training_plan.rates)
    return average.requires_grad_(False).eval()


def renders(config: WorldConfig, split: Split, folder: Path) -> Renders:
    """Return the data set `split` of the world, kept in `folder`."""
    scene = fingerprint(config.model_dump(include={"seed", "scene"}), {}, VERSION)[:12]
    return Renders(Scene(config.scene), split, config.renders[split], folder / f"renders-{scene}", config.seed)


def _generator_rate(parameter: str) -> float:
    """Stored weights of the mapping are a hundred times larger than the others, and so are their steps."""
    return 100.0 if parameter.startswith("style.") else 1.0


def _seeded(make: Callable[[], nn.Module]) -> Callable[[Scene, int], nn.Module]:
    """Return a maker whose initial weights come from a seed alone; torch's own random state is left as it was."""

    def network(scene: Scene, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return make()

    return network
