"""A world so small that the whole loop runs in seconds, brought along as a user would: by dotted paths.

A latent has four coordinates; the first three are the brightness of a colour each. Long hair is red, make-up is a lack
of green. The control asks for green and, as a bias of its own, a little for red.
"""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from torch import Tensor

from promptgen.generators.base import GaussianPrior
from promptgen.rotations import euler_rotation
from tests.faults import hold_point

ATTRIBUTES = {"hair": ("short", "long"), "makeup": ("without", "with")}


class TinyGenerator(torch.nn.Module):
    image_shape = (3, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.prior = GaussianPrior.standard(4)

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        return latent[:, :3].sigmoid()[:, :, None, None].expand(-1, *self.image_shape)

    def truth(self, latent: Tensor) -> dict[str, Tensor]:
        return {"hair": (latent[:, 0] > 0.3).long(), "makeup": (latent[:, 1] < 0).long()}


class TinyClassifier:
    attributes = ATTRIBUTES

    def __init__(self, threshold: float = 0.3, sharpness: float = 4.0) -> None:
        self.threshold, self.sharpness = threshold, sharpness

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        colour = image.mean(dim=(2, 3)).clamp(1e-6, 1 - 1e-6).logit()
        return {
            "hair": _two_logits(self.sharpness * (colour[:, 0] - self.threshold)),
            "makeup": _two_logits(-self.sharpness * colour[:, 1]),
        }


def short_only() -> TinyClassifier:
    """A classifier that never sees long hair."""
    return TinyClassifier(threshold=100.0)


def embedder() -> object:
    return lambda image: torch.nn.functional.normalize(image.mean(dim=(2, 3)), dim=1)


def colours() -> object:
    """Tell images apart by the logits of their colours, which are normal where a flow has not moved them."""
    return lambda image: image.mean(dim=(2, 3)).clamp(1e-6, 1 - 1e-6).logit()


def wish(images: Tensor, latents: Tensor, context: Tensor | None) -> Tensor:
    hold_point()  # so that a test can end a run in the middle
    colour = images.mean(dim=(2, 3))
    return -6.0 * colour[:, 1] - 4.0 * colour[:, 0]


def pose_estimator() -> object:
    """See a yaw in how blue an image is."""

    def rotations(image: Tensor) -> Tensor:
        blue = image[:, 2].mean(dim=(1, 2)).clamp(1e-6, 1 - 1e-6).logit()
        return euler_rotation(torch.nn.functional.pad(0.1 * blue[:, None], (1, 0)))

    return rotations


def face() -> object:
    """Tell identities apart by red and green, whatever the pose."""
    return lambda image: torch.nn.functional.normalize(image[:, :2].mean(dim=(2, 3)) - 0.5, dim=1)


def broken_wish(images: Tensor, latents: Tensor, context: Tensor | None) -> Tensor:
    return torch.full((len(images),), float("nan"))


def _two_logits(second: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(second), second], dim=1)


def params() -> dict:
    """The content of a params.yaml for this world."""

    def custom(name: str, **arguments: float) -> dict:
        return {"type": "custom", "factory": f"tests.tiny:{name}", "arguments": arguments}

    training = {
        "method": "on_policy", "steps": 40, "batch": 64, "learning_rate": 0.02, "checkpoint_every": 10,
        "validate_every": 20,
    }  # fmt: skip
    return {
        "experiment": "tiny",
        "seed": 1,
        "generator": custom("TinyGenerator"),
        "control": {
            "energies": {"wish": {"type": "custom", "weight": 1.0, "function": "tests.tiny:wish"}},
            "measure": {"makeup": "without"},
            "training": dict(training),
        },
        "debias": {
            "attribute": "hair",
            "target": {"short": 0.5, "long": 0.5},
            "classifier": custom("TinyClassifier"),
            "judge": custom("TinyClassifier", sharpness=3.0),
            "features": "hard",
            "max_passes": 2,
            "samples": 512,
            "ess_floor": 0.01,
            "bootstrap": 20,
            "training": dict(training),
            "dual": {"rate": 0.5, "average_last": 0.3, "hold": 0.2},
        },
        "flow": {"blocks": 2, "hidden": 16, "log_scale_bound": 2.0},
        "evaluation": {
            "samples": 512,
            "batch": 64,
            "confidence": 0.95,
            "bootstrap": 100,
            "fit_samples": 256,
            "grid": 8,
            "identity": custom("embedder"),
            "features": custom("colours"),
            "watch": {"hair x makeup": None},
        },
        "tracking": {"experiment": "tiny", "registered_model": None},
        "schedule": None,
        "models": [],
    }


def lean(content: dict) -> dict:
    """Return the same experiment without measures of quality, whose libraries take seconds to import."""
    return content | {"evaluation": content["evaluation"] | {"identity": None, "features": None}}


def reuse_params(content: dict | None = None) -> dict:
    """The content of a params.yaml that trains on evaluations that are kept, otherwise like `content`."""
    content = content or params()
    training = {"ess": 0.999, "micro_batch": 64}  # method: reuse by default; no fit is so good that a round is left out
    content["control"]["training"] = {"budget": {"images": 768}, **training}
    content["control"]["energies"].pop("identity", None)  # it compares two images
    content["debias"]["training"] = {"budget": {"images": 1024}, **training}
    del content["debias"]["dual"]
    return content


def conditional_params() -> dict:
    """The content of a params.yaml that asks for a pose besides, and for the same face whatever the pose."""
    content = params()
    estimator = {"type": "custom", "factory": "tests.tiny:pose_estimator", "arguments": {}}
    face = {"type": "custom", "factory": "tests.tiny:face", "arguments": {}}
    content["control"]["condition"] = {"yaw": [-0.2, 0.2]}
    content["control"]["energies"] |= {
        "pose": {"type": "pose", "weight": 300.0, "estimator": estimator},
        "identity": {"type": "identity", "weight": 2.0, "embedder": face},
    }
    content["control"]["training"] |= {"steps": 120, "clip": 50.0}
    content["evaluation"]["identity"] = face
    return content


def write_params(folder: Path, content: dict | None = None) -> Path:
    """Write a params.yaml into `folder` and return its path."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content or params(), sort_keys=False))
    return path
