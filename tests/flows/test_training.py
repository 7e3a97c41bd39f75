"""Training reaches a target known in closed form, chooses and reports honestly, and survives kills and bad numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from linear_gaussian import LinearGenerator, Quadratic, box, closed_form
from pydantic import ValidationError
from torch import nn

from promptgen.conditions import Condition
from promptgen.energies.base import Term, WeightedSum
from promptgen.errors import CheckpointError, NonFiniteEnergyError
from promptgen.flows import batches
from promptgen.flows.fit import fit_statistics
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.objective import log_weight
from promptgen.flows.training import STATE_NAME, TrainingConfig, train_flow
from promptgen.generators.base import GaussianPrior
from promptgen.seeding import stream

HERE = Path(__file__).parents[1]
QUICK = TrainingConfig(steps=6, batch=8, validate_every=2, validation_samples=16, checkpoint_every=2)


def small_flow(context_dim=0):
    return Flow(4, FlowConfig(blocks=2, hidden=8), box(context_dim), dtype=torch.float64)


def quick(config=QUICK, energy=None, flow=None, **options):
    options = {"seed": 1, "fit_samples": 32, **options}
    return train_flow(LinearGenerator(), energy or Quadratic(), flow or small_flow(), config, **options)


def weights(flow):
    return torch.cat([parameter.detach().flatten() for parameter in flow.parameters()])


@pytest.mark.parametrize("method", ["on_policy", "plain"])
def test_a_trained_flow_reaches_the_closed_form(method):
    generator, energy = LinearGenerator(), Quadratic()
    config = TrainingConfig(steps=300, batch=64, learning_rate=0.02, clip=10.0, method=method, validation_samples=512)
    flow = Flow(4, FlowConfig(blocks=4, hidden=16), dtype=torch.float64)
    training = train_flow(generator, energy, flow, config, seed=1, fit_samples=4096)
    mean, covariance, log_z = closed_form(generator, energy)
    gap, error = (0.01, 0.04) if method == "on_policy" else (0.1, 0.12)
    assert training.fit.kl_gap < gap
    assert training.fit.ess_fraction > 1 - 4 * gap
    assert training.fit.log_z == pytest.approx(log_z, abs=error)
    assert training.fit.log_z_bound < log_z + error / 4
    with torch.no_grad():
        latent, _ = flow(torch.randn(20_000, 4, generator=stream(0, "eps"), dtype=torch.float64))
    torch.testing.assert_close(latent.mean(dim=0), mean, atol=4 * error, rtol=0)
    torch.testing.assert_close(latent.T.cov(), covariance, atol=4 * error, rtol=0)


def test_a_trained_flow_of_float32_still_inverts():
    generator = LinearGenerator(16).float()
    generator.prior = GaussianPrior(torch.ones(16))
    config = TrainingConfig(steps=60, batch=32, learning_rate=0.01, clip=10.0, validation_samples=64)
    flow = Flow(16, FlowConfig(blocks=8, hidden=32))
    train_flow(generator, Quadratic(width=0.1).float(), flow, config, seed=1, fit_samples=64)
    eps = torch.randn(512, 16, generator=stream(0, "eps"))
    with torch.no_grad():
        latent, log_det = flow(eps)
        back, log_det_back = flow.inverse(latent)
    assert float((latent - eps).abs().max()) > 0.5
    torch.testing.assert_close(back, eps, atol=1e-4, rtol=0)
    torch.testing.assert_close(log_det_back, -log_det, atol=1e-3, rtol=0)


def test_a_conditional_flow_learns_every_condition():
    """The energy pulls the image to the condition; one flow serves the two conditions it is asked for."""

    def energy(sample):
        return 2 * (sample.image.flatten(1)[:, :2] - sample.context).square().sum(dim=1)

    flow = Flow(4, FlowConfig(blocks=4, hidden=32), box(2), dtype=torch.float64)
    config = TrainingConfig(steps=300, batch=64, learning_rate=0.02, clip=10.0)
    generator = LinearGenerator()
    training = train_flow(generator, energy, flow, config, seed=1)
    assert training.fit.n == 1024
    for wanted in ([1.0, 1.0], [-1.0, 0.5]):
        context = torch.tensor(wanted, dtype=torch.float64).expand(2000, 2)
        eps = torch.randn(2000, 4, generator=stream(0, "eps"), dtype=torch.float64)
        assert fit_statistics(log_weight(flow, generator, energy, eps, context=context)).kl_gap < 0.1


class Shifted(LinearGenerator):
    """Its images are moved along their first coordinate by the condition."""

    condition = Condition({"shift": (-1.0, 3.0)})

    def forward(self, latent, *, noise=None, context=None):
        shift = torch.zeros(len(latent), 1, dtype=torch.float64) if context is None else context
        return super().forward(latent) + torch.nn.functional.pad(shift, (0, 2))[:, :, None, None]


def test_a_flow_on_a_conditional_generator_is_trained_over_all_its_conditions():
    """Such a flow cannot know the shift, whose mean is 1: it can but aim at what is left of the target."""
    flow = Flow(4, FlowConfig(blocks=4, hidden=32), dtype=torch.float64)
    config = TrainingConfig(steps=300, batch=64, learning_rate=0.02, clip=10.0)
    train_flow(Shifted(), Quadratic((1.0, -0.5, 0.5)), flow, config, seed=1)
    expected = closed_form(LinearGenerator(), Quadratic((0.0, -0.5, 0.5)))[0]
    with torch.no_grad():
        latents = flow(torch.randn(5000, 4, generator=stream(0, "eps"), dtype=torch.float64))[0]
    torch.testing.assert_close(latents.mean(dim=0), expected, atol=0.12, rtol=0)


def test_micro_batches_give_the_same_training():
    whole = quick()
    for size in (1, 3, 100):
        parts = quick(QUICK.model_copy(update={"micro_batch": size}))
        torch.testing.assert_close(weights(parts.flow), weights(whole.flow), atol=1e-9, rtol=0)
        assert parts.fit.log_z == pytest.approx(whole.fit.log_z, abs=1e-9)
        assert parts.history[-2]["loss"] == pytest.approx(whole.history[-2]["loss"], abs=1e-9)


def test_the_first_row_is_the_generator_s_own():
    generator, energy = LinearGenerator(), Quadratic()
    first = quick().history[0]
    eps = torch.randn(8, 4, generator=stream(1, "train", 0), dtype=torch.float64)
    expected = -log_weight(small_flow(), generator, energy, eps).mean().item()
    assert first["loss"] == pytest.approx(expected, abs=1e-9)
    assert first["energy/energy"] == pytest.approx(expected, abs=1e-9)


def test_history_and_tracker_get_every_step():
    class Recorder:
        def __init__(self):
            self.rows, self.done = [], []

        def metrics(self, values, step):
            self.rows.append((step, values))

        def progress(self, done, total, note=""):
            self.done.append((done, total))

    tracker = Recorder()
    energy = WeightedSum({"near": Term(Quadratic(), 2.0), "far": Term(Quadratic(width=9.0))})
    history = quick(energy=energy, tracker=tracker).history
    assert [row["step"] for row in history] == [0, 1, 2, 3, 4, 5, 6]
    assert tracker.done == [(i + 1, 6) for i in range(6)]
    assert [step for step, _ in tracker.rows] == [0, 1, 2, 3, 4, 5, 6]
    assert tracker.rows[1][1]["train/energy/near"] == history[1]["energy/near"]
    assert [row["step"] for row in history if "validation/loss" in row] == [0, 2, 4, 6]
    assert [row["learning_rate"] for row in history[:6]] == pytest.approx([1e-3 * (1 - i / 6) for i in range(6)])
    assert "energy/far" in history[5]
    assert "loss" not in history[6]


def test_gradients_are_clipped():
    flow = small_flow()
    training = quick(QUICK.model_copy(update={"clip": 0.01}), flow=flow)
    assert min(row["gradient_norm"] for row in training.history[:-1]) > 0.1
    norm = torch.cat([parameter.grad.flatten() for parameter in flow.parameters()]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_the_best_flow_by_held_out_samples_is_returned():
    config = TrainingConfig(steps=20, batch=4, learning_rate=0.5, validate_every=1, validation_samples=64)
    training = quick(config)
    losses = {row["step"]: row["validation/loss"] for row in training.history}
    assert training.best_step == min(losses, key=losses.get)
    assert training.best_step < 20
    eps = torch.randn(64, 4, generator=stream(1, "validate"), dtype=torch.float64)
    again = -log_weight(training.flow, LinearGenerator(), Quadratic(), eps).mean().item()
    assert again == pytest.approx(losses[training.best_step], abs=1e-9)


def test_choosing_and_reporting_use_streams_of_their_own(monkeypatch):
    names = set()

    def spy(seed, *path, device="cpu"):
        names.add(path[0])
        return stream(seed, *path, device=device)

    monkeypatch.setattr(batches, "stream", spy)
    quick()
    assert names == {"train", "validate", "fit"}


@pytest.mark.parametrize("anchor", [False, True])
def test_evaluations_are_the_images_that_were_made(anchor):
    class Likeness(Quadratic):
        needs_anchor = anchor

    generator = LinearGenerator()
    training = train_flow(generator, Likeness(), small_flow(), QUICK, seed=1, fit_samples=32)
    per_sample = 2 if anchor else 1
    assert training.evaluations["forward"] == generator.images == per_sample * (6 * 8 + 4 * 16 + 32)
    assert training.evaluations["backward"] == per_sample * 6 * 8


def test_the_same_seed_gives_the_same_training_and_leaves_the_global_state_alone():
    before = torch.random.get_rng_state()
    one, same, other = quick(), quick(), quick(seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.history == same.history
    assert torch.equal(weights(one.flow), weights(same.flow))
    assert one.fit != other.fit


class Mined(nn.Module):
    """A quadratic energy whose value, or whose gradient alone, is NaN from one call with gradients on."""

    def __init__(self, fatal_call, what):
        super().__init__()
        self.energy, self.calls_left, self.what = Quadratic(), fatal_call, what

    def forward(self, sample):
        energy = self.energy(sample)
        if sample.image.requires_grad:
            self.calls_left -= 1
        if self.calls_left > 0:
            return energy
        zero = (sample.latent - sample.latent)[:, 0]
        return energy + (zero.sqrt() if self.what == "gradient" else zero / zero)


@pytest.mark.parametrize("what", ["value", "gradient"])
def test_a_bad_number_stops_the_training_names_the_term_and_keeps_the_best_flow(tmp_path, what):
    energy = WeightedSum({"good": Term(Quadratic()), "mined": Term(Mined(4, what), 2.0)})
    flow = small_flow()
    with pytest.raises(NonFiniteEnergyError, match=r"step 3: .*mined became NaN") as caught:
        quick(energy=energy, flow=flow, state_dir=tmp_path)
    assert "good" not in str(caught.value)
    assert "the flow of step 2 is kept in" in str(caught.value)
    assert "\n" not in str(caught.value)
    sound = quick(energy=WeightedSum({"good": Term(Quadratic(), 3.0)}))
    assert bool(weights(flow).isfinite().all())
    eps = torch.randn(16, 4, generator=stream(1, "validate"), dtype=torch.float64)
    kept = -log_weight(flow, LinearGenerator(), WeightedSum({"good": Term(Quadratic(), 3.0)}), eps).mean().item()
    assert kept == pytest.approx(sound.history[2]["validation/loss"], abs=1e-9)
    state = torch.load(tmp_path / STATE_NAME, weights_only=True)
    assert state["record"]["step"] == 3
    assert all(bool(value.isfinite().all()) for value in state["flow"].values())


class Drifting:
    """Multipliers that move a quadratic energy's target for some steps."""

    def __init__(self, energy, fixed_after):
        self.energy, self.fixed_after, self.fixed, self.finalised = energy, fixed_after, False, 0

    def update(self, sample, log_w, step):
        assert len(sample.latent) == len(log_w) == 8
        if not self.fixed:
            self.energy.target += 0.1
            self.fixed = step + 1 == self.fixed_after
        return {"target": float(self.energy.target[0])}

    def finalise(self):
        self.fixed, self.finalised = True, self.finalised + 1

    def state_dict(self):
        return {"target": self.energy.target, "fixed": self.fixed}

    def load_state_dict(self, state):
        self.energy.target.copy_(state["target"])
        self.fixed = state["fixed"]


def test_the_best_flow_is_chosen_once_the_energy_stands_still():
    energy = Quadratic()
    multipliers = Drifting(energy, fixed_after=3)
    training = quick(QUICK.model_copy(update={"micro_batch": 3}), energy=energy, multipliers=multipliers)
    assert [row["step"] for row in training.history if "validation/loss" in row] == [3, 4, 6]
    assert [row["target"] for row in training.history[:-1]] == pytest.approx([1.1, 1.2, 1.3, 1.3, 1.3, 1.3])
    assert training.best_step >= 3
    assert multipliers.finalised == 0


def test_multipliers_that_never_stop_are_fixed_before_the_choice():
    energy = Quadratic()
    multipliers = Drifting(energy, fixed_after=100)
    training = quick(energy=energy, multipliers=multipliers)
    assert multipliers.finalised == 1
    assert training.best_step == 6
    assert [row["step"] for row in training.history if "validation/loss" in row] == [6]


@pytest.mark.faults
def test_killed_trainings_end_with_the_same_numbers(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_training.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    expected = outcomes.pop("never")
    assert len(outcomes) == 5
    for name, outcome in outcomes.items():
        assert outcome == expected, name


def test_a_finished_state_gives_the_same_result_again(tmp_path):
    first, again = quick(state_dir=tmp_path), quick(state_dir=tmp_path)
    assert first.history == again.history
    assert first.fit == again.fit
    assert first.evaluations == again.evaluations
    assert torch.equal(weights(first.flow), weights(again.flow))


def test_a_state_of_another_training_is_refused(tmp_path):
    quick(state_dir=tmp_path)
    with pytest.raises(CheckpointError, match="another training"):
        quick(state_dir=tmp_path, seed=2)
    with pytest.raises(CheckpointError, match="another training"):
        quick(QUICK.model_copy(update={"learning_rate": 0.01}), state_dir=tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a state", "half", "foreign"])
def test_a_damaged_state_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / STATE_NAME
    if content == "half":
        quick(state_dir=tmp_path)
        content = path.read_bytes()[:2000]
    if content == "foreign":
        torch.save([1, 2], path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="delete it") as caught:
        quick(state_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_impossible_settings_are_refused():
    for bad in (
        {"steps": 0},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"method": "other"},
        {"micro_batch": 0},
        {"x": 1},
    ):
        with pytest.raises(ValidationError):
            TrainingConfig(**{"steps": 1, "batch": 1, **bad})
