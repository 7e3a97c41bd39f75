"""Energy of a text: the distance between image and text according to CLIP."""

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
        models: CLIP models and their weights, by name.
        text: description of the target image.
        augmentations: number L of augmented copies of each image; 0 uses the original image.
        resize_first: resize to the model's image size, with antialiasing, before augmenting. False follows the
            reference code: augment at the generator's resolution and resize each copy, which costs far more.

    Raises:
        ConfigError: the text has words that a model does not know.

    Example:
        A stand-in for a CLIP model, whose features are the mean colour and for which every text means red:

        >>> import torch
        >>> class Colours(nn.Module):
        ...     image_size = 8
        ...     def image_features(self, image):
        ...         return nn.functional.normalize(image.mean(dim=(2, 3)), dim=1)
        ...     def text_features(self, texts):
        ...         return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(texts), -1)
        >>> energy = ClipText({"colours": (Colours(), 10.0)}, "a red square", augmentations=0)
        >>> red, green = torch.eye(3)[:2, :, None, None].expand(-1, -1, 8, 8)
        >>> energy(Sample(latent=torch.zeros(2, 4), image=torch.stack([red, green]))).tolist()
        [0.0, 10.0]
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
        """Return the energy in nats, (B,); ``sample.rng`` is the random stream of the augmentations."""
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
        model: CLIP model.
        target: the text's unit vector, (E,).
        image: images, (B, 3, H, W).
        draws: random numbers of the augmentations; None means no augmentation.
    """
    views = image if draws is None else augment(image, draws)
    cosine = model.image_features(views) @ target
    return 1 - cosine.view(len(image), -1).mean(dim=1)
