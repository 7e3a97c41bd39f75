"""The contract that every generator keeps, whatever it is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from promptgen.errors import DataError
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.objective import reverse_kl
from promptgen.generators.base import GaussianPrior, Generator
from promptgen.seeding import stream
from promptgen.world.generator import WorldGenerator, untrained
from promptgen.world.scene import Scene, SceneConfig
from tests.generators import small


@dataclass(frozen=True)
class Case:
    """A generator and what is particular about it.

    Attributes:
        make: returns it, frozen, for a seed.
        dim: coordinates of its latent.
        side: height and width of its images.
        noisy: whether a stream of noise changes the image.
        bounded: whether its images are in [0, 1], and not only nominally.
    """

    make: Callable[..., Generator]
    dim: int
    side: int
    noisy: bool = False
    bounded: bool = False


def stylegan2(seed=0, **options):
    model = small.with_noise(small.stylegan2(seed, **options))
    model.freeze()
    return model


def world(seed=0):
    scene = Scene(SceneConfig())
    network = untrained(scene, seed, channels=dict.fromkeys((4, 8, 16, 32, 64), 8))
    generator = WorldGenerator(small.with_noise(network), scene)
    generator.freeze()
    return generator


def diffae(seed=0, **options):
    return small.diffae(seed, latent_steps=5, image_steps=2, **options)


def chain(seed=0):
    base = small.nvae(seed)
    return ChainedGenerator(base, Flow(base.prior.dim, FlowConfig(blocks=2, hidden=8), scale=base.prior.scale))


TOP, MIDDLE, LAST = small.NVAE_NUMBERS
NOISE_OF_IMAGE = 3 * small.DIFFAE_SIZE**2
CASES = {
    "stylegan2": Case(stylegan2, dim=6, side=16, noisy=True),
    "stylegan2 truncated": Case(partial(stylegan2, truncation=0.7), dim=6, side=16, noisy=True),
    "biggan": Case(small.biggan, dim=8, side=16, bounded=True),
    "nvae": Case(small.nvae, dim=TOP, side=8, noisy=True),
    "nvae of two groups": Case(partial(small.nvae, groups=(2, 0)), dim=LAST + TOP, side=8, noisy=True),
    "nvae of all groups": Case(partial(small.nvae, groups="all"), dim=TOP + MIDDLE + LAST, side=8),
    "diffae": Case(diffae, dim=6, side=8, noisy=True, bounded=True),
    "diffae with noise": Case(partial(diffae, latent="code_and_noise"), dim=6 + NOISE_OF_IMAGE, side=8, bounded=True),
    "stylegan3-t truncated": Case(partial(small.stylegan3, truncation=0.7), dim=6, side=16),
    "stylegan3-r": Case(partial(small.stylegan3, variant="r", channel_max=16), dim=6, side=16),
    "stylegan3 in one class": Case(partial(small.stylegan3, class_count=4, classes=2), dim=6, side=16),
    "stylegan2 in one class": Case(partial(stylegan2, class_count=4, classes=3, clamp=2.0), dim=6, side=16, noisy=True),
    "r3gan": Case(small.r3gan, dim=6, side=16),
    "r3gan in one class": Case(partial(small.r3gan, class_count=4, embedding_dim=3, classes=1), dim=6, side=16),
    "dcgan": Case(small.dcgan, dim=6, side=16, bounded=True),
    "world": Case(world, dim=64, side=64, noisy=True),
    "chain": Case(chain, dim=TOP, side=8, noisy=True),
} | {
    f"stylenerf {side} px, resample={resample}": Case(
        partial(small.stylenerf, image_size=side, resample=resample, truncation=0.7), dim=6, side=side, noisy=True
    )
    for side in (4, 8, 16)
    for resample in (True, False)
}


def cases(wanted=lambda case: True):
    """Parametrise over the generators that are wanted."""
    chosen = {name: case for name, case in CASES.items() if wanted(case)}
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen)


@cases()
def test_latents_and_images_have_the_shapes_that_it_tells(case):
    model = case.make()
    assert isinstance(model.prior, GaussianPrior)
    assert model.prior.dim == case.dim
    assert model.image_shape == (3, case.side, case.side)
    image = model(small.latents(model))
    assert image.shape == (3, *model.image_shape)
    assert image.isfinite().all()


@cases(lambda case: case.bounded)
def test_bounded_images_are_in_range(case):
    image = case.make()(small.latents(case.make()))
    assert 0 <= image.min() < image.max() <= 1


@cases()
def test_double_precision_gives_the_same_image(case):
    latent = small.latents(case.make())
    model = case.make().double()
    image = model(latent.double())
    assert small.latents(model).dtype == image.dtype == torch.float64
    torch.testing.assert_close(image.float(), case.make()(latent), rtol=1e-4, atol=1e-4)


@cases()
def test_the_latent_alone_decides_the_image(case):
    model = case.make()
    latent = small.latents(model)
    image = model(latent)
    torch.testing.assert_close(model(latent), image, rtol=0, atol=0)
    torch.testing.assert_close(model(latent[:1]), image[:1], rtol=1e-4, atol=1e-5)


@cases()
def test_a_stream_decides_the_noise(case):
    model = case.make()
    latent = small.latents(model)
    fresh = model(latent, noise=stream(3, "noise"))
    torch.testing.assert_close(model(latent, noise=stream(3, "noise")), fresh, rtol=0, atol=0)
    assert torch.equal(fresh, model(latent)) != case.noisy


@cases()
def test_gradients_reach_every_coordinate(case):
    model = case.make()
    latent = small.latents(model).clamp(-1.9, 1.9).requires_grad_()  # beyond 2 BigGAN clamps
    (gradient,) = torch.autograd.grad(model(latent).square().sum(), latent)
    assert gradient.isfinite().all()
    assert (gradient != 0).all()


@cases()
def test_frozen_for_good(case):
    model = case.make()
    assert not any(value.requires_grad for value in model.parameters())
    assert not model.train().training


@cases()
def test_the_seed_decides_the_network_and_leaves_the_global_stream_alone(case):
    state = torch.get_rng_state()
    latent = small.latents(case.make())
    first, same, other = case.make(seed=1), case.make(seed=1), case.make(seed=2)
    torch.testing.assert_close(first(latent), same(latent), rtol=0, atol=0)
    assert not torch.allclose(first(latent), other(latent))
    assert torch.equal(torch.get_rng_state(), state)


@cases()
def test_latents_of_a_wrong_shape_are_refused(case):
    with pytest.raises(DataError, match=rf"of shape \(B, {case.dim}\), got \(3, {case.dim + 1}\)"):
        case.make()(torch.zeros(3, case.dim + 1))


@cases()
def test_one_step_of_a_flow_lowers_its_loss(case):
    model = case.make()
    flow = Flow(model.prior.dim, FlowConfig(blocks=2, hidden=8), scale=model.prior.scale)
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.001)
    eps = torch.randn(4, flow.dim, generator=stream(0, "eps"))

    def brightness(sample):
        return 50 * sample.image.mean(dim=(1, 2, 3))

    def loss():
        return reverse_kl(flow, model, brightness, eps, estimator="plain").value  # whose gradient is exact

    before = loss()
    before.backward()
    optimiser.step()
    assert loss() < before
