"""Rendered data sets on disk, so that several trainings share them and a killed build resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from promptgen.files import atomic_path
from promptgen.seeding import stream
from promptgen.world.renderer import render
from promptgen.world.scene import Scene

BLOCK = 1024


class Renders:
    """Pictures of random latents, (n, 3, 64, 64); each block of 1024 is drawn once and kept as one file.

    Args:
        scene: the world.
        split: name of the data set; another name gives disjoint random latents.
        n: number of pictures, rounded up to whole blocks.
        folder: where the blocks are kept.
        seed: seed of the data sets.
    """

    def __init__(self, scene: Scene, split: str, n: int, folder: Path, seed: int) -> None:
        self.scene = scene
        self.split = split
        self.folder = folder
        self.seed = seed
        self.blocks = -(-n // BLOCK)

    def __len__(self) -> int:
        return self.blocks * BLOCK

    def latents(self, block: int) -> Tensor:
        """Return the latents of one block, (1024, D)."""
        rng = stream(self.seed, "renders", self.split, block)
        return torch.randn(BLOCK, self.scene.config.latent_dim, generator=rng)

    def images(self, block: int) -> Tensor:
        """Return the pictures of one block, (1024, 3, 64, 64) uint8, drawing them if they are not there yet."""
        path = self.folder / f"{self.split}-{block:04d}.npy"
        if not path.exists():
            looks = self.scene.looks(self.latents(block))
            parts = [
                render({name: value[start : start + 64] for name, value in looks.items()})
                for start in range(0, BLOCK, 64)
            ]
            pixels = (torch.cat(parts) * 255).round().to(torch.uint8).numpy()
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, pixels)
        return torch.from_numpy(np.load(path, allow_pickle=False))

    def load(self) -> tuple[Tensor, Tensor]:
        """Return all latents, (n, D), and pictures, (n, 3, 64, 64) uint8."""
        latents = torch.cat([self.latents(block) for block in range(self.blocks)])
        return latents, torch.cat([self.images(block) for block in range(self.blocks)])
