"""The renderer: heads made of ellipsoids, seen by an orthographic camera, in batches.

Every part is a quadric, so a ray meets it in closed form; face features are painted on the head's surface in the
head's own coordinates and therefore move with the pose. Lengths are in half image widths, x to the right, y up, z
towards the viewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

SKIN: Final = (
    (0.98, 0.84, 0.74),
    (0.92, 0.72, 0.56),
    (0.80, 0.58, 0.40),
    (0.64, 0.42, 0.26),
    (0.46, 0.29, 0.17),
    (0.29, 0.18, 0.11),
)
EYE_Y: Final = 0.10
MOUTH_Y: Final = -0.30
FAR: Final = -9.0
ZOOM: Final = 1.22
CAMERA_Y: Final = -0.02


@dataclass(frozen=True)
class Hit:
    """Where rays meet a part.

    Attributes:
        depth: z, (B, N); `FAR` where they miss it.
        normal: in the camera's frame, (B, N, 3).
        point: in the part's frame, (B, N, 3).
    """

    depth: Tensor
    normal: Tensor
    point: Tensor


def render(looks: Mapping[str, Tensor], size: int = 64, oversampling: int = 2) -> Tensor:
    """Return images, (B, 3, size, size), in [0, 1], of looks as `Scene.looks` gives them.

    Args:
        looks: (B,) by name.
        size: pixels along each side.
        oversampling: rays along each side of a pixel, averaged.
    """
    rays = size * oversampling
    with torch.no_grad():
        image = _Head(looks).draw(_pixel_grid(rays, looks["hair"]))
    image = image.transpose(1, 2).reshape(-1, 3, rays, rays)
    return functional.avg_pool2d(image, oversampling).clamp(0, 1)


def _pixel_grid(rays: int, like: Tensor) -> Tensor:
    centre = (torch.arange(rays, device=like.device, dtype=like.dtype) + 0.5) / rays * 2 - 1
    y, x = torch.meshgrid(-centre, centre, indexing="ij")
    return torch.stack([x / ZOOM, y / ZOOM + CAMERA_Y], dim=-1).reshape(1, -1, 2)


def _soft(distance: Tensor, width: float = 0.025) -> Tensor:
    """Return 1 where `distance` is negative, 0 where positive, with a soft edge."""
    return (0.5 - distance / width).clamp(0, 1)


def _ellipse(x: Tensor, y: Tensor, radius_x: Tensor | float, radius_y: Tensor | float) -> Tensor:
    """Return a signed distance, negative inside, exact on the axes."""
    norm = torch.sqrt((x / radius_x).square() + (y / radius_y).square() + 1e-9)
    small = torch.minimum(torch.as_tensor(radius_x), torch.as_tensor(radius_y))
    return (norm - 1) * small


class _Head:
    """One batch of heads; each method draws or measures one part."""

    def __init__(self, looks: Mapping[str, Tensor]) -> None:
        self.look = {name: value[:, None] for name, value in looks.items()}
        self.rotation = _head_rotation(looks["yaw"], looks["pitch"])
        self.still = torch.eye(3).to(self.rotation).expand_as(self.rotation)
        look = self.look
        self.radius_x = 0.47 + 0.035 * look["face_width"]
        self.radius_y = 0.62 + 0.03 * look["jaw"]
        self.skin = self._skin()
        self.hair = self._hair_colour()
        azimuth = 0.35 * look["light"]
        self.light = functional.normalize(
            torch.stack([torch.sin(azimuth), torch.full_like(azimuth, 0.45), torch.cos(azimuth)], dim=-1), dim=-1
        )

    def draw(self, grid: Tensor) -> Tensor:
        """Return colours, (B, N, 3), of the rays at grid (1, N, 2)."""
        depth, colour = self._background(grid)
        for part in (
            self._shoulders,
            self._neck,
            self._hair_back,
            self._face,
            self._nose,
            partial(self._ear, x=-self.radius_x),
            partial(self._ear, x=self.radius_x),
            self._hair_front,
        ):
            depth, colour = _nearest(depth, colour, part(grid))
        return self._glasses(grid, colour)

    # colours ---------------------------------------------------------------------------------------------------------

    def _skin(self) -> Tensor:
        table = torch.tensor(SKIN).to(self.rotation)
        position = self.look["skin"].clamp(0, 1) * (len(SKIN) - 1)
        low = position.floor().clamp(max=len(SKIN) - 2).long()
        part = (position - low)[..., None]
        return table[low] * (1 - part) + table[low + 1] * part  # (B, 1, 3)

    def _hair_colour(self) -> Tensor:
        tone = torch.sigmoid(1.2 * self.look["hair_colour"])[..., None]
        dark, warm, white = (
            torch.tensor(c).to(tone) for c in ((0.10, 0.07, 0.06), (0.62, 0.38, 0.14), (0.88, 0.88, 0.90))
        )
        natural = dark + (warm - dark) * tone
        grey = ((self.look["age"] - 0.25) / 0.75).clamp(0, 1)[..., None]
        return natural + (white - natural) * grey

    def _shade(self, normal: Tensor, colour: Tensor) -> Tensor:
        lambert = (normal * self.light).sum(dim=-1, keepdim=True).clamp(min=0)
        return colour * (0.50 + 0.54 * lambert)

    # parts -----------------------------------------------------------------------------------------------------------

    def _background(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        hue = self.look["background_hue"][..., None] * 0.9
        phase = torch.tensor([0.0, 2.1, 4.2]).to(hue)
        value = 0.62 + 0.08 * self.look["background_value"][..., None].clamp(-2, 2)
        colour = value + 0.10 * torch.cos(hue + phase) + 0.05 * grid[..., 1:]
        return torch.full(colour.shape[:2], FAR).to(colour), colour

    def _meet(
        self, grid: Tensor, rotation: Tensor, centre: tuple[Tensor | float, ...], radii: tuple[Tensor | float, ...]
    ) -> Hit:
        """Return where rays meet an ellipsoid given in the frame that `rotation` (B, 3, 3) turns into the camera's."""
        like = rotation[:, 0, :1]
        middle = torch.stack([torch.as_tensor(c).to(like).expand_as(like) for c in centre], dim=-1)  # (B, 1, 3)
        radius = torch.stack([torch.as_tensor(r).to(like).expand_as(like) for r in radii], dim=-1)
        origin = (
            grid[..., :1] * rotation[:, None, 0] + grid[..., 1:] * rotation[:, None, 1] - middle
        ) / radius  # (B, N, 3)
        direction = rotation[:, None, 2] / radius
        a = direction.square().sum(dim=-1)
        b = (origin * direction).sum(dim=-1)
        c = origin.square().sum(dim=-1) - 1
        discriminant = b.square() - a * c
        depth = torch.where(discriminant > 0, (-b + discriminant.clamp(min=0).sqrt()) / a, FAR)
        unit = origin + depth[..., None] * direction
        normal = functional.normalize(unit / radius, dim=-1) @ rotation.transpose(1, 2)
        return Hit(depth, normal, unit * radius + middle)

    def _shoulders(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        hit = self._meet(grid, self.still, (0.0, -1.12, -0.15), (0.86, 0.42, 0.45))
        hue = 1.3 * self.look["clothes"][..., None] + torch.tensor([0.3, 2.0, 4.0]).to(hit.normal)
        return hit.depth, self._shade(hit.normal, 0.42 + 0.24 * torch.cos(hue))

    def _neck(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        hit = self._meet(grid, self.still, (0.0, -0.62, -0.12), (0.21, 0.42, 0.21))
        return hit.depth, self._shade(hit.normal, self.skin * 0.86)

    def _nose(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        size = 0.075 + 0.016 * self.look["nose"]
        hit = self._meet(grid, self.rotation, (0.0, -0.06, 0.50), (size, 0.13, 0.13))
        return hit.depth, self._shade(hit.normal, self.skin * 1.06)

    def _ear(self, grid: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        hit = self._meet(grid, self.rotation, (x, 0.02, -0.04), (0.08, 0.14, 0.09))
        return hit.depth, self._shade(hit.normal, self.skin * 0.92)

    def _hair_back(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """The mass behind the head; its lower end comes down as hair grows from 0 to 1."""
        length = self.look["hair"].clamp(0, 1)
        bottom = 0.10 - 1.05 * length
        hit = self._meet(
            grid,
            self.rotation,
            (0.0, (0.66 + bottom) / 2, -0.22),
            (self.radius_x + 0.02 + 0.16 * length, (0.70 - bottom) / 2, 0.40),
        )
        return hit.depth, self._strands(hit)

    def _hair_front(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """The cap over the skull, cut open over the face."""
        hit = self._meet(grid, self.rotation, (0.0, 0.06, -0.03), (self.radius_x + 0.06, self.radius_y + 0.05, 0.56))
        x, y, z = hit.point.unbind(dim=-1)
        length = self.look["hair"].clamp(0, 1)
        fringe = 0.40 - 0.45 * (x / self.radius_x).square()
        sides = -0.02 - 0.80 * length
        covered = (y > fringe) & (y > sides) | (z < 0.06) & (y > sides)
        return torch.where(covered, hit.depth, FAR), self._strands(hit)

    def _strands(self, hit: Hit) -> Tensor:
        wave = 1 + 0.10 * torch.cos(24 * hit.point[..., :1])
        return self._shade(hit.normal, self.hair * wave)

    # the face --------------------------------------------------------------------------------------------------------

    def _face(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        hit = self._meet(grid, self.rotation, (0.0, 0.0, 0.0), (self.radius_x, self.radius_y, 0.52))
        x, y, z = hit.point.unbind(dim=-1)
        front = (z > 0).to(x)
        colour = self.skin.expand(*x.shape, 3)
        for paint in (self._lines, self._blush, self._mouth, self._eyes, self._brows):
            colour = paint(colour, x, y, front)
        return hit.depth, self._shade(hit.normal, colour)

    def _over(self, colour: Tensor, paint: Tensor | tuple[float, float, float], alpha: Tensor) -> Tensor:
        if isinstance(paint, tuple):
            paint = torch.tensor(paint).to(colour)
        return colour + (paint - colour) * alpha[..., None]

    def _lines(self, colour: Tensor, x: Tensor, y: Tensor, front: Tensor) -> Tensor:
        """Forehead lines and the folds beside the mouth: deeper with age."""
        strength = ((self.look["age"] - 0.2) / 0.8).clamp(0, 1) * 0.55 * front
        for height in (0.29, 0.37):
            line = _ellipse(x, y - height + 0.25 * x.square(), 0.24, 0.018)
            colour = self._over(colour, self.skin * 0.55, _soft(line) * strength)
        fold = torch.sqrt(((x.abs() - 0.20) - 0.35 * (-0.16 - y)).square() + 1e-9) - 0.016
        inside = _soft((y + 0.22).abs() - 0.11)
        return self._over(colour, self.skin * 0.55, _soft(fold) * inside * strength)

    def _blush(self, colour: Tensor, x: Tensor, y: Tensor, front: Tensor) -> Tensor:
        spot = _soft(_ellipse(x.abs() - 0.27, y + 0.12, 0.13, 0.09), 0.10)
        return self._over(colour, (0.93, 0.30, 0.42), 0.55 * self.look["makeup"] * spot * front)

    def _mouth(self, colour: Tensor, x: Tensor, y: Tensor, front: Tensor) -> Tensor:
        makeup = self.look["makeup"].clamp(0, 1)
        width = 0.17 + 0.022 * self.look["mouth_width"]
        bare = self.skin * torch.tensor([0.80, 0.58, 0.58]).to(colour)
        lips = bare + (torch.tensor((0.86, 0.05, 0.22)).to(colour) - bare) * makeup[..., None]
        height = 0.062 + 0.018 * makeup
        colour = self._over(colour, lips, _soft(_ellipse(x, y - MOUTH_Y, width, height)) * front)
        seam = _soft(_ellipse(x, y - MOUTH_Y, width * 0.92, 0.014))
        return self._over(colour, lips * 0.35, seam * front)

    def _eyes(self, colour: Tensor, x: Tensor, y: Tensor, front: Tensor) -> Tensor:
        makeup = self.look["makeup"].clamp(0, 1)
        size = 1 + 0.09 * self.look["eye_size"]
        across = x.abs() - (0.205 + 0.014 * self.look["eye_spacing"])
        up = y - EYE_Y
        shadow = _soft(_ellipse(across, up - 0.035, 0.155 * size, 0.10 * size), 0.05)
        colour = self._over(colour, (0.32, 0.16, 0.62), 0.85 * makeup * shadow * front)
        lash = _soft(_ellipse(across, up - 0.010, 0.125 * size, 0.078 * size))
        colour = self._over(colour, self.skin * 0.30, lash * front)
        inside = _soft(_ellipse(across, up, 0.112 * size, 0.064 * size))
        colour = self._over(colour, (0.97, 0.97, 0.97), inside * front)
        tone = torch.sigmoid(2 * self.look["eye_colour"])[..., None]
        brown, blue = torch.tensor((0.30, 0.16, 0.06)).to(colour), torch.tensor((0.12, 0.42, 0.66)).to(colour)
        round_ = torch.sqrt(across.square() + up.square() + 1e-9)
        colour = self._over(colour, brown + (blue - brown) * tone, inside * _soft(round_ - 0.060 * size) * front)
        return self._over(colour, (0.03, 0.03, 0.03), inside * _soft(round_ - 0.028 * size) * front)

    def _brows(self, colour: Tensor, x: Tensor, y: Tensor, front: Tensor) -> Tensor:
        across = x.abs() - (0.205 + 0.014 * self.look["eye_spacing"])
        thick = 0.024 + 0.006 * self.look["brows"]
        brow = _ellipse(across, y - 0.255 + 0.9 * across.square(), 0.13, thick)
        return self._over(colour, self.hair * 0.75, _soft(brow) * front)

    def _glasses(self, grid: Tensor, colour: Tensor) -> Tensor:
        """Frames and lenses in a plane before the eyes, drawn over everything behind it."""
        amount = ((self.look["glasses"] - 0.05) / 0.8).clamp(0, 1)
        plane = 0.56
        r = self.rotation
        depth = (plane - grid[..., 0] * r[:, 0, 2:] - grid[..., 1] * r[:, 1, 2:]) / r[:, 2, 2:]
        x = grid[..., 0] * r[:, 0, :1] + grid[..., 1] * r[:, 1, :1] + depth * r[:, 2, :1]
        y = grid[..., 0] * r[:, 0, 1:2] + grid[..., 1] * r[:, 1, 1:2] + depth * r[:, 2, 1:2]
        across, up = x.abs() - 0.215, y - EYE_Y
        rim = _ellipse(across, up, 0.185, 0.150)
        lens = _soft(rim)
        bar = torch.maximum(x.abs() - 0.05, (up - 0.04).abs() - 0.014)
        temple = torch.maximum((x.abs() - 0.42).abs() - 0.035, (up - 0.04).abs() - 0.018)
        frame = torch.maximum(_soft(rim.abs() - 0.024), torch.maximum(_soft(bar), _soft(temple)))
        colour = self._over(colour, (0.55, 0.75, 0.80), 0.16 * amount * lens)
        return self._over(colour, (0.05, 0.05, 0.07), amount * frame)


def _head_rotation(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Return rotations, (B, 3, 3), whose rows are the camera's axes in the head's frame; angles in radians."""
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    zero = torch.zeros_like(cy)
    rows = (cy, zero, sy, sp * sy, cp, -sp * cy, -cp * sy, sp, cp * cy)
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def _nearest(depth: Tensor, colour: Tensor, other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    nearer = other[0] > depth
    return torch.where(nearer, other[0], depth), torch.where(nearer[..., None], other[1], colour)
