"""Units are counted exactly: an image forward is one, one with gradient three, and measuring costs none."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from benchmarks.measures import FlowSampler, Points, WeightedPrior, measure
from benchmarks.methods.on_policy import LABELS, train_on_policy
from benchmarks.methods.prior import weigh_prior
from benchmarks.methods.published import MOMENT_BATCH, MOMENT_STEPS, soft_multipliers
from benchmarks.methods.training import train_watched
from benchmarks.run import GROWTH, run
from benchmarks.scene import CountedGenerator, Scene
from benchmarks.tasks import make_task
from promptgen.errors import DataError
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.training import TrainingConfig


@pytest.fixture
def generator():
    return CountedGenerator(Scene(8))


def test_an_image_is_one_unit_and_two_more_with_its_gradient(generator):
    latent = torch.zeros(5, 8, requires_grad=True)
    with torch.no_grad():
        generator(latent)
    assert (generator.forward, generator.backward, generator.units) == (5, 0, 5)
    image = generator(latent)  # with a graph, but its gradient may never be taken
    assert generator.units == 10
    image.sum().backward()
    assert (generator.forward, generator.backward, generator.units) == (10, 5, 20)


def test_a_second_gradient_of_the_same_images_is_counted(generator):
    latent = torch.zeros(3, 8, requires_grad=True)
    image = generator(latent)
    for channel in range(2):
        torch.autograd.grad(image[:, channel].sum(), latent, retain_graph=True)
    assert generator.units == 3 + 2 * (3 + 3)


def test_training_of_the_library_is_counted_as_it_counts_itself():
    task = make_task("steep-64")
    generator, config = CountedGenerator(task.generator), TrainingConfig(steps=3, batch=8, validation_samples=5)
    train_watched(task, generator, task.energy, config, 0, lambda sampler: None)
    assert (generator.forward, generator.backward) == (3 * 8 + 2 * 5 + 1, 3 * 8)


def test_published_multipliers_take_half_a_million_images():
    task = make_task("two-64")
    generator = CountedGenerator(task.generator)
    soft_multipliers(task, generator, seed=0)
    assert generator.units == MOMENT_STEPS * MOMENT_BATCH == 512_000


def test_measuring_costs_no_units():
    task = make_task("two-64")
    generator = CountedGenerator(task.generator)
    flow = Flow(task.dim, FlowConfig(blocks=1, hidden=4))

    def method(task, generator, seed, watch):
        generator(torch.zeros(600, task.dim))
        for sampler in (FlowSampler(flow), WeightedPrior(task, task.wanted), Points(torch.zeros(500, task.dim))):
            watch(sampler)

    rows = run(method, task, budget=10_000, seed=0, samples=500)
    assert [row["units"] for row in rows] == [600]
    for sampler in (FlowSampler(flow), WeightedPrior(task, task.wanted), Points(torch.zeros(500, task.dim))):
        measure(task, sampler, seed=0, n=500)
    assert generator.units == 0


def test_a_run_is_measured_where_its_units_have_grown_and_at_its_end():
    rows = run(weigh_prior, make_task("two-64"), budget=4096, seed=0, samples=1000)
    assert [row["units"] for row in rows] == [512, 1024, 2048, 4096]
    assert all(later["units"] >= GROWTH * row["units"] for row, later in pairwise(rows))


def test_a_run_stops_when_its_budget_is_spent():
    rows = run(train_on_policy, make_task("two-64"), budget=LABELS + 2 * 64 * 3, seed=0, samples=500)
    assert rows[-1]["units"] == LABELS + 2 * 64 * 3


def test_a_method_that_fails_says_so_in_its_last_row():
    def method(task, generator, seed, watch):
        generator(torch.zeros(7, task.dim))
        raise DataError("no good")

    (row,) = run(method, make_task("two-64"), budget=100, seed=0)
    assert row["error"] == "no good"
    assert row["units"] == 7
