"""The page of `benchmarks.gpu`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from promptgen.files import atomic_write, write_json

GOAL = 1.10
"""Wanted time of a training step as a multiple of its parts."""


def write(figures: Mapping[str, Any], folder: Path) -> None:
    """Write gpu.json and gpu.md into a folder."""
    write_json(folder / "gpu.json", figures)
    atomic_write(folder / "gpu.md", ("\n".join(_page(figures)) + "\n").encode())


def _page(figures: Mapping[str, Any]) -> Iterator[str]:
    machine = figures["machine"]
    yield f"# {machine['device']}, torch {machine['torch']}, Python {machine['python']}"
    yield ""
    if figures["tiny"]:
        yield "Tiny networks, whose figures mean nothing.\n"
    yield "| network | precision | images at a time | images/s | with gradient | MiB per image | with gradient |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for row in figures["networks"]:
        start = f"| {row['network']} | {row['precision']} |"
        if row["error"]:
            yield f"{start} {row['error'].replace('|', '/')} | | | | |"
        else:
            names = ("forward", "gradient", "forward_mib", "gradient_mib")
            yield f"{start} {row['batch']} | {' | '.join(_number(row[name]) for name in names)} |"
    yield ""
    for name, value in figures.items():
        if name.startswith("step "):
            yield f"{_step(name.removeprefix('step '), value)}\n"
    if "experiment" in figures:
        value = figures["experiment"]
        outcome = value["error"] if "error" in value else f"{value['seconds']:.0f} s"
        yield f"The default experiment: {outcome}."


def _step(precision: str, value: Mapping[str, Any]) -> str:
    if "error" in value:
        return f"A training step in {precision}: {value['error']}"
    parts = " + ".join(f"{1000 * value[name]:.0f}" for name in ("flow", "generator", "clip"))
    return (
        f"A training step with CLIP on {value['images']} images in {precision} takes {1000 * value['step']:.0f} ms; "
        f"flow, generator and CLIP by themselves take {parts} ms. The ratio is {value['ratio']:.2f}, the goal "
        f"{GOAL:.2f} or less."
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
