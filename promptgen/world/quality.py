"""Quality of the world's models, measured on pictures and latents that none of them has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from promptgen.generators.base import Generator
from promptgen.labels import hard_labels
from promptgen.perception.base import Classifier
from promptgen.perception.clip import ClipModel, load_open_clip
from promptgen.world.config import ModelName, WorldConfig
from promptgen.world.generator import load_generator
from promptgen.world.networks import load_network
from promptgen.world.scene import ATTRIBUTES, IDENTITY, Scene

PAIRS = {
    "hair": ("a person with short hair", "a person with long hair"),
    "glasses": ("a person without glasses", "a person with glasses"),
    "makeup": ("a person without makeup", "a person with makeup"),
}
"""Two captions for an attribute, in the order of its labels."""
BATCH = 128


def measure(name: ModelName, weights: Path, config: WorldConfig, latents: Tensor, images: Tensor) -> dict[str, object]:
    """Return the figures of a model's card.

    Args:
        name: which model.
        weights: folder of the world's weight files; a generator is read by the classifier and the judge in it.
        config: the world.
        latents: latents of fresh pictures, (n, D).
        images: these pictures, (n, 3, 64, 64) uint8.
    """
    scene, path = Scene(config.scene), weights / f"world-{name}.safetensors"
    match name:
        case "generator":
            readers = {
                reader: load_network(weights / f"world-{reader}.safetensors") for reader in ("classifier", "judge")
            }
            return generator_quality(load_generator(path), cast(Any, readers), scene, latents, images)
        case "clip":
            return clip_quality(load_open_clip(path), scene, latents, images)
        case "pose":
            return pose_quality(load_network(path), scene, latents, images)
        case "identity":
            return identity_quality(load_network(path), scene, latents, images)
        case _:
            return classifier_quality(cast(Any, load_network(path)), scene, latents, images)


def read(network: Callable[[Tensor], Mapping[str, Tensor]], images: Tensor) -> dict[str, Tensor]:
    """Return the class index, (n,), of each attribute that a classifier reads off uint8 pictures, (n, 3, 64, 64)."""
    logits = [network(part.float() / 255) for part in torch.split(images, BATCH)]
    return {name: hard_labels({name: torch.cat([part[name] for part in logits])}, name) for name in ATTRIBUTES}


def confusion(read_labels: Tensor, truth: Tensor, classes: int) -> list[list[int]]:
    """Return counts, with true classes as rows and predicted classes as columns."""
    table = torch.bincount(truth * classes + read_labels, minlength=classes**2).reshape(classes, classes)
    counts: list[list[int]] = table.tolist()
    return counts


@torch.no_grad()
def classifier_quality(network: Classifier, scene: Scene, latents: Tensor, images: Tensor) -> dict[str, object]:
    """Return, by attribute, the accuracy and the confusion counts of a classifier on renders."""
    labels, truth = read(network, images), scene.truth(latents)
    return {
        name: {
            "accuracy": _share(labels[name] == truth[name]),
            "confusion": confusion(labels[name], truth[name], len(classes)),
        }
        for name, classes in ATTRIBUTES.items()
    }


@torch.no_grad()
def generator_quality(
    generator: Generator, readers: Mapping[str, Classifier], scene: Scene, latents: Tensor, images: Tensor
) -> dict[str, object]:
    """Return how close G(z) is to the renders, and how often what classifiers read off G(z) is true, by attribute."""
    pictures = torch.cat([generator(part).clamp(0, 1) for part in torch.split(latents, BATCH)])
    truth = scene.truth(latents)
    error = (pictures - images.float() / 255).square().mean()
    quality: dict[str, object] = {"psnr_decibel": round(float(-10 * error.log10()), 2), "samples": len(latents)}
    for reader, network in readers.items():
        labels = read(network, (pictures * 255).round().to(torch.uint8))
        quality[reader] = {name: _share(labels[name] == truth[name]) for name in ATTRIBUTES}
    return quality


@torch.no_grad()
def clip_quality(model: ClipModel, scene: Scene, latents: Tensor, images: Tensor) -> dict[str, object]:
    """Return how often CLIP picks the right one of two captions, and the strength of its reporting bias.

    Reporting bias is measured among the tenth of the pictures most similar to "a person without makeup": the share of
    long hair there, less the share of long hair among all without make-up.
    """
    truth = scene.truth(latents)
    features = torch.cat([model.image_features(part.float() / 255) for part in torch.split(images, BATCH)])
    quality: dict[str, object] = {"samples": len(latents)}
    for name, captions in PAIRS.items():
        quality[f"{name}_picked"] = _share(
            (features @ model.text_features(list(captions)).T).argmax(dim=1) == truth[name]
        )
    similarity = features @ model.text_features([PAIRS["makeup"][0]])[0]
    nearest = similarity.topk(len(similarity) // 10).indices
    long = truth["hair"] == ATTRIBUTES["hair"].index("long")
    bare = truth["makeup"] == ATTRIBUTES["makeup"].index("without")
    quality["long_hair_nearest_to_without_makeup"] = _share(long[nearest])
    quality["long_hair_without_makeup"] = _share(long[bare])
    return quality


@torch.no_grad()
def pose_quality(network: nn.Module, scene: Scene, latents: Tensor, images: Tensor) -> dict[str, object]:
    """Return the root mean square error of yaw and pitch, degrees."""
    looks = scene.looks(latents)
    angles = torch.cat([network(part.float() / 255) for part in torch.split(images, BATCH)])
    error = angles - torch.stack([looks["yaw"], looks["pitch"]], dim=1)
    yaw, pitch = error.square().mean(dim=0).sqrt().rad2deg().tolist()
    return {"yaw_error_degrees": round(yaw, 2), "pitch_error_degrees": round(pitch, 2)}


@torch.no_grad()
def identity_quality(network: nn.Module, scene: Scene, latents: Tensor, images: Tensor) -> dict[str, object]:
    """Return the correlation between the embeddings' cosines and those of the true shape numbers, over all pairs."""
    looks = scene.looks(latents)
    shape = nn.functional.normalize(torch.stack([looks[name] for name in IDENTITY], dim=1), dim=1)
    embeddings = torch.cat([network(part.float() / 255) for part in torch.split(images, BATCH)])
    above = torch.triu_indices(len(latents), len(latents), offset=1)
    cosines = torch.stack([(vectors @ vectors.T)[above[0], above[1]] for vectors in (embeddings, shape)])
    return {"cosine_correlation": round(float(torch.corrcoef(cosines)[0, 1]), 4)}


def _share(hits: Tensor) -> float:
    return round(float(hits.float().mean()), 4)
