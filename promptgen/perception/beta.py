"""Multipliers of a moment constraint as the method's reference code publishes them, ready for a `MomentEnergy`.

A published file is the state dict of the whole program that fitted them, generator and classifier included: gigabytes
of which a few numbers are read. The reference fits each attribute's mean *probabilities* to uniform shares, by 500
steps on a squared error; `promptgen.moments.multipliers.fit_moments` solves the same problem at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from promptgen.errors import ConfigError, ModelFileError
from promptgen.loading.published import read_state, require_fractions

ENTRY = "class_type2lambda."
"""Precedes the attribute's name in a key; what precedes it in turn comes from distributed training."""


def read_beta(path: Path) -> dict[str, Tensor]:
    """Return the multipliers, (K,), in the file by attribute, as published: determined up to a constant each.

    Raises:
        ModelFileError: the file cannot be read, or holds no multipliers.
    """
    state = read_state(path)
    found = {key.rpartition(ENTRY)[2]: value for key, value in state.items() if ENTRY in key}
    if not found:
        raise ModelFileError(f"{path}: expected keys such as module.{ENTRY}race; is it another model's file?")
    require_fractions(found, path)
    if wrong := [name for name, value in found.items() if value.ndim != 1 or not bool(value.isfinite().all())]:
        raise ModelFileError(f"{path}: the multipliers of {', '.join(wrong)} are not a finite vector; fetch it again")
    return found


def load_beta(path: Path, attributes: Mapping[str, Sequence[str]], chosen: Sequence[str]) -> Tensor:
    """Return the multipliers of the `chosen` attributes side by side, (K,), for a `MomentEnergy` of the same ones.

    Args:
        path: a ``torch.save`` file of the reference.
        attributes: class labels of each attribute that the classifier knows.
        chosen: attributes of the energy, in its order.

    Raises:
        ConfigError: the file has no multipliers for an attribute, or not as many as the classifier has classes.
        ModelFileError: the file cannot be read, or holds no multipliers.
    """
    found = read_beta(path)
    for name in chosen:
        if name not in found:
            raise ConfigError(f"{path} has no multipliers for {name!r}, only for {', '.join(found)}")
        if name not in attributes or len(found[name]) != len(attributes[name]):
            known = len(attributes[name]) if name in attributes else "no"
            raise ConfigError(f"{path} has {len(found[name])} multipliers for {name!r}, the classifier {known} classes")
    return torch.cat([found[name] for name in chosen])
