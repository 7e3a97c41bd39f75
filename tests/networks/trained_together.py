"""What one of several processes does in `test_distributed`: ``python trained_together.py METHOD FOLDER``."""

import sys
from pathlib import Path

import torch

from promptgen.energies.base import Term, WeightedSum
from promptgen.evaluations.objective import control_objective
from promptgen.evaluations.store import EvaluationStore
from promptgen.evaluations.training import Trainer
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.training import TrainingConfig, train_flow
from promptgen.networks.distributed import process_group, rank
from tests.evaluations.small import Coordinates
from tests.linear_gaussian import LinearGenerator, Quadratic
from tests.quick import COUNTS, shortened


def on_policy(folder):
    """Train on the flow's own samples; a batch of 6 is divided by two processes, each in micro-batches of 2."""
    config = TrainingConfig(steps=5, batch=6, micro_batch=2, validate_every=2, validation_samples=9, checkpoint_every=2)
    flow = Flow(4, FlowConfig(blocks=2, hidden=8), seed=1, dtype=torch.float64)
    training = train_flow(LinearGenerator(), Quadratic(), flow, config, seed=1, state_dir=folder, fit_samples=11)
    return training.flow, training.history, training.fit


def reuse(folder):
    """Train on evaluations that the first process makes."""
    generator = Coordinates()
    energy = WeightedSum({"sum": Term(lambda sample: sample.image.flatten(1).sum(dim=1).square(), 1.0)})
    objective, outputs = control_objective(energy, {"sum": "sum@1"})
    store = EvaluationStore(generator, outputs, folder / f"store-{rank()}")
    training = Trainer(generator, store, objective, FlowConfig(blocks=2, hidden=8), seed=1).train(700, fit_samples=60)
    assert (store.spending.forward > 0) == (rank() == 0)
    return training.flow, training.history, training.fit


if __name__ == "__main__":
    method, folder = sys.argv[1:]
    with shortened(COUNTS), process_group():
        flow, history, fit = {"on_policy": on_policy, "reuse": reuse}[method](Path(folder))
        values = {"flow": dict(flow.state_dict()), "history": history, "fit": vars(fit)}
        torch.save(values, Path(folder) / f"rank-{rank()}.pt")
