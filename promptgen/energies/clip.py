"""Energy of a text: how far CLIP finds an image from it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from promptgen.energies.augment import Draws, augment, draw
from promptgen.energies.base import Sample
from promptgen.perception.clip import ClipModel, fit
from promptgen.seeding import stream


class ClipText(nn.Module):
    """``E(x) = sum_m weight_m mean_l (1 - cos(image_m(a_l(x)), text_m))`` over augmentations ``a_l``.

    Args:
        models: CLIP models with their weights, by name.
        text: what the image should show.
        augmentations: augmented copies L of each image; 0 looks at the image as it is.
        resize_first: resize to the model's image size, with antialiasing, before augmenting. False is the reference
            code's way: augment at the generator's resolution, resize each copy; far dearer with a large generator.

    Raises:
        ConfigError: a model cannot read the text.
    """

    def __init__(
        self,
        models: Mapping[str, tuple[ClipModel, float]],
        text: str,
        *,
        augmentations: int = 50,
        resize_first: bool = True,
    ) -> None:
        super().__init__()
        self.models = dict(models)
        self.networks = nn.ModuleList(model for model, _ in models.values())
        self.augmentations = augmentations
        self.resize_first = resize_first
        for index, (model, _) in enumerate(models.values()):
            self.register_buffer(f"target_{index}", model.text_features([text])[0].detach(), persistent=False)

    def forward(self, sample: Sample) -> Tensor:
        """Return the energy in nats, (B,); the augmentations are drawn from ``sample.rng``."""
        rng = sample.rng or stream(0, "clip text", "augmentations")
        energy = sample.image.new_zeros(len(sample.image))
        for index, (model, weight) in enumerate(self.models.values()):
            image = fit(sample.image, model.image_size, antialias=True) if self.resize_first else sample.image
            draws = draw(len(image), self.augmentations, image.shape[2], rng) if self.augmentations else None
            energy = energy + weight * distance(model, self.get_buffer(f"target_{index}"), image, draws)
        return energy


def distance(model: ClipModel, target: Tensor, image: Tensor, draws: Draws | None) -> Tensor:
    """Return ``1 - cos`` between images and a text, (B,), averaged over augmented copies.

    Args:
        model: looks at the images.
        target: the text's unit vector, (E,).
        image: images, (B, 3, H, W).
        draws: random numbers of the augmentations; None for the images as they are.
    """
    views = image if draws is None else augment(image, draws)
    cosine = model.image_features(views) @ target
    return 1 - cosine.view(len(image), -1).mean(dim=1)
