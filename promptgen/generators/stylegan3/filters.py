"""Low-pass filters by the window method with a Kaiser window, separable or radially symmetric.

A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd edition, 2009, section 7.5.3
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def low_pass(taps: int, cutoff: float, width: float, rate: float) -> Tensor:
    """Return a low-pass filter, (taps,), with sum 1.

    Args:
        taps: its length.
        cutoff: frequency of half the gain.
        width: width of the transition, in the same unit.
        rate: sampling rate, in the same unit.
    """
    if taps == 1:
        return torch.ones(1)
    times = _times(taps) / rate
    ideal = torch.sinc(2 * cutoff * times) * _window(taps, width, rate)
    return (ideal / ideal.sum()).float()


def radial_low_pass(taps: int, cutoff: float, width: float, rate: float) -> Tensor:
    """Return a radially symmetric low-pass filter, (taps, taps), with sum 1; arguments as of `low_pass`."""
    if taps == 1:
        return torch.ones(1, 1)
    times = _times(taps) / rate
    radius = torch.hypot(times[:, None], times[None]).clamp(min=1e-12)
    window = _window(taps, width, rate)
    ideal: Tensor = (
        torch.special.bessel_j1(2 * math.pi * cutoff * radius) / (math.pi * radius) * torch.outer(window, window)
    )
    return (ideal / ideal.sum()).float()


def _times(taps: int) -> Tensor:
    return torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2


def _window(taps: int, width: float, rate: float) -> Tensor:
    """Return the Kaiser window, (taps,), of the attenuation that so many taps give a transition of that width."""
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    return torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
