"""Micro-batches: as many images at a time as fit, and the same results whatever fits."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from linear_gaussian import LinearGenerator, Quadratic

from promptgen.energies.augment import draw
from promptgen.errors import ConfigError
from promptgen.evaluations.config import ReuseConfig
from promptgen.evaluations.evaluator import Evaluator, Request
from promptgen.evaluations.store import EvaluationStore
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.training import TrainingConfig, train_flow
from promptgen.generators.base import GaussianPrior
from promptgen.networks.micro_batches import CPU_BATCH, MicroBatches, largest, memory_of
from promptgen.seeding import stream
from promptgen.strict import validate

FLOAT = torch.float64


@dataclass
class Card:
    """Memory of a device, in which each image takes one byte; what does not fit raises what torch would."""

    size: int
    images: int = 0

    def watch(self):
        self.images = 0

    def taken(self):
        return self.images

    def free(self):
        return self.size

    def release(self):
        pass

    def take(self, count):
        if count > self.size:
            raise torch.OutOfMemoryError(f"{count} images do not fit")
        self.images = count


class Brightness:
    """A generator of which only so many images fit at a time."""

    image_shape = (3, 2, 2)

    def __init__(self, most=10**9):
        self.prior, self.most, self.counts = GaussianPrior.standard(4), most, []

    def __call__(self, latent, *, noise=None):
        self.counts.append(len(latent))
        if len(latent) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return latent[:, :3, None, None].expand(-1, 3, 2, 2).sin()


def noisy(sample, most=10**9):
    """An output with random numbers for each image, of which only so many fit at a time."""
    values = sample.image.flatten(1) * torch.rand(len(sample.image), 1, generator=sample.rng)
    if len(values) > most:
        raise torch.OutOfMemoryError("out of memory")
    return values


def evaluated(generator, batches, n=40, gradient=True, most=10**9):
    latent = torch.randn(n, 4, generator=stream(0, "latent"))
    features = {"sum": lambda outputs: outputs["noisy"].sum(dim=1, keepdim=True)}
    evaluator = Evaluator(generator, {"noisy": partial(noisy, most=most)}, features, batches=batches)
    request = Request(latent, None, "sum", torch.ones(n, 1), ("noisy",), address="a")
    return evaluator(request if gradient else replace(request, slope="", direction=None))


@pytest.mark.parametrize("most", [1, 3, 5, 16, 100])
@pytest.mark.parametrize("gradient", [False, True])
def test_evaluations_do_not_depend_on_what_fits(most, gradient):
    expected = evaluated(Brightness(), MicroBatches(size=40), gradient=gradient)
    for got in (
        evaluated(Brightness(most), MicroBatches(), gradient=gradient),
        evaluated(Brightness(), MicroBatches(), gradient=gradient, most=most),  # after random numbers were drawn
    ):
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, msg=name)


def test_a_part_that_does_not_fit_is_halved_and_the_others_stay_so():
    generator = Brightness(most=5)
    evaluated(generator, MicroBatches())
    assert generator.counts[:3] == [16, 8, 4]
    assert set(generator.counts[3:]) == {4}


def test_a_given_number_stays_and_a_single_image_has_to_fit():
    for batches, most in ((MicroBatches(size=8), 5), (MicroBatches(), 0)):
        with pytest.raises(torch.OutOfMemoryError):
            evaluated(Brightness(most), batches)


def test_a_cpu_makes_as_many_as_ever():
    generator = Brightness()
    store = EvaluationStore(generator, {"noisy": noisy})
    store.evaluate(torch.randn(40, 4, generator=stream(0, "latent")))
    assert generator.counts == [CPU_BATCH, CPU_BATCH, 8]
    assert memory_of(torch.device("cpu")) is None


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_batches_grow_to_what_memory_holds(size):
    card, counts = Card(size), []

    def work(part):
        counts.append(part.stop - part.start)
        card.take(counts[-1])
        return list(range(part.start, part.stop))

    batches = MicroBatches(memory=card)
    assert [number for part in batches.over(600, work) for number in part] == list(range(600))
    assert counts[0] == 1
    assert max(counts) <= size
    assert max(counts) >= min(0.7 * size, 128)
    assert counts == sorted(counts[:-1]) + counts[-1:]


def test_kinds_of_work_have_numbers_of_their_own():
    card = Card(100)
    batches = MicroBatches(memory=card)
    batches.over(300, lambda part: card.take(part.stop - part.start), "forward")
    counts = []
    batches.over(300, lambda part: (counts.append(part.stop - part.start), card.take(3 * counts[-1])), "gradient")
    assert counts[0] == 1
    assert 20 <= max(counts) <= 33


def test_a_number_that_did_not_fit_is_not_tried_again():
    """The peak of a small batch may promise more than fits, and what is left of a batch may be smaller than it."""
    counts = []

    def work(part):
        counts.append(part.stop - part.start)
        if counts[-1] > 10:
            raise torch.OutOfMemoryError("others have the rest")

    MicroBatches(memory=Card(10**6)).over(100, work)
    assert sum(count > 10 for count in counts) == 1


@pytest.mark.parametrize("most", [1, 3, 8, 20])
def test_training_does_not_depend_on_what_fits(most):
    class Bounded(LinearGenerator):
        def __call__(self, latent, *, noise=None):
            if len(latent) > most:
                raise torch.OutOfMemoryError("out of memory")
            return super().__call__(latent, noise=noise)

    def trained(generator, size):
        config = TrainingConfig(steps=3, batch=8, micro_batch=size, validation_samples=8, validate_every=2)
        flow = Flow(4, FlowConfig(blocks=2, hidden=8), dtype=FLOAT)
        return train_flow(generator, Quadratic(), flow, config, seed=1, fit_samples=8).history

    rows = zip(trained(Bounded(), "auto"), trained(LinearGenerator(), None), strict=True)
    for got, expected in rows:
        assert got == pytest.approx(expected, rel=1e-6)


def test_the_largest_number_is_bounded_by_memory_and_by_use():
    def run(card):
        return lambda count: card.take(count)

    card = Card(50)
    assert 25 <= largest(200, run(card), card) <= 50
    assert largest(4, run(card), card) == 4
    assert largest(200, lambda count: Card(50).take(count), None) == 50


@pytest.mark.parametrize("size", [1, 2, 5])
def test_augmentations_of_an_image_do_not_depend_on_its_batch(size):
    whole, rng = draw(5, 3, 32, stream(0, "whole")), stream(0, "whole")
    counts = [min(size, 5 - start) for start in range(0, 5, size)]
    parts = [draw(count, 3, 32, rng) for count in counts]
    for name, value in vars(whole).items():
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), value), name


@pytest.mark.parametrize("size", [0, "all", 1.5])
def test_other_numbers_are_refused(size):
    with pytest.raises(ConfigError, match="micro_batch"):
        validate(ReuseConfig, {"micro_batch": size})
