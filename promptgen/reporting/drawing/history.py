"""Training histories as curves.

A history has one row of numbers per step, such as ``{"step": 3, "loss": 4.1, "share/hair:long": 0.6}``; what is
not measured at every step is missing from the other rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

History = Sequence[Mapping[str, float | None]]
Curve = list[tuple[int, float]]


def column(history: History, name: str) -> Curve:
    """Return (step, value) pairs of one number, without rows where it is missing or was not finite."""
    points = ((row["step"], row.get(name)) for row in history)
    return [(int(step), value) for step, value in points if step is not None and value is not None]


def columns(history: History, prefix: str) -> dict[str, Curve]:
    """Return all numbers under a prefix such as ``share/``, by the part of their name after it and after a colon."""
    names = dict.fromkeys(name for row in history for name in row if name.startswith(prefix))
    return {name.removeprefix(prefix).split(":", 1)[-1]: column(history, name) for name in names}
