"""A user-defined energy, named by a dotted path, so that no file of the project needs editing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from torch import Tensor, nn

from promptgen.energies.base import Sample
from promptgen.errors import ConfigError, DataError, NonFiniteEnergyError

Function = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Maps images (B, 3, H, W) in [0, 1], latents (B, D) and the condition, (B, C) or None, to nats, (B,)."""


class CustomEnergy(nn.Module):
    """The energy computed by the function at ``package.module:name``, whose result is checked at every call.

    Args:
        path: path of the function, which must be importable from the working directory.

    Raises:
        ConfigError: there is nothing callable at the path.

    Example:
        Any importable function of images, latents and conditions will do:

        >>> import sys, torch, types
        >>> sys.modules["my_energies"] = types.ModuleType("my_energies")
        >>> sys.modules["my_energies"].dark = lambda images, latents, context: images.mean(dim=(1, 2, 3))
        >>> energy = CustomEnergy("my_energies:dark")
        >>> energy(Sample(latent=torch.zeros(2, 4), image=torch.full((2, 3, 8, 8), 0.5))).tolist()
        [0.5, 0.5]
        >>> del sys.modules["my_energies"]
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.function = load_function(path)

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,).

        Raises:
            DataError: the function did not return a floating-point tensor of shape (B,).
            NonFiniteEnergyError: the function returned NaN or infinity.
        """
        energy = self.function(sample.image, sample.latent, sample.context)
        expected = (len(sample.latent),)
        if not isinstance(energy, Tensor) or energy.shape != expected or not energy.is_floating_point():
            got = f"{energy.dtype} {tuple(energy.shape)}" if isinstance(energy, Tensor) else type(energy).__name__
            raise DataError(f"energy {self.path!r} returned {got}, expected a float tensor of shape {expected}")
        if not bool(energy.isfinite().all()):
            raise NonFiniteEnergyError(
                f"energy {self.path!r} returned NaN or infinity: return a finite number for every sample"
            )
        return energy


def load_function(path: str) -> Function:
    """Import and return the callable at ``package.module:name``.

    Raises:
        ConfigError: the path is malformed, the module cannot be imported, or the name is missing or not callable.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise ConfigError(f"got {path!r} as the path of an energy, expected 'package.module:name'")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"cannot import {module_name!r} of the energy {path!r}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"module {module_name!r} has no callable {name!r}: check the energy's path {path!r}")
    return function  # type: ignore[no-any-return]
