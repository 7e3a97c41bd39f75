"""Train the models of the embedded world from scratch: render images, train, measure, write weights and cards.

It takes hours on a few cores; an interrupted training resumes.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("build-world")

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
import yaml
from PIL import Image
from torch import nn

import promptgen.world
from promptgen.errors import ConfigError
from promptgen.files import atomic_path, atomic_write, sha256_of
from promptgen.perception.clip import save_clip
from promptgen.seeding import stream
from promptgen.world.config import ModelName, WorldConfig
from promptgen.world.generator import WorldGenerator, load_generator, save_generator
from promptgen.world.models import renders, train
from promptgen.world.networks import save_network
from promptgen.world.quality import measure
from promptgen.world.renderer import render
from promptgen.world.scene import Scene
from steps.shared.common import Project

WORLD: Final = Path(promptgen.world.__file__).parent
KINDS: Final[Mapping[ModelName, str]] = {"judge": "classifier"}
TYPES: Final[Mapping[ModelName, str]] = {"generator": "world-generator", "clip": "open-clip"}
NOTES: Final[Mapping[ModelName, str]] = {
    "generator": "A StyleGAN2 whose latents have known attributes. Pictures of no real person.",
    "classifier": "Steers flows. Reads attributes of drawn heads; says nothing about people.",
    "judge": "Counts. Another architecture, other pictures and another seed than the classifier.",
    "clip": "Learned from the reporter's captions, and with them the reporter's bias: that is its purpose.",
    "pose": "Yaw and pitch of a drawn head.",
    "identity": "Unit vectors whose cosines are those of the heads' shape numbers.",
}
LICENCE: Final = "MIT"
HEADER: Final = "# Models of the embedded world, made by `python -m steps.build_world`; quality on unseen pictures.\n"
PICTURE: Final = "docs/figures/world.png"


def run(project: Project, names: tuple[ModelName, ...], world: Path = WORLD) -> dict[str, Any]:
    """Train and ship the models `names`; return the cards of all.

    Args:
        project: the project, whose `world` section describes the world.
        names: the models to train.
        world: folder of cards.yaml and weights/.

    Raises:
        ConfigError: params.yaml has no section `world`.
        StorageError: something cannot be written.
    """
    config = project.params.world
    if config is None:
        raise ConfigError("params.yaml has no section world: copy it from the default params.yaml")
    folder = project.root / "artifacts" / "world"
    models = {name: train(name, config, folder) for name in names}
    for name, model in models.items():
        save(weights(world, name), name, model, config)
    cards = yaml.safe_load((world / "cards.yaml").read_text()) if (world / "cards.yaml").exists() else {}
    test = renders(config, "test", folder).load()
    for name in names:
        quality = measure(name, world / "weights", config, *test)
        previous = cards.get(f"world-{name}", {})
        cost = {key: previous[key] for key in ("cost",) if key in previous}  # depends on shapes, not on the recipe
        cards[f"world-{name}"] = card(name, weights(world, name), config, quality) | cost
    write_cards(world / "cards.yaml", cards)
    with atomic_path(project.root / PICTURE) as path:
        side_by_side(world, config).save(path)
    return cards


def write_cards(path: Path, cards: dict[str, Any]) -> None:
    """Write cards, sorted by name."""
    text = yaml.safe_dump(dict(sorted(cards.items())), sort_keys=False, width=120, default_flow_style=None)
    atomic_write(path, HEADER + text)


def side_by_side(world: Path, config: WorldConfig) -> Image.Image:
    """Return an image of pairs of rows: renders of fresh latents, and below them the generator's images of the same."""
    pairs, columns = 32, 8
    generator = load_generator(weights(world, "generator"))
    latents = generator.prior.sample(pairs, stream(config.seed, "side by side"))
    drawn = render(Scene(config.scene).looks(latents))
    rows = torch.stack([drawn, generator(latents).clamp(0, 1)]).reshape(2, -1, columns, *drawn.shape[1:])
    sheet = rows.permute(1, 0, 4, 2, 5, 3).reshape(-1, columns * drawn.shape[3], 3)  # (pairs of rows, H, columns, W, 3)
    return Image.fromarray((sheet * 255).round().byte().numpy())


def weights(world: Path, name: ModelName) -> Path:
    """Return where the weights of a model are shipped."""
    return world / "weights" / f"world-{name}.safetensors"


def save(path: Path, name: ModelName, model: nn.Module, config: WorldConfig) -> None:
    """Write a trained model to its file."""
    if name == "generator":
        save_generator(path, WorldGenerator(cast(Any, model), Scene(config.scene)))
    elif name == "clip":
        save_clip(path, cast(Any, model))
    else:
        save_network(path, name, cast(Any, model))


def card(name: ModelName, path: Path, config: WorldConfig, quality: dict[str, Any]) -> dict[str, Any]:
    """Return the card of a model: what it is, its file's sha256, how it was made and how good it is."""
    file = {
        "file": path.name,
        "urls": [f"package:world/weights/{path.name}"],
        "sha256": sha256_of(path),
        "size": path.stat().st_size,
    }
    return {
        "kind": KINDS.get(name, name),
        "type": TYPES.get(name, "world-network"),
        "files": [file],
        "licence": LICENCE,
        "note": NOTES[name],
        "training": {
            "command": f"python -m steps.build_world --only {name}",
            "seed": config.seed,
            **config.training[name].model_dump(),
        },
        "quality": quality,
    }
