"""Identity energy: known values, the anchor it asks for, gradients to both images."""

import pytest
import torch

from promptgen.energies.base import Sample, Term, WeightedSum
from promptgen.energies.identity import IdentityEnergy
from promptgen.errors import DataError


def embedder(image):
    return torch.nn.functional.normalize(image.mean(dim=(2, 3)), dim=1)


def sample(image, anchor):
    return Sample(latent=torch.zeros(len(image), 2), image=image, anchor=anchor)


def colours(*rows):
    return torch.tensor(rows)[:, :, None, None].expand(-1, 3, 4, 4)


def test_known_values():
    image = colours([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.3, 0.4, 0.0])
    anchor = colours([0.5, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    torch.testing.assert_close(IdentityEnergy(embedder)(sample(image, anchor)), torch.tensor([0.0, 1.0, 2.0, 0.4]))


def test_gradient_reaches_both_images():
    image, anchor = (torch.rand(2, 3, 4, 4).requires_grad_() for _ in range(2))
    IdentityEnergy(embedder)(sample(image, anchor)).sum().backward()
    assert image.grad.any()
    assert anchor.grad.any()


def test_it_asks_for_the_anchor():
    energy = IdentityEnergy(embedder)
    assert WeightedSum({"identity": Term(energy)}).needs_anchor
    with pytest.raises(DataError, match="null condition"):
        energy(sample(torch.rand(1, 3, 4, 4), None))
