"""Training a flow: steps down the reverse KL, the best flow by held-out samples, and a state that survives a kill.

All randomness of a step is addressed by (seed, "train", step), so the state on disk holds no random state, and a
training that was killed and started again ends with the same numbers as one that was not.
"""

from __future__ import annotations

import io
import math
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from promptgen.energies.base import Energy, Sample
from promptgen.errors import CheckpointError, NonFiniteEnergyError
from promptgen.files import atomic_write
from promptgen.flows.batches import Batches
from promptgen.flows.config import TrainingConfig as TrainingConfig
from promptgen.flows.fit import Fit, fit_statistics
from promptgen.flows.flow import Flow
from promptgen.flows.objective import Loss, join, non_finite
from promptgen.generators.base import Generator
from promptgen.tracking import NullTracker, Tracker

STATE_NAME = "training.pt"


class Multipliers(Protocol):
    """Something that moves the energy while the flow is trained, such as `promptgen.moments.multipliers.MomentAscent`.

    Attributes:
        fixed: whether the energy will not move any more. Losses under different energies do not compare, so the best
            flow is chosen among those after this has turned true.
    """

    fixed: bool

    def update(self, sample: Sample, log_w: Tensor, step: int) -> Mapping[str, float]:
        """Move after a training step with its samples and log weights, (B,); return numbers to record by name."""
        ...

    def finalise(self) -> None:
        """Fix the energy for good. Called once the steps are done, if `fixed` is not true by then."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and strings from which `load_state_dict` goes on with the same numbers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, the energy included."""
        ...


@dataclass(frozen=True)
class Training:
    """What a training ends with.

    Attributes:
        flow: the flow that was passed in, with its best parameters.
        best_step: number of optimiser steps behind these parameters.
        history: one row of numbers per step, and a last one for the flow after all steps.
        fit: how well the flow fits, on fresh samples (stream "fit").
        evaluations: images made ("forward"), and images with a gradient back to the latent ("backward").
        seconds: how long it took, over all restarts.
    """

    flow: Flow
    best_step: int
    history: list[dict[str, float]]
    fit: Fit
    evaluations: dict[str, int]
    seconds: float


def train_flow(
    generator: Generator,
    energy: Energy,
    flow: Flow,
    config: TrainingConfig,
    *,
    seed: int,
    state_dir: Path | None = None,
    tracker: Tracker | None = None,
    multipliers: Multipliers | None = None,
    fit_samples: int = 1024,
) -> Training:
    """Train `flow`, in place, towards the density ``p(z) exp(-E(G(z), z)) / Z``.

    Where the flow or the generator takes a condition, one is drawn afresh for every sample.

    Args:
        generator: frozen generator.
        energy: what is wanted, nats.
        flow: the flow to start from; its device and type are those that everything runs in.
        config: steps, batch, learning rate and so on.
        seed: all randomness follows from it.
        state_dir: folder of the state. With a state of the same training in it, the training goes on from there.
        tracker: receives the rows of the history, their names prefixed with ``train/``.
        multipliers: moves the energy meanwhile.
        fit_samples: number of samples of the final fit.

    Raises:
        NonFiniteEnergyError: an energy or its gradient is NaN or infinite; `flow` then has the best parameters so far.
        CheckpointError: the state in `state_dir` is damaged or belongs to another training.
        StorageError: the state cannot be written.
    """
    run = _Run(Batches(flow, generator, energy, seed, config.at_once), config, multipliers)
    state = None if state_dir is None else state_dir / STATE_NAME
    if state is not None and state.exists():
        run.load(state)
    try:
        return run.complete(state, tracker or NullTracker(), fit_samples)
    except NonFiniteEnergyError as error:
        if state is not None:
            run.save(state)
        kept = f"the flow of step {run.restore_best()} is kept" + (f" in {state}" if state else "")
        raise NonFiniteEnergyError(f"step {run.record.step}: {error}; {kept}") from error


@dataclass
class _Record:
    """What a training has come to, apart from the states of flow, optimiser and multipliers.

    Attributes:
        step: optimiser steps done.
        best: state of the flow with the lowest held-out loss, once there was one.
        best_loss: that loss, nats.
        best_step: optimiser steps behind it.
        history: rows of numbers.
        forward: images made.
        backward: images made with a gradient.
        seconds: time spent.
    """

    step: int = 0
    best: dict[str, Tensor] | None = None
    best_loss: float = math.inf
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    forward: int = 0
    backward: int = 0
    seconds: float = 0.0


class _Run:
    """A training under way."""

    def __init__(self, batches: Batches, config: TrainingConfig, multipliers: Multipliers | None) -> None:
        self.batches, self.config, self.multipliers = batches, config, multipliers
        self.flow = batches.flow
        self.optimiser = torch.optim.Adam(self.flow.parameters(), lr=config.learning_rate)
        self.record = _Record()

    def complete(self, state: Path | None, tracker: Tracker, fit_samples: int) -> Training:
        """Do the steps that are left, choose the best flow and measure its fit."""
        record, steps = self.record, self.config.steps
        started = time.perf_counter() - record.seconds
        while record.step < steps:
            row = {"step": record.step, **self.select(), **self.advance()}
            self.note(row, tracker)
            record.seconds = time.perf_counter() - started
            if state is not None and (record.step % self.config.checkpoint_every == 0 or record.step == steps):
                self.save(state)
            tracker.progress(record.step, steps, f"loss {row['loss']:.3f}")
        if self.multipliers is not None and not self.multipliers.fixed:
            self.multipliers.finalise()
        self.note({"step": record.step, **self.select()}, tracker)
        self.restore_best()
        fit = fit_statistics(self.fresh_log_weights(fit_samples, "fit"))
        evaluations = {"forward": record.forward, "backward": record.backward}
        return Training(self.flow, record.best_step, record.history, fit, evaluations, time.perf_counter() - started)

    def note(self, row: dict[str, float], tracker: Tracker) -> None:
        """Add a row to the history and send it to the tracker."""
        self.record.history.append(row)
        tracker.metrics({f"train/{name}": value for name, value in row.items() if name != "step"}, int(row["step"]))

    def select(self) -> dict[str, float]:
        """Keep the flow if its held-out loss is the lowest so far; nothing happens while that is not due."""
        record, config = self.record, self.config
        due = config.validates(record.step) or record.best is None
        if not due or (self.multipliers is not None and not self.multipliers.fixed):
            return {}
        held_out = fit_statistics(self.fresh_log_weights(config.validation_samples, "validate"))
        loss = -held_out.log_z_bound
        if loss < record.best_loss:
            best = {name: value.detach().clone() for name, value in self.flow.state_dict().items()}
            record.best, record.best_loss, record.best_step = best, loss, record.step
        return {"validation/loss": loss, "validation/ess_fraction": held_out.ess_fraction}

    def restore_best(self) -> int:
        """Give the flow its best parameters, if there were some yet, and return the step they are of."""
        if self.record.best is None:
            return self.record.step
        self.flow.load_state_dict(self.record.best)
        return self.record.best_step

    def advance(self) -> dict[str, float]:
        """Do one optimiser step and return its numbers; the flow stays as it is if something is not finite."""
        record, config = self.record, self.config
        loss = self.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.flow.parameters(), config.clip))
        if not math.isfinite(norm):
            bad = self.batches.bad_gradients(config.batch, "train", record.step) or ["the density of the flow"]
            raise non_finite([f"the gradient of {name}" for name in bad])
        rate = config.learning_rate * (1 - record.step / config.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        moved = {} if self.multipliers is None else self.multipliers.update(loss.sample, loss.log_w, record.step)
        record.step += 1
        record.forward += config.batch * self.batches.images_per_sample
        record.backward += config.batch * self.batches.images_per_sample
        energies = {f"energy/{name}": float(part.mean()) for name, part in loss.parts.items()}
        return {"loss": -float(loss.log_w.mean()), "gradient_norm": norm, "learning_rate": rate, **energies, **moved}

    def backward(self) -> Loss:
        """Leave the gradient of this step in the flow's parameters and return the loss of the whole batch."""
        n, losses = self.config.batch, []
        self.optimiser.zero_grad()
        for loss in self.batches.losses(n, "train", self.record.step, estimator=self.config.estimator):
            (loss.value * (len(loss.log_w) / n)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss)
        return join(losses)

    def fresh_log_weights(self, n: int, stream_name: str) -> Tensor:
        """Return the log weights, (n,), of samples from a stream of their own, and count their images."""
        self.record.forward += n * self.batches.images_per_sample
        return self.batches.log_weights(n, stream_name)

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a state to be gone on from."""
        condition = {name: list(range_) for name, range_ in self.batches.condition.ranges.items()}
        flow = {"dim": self.flow.dim, "condition": condition, **self.flow.config.model_dump()}
        return {"training": self.config.model_dump(), "flow": flow, "seed": self.batches.seed}

    def save(self, path: Path) -> None:
        """Write the whole state at once."""
        content = {
            "identity": self.identity(),
            "record": vars(self.record),
            "flow": dict(self.flow.state_dict()),
            "optimiser": self.optimiser.state_dict(),
            "multipliers": None if self.multipliers is None else self.multipliers.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        atomic_write(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        """Go on from a state.

        Raises:
            CheckpointError: it is damaged or belongs to another training.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            identity = content["identity"]
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged: delete it to train from the start") from error
        if identity != self.identity():
            raise CheckpointError(f"{path} belongs to another training: delete it to train from the start")
        self.record = _Record(**content["record"])
        self.flow.load_state_dict(content["flow"])
        self.optimiser.load_state_dict(content["optimiser"])
        if self.multipliers is not None:
            self.multipliers.load_state_dict(content["multipliers"])
