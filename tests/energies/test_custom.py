import pytest
import torch
from energy_stubs import random_images, sample_of

from promptgen.energies.base import Sample
from promptgen.energies.custom import CustomEnergy
from promptgen.errors import ConfigError, DataError, NonFiniteEnergyError

USERS_MODULE = """
import torch

def darkness(images, latents, condition):
    return images.mean(dim=(1, 2, 3)) + (0 if condition is None else condition.sum(dim=1))

def scalar(images, latents, condition):
    return images.mean()

def whole_numbers(images, latents, condition):
    return torch.zeros(len(images), dtype=torch.int64)

def a_number(images, latents, condition):
    return 1.0

def broken(images, latents, condition):
    return images.mean(dim=(1, 2, 3)).log() * 0 / 0

not_callable = 3
"""


@pytest.fixture(autouse=True)
def users_module(tmp_path, monkeypatch):
    (tmp_path / "users_energies.py").write_text(USERS_MODULE)
    (tmp_path / "users_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_calls_the_function_with_the_condition():
    images = random_images(4)
    energy = CustomEnergy("users_energies:darkness")
    torch.testing.assert_close(energy(sample_of(images)), images.mean(dim=(1, 2, 3)))
    conditioned = Sample(latent=images.flatten(1), image=images, context=torch.ones(4, 2, dtype=images.dtype))
    torch.testing.assert_close(energy(conditioned), images.mean(dim=(1, 2, 3)) + 2)


@pytest.mark.parametrize(
    ("name", "got"), [("scalar", r"float64 \(\)"), ("whole_numbers", "int64"), ("a_number", "returned float")]
)
def test_a_wrong_result_is_refused(name, got):
    with pytest.raises(DataError, match=rf"{got}.*expected a float tensor of shape \(4,\)"):
        CustomEnergy(f"users_energies:{name}")(sample_of(random_images(4)))


def test_a_result_that_is_not_finite_is_refused():
    with pytest.raises(NonFiniteEnergyError, match="users_energies:broken"):
        CustomEnergy("users_energies:broken")(sample_of(random_images(4)))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("users_energies.darkness", "expected 'package.module:name'"),
        ("users_energies:", "expected 'package.module:name'"),
        ("users_nowhere:darkness", "cannot import 'users_nowhere'"),
        ("users_broken:darkness", "a_module_that_is_not_there"),
        ("users_energies:brightness", "no callable 'brightness'"),
        ("users_energies:not_callable", "no callable 'not_callable'"),
    ],
)
def test_a_wrong_path_is_refused(path, message):
    with pytest.raises(ConfigError, match=message):
        CustomEnergy(path)
