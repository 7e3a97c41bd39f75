"""Rotations: in three dimensions, as Euler angles and as matrices; and random ones in any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptgen.conditions import EULER as EULER
from promptgen.errors import DataError


def random_rotation(dim: int, rng: torch.Generator) -> Tensor:
    """Draw an orthogonal matrix, (D, D) float64, uniformly (Haar measure)."""
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64))
    rotation: Tensor = q * r.diagonal().sign()  # a unique factorisation, whatever the linear-algebra library
    return rotation


def pose_angles(context: Tensor, names: Sequence[str]) -> Tensor:
    """Return the Euler angles XYZ, (B, 3), radians, of conditions (B, C); missing angles are 0.

    Args:
        context: conditions.
        names: names of their columns.

    Raises:
        DataError: the numbers of columns and names differ.
    """
    if context.ndim != 2 or context.shape[1] != len(names):
        raise DataError(f"conditions {', '.join(names)} must be (B, {len(names)}), got {tuple(context.shape)}")
    columns = dict(zip(names, context.unbind(dim=1), strict=True))
    return torch.stack([columns.get(name, context.new_zeros(len(context))) for name in EULER], dim=1)


class YawPitchRotation(nn.Module):
    """Maps yaw and pitch, (B, 2), radians, to rotations, (B, 3, 3), ``Rx(pitch) Ry(yaw)``."""

    def forward(self, angles: Tensor) -> Tensor:
        return euler_rotation(angles.flip(1))


def euler_rotation(angles: Tensor) -> Tensor:
    """Return rotations ``Rx(a0) Ry(a1) Rz(a2)``, (B, 3, 3), acting on column vectors.

    Args:
        angles: Euler angles XYZ in radians, (B, 3), or (B, 2) for ``a2 = 0``.

    Raises:
        DataError: the angles have a different shape.

    Example:
        A quarter turn about Y maps the Z axis to the X axis:

        >>> rotation = euler_rotation(torch.tensor([[0.0, torch.pi / 2, 0.0]]))
        >>> x, y, z = torch.eye(3)
        >>> torch.allclose(rotation[0] @ z, x, atol=1e-6)
        True
    """
    if angles.ndim != 2 or angles.shape[1] not in (2, 3):
        raise DataError(f"Euler angles must be (B, 2) or (B, 3), got {tuple(angles.shape)}")
    a0, a1, a2 = F.pad(angles, (0, 3 - angles.shape[1])).unbind(dim=1)
    (s0, s1, s2), (c0, c1, c2) = ([function(a) for a in (a0, a1, a2)] for function in (torch.sin, torch.cos))
    rows = (
        (c1 * c2, -c1 * s2, s1),
        (c0 * s2 + s0 * s1 * c2, c0 * c2 - s0 * s1 * s2, -s0 * c1),
        (s0 * s2 - c0 * s1 * c2, s0 * c2 + c0 * s1 * s2, c0 * c1),
    )
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def geodesic_angle(rotation: Tensor) -> Tensor:
    """Return the angles of rotations, (B,), radians in [0, pi].

    Computed as ``atan2(sin, cos)``, which is exact at 0 and pi, where the arc cosine of the trace loses all digits and
    has an infinite gradient. The gradient is finite everywhere, and zero at exactly 0 and pi, where it is undefined.

    Args:
        rotation: rotation matrices, (B, 3, 3).
    """
    twice_sine = (rotation - rotation.mT)[:, (2, 0, 1), (1, 2, 0)]  # (B, 3)
    cosine = (rotation.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2
    return torch.atan2(torch.linalg.vector_norm(twice_sine, dim=1) / 2, cosine)
