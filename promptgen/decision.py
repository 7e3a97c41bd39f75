"""Whether the loop goes on after a pass: the stopping rule, and the reasons it gives."""

from __future__ import annotations

from promptgen.config.params import Params
from promptgen.records import Count

REACHED = "interval contains the target"
EXHAUSTED = "maximum of passes reached"
MEASURED = "only measuring was asked for"
FITTED = "only fitting the multipliers was asked for"


def decide(count: Count, params: Params) -> str | None:
    """Return why the loop stops after a pass, or None to go on.

    Args:
        count: the pass, as it was counted.
        params: the experiment; its control, `debias.max_passes` and `debias.training` tell which passes there are.
    """
    if count.number == 0 and params.control:
        return None  # the control has not been trained yet
    if params.only_fits:
        return FITTED
    if params.debias.max_passes == 0:
        return MEASURED
    if count.contains_target:
        return REACHED
    return EXHAUSTED if count.number >= params.last_pass else None
