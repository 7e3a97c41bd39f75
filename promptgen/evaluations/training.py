"""Training a flow on evaluations: a surrogate gives the gradients, true evaluations keep it honest.

1. Explore: evaluate the distribution that the flow starts from, and fit a surrogate.
2. Descend: train the flow on ``p(u) exp(-E_hat(u))``, which makes no image.
3. Refine: evaluate fresh samples of the flow and samples about which the surrogate is unsure, fit the surrogate again,
   and descend again.
4. Polish, instead of a second refinement, if the energy depends on all directions of the latent and true evaluations
   contradict the surrogate: see `promptgen.evaluations.polish`.
5. Land, if there are target shares: see `promptgen.evaluations.landing`.
6. Measure: the true weights of samples that no surrogate has seen tell how well the flow fits.

E_hat is a low estimate of the energy; see `promptgen.evaluations.prediction.OPTIMISM`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from promptgen.conditions import Condition
from promptgen.evaluations.acquisition import acquire
from promptgen.evaluations.config import ROUNDS, Allotment, Stage
from promptgen.evaluations.descent import Descent
from promptgen.evaluations.directions import DENSE, active_directions
from promptgen.evaluations.history import History, fit_row, share_row
from promptgen.evaluations.landing import Landing, Target
from promptgen.evaluations.objective import Objective
from promptgen.evaluations.oracle import Oracle
from promptgen.evaluations.polish import Polish
from promptgen.evaluations.prediction import Prediction
from promptgen.evaluations.proposal import Draw, Proposal
from promptgen.evaluations.remainder import Remainder, has_one_target, needed_directions
from promptgen.evaluations.span import span_of_chain
from promptgen.evaluations.store import Evaluations, EvaluationStore
from promptgen.evaluations.surrogate import Surrogate, fit_surrogate
from promptgen.figures import TRUSTED_FRACTION
from promptgen.flows.chained import base_of
from promptgen.flows.fit import Fit, fit_statistics
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.generators.base import Generator, held_by
from promptgen.metrics.estimate import Estimate, Vector
from promptgen.networks.devices import torch_threads
from promptgen.networks.distributed import from_first, keep_equal
from promptgen.seeding import derive
from promptgen.tracking import NullTracker, Tracker

FRESH, ACQUIRED = 0.5, 0.4
"""Fractions of a round that the flow draws, which measure its fit, and that the surrogate asks for, as
`promptgen.evaluations.acquisition` tells; the rest comes from the distribution that the flow starts from."""

CORRECTIONS, CORRECTION_STEPS, CORRECTION_RATE, ROUGHLY = 2, 60, 2e-3, 0.03
"""Most corrections of the multipliers after the last descent, steps and learning rate of the descent after each, and
the largest difference from the target shares at which none is needed."""

LANDINGS = 2
"""Parts in which images are spent on landing. The first move is the largest; samples of the flow after it tell more
exactly what is left."""

SMOOTH = 0.6
"""Largest error of values on held-out records at which true gradients help: they mislead where the energy is rough."""


@dataclass(frozen=True)
class ReuseTraining:
    """Result of a training on evaluations.

    Attributes:
        flow: the trained flow.
        fit: how well it fits its target, from true evaluations that no surrogate has seen.
        objective: what it was trained for; the coefficients of a moment constraint are where they ended.
        history: rows of numbers, each with its `step`.
        evaluations: all evaluations that it rests on, those of earlier passes included.
        surrogate_error: see `promptgen.evaluations.surrogate.Surrogate`.
        expected_ess: effective sample size, as a fraction, that the surrogate expects; the true one is in `fit`.
        polished: images whose true gradients the flow was trained on; 0 if it was trained on the surrogate alone.
        given_away: bound on what confining the flow to its directions costs, ``KL(p* || p*_U)``, nats; None if it
            is not confined, or if no true gradient tells. See `promptgen.evaluations.directions`.
        seconds: duration.
    """

    flow: Flow
    fit: Fit
    objective: Objective
    history: list[dict[str, float]]
    evaluations: list[Evaluations]
    surrogate_error: float
    expected_ess: float
    polished: int
    given_away: Estimate | None
    seconds: float


@dataclass
class Trainer:
    """Trains a new flow towards ``p(u) exp(-E)``, with u the latents of `generator`.

    Args:
        generator: the frozen generator, which may be a chain.
        store: evaluates latents of the generator under the chain.
        objective: the energy; with a target, its coefficients are a first guess.
        flow_config: architecture of the flow.
        seed: seed of all randomness.
        condition: condition of the flow.
        target: target shares of the objective's probabilities; the coefficients are moved until the flow has them.
        earlier: evaluations of earlier passes.
        tracker: receives the rows of the history, with ``train/`` before each name.
        observe: called with the flow after every descent.
    """

    generator: Generator
    store: EvaluationStore
    objective: Objective
    flow_config: FlowConfig
    seed: int
    condition: Condition = field(default_factory=Condition)
    target: Target | None = None
    earlier: Sequence[Evaluations] = ()
    tracker: Tracker = field(default_factory=NullTracker)
    observe: Callable[[Flow], None] = lambda _: None

    def __post_init__(self) -> None:
        self.evaluations = list(self.earlier)
        self.history = History(self.tracker)
        self.oracle = Oracle(self.store, self.seed, self.tracker)
        self.polished = 0
        self.landing: Landing | None = None
        self.rank = self.flow_config.rank
        self.remainder: Remainder | None = None
        self.dense = False
        self.has_one_target = has_one_target(self.generator, self.condition)
        self.start = Proposal(self.generator, self.seed, condition=self.condition)

    def train(self, units: int, *, goal: float = 0.7, fit_samples: int = 1024) -> ReuseTraining:
        """Train the flow.

        Args:
            units: budget, in forward passes; an image with a gradient costs three.
            goal: effective sample size, as a fraction, at which no further round follows.
            fit_samples: images of the final fit, which are part of the budget.

        Raises:
            NonFiniteEnergyError: an output or its gradient is NaN or infinite.
            StorageError: an evaluation cannot be stored.
        """
        with torch_threads(1):  # the networks are small, and rounding then does not depend on the number of cores
            return self.train_in_one_thread(units, goal, fit_samples)

    def train_in_one_thread(self, units: int, goal: float, fit_samples: int) -> ReuseTraining:
        """Do the stages of the training; only images are made by several threads."""
        started = time.perf_counter()
        lands, differentiable = self.target is not None, self.objective.differentiable
        allotment = Allotment.of(units, fit_samples, differentiable=differentiable, lands=lands)
        self.explore(allotment.explore)
        for number in range(ROUNDS):
            self.descend(f"round {number}", fresh=number == 0)
            fit, expected_ess = self.refine(f"round {number + 1}", allotment.refine)
            gives_way, ends = from_first(partial(self.judge, fit, expected_ess, goal))
            if ends:
                break
        self.descend("final", thorough=True)
        if gives_way:
            self.polish(allotment.refine.dense().gradients * (ROUNDS - 1 - number))
        if self.landing is not None:
            self.land(self.landing, allotment.land)
        fit, expected_ess = self.measure(allotment.fit)
        return ReuseTraining(
            flow=self.flow,
            fit=fit,
            objective=self.objective,
            history=self.history.rows,
            evaluations=self.evaluations,
            surrogate_error=self.surrogate.error,
            expected_ess=expected_ess,
            polished=self.polished,
            given_away=self.remainder.bound(self.objective) if self.remainder else None,
            seconds=time.perf_counter() - started,
        )

    def explore(self, stage: Stage) -> None:
        """Evaluate the distribution that the flow starts from, fit the first surrogate and make the flow."""
        rest = Stage(0, stage.values)
        if stage.gradients:
            with_gradient = self.explore_part("explore gradients", Stage(stage.gradients, 0))
            self.dense = self.needs_all(with_gradient)
            if self.rank is None and self.has_one_target:
                self.rank = needed_directions(self.generator, with_gradient, self.objective)
        self.explore_part("explore", rest.dense() if self.dense else rest)
        self.fit_surrogate("explore")
        prior = self.generator.prior
        self.flow = Flow(
            prior.dim,
            self.flow_config,
            self.condition,
            prior.scale.cpu(),
            self.seed,
            directions=self.flow_directions(),
            held=held_by(self.generator),
        ).to(prior.scale)
        self.proposal = Proposal(self.generator, self.seed, self.flow, self.condition)
        self.descent = Descent(self.proposal, self.start, self.energy, self.history.add_step)
        if self.target is not None:
            self.landing = Landing(self.target, self.beta, self.start, self.proposal)
        self.use_surrogate()

    def descend(self, name: str, *, fresh: bool = False, thorough: bool = False) -> None:
        """Train the flow on the surrogate; if thorough, until it has the target shares, if there are any."""
        self.tilt()
        self.descent.run(name, fresh=fresh, thorough=thorough)
        if self.landing is not None and thorough:
            for correction in range(CORRECTIONS):
                if not from_first(partial(self.landing.misses, ROUGHLY)):
                    break
                self.landing.make_up()
                self.use_multipliers()
                self.descent.steps(CORRECTION_STEPS, CORRECTION_RATE, name, "correction", correction)
            self.landing.aim()
            keep_equal(self.flow)
        self.observe(self.flow)

    def explore_part(self, name: str, stage: Stage) -> Evaluations:
        """Evaluate samples of the distribution that the flow starts from, all with a gradient or all without."""
        with torch.no_grad():
            draw = self.start.draw(len(stage), name)
        (evaluations,) = self.oracle.evaluate_stage(draw, name, stage, self.objective)
        self.evaluations.append(evaluations)
        return evaluations

    def refine(self, name: str, stage: Stage) -> tuple[Fit, float]:
        """Evaluate fresh samples of the flow, and fit the surrogate again.

        Returns:
            The fit of the flow before, and the effective sample size that the surrogate expected.
        """
        stage = stage.dense() if self.dense else stage
        fresh, acquired = round(FRESH * len(stage)), round(ACQUIRED * len(stage))
        with torch.no_grad():
            draw = self.proposal.draw(fresh, name)
            rest = self.start.draw(len(stage) - fresh - acquired, name, "start")
        asked = acquire(acquired, self.proposal, self.start, self.prediction, self.objective, name)
        evaluated = self.oracle.evaluate_stage(draw + asked + rest, name, stage, self.objective)
        noted = self.note_fit(draw, evaluated)
        self.evaluations += evaluated
        if self.has_one_target:
            directions = self.flow.directions
            remainder = Remainder.of(self.generator, directions, draw, evaluated[0], self.objective)
            self.remainder = remainder if self.remainder is None or remainder is None else self.remainder + remainder
        self.fit_surrogate(name)
        self.use_surrogate()
        return noted

    def judge(self, fit: Fit, expected_ess: float, goal: float) -> tuple[bool, bool]:
        """Return whether the surrogate gives way to true gradients, and whether no further round follows."""
        gives_way = self.gives_way(fit, expected_ess)
        return gives_way, fit.ess_fraction >= goal or gives_way

    def gives_way(self, fit: Fit, expected_ess: float) -> bool:
        """Tell whether true gradients promise more than another refinement of the surrogate."""
        wrong = fit.intervals()["ess_fraction"].high < TRUSTED_FRACTION * expected_ess
        return self.objective.differentiable and self.surrogate.dense and wrong and self.surrogate.error < SMOOTH

    def polish(self, n: int) -> None:
        """Train the flow on the true gradients of `n` of its own samples."""
        evaluate = partial(self.oracle.evaluate_energy, objective=self.objective)
        polish = Polish(self.proposal, self.objective, evaluate, self.history.add_step)
        evaluations = polish.run(n)
        self.evaluations += evaluations
        self.polished = sum(map(len, evaluations)) if polish.kept else 0
        keep_equal(self.flow)
        self.observe(self.flow)

    def land(self, landing: Landing, n: int) -> None:
        """Measure how far predicted shares are off, and move the flow a little to the corrected ones; do it again."""
        for number in range(LANDINGS):
            name = f"landing {number}"
            with torch.no_grad():
                draw = self.proposal.draw(n // LANDINGS, name)
                evaluations = self.oracle.evaluate(draw, name)
            self.note_fit(draw, [evaluations])
            landing.learn(self.prediction.seen(draw).base, self.objective.features(evaluations.outputs))
            self.evaluations.append(evaluations)
            landing.aim()
            keep_equal(self.flow)
        self.observe(self.flow)
        self.tilt()  # from here on, the fit is measured against the tilt itself, not against what makes up for the flow

    @torch.no_grad()
    def measure(self, n: int) -> tuple[Fit, float]:
        """Return the fit on fresh evaluations, and the effective sample size that the surrogate expects."""
        draw = self.proposal.draw(n, "fit")
        evaluations = self.oracle.evaluate(draw, "fit")
        self.evaluations.append(evaluations)
        return self.note_fit(draw, [evaluations])

    def fit_surrogate(self, name: str) -> None:
        """Fit the surrogate to all evaluations."""
        records = self.objective.records(self.evaluations, contextual=bool(self.condition))
        seed, scale = derive(self.seed, "surrogate", name), base_of(self.generator).prior.scale
        held = held_by(self.generator)
        self.surrogate: Surrogate = fit_surrogate(
            records, self.objective.kind, scale, seed=seed, held=held, rank=self.rank
        )

    def use_surrogate(self) -> None:
        """Let descent and landing predict by the present surrogate."""
        self.prediction = Prediction.of(self.surrogate, self.start, self.proposal)
        start, proposal = self.prediction.start, self.prediction.proposal
        self.descent.start, self.descent.proposal = start, proposal
        if self.landing is not None:
            self.landing.start, self.landing.proposal = start, proposal
            self.landing.use(self.prediction.surrogate)

    def flow_directions(self) -> Tensor | None:
        """Return the directions that the flow needs: the active ones and those of the flows under it; None for all."""
        joint = span_of_chain(self.generator, self.surrogate.directions)
        if joint is None:
            return None
        free = len(joint) - held_by(self.generator)
        joint[free:] = 0  # up to rounding, they are
        return None if self.flow_config.parts or joint.shape[1] > DENSE * free else joint

    def needs_all(self, evaluations: Evaluations) -> bool:
        """Return whether gradients depend on nearly all directions, as far as so many can tell."""
        assert evaluations.gradient is not None
        scale = base_of(self.generator).prior.scale
        free = len(scale) - held_by(self.generator)
        directions, _ = active_directions(evaluations.gradient[:, :free], scale[:free])
        return directions.shape[1] > DENSE * min(free, len(evaluations))

    def energy(self, draw: Draw) -> Tensor:
        """Return the predicted energy, nats, (B,), of samples as descent draws them."""
        return self.prediction.energy(draw, self.objective)

    def tilt(self) -> None:
        """With a target, choose the multipliers whose tilt has the target shares."""
        if self.landing is not None:
            self.landing.reset()
            self.landing.tilt()
            self.use_multipliers()

    def use_multipliers(self) -> None:
        """Make the energy that of the multipliers of landing."""
        assert self.landing is not None
        beta = torch.as_tensor(self.landing.beta).to(self.objective.coefficients)
        self.objective = self.objective.with_coefficients(-beta)

    @property
    def beta(self) -> Vector:
        """Multipliers of the objective, (K,)."""
        return np.asarray(-self.objective.coefficients.double().cpu().numpy())

    @torch.no_grad()
    def note_fit(self, draw: Draw, evaluated: Sequence[Evaluations]) -> tuple[Fit, float]:
        """Record the fit of the flow on true evaluations, whose first ones are of `draw`.

        Returns:
            The fit, and the effective sample size that the surrogate expects.
        """
        features = torch.cat([self.objective.features(part.outputs) for part in evaluated])[: len(draw)]
        seen = self.prediction.seen(draw)
        fit = fit_statistics(draw.log_p - self.objective.energy(features) - draw.log_q)
        expected = fit_statistics(draw.log_p - self.energy(seen) - draw.log_q)
        row = fit_row(fit, expected, self.surrogate.error, self.store.spending.units)
        if self.landing is not None:
            row |= share_row(self.landing, seen.base, features, self.objective.labels)
        self.history.add(row)
        return fit, expected.ess_fraction
