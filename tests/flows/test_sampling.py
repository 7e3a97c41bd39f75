import pytest
import torch

from promptgen.conditions import Condition
from promptgen.errors import DataError, NonFiniteEnergyError, TooFewSamplesError
from promptgen.flows.exact import importance_resample, metropolis
from promptgen.flows.sampling import condition_blocks, draw, generate, latent_blocks, sweep
from promptgen.generators.base import GaussianPrior
from promptgen.seeding import stream

PRIOR = GaussianPrior.standard(3)


class Square(torch.nn.Module):
    """A generator that counts how it was called."""

    def __init__(self):
        super().__init__()
        self.prior, self.image_shape = PRIOR, (3, 1, 1)
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.batches = []

    def forward(self, latent, *, noise=None):
        self.batches.append(len(latent))
        return (self.weight * latent.square())[:, :, None, None]


def test_blocks_are_cut_to_the_number_asked_for():
    assert [len(block) for block in latent_blocks(PRIOR, 600, 0, "a")] == [256, 256, 88]
    assert list(latent_blocks(PRIOR, 0, 0, "a")) == []


def test_the_first_latents_do_not_depend_on_how_many_are_drawn():
    few = torch.cat(list(latent_blocks(PRIOR, 300, 5, "a")))
    many = torch.cat(list(latent_blocks(PRIOR, 1000, 5, "a")))
    assert torch.equal(few, many[:300])


def test_seeds_streams_and_blocks_give_other_latents():
    first, second = latent_blocks(PRIOR, 512, 0, "a")
    assert not torch.equal(first, second)
    assert not torch.equal(first, next(latent_blocks(PRIOR, 512, 1, "a")))
    assert not torch.equal(first, next(latent_blocks(PRIOR, 512, 0, "b")))


def test_latents_follow_the_prior():
    prior = GaussianPrior(torch.tensor([1.0, 3.0]))
    latents = torch.cat(list(latent_blocks(prior, 20_000, 0, "a")))
    torch.testing.assert_close(latents.std(dim=0), prior.scale, rtol=0.03, atol=0)


@pytest.mark.parametrize("batch", [1, 7, 64, 256, 1000])
def test_samples_do_not_depend_on_the_batch(batch):
    generator = Square()
    pairs = list(generate(generator, 300, seed=3, stream="a", batch=batch))
    latents = torch.cat([latent for latent, _ in pairs])
    assert torch.equal(latents, torch.cat(list(latent_blocks(PRIOR, 300, 3, "a"))))
    assert torch.equal(torch.cat([image for _, image in pairs])[:, :, 0, 0], latents.square())
    assert max(generator.batches) <= min(batch, 256)


class Tinted(Square):
    """A generator that shows its condition in its first colour."""

    condition = Condition({"tint": (-1.0, 2.0), "depth": (0.0, 1.0)})

    def forward(self, latent, *, noise=None, context=None):
        image = super().forward(latent)
        return image if context is None else image + torch.nn.functional.pad(context, (0, 1))[:, :, None, None]


@pytest.mark.parametrize("batch", [1, 7, 256, 1000])
def test_conditions_do_not_depend_on_the_batch_or_the_number(batch):
    samples = list(draw(Tinted(), 300, seed=3, stream="a", batch=batch))
    contexts = torch.cat([sample.context for sample in samples])
    expected = torch.cat(list(condition_blocks(Tinted.condition, 1000, 3, "a")))[:300].float()
    assert torch.equal(contexts, expected)
    latents = torch.cat([sample.latent for sample in samples])
    assert torch.equal(latents, torch.cat(list(latent_blocks(PRIOR, 300, 3, "a"))))  # as without a condition
    images = torch.cat([sample.image for sample in samples])[:, :, 0, 0]
    torch.testing.assert_close(images[:, :2] - latents.square()[:, :2], expected)
    assert abs(float(torch.corrcoef(torch.stack([contexts[:, 0], latents[:, 0]]))[0, 1])) < 0.15


def test_given_coordinates_are_the_same_for_all_samples():
    (sample,) = draw(Tinted(), 20, seed=3, stream="a", condition={"tint": 0.5})
    (free,) = draw(Tinted(), 20, seed=3, stream="a")
    assert sample.context[:, 0].tolist() == [0.5] * 20
    assert torch.equal(sample.context[:, 1], free.context[:, 1])
    ((_, image),) = generate(Tinted(), 20, seed=3, stream="a", condition={"tint": 0.5})
    assert torch.equal(image, sample.image)
    with pytest.raises(DataError, match=r"tint.*none"):
        next(draw(Square(), 20, seed=3, stream="a", condition={"tint": 0.5}))


def test_a_plain_generator_is_told_nothing():
    (sample,) = draw(Square(), 5, seed=3, stream="a")
    assert sample.context is None


def test_samples_are_made_one_batch_at_a_time_and_without_gradient():
    generator = Square()
    samples = generate(generator, 10_000, seed=0, stream="a", batch=10)
    _, image = next(samples)
    assert generator.batches == [10]
    assert not image.requires_grad
    assert not torch.is_inference_mode_enabled()  # the mode does not leak to whoever consumes the samples


def weighted_proposals(m):
    """Samples of N(0, 1) with their log weights towards N(1, 0.5^2)."""
    x = torch.randn(m, generator=stream(0, "proposals"), dtype=torch.float64)
    return x, -0.5 * ((x - 1) / 0.5).square() + 0.5 * x.square()


def test_importance_resampling_has_the_moments_of_the_target():
    x, log_weight = weighted_proposals(100_000)
    chosen = x[importance_resample(log_weight, 20_000, stream(1, "resample"))]
    assert chosen.mean() == pytest.approx(1.0, abs=0.02)
    assert chosen.std() == pytest.approx(0.5, abs=0.02)


def test_metropolis_has_the_moments_of_the_target():
    x, log_weight = weighted_proposals(100_000)
    chain = x[metropolis(log_weight, stream(1, "chain"))][100:]
    assert chain.mean() == pytest.approx(1.0, abs=0.03)
    assert chain.std() == pytest.approx(0.5, abs=0.03)


def test_equal_weights_change_nothing():
    flat = torch.zeros(50)
    assert sorted(importance_resample(flat, 50, stream(0, "a")).tolist()) == list(range(50))
    assert metropolis(flat, stream(0, "a")).tolist() == list(range(50))


def test_all_weight_on_one_sample():
    log_weight = torch.full((20,), -1000.0)
    log_weight[7] = 0.0
    assert importance_resample(log_weight, 5, stream(0, "a")).tolist() == [7] * 5
    assert metropolis(log_weight, stream(0, "a")).tolist()[7:] == [7] * 13


@pytest.mark.parametrize("choose", [metropolis, lambda weight, rng: importance_resample(weight, 2, rng)])
def test_bad_weights_are_refused(choose):
    with pytest.raises(NonFiniteEnergyError):
        choose(torch.tensor([0.0, float("nan")]), stream(0, "a"))
    with pytest.raises(TooFewSamplesError):
        choose(torch.zeros(0), stream(0, "a"))
    with pytest.raises(DataError):
        choose(torch.zeros(2, 2), stream(0, "a"))


def test_a_sweep_shows_each_latent_under_each_condition():
    images, conditions = sweep(Tinted(), 2, seed=3, stream="a", steps=3, batch=4)
    latents = next(latent_blocks(PRIOR, 2, 3, "a"))
    assert images.shape == (2, 6, 3, 1, 1)
    assert torch.equal(conditions, Tinted.condition.sweep(3))
    for row, latent in zip(images, latents, strict=True):
        for image, condition in zip(row, conditions.float(), strict=True):
            torch.testing.assert_close(image[:, 0, 0], latent.square() + torch.nn.functional.pad(condition, (0, 1)))
