"""Cameras, rays and the samples along them.

The world's origin is in the head; its z axis points upwards. A ray is ``origin + depth * direction``, where the
direction is the vector from the camera to the image plane, which is slightly longer than one.

Source: *StyleNeRF: A Style-based 3D-Aware Generator for High-resolution Image Synthesis* (Gu, Liu, Wang, Theobalt,
ICLR 2022, https://arxiv.org/abs/2110.08985); background: *NeRF++* (Zhang, Riegler, Snavely, Koltun, 2020,
https://arxiv.org/abs/2010.07492). An independent implementation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FAR = 1e10
"""Distance beyond the last sample of the background."""

TINY_TRANSMITTANCE = 1e-10
TINY_WEIGHT = 1e-5


@dataclass(frozen=True)
class Camera:
    """A batch of cameras; a batch of one is used for any number of images.

    Attributes:
        intrinsic: inverse projection, (B, 4, 4), from image plane coordinates, x and y in [-1, 1], to camera
            coordinates.
        pose: map from camera to world coordinates, (B, 4, 4); the camera looks along its negative z axis.
    """

    intrinsic: Tensor
    pose: Tensor


def camera_at(yaw: Tensor, polar: Tensor, radius: float, field_of_view: float) -> Camera:
    """Return cameras that look at the origin.

    Args:
        yaw: angles around the vertical axis, (B,), radians.
        polar: angles from the vertical axis, (B,), radians.
        radius: distance from the origin.
        field_of_view: field of view, degrees.
    """
    backwards = torch.stack([polar.sin() * yaw.cos(), polar.sin() * yaw.sin(), polar.cos()], dim=1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=yaw.dtype, device=yaw.device).expand_as(backwards)
    right = F.normalize(torch.linalg.cross(up, backwards), dim=1)
    above = F.normalize(torch.linalg.cross(backwards, right), dim=1)
    pose = torch.eye(4, dtype=yaw.dtype, device=yaw.device).repeat(len(yaw), 1, 1)
    pose[:, :3] = torch.stack([right, above, backwards, radius * backwards], dim=2)
    half = math.tan(math.radians(field_of_view) / 2)
    intrinsic = torch.diag(torch.tensor([half, half, 1.0, 1.0], dtype=yaw.dtype, device=yaw.device))
    return Camera(intrinsic.expand_as(pose), pose)


def cast_rays(camera: Camera, size: int) -> tuple[Tensor, Tensor]:
    """Return origins, (B, 1, 3), and directions, (B, size^2, 3), of the rays through the centres of the pixels.

    Pixels are in row-major order, starting at the top left.
    """
    edge = 1 - 1 / size
    steps = torch.linspace(-edge, edge, size, dtype=camera.pose.dtype, device=camera.pose.device)
    y, x = torch.meshgrid(-steps, steps, indexing="ij")
    ones = torch.ones_like(x)
    plane = torch.stack([x, y, -ones, ones], dim=-1).reshape(-1, 4)
    points = plane @ (camera.pose @ camera.intrinsic).transpose(1, 2)  # (B, size^2, 4)
    origins = camera.pose[:, None, :3, 3]
    return origins, points[..., :3] - origins


def encode(positions: Tensor, octaves: int) -> Tensor:
    """Return sines and cosines of positions (..., D) at frequencies 1/2, 1, 2, ...: (..., 2 D octaves)."""
    frequencies = math.pi * 2.0 ** torch.arange(octaves, dtype=positions.dtype, device=positions.device)
    phases = positions[..., None, :] * frequencies[:, None]  # (..., octaves, D)
    return torch.cat([phases.sin(), phases.cos()], dim=-1).flatten(-2)


def background_positions(origins: Tensor, directions: Tensor, inverse_distances: Tensor) -> Tensor:
    """Return the intersections of rays with spheres around the origin: unit vector and inverse radius, (B, R, S, 4).

    Args:
        origins: (B, 1, 3).
        directions: (B, R, 3).
        inverse_distances: inverse radii of the spheres, (S,); every ray must intersect every sphere.
    """
    forward = F.normalize(directions, dim=2)
    closest = origins - (origins * forward).sum(dim=2, keepdim=True) * forward  # point of the ray closest to the origin
    inverse = inverse_distances[:, None]
    across = inverse * closest[:, :, None]  # (B, R, S, 3)
    along = (1 - across.square().sum(dim=3, keepdim=True)).sqrt() * forward[:, :, None]
    points = F.normalize(across + along, dim=3)  # removes rounding errors of the length
    return torch.cat([points, inverse.expand_as(points[..., :1])], dim=3)


def opacity_weights(density: Tensor, distances: Tensor, last: float) -> tuple[Tensor, Tensor]:
    """Return the weight of each sample in the ray's colour, and the transmittance at the last sample.

    Args:
        density: density of each sample, (B, R, S), not negative.
        distances: distances between samples, (B, R, S - 1).
        last: opacity of the last sample: 0 if a background lies behind it, otherwise 1.

    Returns:
        Weights, (B, R, S), and the transmittance at the last sample, (B, R).
    """
    opacity = 1 - torch.exp(-density[..., :-1] * distances)
    opacity = torch.cat([opacity, torch.full_like(density[..., :1], last)], dim=-1)
    passed = (1 - opacity[..., :-1] + TINY_TRANSMITTANCE).cumprod(dim=-1)
    transmittance = torch.cat([torch.ones_like(passed[..., :1]), passed], dim=-1)
    return opacity * transmittance, transmittance[..., -1]


@torch.no_grad()
def resampled(fractions: Tensor, weights: Tensor) -> Tensor:
    """Draw as many new fractions, (B, R, S), which are denser where the weights are large.

    They are evenly spaced quantiles, from 0 to 1, of a density that is constant between the midpoints of `fractions`.
    They jump where a bin is almost empty, and carry no gradient.

    Args:
        fractions: samples along the foreground part of a ray, (S,), ascending from 0 to 1.
        weights: weight of each sample in the ray's colour, (B, R, S).
    """
    edges = (fractions[1:] + fractions[:-1]) / 2
    mass = weights[..., 1:-1] + TINY_WEIGHT
    cumulative = F.pad((mass / mass.sum(dim=-1, keepdim=True)).cumsum(dim=-1), (1, 0))  # at the edges, from 0
    quantiles = torch.linspace(0, 1, len(fractions), dtype=weights.dtype, device=weights.device)
    quantiles = quantiles.expand(*weights.shape[:-1], -1).contiguous()
    above = torch.searchsorted(cumulative, quantiles)
    below, above = (above - 1).clamp(min=0), above.clamp(max=len(edges) - 1)
    start = cumulative.gather(-1, below)
    step = cumulative.gather(-1, above) - start
    step = torch.where(step < TINY_WEIGHT, torch.ones_like(step), step)
    return edges[below] + (quantiles - start) / step * (edges[above] - edges[below])
