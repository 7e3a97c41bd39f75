"""Train a small flow in child processes that are killed at chosen points, then go on; print the outcomes as JSON.

Run as a program by test_training.py. Each attempt is a fork, so that the libraries are imported once.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from linear_gaussian import LinearGenerator, Quadratic
from torch import nn

from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.training import STATE_NAME, TrainingConfig, train_flow
from tests.faults import die, die_when_replacing, is_killed

CONFIG = TrainingConfig(
    steps=23, batch=8, checkpoint_every=5, validate_every=4, validation_samples=16, micro_batch=4, learning_rate=0.02
)


class Deadly(nn.Module):
    """A noisy quadratic energy that kills the process at one of its calls."""

    def __init__(self, fatal_call):
        super().__init__()
        self.energy = Quadratic()
        self.register_buffer("beta", torch.zeros((), dtype=torch.float64))
        self.calls_left = fatal_call

    def forward(self, sample):
        self.calls_left -= 1
        if self.calls_left == 0:
            die()
        noise = torch.rand(len(sample.latent), generator=sample.rng, dtype=torch.float64)
        return self.energy(sample) * (0.5 + noise) + self.beta * sample.latent[:, 0]


class Drifting:
    """Multipliers that follow the samples for the first 12 steps."""

    def __init__(self, energy):
        self.energy, self.fixed = energy, False

    def update(self, sample, log_w, step):
        if not self.fixed:
            self.energy.beta += 0.1 * sample.latent[:, 0].mean()
            self.fixed = step == 11
        return {"beta": float(self.energy.beta)}

    def finalise(self):
        self.fixed = True

    def state_dict(self):
        return {"beta": self.energy.beta.clone(), "fixed": self.fixed}

    def load_state_dict(self, state):
        self.energy.beta.copy_(state["beta"])
        self.fixed = state["fixed"]


def train(folder, fatal_call=0):
    energy = Deadly(fatal_call)
    flow = Flow(4, FlowConfig(blocks=2, hidden=8), dtype=torch.float64)
    training = train_flow(
        LinearGenerator(),
        energy,
        flow,
        CONFIG,
        seed=3,
        state_dir=folder,
        multipliers=Drifting(energy),
        fit_samples=32,
    )
    weights = b"".join(value.numpy().tobytes() for value in training.flow.state_dict().values())
    return {
        "flow": hashlib.sha256(weights).hexdigest(),
        "history": training.history,
        "fit": training.fit.as_dict(),
        "best_step": training.best_step,
        "evaluations": training.evaluations,
        "beta": float(energy.beta),
    }


def attempt(result, folder, fatal_call=0, fatal_save=0, moment=""):
    """Train in a child process; return whether it was killed."""

    def work():
        die_when_replacing(STATE_NAME, fatal_save, moment)
        result.write_text(json.dumps(train(folder, fatal_call)))

    return is_killed(work)


def warm_up():
    """Make Adam import what it imports at its first step, once here instead of once in every child."""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.Adam([parameter]).step()


def main(folder):
    torch.set_num_threads(1)
    warm_up()
    plans = {
        "never": [],
        "before the first state": [{"fatal_call": 3}],
        "in a step": [{"fatal_call": 40}],
        "while the state is written": [{"fatal_save": 2, "moment": "before"}],
        "just after the last state is written": [{"fatal_save": 5, "moment": "after"}],
        "again and again": [{"fatal_call": 17}, {"fatal_call": 17}, {"fatal_save": 1, "moment": "before"}],
    }
    outcomes = {}
    for name, kills in plans.items():
        state, result = folder / name, folder / "result.json"
        for kill in kills:
            if not attempt(result, state, **kill):
                raise SystemExit(f"{name}: {kill} did not kill")
        if attempt(result, state):
            raise SystemExit(f"{name}: the last attempt was killed")
        outcomes[name] = json.loads(result.read_text())
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
