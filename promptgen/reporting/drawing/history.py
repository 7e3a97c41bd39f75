"""The history of a training as curves.

A history has one row of numbers per step, such as ``{"step": 3, "loss": 4.1, "share/hair:long": 0.6}``; what is
measured only now and then is missing from the other rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

History = Sequence[Mapping[str, float | None]]
Curve = list[tuple[int, float]]


def column(history: History, name: str) -> Curve:
    """Return (step, value) pairs of one number, without the rows that lack it or where it was not finite."""
    found = ((row["step"], row.get(name)) for row in history)
    return [(int(step), value) for step, value in found if step is not None and value is not None]


def columns(history: History, prefix: str) -> dict[str, Curve]:
    """Return all numbers under a prefix such as ``share/``, called by what follows it and a colon in their name."""
    names = dict.fromkeys(name for row in history for name in row if name.startswith(prefix))
    return {name.removeprefix(prefix).split(":", 1)[-1]: column(history, name) for name in names}
