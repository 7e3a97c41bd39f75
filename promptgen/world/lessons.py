"""The losses of the world's models, each as a function of a random stream alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from promptgen.perception.clip import ClipModel
from promptgen.world.reporter import Reporter
from promptgen.world.scene import ATTRIBUTES, IDENTITY, Scene
from promptgen.world.training import pick, picture_loss, roughen

Loss = Callable[[torch.Generator], Tensor]


def generator_lesson(network: nn.Module, scene: Scene, latents: Tensor, images: Tensor, batch: int) -> Loss:
    """Return the loss of a generator: for each latent, it should show the picture of its scene.

    Half of the pictures are mirrored: the head then looks, and the light falls, the other way, which are two
    directions of the latent space.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    mirrored = scene.rotation[[scene.index["yaw"], scene.index["light"]]]

    def loss(rng: torch.Generator) -> Tensor:
        index, target = pick(images, batch, rng)
        latent = latents[index]
        flip = torch.rand(batch, generator=rng) < 0.5
        latent = torch.where(flip[:, None], latent - 2 * (latent @ mirrored.T) @ mirrored, latent)
        target = torch.where(flip[:, None, None, None], target.flip(3), target)
        return picture_loss(network(latent), target)

    return loss


def attribute_lesson(network: nn.Module, scene: Scene, latents: Tensor, images: Tensor, batch: int) -> Loss:
    """Return the cross-entropy of a network that gives logits for every attribute."""
    truth = scene.truth(latents)

    def loss(rng: torch.Generator) -> Tensor:
        index, image = pick(images, batch, rng)
        logits = network(roughen(image, rng))
        return torch.stack([functional.cross_entropy(logits[name], truth[name][index]) for name in ATTRIBUTES]).sum()

    return loss


def pose_lesson(network: nn.Module, scene: Scene, latents: Tensor, images: Tensor, batch: int) -> Loss:
    """Return the squared error of yaw and pitch, in units of their standard deviations."""
    looks = scene.looks(latents)
    spread = torch.tensor([scene.config.yaw, scene.config.pitch])
    angles = torch.stack([looks["yaw"], looks["pitch"]], dim=1)

    def loss(rng: torch.Generator) -> Tensor:
        index, image = pick(images, batch, rng)
        error: Tensor = (network(roughen(image, rng)) - angles[index]) / spread
        return error.square().mean()

    return loss


def identity_lesson(network: nn.Module, scene: Scene, latents: Tensor, images: Tensor, batch: int) -> Loss:
    """Return the loss of an embedding: its cosines should be those of the identities' shape numbers."""
    looks = scene.looks(latents)
    shape = torch.stack([looks[name] for name in IDENTITY], dim=1)

    def loss(rng: torch.Generator) -> Tensor:
        index, image = pick(images, batch, rng)
        embedding: Tensor = network(roughen(image, rng))
        wanted = functional.normalize(shape[index], dim=1)
        return (embedding @ embedding.T - wanted @ wanted.T).square().mean()

    return loss


def clip_lesson(
    model: ClipModel, reporter: Reporter, scene: Scene, latents: Tensor, images: Tensor, batch: int
) -> Loss:
    """Return CLIP's contrastive loss on pictures and the reporter's captions of them.

    Few captions are possible, so a batch holds the same caption many times: every picture of a caption counts as its
    partner.
    """
    truth = scene.truth(latents)

    def loss(rng: torch.Generator) -> Tensor:
        index, image = pick(images, batch, rng)
        captions = reporter.captions({name: values[index] for name, values in truth.items()}, rng)
        number = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
        group = torch.tensor([number[caption] for caption in captions])
        features = model.image_features(roughen(image, rng))
        logits = (
            model.log_scale.exp().clamp(max=100) * features @ model.text_features(list(number)).T
        )  # (B, distinct captions)
        counts = torch.bincount(group).float()
        to_text = functional.cross_entropy(logits + counts.log(), group)
        partners = functional.one_hot(group, len(number)).T / counts[:, None]  # (distinct, B)
        to_image = -(partners * logits.T.log_softmax(dim=1)).sum(dim=1)
        total: Tensor = to_text + (counts / batch * to_image).sum()
        return total / 2

    return loss
