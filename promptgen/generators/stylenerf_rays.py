"""Cameras, rays and the samples along them.

The world has its origin in the head and its z axis upwards. A ray is ``origin + depth * direction``, where the
direction reaches from the camera to the image plane and is a little longer than one.

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
"""Distance after the last sample of the background."""

TINY_TRANSMITTANCE = 1e-10
TINY_WEIGHT = 1e-5


@dataclass(frozen=True)
class Camera:
    """Cameras of a batch; a batch of one serves any number of images.

    Attributes:
        intrinsic: inverse of the projection, (B, 4, 4): from points on the image plane, x and y in [-1, 1], to camera
            coordinates.
        pose: from camera to world coordinates, (B, 4, 4); the camera looks along its negative z axis.
    """

    intrinsic: Tensor
    pose: Tensor


def camera_at(yaw: Tensor, polar: Tensor, radius: float, field_of_view: float) -> Camera:
    """Return cameras that look at the origin.

    Args:
        yaw: angles around the vertical axis, (B,), radians.
        polar: angles from the vertical axis, (B,), radians.
        radius: distance from the origin.
        field_of_view: angle that the image shows, degrees.
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

    Pixels come row by row, from the top.
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
    """Return where rays meet spheres around the origin: unit vector and inverse radius, (B, R, S, 4).

    Args:
        origins: (B, 1, 3).
        directions: (B, R, 3).
        inverse_distances: inverse radii of the spheres, (S,), at most those that every ray meets.
    """
    forward = F.normalize(directions, dim=2)
    closest = origins - (origins * forward).sum(dim=2, keepdim=True) * forward  # to the origin
    inverse = inverse_distances[:, None]
    across = inverse * closest[:, :, None]  # (B, R, S, 3)
    along = (1 - across.square().sum(dim=3, keepdim=True)).sqrt() * forward[:, :, None]
    meeting = F.normalize(across + along, dim=3)  # of length one but for rounding
    return torch.cat([meeting, inverse.expand_as(meeting[..., :1])], dim=3)


def opacity_weights(density: Tensor, distances: Tensor, last: float) -> tuple[Tensor, Tensor]:
    """Return what each sample along a ray adds to its colour, and how much light comes as far as the last one.

    Args:
        density: of each sample, (B, R, S), not negative.
        distances: between samples, (B, R, S - 1).
        last: opacity of the last sample: 0 if something follows behind it, 1 if nothing does.

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
    """Return as many fractions again, (B, R, S), dense where the weights are large.

    They are quantiles, at even steps from 0 to 1, of a density that is constant between the midpoints of the given
    fractions. They jump where a bin is next to empty, and carry no gradient.

    Args:
        fractions: samples along the foreground part of a ray, (S,), ascending from 0 to 1.
        weights: what each adds to the colour, (B, R, S).
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
