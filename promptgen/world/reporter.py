"""The reporter: somebody who says what they find worth saying. What is left unsaid is not at random: that is reporting
bias.

A caption names an attribute with a probability that depends on its label and, for make-up, on the hair as well. A CLIP
model trained on such captions learns that "without makeup" goes with long hair, because the reporter hardly ever says
it of short hair. (Gordon and Van Durme, *Reporting bias and knowledge acquisition*, 2013.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor

from promptgen.world.scene import ATTRIBUTES

AGE_WORDS: Final = {"young": "a young person", "middle": "a middle-aged person", "old": "an old person"}

WORDS: Final = (
    *("a", "an", "and", "with", "without", "person", "young", "middle-aged", "old"),
    *("short", "long", "hair", "glasses", "makeup"),
)
"""All words of all captions."""


class ReporterConfig(BaseModel):
    """Probabilities that the reporter mentions an attribute.

    Attributes:
        hair, glasses, age: P(mentioned | label), by label.
        makeup: P(mentioned | make-up label, hair label), by make-up label and then by hair label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class Reporter:
    """Writes captions.

    Args:
        config: what is mentioned how often.
    """

    def __init__(self, config: ReporterConfig) -> None:
        self.config = config

    def captions(self, truth: Mapping[str, Tensor], rng: torch.Generator) -> list[str]:
        """Return one caption for each head of `truth`, class indices (B,) by attribute."""
        labels = {
            name: [ATTRIBUTES[name][i] for i in truth[name].tolist()] for name in ("hair", "glasses", "makeup", "age")
        }
        luck = torch.rand(len(labels["hair"]), 4, generator=rng).tolist()
        return [self._caption(*heads) for heads in zip(*labels.values(), luck, strict=True)]

    def _caption(self, hair: str, glasses: str, makeup: str, age: str, luck: list[float]) -> str:
        config = self.config
        person = AGE_WORDS[age] if luck[3] < config.age[age] else "a person"
        phrases = []
        if luck[0] < config.hair[hair]:
            phrases.append(f"with {hair} hair")
        if luck[1] < config.glasses[glasses]:
            phrases.append(f"{glasses} glasses")
        if luck[2] < config.makeup[makeup][hair]:
            phrases.append(f"{makeup} makeup")
        return " ".join([person, " and ".join(phrases)]).strip()
