"""The `world:` section of params.yaml: what the embedded world is, and how its models are made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from promptgen.strict import Section
from promptgen.world.reporter import ReporterConfig
from promptgen.world.scene import SceneConfig

ModelName = Literal["generator", "classifier", "judge", "clip", "pose", "identity"]
Split = Literal["generator", "classifier", "judge", "clip", "test"]
Positive = Annotated[int, Field(gt=0)]


class Recipe(Section):
    """How long and how fast a model is trained.

    Attributes:
        steps: optimiser steps.
        batch: pictures per step.
        learning_rate: of Adam at its highest; it falls to zero as a half cosine.
    """

    steps: Positive
    batch: Positive
    learning_rate: Annotated[float, Field(gt=0)]


class WorldConfig(Section):
    """The embedded world.

    Attributes:
        seed: seed of pictures, initial weights and trainings.
        scene: which heads there are.
        reporter: what is said of them.
        renders: number of pictures in each data set; the data sets share no latent.
        training: recipe of each model.
    """

    seed: Annotated[int, Field(ge=0)]
    scene: SceneConfig
    reporter: ReporterConfig
    renders: dict[Split, Positive]
    training: dict[ModelName, Recipe]
