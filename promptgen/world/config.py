"""The `world` section of params.yaml: the embedded world, and the training of its models."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, model_validator

from promptgen.strict import Section

ModelName = Literal["generator", "classifier", "judge", "clip", "pose", "identity"]
Split = Literal["generator", "classifier", "judge", "clip", "test"]
Positive = Annotated[int, Field(gt=0)]

ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "hair": ("short", "long"),
    "glasses": ("without", "with"),
    "makeup": ("without", "with"),
    "skin": ("1", "2", "3", "4", "5", "6"),
    "age": ("young", "middle", "old"),
}
"""Class labels of every attribute of the world, in the order of all logits."""

CONTINUOUS: Final[tuple[str, ...]] = (
    "face_width",
    "jaw",
    "eye_spacing",
    "eye_size",
    "nose",
    "mouth_width",
    "brows",
    "eye_colour",
    "hair_colour",
    "yaw",
    "pitch",
    "light",
    "background_hue",
    "background_value",
    "clothes",
)
"""Coordinates without classes: identity (the first nine), pose, light, surroundings."""

IDENTITY: Final[tuple[str, ...]] = CONTINUOUS[:9]
COORDINATES: Final[tuple[str, ...]] = (*ATTRIBUTES, *CONTINUOUS)


class SceneConfig(BaseModel):
    """The joint distribution of the world's attributes.

    Attributes:
        latent_dim: dimension D of the latent.
        seed: seed of the rotation R.
        long_hair: P(hair = long).
        makeup: P(makeup = with | hair), by hair label.
        glasses: P(glasses = with).
        skin: shares of the six skin tones, light to dark.
        age: shares of young, middle, old.
        ramp: half width, in units of u, over which the look changes from one class to the next.
        yaw, pitch: standard deviation of the head's pose, radians.
    """

    model_config = Section.model_config

    latent_dim: int = Field(64, ge=len(COORDINATES))
    seed: int = 7
    long_hair: float = Field(0.42, gt=0, lt=1)
    makeup: dict[str, float] = {"short": 0.15, "long": 0.60}
    glasses: float = Field(0.30, gt=0, lt=1)
    skin: tuple[float, ...] = (0.26, 0.22, 0.18, 0.14, 0.11, 0.09)
    age: tuple[float, ...] = (0.45, 0.35, 0.20)
    ramp: float = Field(0.10, gt=0, lt=1)
    yaw: float = Field(0.16, gt=0, lt=0.6)
    pitch: float = Field(0.08, gt=0, lt=0.4)

    @model_validator(mode="after")
    def _shares_are_distributions(self) -> SceneConfig:
        for name in ("skin", "age"):
            shares = getattr(self, name)
            if len(shares) != len(ATTRIBUTES[name]) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
                raise ValueError(f"{name} needs {len(ATTRIBUTES[name])} positive shares that sum to 1, got {shares}")
        if set(self.makeup) != set(ATTRIBUTES["hair"]):
            raise ValueError(f"makeup needs a share for each of {ATTRIBUTES['hair']}, got {tuple(self.makeup)}")
        return self


class ReporterConfig(BaseModel):
    """Probabilities that the reporter mentions an attribute.

    Attributes:
        hair, glasses, age: P(mentioned | label), by label.
        makeup: P(mentioned | make-up label, hair label), by make-up label and then by hair label.
    """

    model_config = Section.model_config

    hair: dict[str, float] = {"short": 0.30, "long": 0.30}
    glasses: dict[str, float] = {"without": 0.20, "with": 0.50}
    age: dict[str, float] = {"young": 0.20, "middle": 0.20, "old": 0.40}
    makeup: dict[str, dict[str, float]] = {
        "without": {"short": 0.04, "long": 0.60},
        "with": {"short": 0.50, "long": 0.50},
    }

    @model_validator(mode="after")
    def _tables_are_complete(self) -> ReporterConfig:
        tables = {"hair": self.hair, "glasses": self.glasses, "age": self.age}
        tables |= {f"makeup.{label}": table for label, table in self.makeup.items()}
        for name, table in tables.items():
            labels = ATTRIBUTES["hair" if name.startswith("makeup.") else name]
            if set(table) != set(labels) or not all(0 <= p <= 1 for p in table.values()):
                raise ValueError(f"{name} needs a probability in [0, 1] for each of {labels}, got {table}")
        if set(self.makeup) != set(ATTRIBUTES["makeup"]):
            raise ValueError(f"makeup needs a table for each of {ATTRIBUTES['makeup']}, got {tuple(self.makeup)}")
        return self


class Recipe(Section):
    """Length and learning rate of a training.

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
