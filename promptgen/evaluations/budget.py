"""Budgets in minutes, converted to images by the speed of the first ones."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from promptgen.evaluations.config import LEAST_BUDGET, Budget
from promptgen.evaluations.proposal import Proposal
from promptgen.evaluations.store import EvaluationStore
from promptgen.files import read_json, write_json

TIMED = 64
"""Images that are timed."""

NAME = "budget.json"


def budget_units(budget: Budget, store: EvaluationStore, start: Proposal, state: Path) -> int:
    """Return a budget in forward passes, less those that were timed to convert it.

    Minutes are converted once; the result is kept in `state`, so that a run that was killed goes on with it.

    Args:
        budget: the budget.
        store: evaluates the images that are timed; they are counted as spent, but not kept.
        start: draws them.
        state: folder of the training's state.
    """
    if budget.images is not None:
        return budget.images
    assert budget.minutes is not None
    path = state / NAME
    store.spending.forward += TIMED  # of a run that was killed, too
    if path.exists():
        return int(read_json(path)["units"])
    with torch.no_grad():
        draw = start.draw(TIMED, "budget")
    began = time.perf_counter()
    store.measure(draw.base, draw.context)
    rate = TIMED / (time.perf_counter() - began)
    units = max(LEAST_BUDGET, round(60 * budget.minutes * rate) - TIMED)
    write_json(path, {"units": units})
    return units
