"""Train a flow: minimise the reverse KL, keep the best flow on held-out samples, and resume after a kill.

All randomness of a step is addressed by (seed, "train", step), so the state on disk holds no random state, and a
training that was killed and restarted ends with the same numbers as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from promptgen.energies.base import Energy, Sample
from promptgen.errors import ConfigError, NonFiniteEnergyError
from promptgen.flows.batches import Batches
from promptgen.flows.config import TrainingConfig as TrainingConfig
from promptgen.flows.fit import Fit, fit_statistics
from promptgen.flows.flow import Flow
from promptgen.flows.objective import Loss, join, non_finite
from promptgen.flows.training_state import TrainingProgress, load_state, save_state
from promptgen.generators.base import Generator
from promptgen.networks.distributed import from_first, gathered, is_first, size, sum_gradients
from promptgen.networks.micro_batches import largest, memory_of
from promptgen.tracking import NullTracker, Tracker

STATE_NAME = "training.pt"


class Multipliers(Protocol):
    """Adjusts the energy while the flow is trained, as `promptgen.moments.ascent.MomentAscent` does.

    Attributes:
        fixed: whether the energy has reached its final form. Losses under different energies are not comparable, so
            the best flow is chosen among those trained after this became true.
    """

    fixed: bool

    def update(self, sample: Sample, log_w: Tensor, step: int) -> Mapping[str, float]:
        """Adjust after a training step, from its samples and log weights, (B,); return named numbers to record."""
        ...

    def finalise(self) -> None:
        """Fix the energy for good. Called after the last step if `fixed` is still false."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and strings from which `load_state_dict` resumes with identical numbers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`, the energy included."""
        ...


@runtime_checkable
class CountsShares(Protocol):
    """An energy that counts what it reads, as `promptgen.energies.moment.MomentEnergy` does."""

    def forget_shares(self) -> None:
        """Forget what has been counted."""
        ...


@dataclass(frozen=True)
class Training:
    """Result of a training.

    Attributes:
        flow: the flow that was passed in, with its best parameters.
        best_step: number of optimiser steps that led to these parameters.
        history: one row of numbers per step, and a last row for the flow after all steps.
        fit: how well the flow fits its target, on fresh samples (stream "fit").
        evaluations: number of images generated ("forward"), and of those differentiated to the latent ("backward").
        seconds: duration, summed over all restarts.
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

    If the flow or the generator is conditional, every sample gets a freshly drawn condition.

    Args:
        generator: frozen generator.
        energy: control energy, nats.
        flow: the flow to train; everything runs on its device and in its floating-point type.
        config: steps, batch size, learning rate and so on.
        seed: seed of all randomness.
        state_dir: folder of the saved state. If it holds a state of the same training, the training resumes from it.
        tracker: receives the rows of the history, with ``train/`` before each name.
        multipliers: adjusts the energy during the training.
        fit_samples: number of samples for the final fit.

    Raises:
        NonFiniteEnergyError: an energy or its gradient is NaN or infinite; `flow` then has the best parameters so far.
        CheckpointError: the state in `state_dir` is damaged or belongs to another training.
        StorageError: the state cannot be written.

    Example:
        The first coordinate of a standard normal latent is the brightness, and the energy is a Gaussian likelihood
        around 1. The target is then Gaussian too, and the trained flow fits it almost exactly:

        >>> import math
        >>> from promptgen.flows.flow import Flow, FlowConfig
        >>> from promptgen.generators.base import GaussianPrior
        >>> class Brightness:
        ...     prior, image_shape = GaussianPrior.standard(2), (3, 1, 1)
        ...     def __call__(self, latent, *, noise=None):
        ...         return latent[:, :1, None, None].expand(-1, 3, 1, 1)
        >>> def energy(sample):
        ...     return (sample.image[:, 0, 0, 0] - 1).square() / 2
        >>> flow = Flow(2, FlowConfig(blocks=1, hidden=4))
        >>> config = TrainingConfig(steps=60, batch=64, learning_rate=0.05)
        >>> training = train_flow(Brightness(), energy, flow, config, seed=0)
        >>> log_z = -math.log(2) / 2 - 1 / 4  # in closed form
        >>> abs(training.fit.log_z - log_z) < 0.01, training.fit.ess_fraction > 0.99
        (True, True)
    """
    run = _Run(Batches(flow, generator, energy, seed, config.at_once), config, multipliers)
    run.require_equal_shares()
    if config.micro_batch == "auto":
        run.fit_to_memory()
    state = None if state_dir is None else state_dir / STATE_NAME
    if state is not None and from_first(state.exists):
        run.load(state)
    try:
        return run.complete(state, tracker or NullTracker(), fit_samples)
    except NonFiniteEnergyError as error:
        if state is not None:
            run.save(state)
        kept = f"the flow of step {run.restore_best()} is kept" + (f" in {state}" if state else "")
        raise NonFiniteEnergyError(f"step {run.progress.step}: {error}; {kept}") from error


class _Run:
    """A training in progress."""

    def __init__(self, batches: Batches, config: TrainingConfig, multipliers: Multipliers | None) -> None:
        self.batches, self.config, self.multipliers = batches, config, multipliers
        self.flow = batches.flow
        self.optimiser = torch.optim.Adam(self.flow.parameters(), lr=config.learning_rate)
        self.progress = TrainingProgress()

    def complete(self, state: Path | None, tracker: Tracker, fit_samples: int) -> Training:
        """Do the remaining steps, choose the best flow and measure its fit."""
        progress, steps = self.progress, self.config.steps
        started = time.perf_counter() - progress.seconds
        while progress.step < steps:
            row = {"step": progress.step, **self.validate(), **self.advance()}
            self.note(row, tracker)
            progress.seconds = time.perf_counter() - started
            if state is not None and (progress.step % self.config.checkpoint_every == 0 or progress.step == steps):
                self.save(state)
            tracker.progress(progress.step, steps, f"loss {row['loss']:.3f}")
        if self.multipliers is not None and not self.multipliers.fixed:
            self.multipliers.finalise()
        self.note({"step": progress.step, **self.validate()}, tracker)
        self.restore_best()
        fit = fit_statistics(self.fresh_log_weights(fit_samples, "fit"))
        evaluations = {"forward": progress.forward, "backward": progress.backward}
        seconds = time.perf_counter() - started
        return Training(self.flow, progress.best_step, progress.history, fit, evaluations, seconds)

    def require_equal_shares(self) -> None:
        """Refuse a batch that processes cannot divide equally if the energy counts labels, whose mean shares count."""
        if self.multipliers is not None and self.config.batch % size():
            raise ConfigError(
                f"{size()} processes cannot divide batch: {self.config.batch} equally, as the moving multipliers need: "
                "change the batch or --nproc-per-node"
            )

    def fit_to_memory(self) -> None:
        """Let as many samples pass through the generator at a time as the memory of the device holds."""

        def run(count: int) -> None:
            for loss in replace(self.batches, size=count).losses(count, "probe", estimator=self.config.estimator):
                loss.value.backward()  # type: ignore[no-untyped-call]

        device = next(self.flow.parameters()).device
        self.batches = replace(self.batches, size=largest(self.config.batch, run, memory_of(device)))
        self.optimiser.zero_grad()
        if isinstance(self.batches.energy, CountsShares):
            self.batches.energy.forget_shares()

    def note(self, row: dict[str, float], tracker: Tracker) -> None:
        """Add a row to the history and send it to the tracker."""
        self.progress.history.append(row)
        tracker.metrics({f"train/{name}": value for name, value in row.items() if name != "step"}, int(row["step"]))

    def validate(self) -> dict[str, float]:
        """Keep the flow if its held-out loss is the lowest so far; do nothing between validations."""
        progress, config = self.progress, self.config
        due = config.validates(progress.step) or progress.best is None
        if not due or (self.multipliers is not None and not self.multipliers.fixed):
            return {}
        held_out = fit_statistics(self.fresh_log_weights(config.validation_samples, "validate"))
        loss = -held_out.log_z_bound
        if loss < progress.best_loss:
            best = {name: value.detach().clone() for name, value in self.flow.state_dict().items()}
            progress.best, progress.best_loss, progress.best_step = best, loss, progress.step
        return {"validation/loss": loss, "validation/ess_fraction": held_out.ess_fraction}

    def restore_best(self) -> int:
        """Give the flow its best parameters, if any were kept yet, and return the step they come from."""
        if self.progress.best is None:
            return self.progress.step
        self.flow.load_state_dict(self.progress.best)
        return self.progress.best_step

    def advance(self) -> dict[str, float]:
        """Do one optimiser step and return its numbers; the flow keeps its parameters if anything is not finite."""
        progress, config = self.progress, self.config
        loss = self.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.flow.parameters(), config.clip))
        if not math.isfinite(norm):
            bad = self.batches.bad_gradients(config.batch, "train", progress.step) or ["the density of the flow"]
            raise non_finite([f"the gradient of {name}" for name in bad])
        rate = config.learning_rate * (1 - progress.step / config.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        moved = {} if self.multipliers is None else self.multipliers.update(loss.sample, loss.log_w, progress.step)
        progress.step += 1
        progress.forward += config.batch * self.batches.images_per_sample
        progress.backward += config.batch * self.batches.images_per_sample
        energies = {f"energy/{name}": float(part.mean()) for name, part in loss.parts.items()}
        return {"loss": -float(loss.log_w.mean()), "gradient_norm": norm, "learning_rate": rate, **energies, **moved}

    def backward(self) -> Loss:
        """Accumulate this step's gradient in the flow's parameters and return the loss of the whole batch.

        Several processes divide the batch; the sample of the loss is then this process's share alone.
        """
        n, losses = self.config.batch, []
        self.optimiser.zero_grad()
        for loss in self.batches.losses(n, "train", self.progress.step, estimator=self.config.estimator):
            (loss.value * (len(loss.log_w) / n)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss)
        sum_gradients(self.flow.parameters())
        loss = join(losses)
        parts = {name: gathered(part) for name, part in loss.parts.items()}
        return replace(loss, log_w=gathered(loss.log_w), parts=parts)

    def fresh_log_weights(self, n: int, stream_name: str) -> Tensor:
        """Return the log weights, (n,), of samples from a separate stream, and count their images."""
        self.progress.forward += n * self.batches.images_per_sample
        return self.batches.log_weights(n, stream_name)

    @property
    def identity(self) -> dict[str, Any]:
        """What a saved state must agree with to be resumed."""
        condition = {name: list(ends) for name, ends in self.batches.condition.ranges.items()}
        flow = {"dim": self.flow.dim, "condition": condition, **self.flow.config.model_dump()}
        return {"training": self.config.model_dump(), "flow": flow, "seed": self.batches.seed}

    def save(self, path: Path) -> None:
        """Write the whole state in one file."""
        if is_first():
            save_state(path, self.identity, self.progress, self.flow, self.optimiser, self.multipliers)

    def load(self, path: Path) -> None:
        """Resume from a state that `save` wrote."""
        self.progress = load_state(path, self.identity, self.flow, self.optimiser, self.multipliers)
