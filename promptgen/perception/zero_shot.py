"""Zero-shot classifier: chooses the label whose text is closest to an image according to CLIP.

The logits are CLIP's own: the cosine of image and text times CLIP's trained scale, about 100 in the published models.
Their softmax is therefore CLIP's probability of each text. The classifier inherits CLIP's errors and prejudices: do not
use it to measure a bias that CLIP itself may have.

Source: *Learning Transferable Visual Models From Natural Language Supervision* (Radford et al., ICML 2021, section 3.1,
https://arxiv.org/abs/2103.00020).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from promptgen.errors import ConfigError
from promptgen.networks.frozen import FrozenModule
from promptgen.perception.clip import ClipModel, fit


class ZeroShotClassifier(FrozenModule):
    """CLIP as a frozen classifier, differentiable with respect to the image.

    Args:
        clip: CLIP model. As a judge, choose a model that the control does not use.
        attributes: text of each label by attribute, such as ``{"season": {"winter": "winter scene", ...}}``.

    Attributes:
        attributes: labels by attribute, in the order of the logits.

    Raises:
        ConfigError: an attribute has fewer than two labels, or a text is too long or outside the vocabulary.
    """

    attributes: Mapping[str, tuple[str, ...]]
    texts: Tensor

    def __init__(self, clip: ClipModel, attributes: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__()
        for name, texts in attributes.items():
            if len(texts) < 2:
                raise ConfigError(f"the attribute {name!r} needs texts for at least two labels, got {len(texts)}")
        self.clip = clip
        self.attributes = {name: tuple(texts) for name, texts in attributes.items()}
        with torch.no_grad():
            features = clip.text_features([text for texts in attributes.values() for text in texts.values()])
        self.register_buffer("texts", features, persistent=False)
        self.freeze()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1], resized with antialiasing."""
        features = self.clip.image_features(fit(image, self.clip.image_size, antialias=True))
        logits = self.clip.log_scale.exp() * features @ self.texts.T
        sizes = [len(labels) for labels in self.attributes.values()]
        return dict(zip(self.attributes, torch.split(logits, sizes, dim=1), strict=True))
