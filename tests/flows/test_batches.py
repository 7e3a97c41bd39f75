"""Batches draw the same samples whatever their size, and find the term to blame for a bad gradient."""

import pytest
import torch
from linear_gaussian import LinearGenerator, Quadratic, box

from promptgen.energies.base import Term, WeightedSum
from promptgen.flows.batches import Batches
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.objective import log_weight
from promptgen.seeding import stream

SMALL = FlowConfig(blocks=2, hidden=8)


def make_batches(size=8, energy=None, context_dim=0):
    flow = Flow(4, SMALL, box(context_dim), dtype=torch.float64)
    return Batches(flow, LinearGenerator(), energy or Quadratic(), seed=1, size=size)


@pytest.mark.parametrize("size", [1, 3, 10, 100])
def test_log_weights_do_not_depend_on_the_size(size):
    batches = make_batches(size)
    eps = torch.randn(10, 4, generator=stream(1, "fit"), dtype=torch.float64)
    expected = log_weight(batches.flow, batches.generator, batches.energy, eps)
    torch.testing.assert_close(batches.log_weights(10, "fit"), expected)
    torch.testing.assert_close(torch.cat([loss.log_w for loss in batches.losses(10, "fit")]), expected)


def test_other_names_and_seeds_are_other_samples():
    batches = make_batches()
    assert not torch.equal(batches.log_weights(4, "train", 0), batches.log_weights(4, "train", 1))
    assert torch.equal(batches.log_weights(4, "train", 0), batches.log_weights(4, "train", 0))


def test_conditions_come_from_their_own_stream_and_match_the_samples():
    whole = make_batches(10, context_dim=2)
    (loss,) = whole.losses(10, "train", 5)
    expected = box(2).sample(10, stream(1, "train", 5, "context"))
    assert torch.equal(loss.sample.context, expected)
    parts = list(make_batches(3, context_dim=2).losses(10, "train", 5))
    assert torch.equal(torch.cat([part.sample.context for part in parts]), expected)


def test_conditions_of_the_generator_are_drawn_for_an_unconditional_flow():
    below = Flow(4, SMALL, box(2), dtype=torch.float64)
    with torch.no_grad():
        for parameter in below.parameters():
            parameter += 0.2
    base = LinearGenerator()
    generator = ChainedGenerator(base, below)
    batches = Batches(Flow(4, SMALL, dtype=torch.float64), generator, Quadratic(), seed=1, size=10)
    (loss,) = batches.losses(10, "train", 0)
    context = box(2).sample(10, stream(1, "train", 0, "context"))
    assert batches.condition == box(2)
    assert torch.equal(loss.sample.context, context)
    assert torch.equal(loss.sample.image, base(below(loss.sample.latent, context)[0]))
    assert batches.bad_gradients(10, "train", 0) == []


def root_of_zero(zero):
    """Return 0 with an infinite derivative."""
    return (zero - zero).sqrt()


class BadByAnchor:
    needs_anchor = True

    def __call__(self, sample):
        return root_of_zero(sample.anchor.flatten(1)[:, 0])


def test_bad_gradients_are_named():
    energies = {
        "good": Quadratic(),
        "constant": lambda sample: torch.ones(len(sample.latent), dtype=torch.float64),
        "latent": lambda sample: root_of_zero(sample.latent[:, 0]),
        "image": lambda sample: root_of_zero(sample.image.flatten(1)[:, 0]),
        "anchor": BadByAnchor(),
    }
    energy = WeightedSum({name: Term(energy) for name, energy in energies.items()})
    assert make_batches(3, energy).bad_gradients(8, "train", 0) == ["anchor", "image", "latent"]
    assert make_batches(3).bad_gradients(8, "train", 0) == []


def test_an_anchor_takes_a_second_image():
    assert make_batches().images_per_sample == 1
    assert make_batches(energy=WeightedSum({"a": Term(BadByAnchor())})).images_per_sample == 2


def test_energies_draw_afresh_for_every_stream_and_the_same_for_the_same():
    drawn = []

    def energy(sample):
        drawn.append(torch.rand(len(sample.latent), generator=sample.rng, dtype=torch.float64))
        return drawn[-1]

    batches = make_batches(4, energy)
    for names in (("train", 0), ("train", 1), ("train", 0)):
        batches.log_weights(8, *names)
    first, second, again = (torch.cat(drawn[i : i + 2]) for i in (0, 2, 4))
    assert torch.equal(first, again)
    assert len({*first.tolist(), *second.tolist()}) == 16
