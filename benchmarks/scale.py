"""Compare two workers of one thread with one: ``python -m benchmarks.scale``. Use a machine that is otherwise idle."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptgen.commands.command import run_command, whole_number
from promptgen.engine.base import Engine, Recipe

MODELS = Path("models")
GOAL_RATIO, GOAL_OVERHEAD = 1.8, 0.05
"""Wanted speed of two workers as a multiple of that of one, and largest overhead of a shard, seconds."""


@dataclass(frozen=True)
class World(Recipe[Any, Any]):
    """Makes the evaluator of the embedded world: its generator, its classifier, and CLIP for a text with a gradient."""

    def build(self) -> Callable[[Any], Any]:
        """Return the evaluator."""
        from promptgen.config.build import build_classifier, build_energies
        from promptgen.config.params import load_params
        from promptgen.evaluations.evaluator import Evaluator
        from promptgen.evaluations.objective import classifier_reader, control_objective, without_gradient

        params = load_params("params.yaml")
        assert params.control is not None
        energy = build_energies(params.control.energies, MODELS)
        objective, outputs = control_objective(energy, {name: name for name in energy.terms})
        classifier = classifier_reader(build_classifier(params.debias.classifier, MODELS))
        outputs["classifier"] = without_gradient(classifier)
        generator = params.generator.build(MODELS)
        return Evaluator(generator, outputs, {objective.name: objective.features})


@dataclass(frozen=True)
class Echo(Recipe[Any, Any]):
    """Makes an evaluator that costs nothing and returns as much as that of the world."""

    def build(self) -> Callable[[Any], Any]:
        """Return the evaluator."""
        return lambda request: {"latent": request.latent, "gradient": request.latent, "output": request.direction}


def main(words: Sequence[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--samples", type=whole_number(512), default=2048, metavar="N", help="default: 2048")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="on a Ray cluster: auto, local or HOST:PORT; default: processes"
    )
    arguments = parser.parse_args(words)
    from promptgen.engine.config import ProcessConfig, RayConfig, open_engine
    from promptgen.model_files.store import fetch

    for name in ("world-generator", "world-classifier", "world-clip"):
        fetch(name, MODELS)
    seconds = {}
    for workers in (1, 2):
        config: ProcessConfig | RayConfig = ProcessConfig(type="process", workers=workers, threads=1)
        if arguments.ray:
            config = RayConfig(type="ray", address=arguments.ray, workers=workers, threads=1, gpus_per_worker=0.0)
        engine = open_engine(config)
        requests = _requests(arguments.samples)
        _timed(engine, World(), requests[:workers] * 2)  # models are loaded
        seconds[workers] = _timed(engine, World(), requests)
        print(f"{workers} worker(s): {arguments.samples / seconds[workers]:.1f} images/s, {seconds[workers]:.1f} s")
        _timed(engine, Echo(), requests[:workers])
        overhead = _timed(engine, Echo(), requests * 8) / (8 * len(requests))
        print(f"{workers} worker(s): {1000 * overhead:.1f} ms per shard, goal {1000 * GOAL_OVERHEAD:.0f} or less")
        engine.close()
    print(f"two workers: {seconds[1] / seconds[2]:.2f} times as fast as one, goal {GOAL_RATIO} or more")


def _requests(n: int) -> list[Any]:
    import torch

    from promptgen.evaluations.config import SHARD_SIZE
    from promptgen.evaluations.evaluator import Request
    from promptgen.seeding import stream

    latent = torch.randn(n, 64, generator=stream(0, "scale"))
    return [
        Request(part, slope="text", direction=torch.ones(len(part), 1), names=("text", "classifier")).addressed()
        for part in torch.split(latent, SHARD_SIZE)
    ]


def _timed(engine: Engine, recipe: Recipe[Any, Any], requests: Sequence[Any]) -> float:
    started = time.perf_counter()
    done = sum(1 for _ in engine.map(recipe, requests))
    assert done == len(requests)
    return time.perf_counter() - started


if __name__ == "__main__":
    from benchmarks import scale  # workers import this module by its name, not as `__main__`

    sys.exit(run_command(scale.main, sys.argv[1:]))
