"""How much of a collapsed generator's diversity a reward brings back: ``python -m benchmarks.diversity``.

The generator is the embedded world behind a prompt, with all images moved towards one look, which is the same in hair,
glasses and make-up. A flow is trained on the energy of diversity, which knows nothing of the world before that.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptgen.commands.command import run_command, whole_number

if TYPE_CHECKING:
    from torch import Tensor

    from promptgen.generators.base import Generator

MODELS = Path("models")
PROMPT, LOOK, WEIGHT, FEATURES = "a person", 12.0, 15.0, "world-judge"
UNITS, FIT, COUNTED, OWN = 8192, 256, 1024, 2048  # the own images are on top of the units
POOL = 20_000
"""Images of the generator from which the tilt itself is drawn."""


def main(words: Sequence[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser("python -m benchmarks.diversity", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="SEED", help="default: 1")
    parser.add_argument("--units", type=whole_number(512), default=UNITS, metavar="N", help=f"default: {UNITS}")
    parser.add_argument("--weight", type=float, default=WEIGHT, metavar="W", help=f"default: {WEIGHT}")
    arguments = parser.parse_args(words)
    from promptgen.metrics.precision_recall import precision_recall_intervals
    from promptgen.metrics.vendi import vendi_score
    from promptgen.world.prompted import PromptedWorld

    world, collapsed = PromptedWorld(PROMPT), PromptedWorld(PROMPT, look=LOOK)
    reference = features_of(world, 0, "reference")
    scores = []
    plain = [(name, features_of(made, 0, "count")) for name, made in (("the world", world), ("collapsed", collapsed))]
    tilt = f"the tilt itself, of {POOL:,} images", tilted(collapsed, arguments.weight)
    flows = ((name, features_of(made, 0, "count")) for name, made in trained(collapsed, arguments))
    for name, features in itertools.chain(plain, [tilt], flows):
        score = vendi_score(features)
        _, recall = precision_recall_intervals(features, reference)
        scores.append(score.value)
        back = f", {(score.value - scores[1]) / (scores[0] - scores[1]):.0%} of the loss is back" if scores[2:] else ""
        print(
            f"{name}: Vendi score {score.value:.2f} ({score.low:.2f} to {score.high:.2f}), "
            f"recall {recall.value:.2f} ({recall.low:.2f} to {recall.high:.2f}){back}",
            flush=True,
        )


def trained(generator: Generator, arguments: argparse.Namespace) -> Iterator[tuple[str, Generator]]:
    """Yield the generator behind a flow for each seed, with what its training cost."""
    from promptgen.config.build import build_features
    from promptgen.config.models import CardModel
    from promptgen.energies.base import Term, WeightedSum
    from promptgen.energies.diversity import DiversityEnergy
    from promptgen.evaluations.objective import control_objective
    from promptgen.evaluations.store import EvaluationStore
    from promptgen.evaluations.training import Trainer
    from promptgen.flows.chained import ChainedGenerator
    from promptgen.flows.flow import FlowConfig

    network = build_features(CardModel(type="card", model=FEATURES), MODELS)
    for seed in arguments.seeds:
        energy = DiversityEnergy(network, weight=arguments.weight)
        energy.fit(features_of(generator, seed, "diversity", OWN))
        terms = WeightedSum({"diversity": Term(energy, arguments.weight)})
        objective, outputs = control_objective(terms, {"diversity": "diversity"})
        store = EvaluationStore(generator, outputs, batch=16, seed=seed)
        training = Trainer(generator, store, objective, FlowConfig(), seed).train(arguments.units, fit_samples=FIT)
        rank = "all" if training.flow.directions is None else training.flow.directions.shape[1]
        lost = f", at most {training.given_away.high:.2g} nats of projection error" if training.given_away else ""
        cost = f"{store.spending.units:,} + {OWN:,} units, ESS {training.fit.ess_fraction:.2f}, {rank} directions{lost}"
        yield f"seed {seed} ({cost}, {training.seconds:.0f} s)", ChainedGenerator(generator, training.flow)


def tilted(generator: Generator, weight: float) -> Tensor:
    """Return the features, (n, F), of images drawn by what the energy asks for, which no flow can do better."""
    import torch

    from promptgen.energies.diversity import diverse_weights, unit_length
    from promptgen.seeding import stream

    features = features_of(generator, 0, "tilt", POOL)
    weights = diverse_weights(unit_length(features.double()), weight).exp()
    return features[torch.multinomial(weights, COUNTED, generator=stream(0, "tilt"))]


def features_of(generator: Generator, seed: int, stream: str, n: int = COUNTED) -> Tensor:
    """Return the features, (n, F), of the generator's images."""
    import torch

    from promptgen.config.build import build_features
    from promptgen.config.models import CardModel
    from promptgen.flows.sampling import generate
    from promptgen.metrics.features import image_features
    from promptgen.model_files.store import fetch

    fetch(FEATURES, MODELS)
    network = build_features(CardModel(type="card", model=FEATURES), MODELS)
    images = (image for _, image in generate(generator, n, seed=seed, stream=stream, batch=32))
    return torch.cat(list(image_features(network, images)))


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
