"""The history of a training on evaluations: a row of numbers now and then, kept and sent to the tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from promptgen.evaluations.landing import Landing, Residuals
from promptgen.flows.fit import Fit
from promptgen.tracking import Tracker

RECORD_EVERY = 10
"""Optimiser steps between two rows of the loss."""


@dataclass
class History:
    """Rows of a training.

    Attributes:
        tracker: receives each row, with ``train/`` before each name.
        rows: the rows, each with its `step`.
        step: optimiser steps so far.
    """

    tracker: Tracker
    rows: list[dict[str, float]] = field(default_factory=list)
    step: int = 0

    def add(self, row: Mapping[str, float]) -> None:
        """Add a row of numbers by name."""
        self.rows.append({"step": self.step, **row})
        self.tracker.metrics({f"train/{name}": value for name, value in row.items()}, self.step)

    def add_step(self, loss: float, done: int, total: int) -> None:
        """Count an optimiser step, of which `done` of `total` are done, and add its loss now and then."""
        self.step += 1
        if self.step % RECORD_EVERY == 0:
            self.add({"loss": loss})
        self.tracker.progress(done, total, f"flow on the surrogate, loss {loss:.3f}")


def fit_row(fit: Fit, expected: Fit, surrogate_error: float, units: int) -> dict[str, float]:
    """Return the row of a flow's fit, the true one and the one that the surrogate expects."""
    return {
        "validation/loss": -fit.log_z_bound,
        "validation/ess_fraction": fit.ess_fraction,
        "surrogate/ess_fraction": expected.ess_fraction,
        "surrogate/error": surrogate_error,
        "units": float(units),
    }


def share_row(landing: Landing, base: Tensor, probabilities: Tensor, labels: Sequence[str]) -> dict[str, float]:
    """Return the row of a flow's shares, by what landing predicts and what evaluated samples correct.

    Args:
        landing: predicts shares.
        base: base latents of evaluated samples, as landing reads them, (N, D).
        probabilities: their true class probabilities, (N, K).
        labels: names of the classes.
    """
    residuals = Residuals.of(landing.difference(base, probabilities))
    shares = landing.predicted_shares() + residuals.mean
    columns = {"share": shares, "share_error": residuals.error, "beta": np.asarray(landing.beta)}
    return {
        f"{kind}/{label}": float(value)
        for kind, values in columns.items()
        for label, value in zip(labels, values, strict=True)
    }
