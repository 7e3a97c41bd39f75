"""Compiled networks return what they return as they are, up to rounding."""

import shutil

import pytest
import torch
from torch import nn

from promptgen.config.params import load_params
from promptgen.generators.base import GaussianPrior
from promptgen.networks.compilation import compiled
from promptgen.networks.frozen import FrozenModule
from promptgen.networks.precision import use_precision
from promptgen.seeding import stream
from tests import tiny


class Small(FrozenModule):
    """A generator with one layer."""

    def __init__(self):
        super().__init__()
        self.prior, self.image_shape = GaussianPrior.standard(4), (3, 2, 2)
        self.layer = nn.Linear(4, 12)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.uniform_(-1, 1, generator=stream(0, "small"))
        self.freeze()

    def forward(self, latent, *, noise=None):
        return nn.functional.leaky_relu(self.layer(latent), 0.2).view(-1, 3, 2, 2)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_images_and_gradients_are_the_same(precision):
    latent = torch.randn(3, 4, generator=stream(0, "latent"))
    results = []
    for network in (Small(), compiled(compiled(Small()))):
        made = use_precision(network, precision, torch.device("cpu"))
        for count in (3, 2):  # the last batch is smaller
            point = latent[:count].clone().requires_grad_()
            image = made(point)
            (gradient,) = torch.autograd.grad(image.square().sum(), point)
            results.append((image, gradient))
    assert made.is_compiled
    tolerance = {} if precision == "float32" else {"rtol": 0.03, "atol": 0.03}
    for expected, got in zip(results[:2], results[2:], strict=True):
        torch.testing.assert_close(got, expected, **tolerance)


def test_it_is_off_by_default(tmp_path):
    assert not load_params(tiny.write_params(tmp_path)).compile
    assert load_params(tiny.write_params(tmp_path, tiny.params() | {"compile": True})).compile
