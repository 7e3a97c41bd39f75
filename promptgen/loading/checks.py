"""Whether the content of a weight file fits a network: its shape, its keys, and its numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from promptgen.errors import ModelFileError
from promptgen.loading.inspection.bounded import visible
from promptgen.loading.published import SHOWN
from promptgen.loading.restricted import DTYPES


def require_shape(config: Any, expected: Mapping[str, Any], source: Path) -> None:
    """Refuse a file whose network has another shape than its card says.

    Args:
        config: the configuration that the file describes.
        expected: values of its fields; None accepts any.
        source: the file, for errors.

    Raises:
        ModelFileError: a field has another value.
    """
    for name, value in expected.items():
        if value is not None and (got := getattr(config, name)) != value:
            raise ModelFileError(f"{source}: its {name} is {got}, expected {value}; correct the arguments on its card")


def require_numbers(needed: int, state: Mapping[str, Tensor], source: Path) -> None:
    """Refuse a file that describes a network larger than itself, before the network is built.

    Args:
        needed: lower bound on the count of numbers in the described network.
        state: the file's tensors.
        source: the file, for errors.

    Raises:
        ModelFileError: the file has fewer numbers.
    """
    held = sum(value.numel() for value in state.values())
    if needed > held:
        raise ModelFileError(f"{source}: it describes {needed} numbers or more, and holds {held}; fetch it again")


def require_fractions(state: Mapping[str, Tensor], source: Path) -> None:
    """Refuse tensors of integers, whose fractions were lost, before anything is computed from them.

    Raises:
        ModelFileError: a tensor is not floating-point; names `source` and the first such tensors.
    """
    if odd := [f"{key} is {_type(value)}" for key, value in state.items() if not value.is_floating_point()]:
        raise ModelFileError(f"{source}: {_listed('not of floating point', odd)[0]}; save it without rounding")


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: Path, hint: str = "") -> None:
    """Copy `state` into `module`, which must have exactly its keys and shapes.

    All numbers must be finite in the module's type, and floating-point where the module's are. A buffer in which the
    module itself has infinities, such as an attention mask, may have them. The check of 100 million numbers takes less
    than 0.1 s on one core.

    Args:
        module: the module.
        state: a tensor for each of its names.
        source: the file, for errors.
        hint: how to fix differing keys or shapes, for errors.

    Raises:
        ModelFileError: keys, shapes or types of numbers differ, or numbers are not finite; names `source` and the first
            differences.
    """
    module_state = module.state_dict()
    wrong_shapes = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(module_state[key].shape)}"
        for key in module_state
        if key in state and state[key].shape != module_state[key].shape
    ]
    differences = [
        *_listed("missing", module_state.keys() - state.keys()),
        *_listed("unexpected", state.keys() - module_state.keys()),
        *_listed("of another shape", wrong_shapes),
    ]
    if differences:
        way_out = hint or "does the configured size belong to this file?"
        raise ModelFileError(f"{source}: {'; '.join(differences)}; {way_out}")
    if faults := number_faults(module_state, state):
        raise ModelFileError(f"{source}: {'; '.join(faults)}; fetch it again")
    module.load_state_dict(state)


def number_faults(module_state: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return the faults of the numbers in a state dict that is to be copied into `module_state`, in words."""
    unsupported = [f"{key} ({value.dtype})" for key, value in state.items() if value.dtype not in DTYPES]
    if unsupported:
        return _listed("of no type that weights have", unsupported)
    lossy = [
        f"{key} is {_type(value)}, expected {_type(module_state[key])}"
        for key, value in state.items()
        if not _is_kept(value, module_state[key])
    ]
    infinite = [key for key, value in state.items() if not _is_finite(value, module_state[key])]
    return _listed("of another type of numbers", lossy) or _listed("not finite", infinite)


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _is_kept(value: Tensor, expected: Tensor) -> bool:
    """Return whether `value` is preserved in the type of `expected`; only rounding of fractions is allowed."""
    if expected.is_floating_point():
        return value.is_floating_point()
    return value.dtype == expected.dtype or bool((value.to(expected.dtype).to(value.dtype) == value).all())


def _is_finite(value: Tensor, expected: Tensor) -> bool:
    """Return whether `value` fits `expected`, from its extremes, which need no memory; a NaN becomes both."""
    if not expected.is_floating_point() or not value.numel():
        return True
    low, high = torch.aminmax(value.to(expected.dtype))
    if bool(low.isfinite() & high.isfinite()):
        return True
    return not bool(low.isnan()) and bool(expected.isinf().any())


def _listed(what: str, keys: Collection[str]) -> list[str]:
    first = visible(", ".join(sorted(keys)[:SHOWN]))
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return [f"{what}: {first}{more}"] if keys else []
