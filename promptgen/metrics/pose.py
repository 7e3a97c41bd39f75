"""How well images follow the pose in their condition: the remaining angle, and the response to each Euler angle.

With estimated rotations R and target rotations W, both relative to the canonical pose,

    error = angle(W R^T)                                degrees, the geodesic angle in SO(3)
    slope = cov(target, estimate) / var(target)         1 if an angle is followed, 0 if it is ignored
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.estimate import Estimate, Vector, mean_interval, quantiles, resampled_means
from promptgen.metrics.rows import Rows, chunks
from promptgen.networks.finite import require_finite
from promptgen.rotations import EULER, euler_rotation, geodesic_angle, pose_angles


def pose_errors(estimates: ArrayLike, conditions: ArrayLike, names: Sequence[str]) -> Vector:
    """Return the angles between estimated and target poses, (N,), degrees.

    Args:
        estimates: rotations estimated from the images, relative to the canonical pose, (N, 3, 3).
        conditions: conditions, (N, C), radians.
        names: names of the condition's columns, which include some of `pitch`, `yaw` and `roll`.

    Raises:
        DataError: the shapes do not match.

    Example:
        A head that faces the camera is 90 degrees away from a yaw of pi / 2:

        >>> pose_errors([np.eye(3)], [[np.pi / 2]], names=["yaw"]).round(4).tolist()
        [90.0]
    """
    rotations = _rotations(estimates)
    target = euler_rotation(pose_angles(torch.from_numpy(np.ascontiguousarray(conditions, dtype=np.float64)), names))
    if len(target) != len(rotations):
        raise DataError(f"expected one target pose per rotation, got {len(target)} for {len(rotations)}")
    return np.asarray(np.degrees(geodesic_angle(target @ torch.from_numpy(rotations).mT).numpy()))


def pose_error(
    estimates: Rows | ArrayLike,
    conditions: Rows | ArrayLike,
    names: Sequence[str],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Return the mean of `pose_errors`, degrees, with a bootstrap interval; poses are read in chunks.

    Raises:
        DataError: the shapes do not match.
        TooFewSamplesError: there are no samples.
    """
    errors = np.concatenate(
        [
            pose_errors(rotations, targets, names)
            for (_, rotations), (_, targets) in itertools.zip_longest(
                chunks(estimates), chunks(conditions), fillvalue=(0, [])
            )
        ]
    )
    return mean_interval(errors, resamples=resamples, confidence=confidence, seed=seed, name="pose error")


def pose_slopes(
    estimates: Rows | ArrayLike,
    conditions: Rows | ArrayLike,
    names: Sequence[str],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return the regression slope of the estimated on the target angle, by Euler angle, with bootstrap intervals.

    Raises:
        DataError: the shapes do not match.
        TooFewSamplesError: there are fewer than two samples.
    """
    angles = np.concatenate([euler_angles(rotations) for _, rotations in chunks(estimates)])
    targets = np.concatenate([np.asarray(part, dtype=np.float64) for _, part in chunks(conditions)])
    if targets.shape != (len(angles), len(names)):
        raise DataError(f"target angles must be ({len(angles)}, {len(names)}), got {targets.shape}")
    if len(angles) < 2:
        raise TooFewSamplesError(f"a slope needs at least 2 samples, got {len(angles)}")
    slopes = {}
    for name in (name for name in EULER if name in names):
        x, y = targets[:, list(names).index(name)], angles[:, EULER.index(name)]
        moments = np.stack([x, y, x * x, x * y], axis=1)
        ends = quantiles(_slope(resampled_means(moments, resamples, seed, "pose slope", name)), confidence)
        slopes[name] = Estimate(float(_slope(moments.mean(axis=0))), float(ends[0]), float(ends[1]))
    return slopes


def euler_angles(rotations: ArrayLike) -> Vector:
    """Return Euler angles XYZ, (N, 3), radians, of rotations (N, 3, 3); inverts `euler_rotation` below 90 degrees.

    Raises:
        DataError: the rotations are not (N, 3, 3), or not finite.
    """
    r = _rotations(rotations)
    return np.stack(
        [
            np.arctan2(-r[:, 1, 2], r[:, 2, 2]),
            np.arcsin(np.clip(r[:, 0, 2], -1, 1)),
            np.arctan2(-r[:, 0, 1], r[:, 0, 0]),
        ],
        axis=1,
    )


def _slope(moments: Vector) -> Vector:
    """Return slopes, (...), from means of x, y, x^2 and x y, (..., 4)."""
    x, y, xx, xy = np.moveaxis(moments, -1, 0)
    return np.asarray((xy - x * y) / (xx - x * x))


def _rotations(rotations: ArrayLike) -> Vector:
    array = np.ascontiguousarray(rotations, dtype=np.float64)
    if array.ndim != 3 or array.shape[1:] != (3, 3):
        raise DataError(f"rotations must be (N, 3, 3), got {array.shape}")
    require_finite(torch.from_numpy(array), "the poses seen")
    return array
