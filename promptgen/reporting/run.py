"""The input of the report: the metrics of a run, and the images and histories of its passes."""

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
    """The output of one pass besides its record.

    Args:
        tiles: images of the grid's latents, (n, H, W, 3) uint8: the same latents, in the same order, in every pass.
        history: a row of numbers per training step; empty for the generator alone.
        moments: the solved moment constraint of a de-biasing pass, as `promptgen.moments.multipliers.MomentFit.as_dict`
            returns it.
        beta: the multipliers at the end of training, nats by feature name; empty if training did not move them.
        sweep: a latent per row under a condition per column, (rows, columns, H, W, 3) uint8; None without a condition.
    """

    tiles: Pixels
    history: History = ()
    moments: Mapping[str, Any] | None = None
    beta: Mapping[str, float] = field(default_factory=dict)
    sweep: Pixels | None = None


@dataclass(frozen=True)
class Run:
    """A run of the loop, with everything that the page needs.

    Args:
        metrics: all figures.
        material: images and histories, one per pass in the order of `metrics.passes`.
        settings: the request, and how it was measured.
        models: sha256 of every model file, by model name.
        tracking: ids of the run in MLflow; empty if it was not recorded.
    """

    metrics: Metrics
    material: Sequence[PassMaterial]
    settings: Settings
    models: Mapping[str, str] = field(default_factory=dict)
    tracking: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.material) != len(self.metrics.passes):
            raise DataError(f"{len(self.metrics.passes)} passes are recorded but {len(self.material)} have pictures")
