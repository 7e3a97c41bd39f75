"""Read the multipliers of a moment constraint, as published by the method's reference code, for a `MomentEnergy`.

A published file is the state dict of the whole program that fitted the multipliers. It includes the generator and the
classifier: gigabytes, of which only a few numbers are needed. The reference fits each attribute's mean *probabilities*
to uniform shares by 500 steps on a squared error; `promptgen.moments.multipliers.fit_moments` solves the same problem
directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from promptgen.errors import ConfigError, ModelFileError
from promptgen.loading.checks import require_fractions
from promptgen.loading.published import read_state

ENTRY = "class_type2lambda."
"""Part of a key before the attribute's name; distributed training adds a further prefix."""


def read_beta(path: Path) -> dict[str, Tensor]:
    """Return the published multipliers, (K,), by attribute; each vector is determined up to an additive constant.

    Raises:
        ModelFileError: the file cannot be read, or has no multipliers.
    """
    state = read_state(path)
    multipliers = {key.rpartition(ENTRY)[2]: value for key, value in state.items() if ENTRY in key}
    if not multipliers:
        raise ModelFileError(f"{path}: expected keys such as module.{ENTRY}race; is it another model's file?")
    require_fractions(multipliers, path)
    if invalid := [name for name, beta in multipliers.items() if beta.ndim != 1 or not bool(beta.isfinite().all())]:
        names = ", ".join(invalid)
        raise ModelFileError(f"{path}: the multipliers of {names} are not a finite vector; fetch the file again")
    return multipliers


def load_beta(path: Path, attributes: Mapping[str, Sequence[str]], chosen: Sequence[str]) -> Tensor:
    """Return the concatenated multipliers, (K,), of the `chosen` attributes, for a `MomentEnergy` of these attributes.

    Args:
        path: ``torch.save`` file of the reference code.
        attributes: class labels of each attribute of the classifier.
        chosen: attributes of the energy, in its order.

    Raises:
        ConfigError: an attribute has no multipliers, or their number differs from the classifier's classes.
        ModelFileError: the file cannot be read, or has no multipliers.
    """
    multipliers = read_beta(path)
    for name in chosen:
        if name not in multipliers:
            raise ConfigError(f"{path} has no multipliers for {name!r}, only for {', '.join(multipliers)}")
        number = len(multipliers[name])
        classes = len(attributes[name]) if name in attributes else "no"
        if number != classes:
            raise ConfigError(f"{path} has {number} multipliers for {name!r}, but the classifier has {classes} classes")
    return torch.cat([multipliers[name] for name in chosen])
