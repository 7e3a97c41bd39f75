"""Energy of a target pose: the squared angle between the target pose and the estimated one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from promptgen.energies.base import Sample
from promptgen.errors import DataError
from promptgen.rotations import euler_rotation, geodesic_angle, pose_angles


class PoseEnergy(nn.Module):
    """``E(x, c) = angle(R(c) R_canonical R_estimated(x)^T)^2``, with the target pose as the condition of the flow.

    The coordinates `pitch`, `yaw` and `roll` of the condition are the angles in radians. Missing ones are 0, and other
    coordinates are ignored.

    Args:
        estimator: maps images (B, 3, H, W) in [0, 1] to rotations, (B, 3, 3); follow a network that returns yaw and
            pitch with `promptgen.rotations.YawPitchRotation`.
        canonical: Euler angles XYZ, radians, of the pose that the estimator returns at the null condition.
        names: names of the condition's columns.

    Example:
        An estimator that always finds a head facing the camera, and a target yaw of half a radian:

        >>> def facing_the_camera(image):
        ...     return torch.eye(3).expand(len(image), -1, -1)
        >>> energy = PoseEnergy(facing_the_camera, names=["yaw"])
        >>> sample = Sample(torch.zeros(1, 4), torch.zeros(1, 3, 8, 8), context=torch.tensor([[0.5]]))
        >>> round(energy(sample).item(), 4)
        0.25
    """

    canonical: Tensor

    def __init__(
        self,
        estimator: Callable[[Tensor], Tensor],
        canonical: tuple[float, float, float] = (0.0, 0.0, 0.0),
        names: Sequence[str] = ("pitch", "yaw"),
    ) -> None:
        super().__init__()
        self.estimator = estimator
        self.names = tuple(names)
        self.register_buffer("canonical", euler_rotation(torch.tensor([canonical]))[0], persistent=False)

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy, (B,), squared radians in [0, pi^2].

        Raises:
            DataError: the sample has no condition, or its columns do not match the names.
        """
        if sample.context is None:
            raise DataError("the pose energy needs a target pose: train a flow with a condition such as yaw and pitch")
        target = euler_rotation(pose_angles(sample.context, self.names))
        return geodesic_angle(target @ self.rotations(sample.image).mT).square()

    def rotations(self, image: Tensor) -> Tensor:
        """Return the rotations, (B, 3, 3), of images (B, 3, H, W) relative to the canonical pose."""
        return self.estimator(image) @ self.canonical.mT
