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
from torch import Tensor

from promptgen.world.config import ATTRIBUTES
from promptgen.world.config import ReporterConfig as ReporterConfig

AGE_WORDS: Final = {"young": "a young person", "middle": "a middle-aged person", "old": "an old person"}

WORDS: Final = (
    *("a", "an", "and", "with", "without", "person", "young", "middle-aged", "old"),
    *("short", "long", "hair", "glasses", "makeup"),
)
"""All words of all captions."""


class Reporter:
    """Writes captions."""

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
