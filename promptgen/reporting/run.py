"""A run of the loop as the report takes it: the figures, and what every pass left beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptgen.errors import DataError
from promptgen.records import Metrics
from promptgen.reporting.drawing.history import History
from promptgen.reporting.drawing.pictures import Pixels
from promptgen.reporting.settings import Settings


@dataclass(frozen=True)
class PassMaterial:
    """What one pass leaves besides its record.

    Args:
        tiles: images of the grid's latents, (n, H, W, 3) uint8: the same latents, in the same order, in every pass.
        history: a row of numbers per training step; empty for the generator itself.
        moments: the solved moment constraint of a de-biasing pass, as `promptgen.moments.multipliers.MomentFit.as_dict`
            gives it.
        beta: the multipliers at the end of training, nats by feature name; empty where they were not moved.
        sweep: a latent per row under a condition per column, (rows, columns, H, W, 3) uint8; None without a condition.
    """

    tiles: Pixels
    history: History = ()
    moments: Mapping[str, Any] | None = None
    beta: Mapping[str, float] = field(default_factory=dict)
    sweep: Pixels | None = None


@dataclass(frozen=True)
class Run:
    """A run of the loop: all the page needs, and nothing it has to look up.

    Args:
        metrics: the numbers.
        material: pictures and histories, one per pass in the order of `metrics.passes`.
        settings: what was asked for, and how it was measured.
        models: sha256 of every model file, by model name.
        tracking: ids by which the run is found in MLflow; empty when it was not recorded.
    """

    metrics: Metrics
    material: Sequence[PassMaterial]
    settings: Settings
    models: Mapping[str, str] = field(default_factory=dict)
    tracking: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.material) != len(self.metrics.passes):
            raise DataError(f"{len(self.metrics.passes)} passes are recorded but {len(self.material)} have pictures")
