"""A prompt and 4,096 noise dimensions: training against words in the prompt: ``python -m benchmarks.prompt``.

The generator is the embedded world behind a prompt, whose true shares are known exactly. Equal shares of short and long
hair are wanted. The usual remedy is open-loop: to write "with long hair" into so many prompts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptgen.commands.command import run_command, whole_number

MODELS = Path("models")
PROMPT, TARGET = "a builder", (0.5, 0.5)
UNITS, FIT, COUNTED, CHUNK = 4096, 256, 20_000, 2000


@dataclass(frozen=True)
class Outcome:
    """What a training ended with.

    Attributes:
        units: images forward; one with gradient counts 3.
        long: true share of long hair, of `COUNTED` samples.
        kl: KL of the true shares to the wanted ones, nats.
        ess: effective sample size of the flow, as a fraction, by images.
        rank: directions that the flow moves.
        given_away: most that moving no other direction costs, nats.
        seconds: duration.
    """

    units: int
    long: float
    kl: float
    ess: float
    rank: int
    given_away: float
    seconds: float


def main(words: Sequence[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser("python -m benchmarks.prompt", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="SEED", help="default: 1 2 3")
    parser.add_argument("--units", type=whole_number(512), default=UNITS, metavar="N", help=f"default: {UNITS}")
    arguments = parser.parse_args(words)
    from promptgen.world.prompted import PromptedWorld, long_hair

    before = long_hair(PromptedWorld(PROMPT))
    print(f"{PROMPT!r} as it is: {before:.1%} long hair, KL {kl_of(before):.4f}")
    by_words = sum(
        share * long_hair(PromptedWorld(f"{PROMPT} with {hair} hair"))
        for share, hair in zip(TARGET, ("short", "long"), strict=True)
    )
    print(f"words drawn into the prompt, half and half: {by_words:.1%} long hair, KL {kl_of(by_words):.4f}")
    for seed in arguments.seeds:
        result = debias(seed, arguments.units)
        print(
            f"seed {seed}: {result.units:,} units, {result.long:.1%} long hair, KL {result.kl:.4f}, "
            f"ESS {result.ess:.2f}, {result.rank} directions, at most {result.given_away:.2g} nats of projection "
            f"error, {result.seconds:.0f} s",
            flush=True,
        )


def kl_of(long: float) -> float:
    """Return the KL, nats, of a share of long hair, and of short hair, to the wanted shares."""
    import numpy as np

    from promptgen.metrics.distances import kl_to_target

    return float(kl_to_target(np.array([1 - long, long]), np.array(TARGET)))


def debias(seed: int, units: int) -> Outcome:
    """Train a flow towards equal shares and count the truth."""
    import numpy as np
    import torch

    from promptgen.config.build import build_classifier
    from promptgen.config.params import load_params
    from promptgen.energies.moment import MomentEnergy
    from promptgen.evaluations.landing import Target
    from promptgen.evaluations.objective import moment_objective
    from promptgen.evaluations.proposal import Proposal
    from promptgen.evaluations.store import EvaluationStore
    from promptgen.evaluations.training import Trainer
    from promptgen.flows.flow import FlowConfig
    from promptgen.model_files.store import fetch
    from promptgen.world.prompted import PromptedWorld

    fetch("world-classifier", MODELS)
    generator = PromptedWorld(PROMPT)
    classifier = build_classifier(load_params("params.yaml").debias.classifier, MODELS)
    objective, outputs = moment_objective(MomentEnergy(classifier, "hair"), "classifier")
    store = EvaluationStore(generator, outputs, batch=16, seed=seed)
    target = Target(np.array(TARGET))
    training = Trainer(generator, store, objective, FlowConfig(), seed, target=target).train(units, fit_samples=FIT)
    proposal, labels = Proposal(generator, seed, training.flow), []
    with torch.no_grad():
        for number in range(COUNTED // CHUNK):
            labels.append(generator.truth(proposal.draw(CHUNK, "count", number).base)["hair"])
    long = float(torch.cat(labels).double().mean())
    directions = training.flow.directions
    return Outcome(
        units=store.spending.units,
        long=long,
        kl=kl_of(long),
        ess=training.fit.ess_fraction,
        rank=generator.prior.dim if directions is None else directions.shape[1],
        given_away=training.given_away.high if training.given_away else float("nan"),
        seconds=training.seconds,
    )


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
