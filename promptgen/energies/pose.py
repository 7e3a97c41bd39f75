"""Energy of a wanted pose: the squared angle of the rotation that is left between the wanted pose and the seen one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from promptgen.energies.base import Sample
from promptgen.errors import DataError
from promptgen.rotations import euler_rotation, geodesic_angle, pose_angles


class PoseEnergy(nn.Module):
    """``E(x, c) = angle(R(c) R_canonical R_seen(x)^T)^2``, with the wanted pose as the condition of the flow.

    The condition's coordinates called `pitch`, `yaw` and `roll` are the angles, radians; one that is missing is 0, and
    any other coordinate is none of this energy's business.

    Args:
        estimator: returns the seen rotations, (B, 3, 3), of images (B, 3, H, W) in [0, 1]; a network that gives yaw and
            pitch needs `YawPitchRotation` after it.
        canonical: Euler angles XYZ of the pose that the estimator sees at the null condition, radians.
        names: names of the condition's columns.
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
            DataError: the sample has no condition, or one of other columns.
        """
        if sample.context is None:
            raise DataError(
                "the pose energy needs the wanted pose: train a flow with a condition such as yaw and pitch"
            )
        target = euler_rotation(pose_angles(sample.context, self.names))
        return geodesic_angle(target @ self.seen(sample.image).mT).square()

    def seen(self, image: Tensor) -> Tensor:
        """Return the rotations from the canonical pose, (B, 3, 3), seen in images (B, 3, H, W)."""
        return self.estimator(image) @ self.canonical.mT
