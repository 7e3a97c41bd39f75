"""A classifier of anything that can be said in words: the label whose text CLIP finds closest to an image.

The logits are CLIP's own: the cosine of image and text times the scale that CLIP was trained with, about 100 in the
published models, so that their softmax is the probability that CLIP itself gives each text. What CLIP has learned
wrongly, or learned from people's prejudice, it reads wrongly here: take no such classifier as a measure of a bias
that CLIP itself may have.

Source: *Learning Transferable Visual Models From Natural Language Supervision* (Radford et al., ICML 2021, section 3.1,
https://arxiv.org/abs/2103.00020).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from promptgen.errors import ConfigError
from promptgen.frozen import FrozenModule
from promptgen.perception.clip import ClipModel, fit


class ZeroShotClassifier(FrozenModule):
    """CLIP as a classifier; frozen, and differentiable by the image.

    Args:
        clip: the CLIP model. One that takes no part in the control is the better judge.
        attributes: text of every label by attribute, such as ``{"season": {"winter": "winter scene", ...}}``.

    Attributes:
        attributes: labels by attribute, in the order of the logits.

    Raises:
        ConfigError: an attribute has fewer than two labels, or the model cannot read a text.
    """

    attributes: Mapping[str, tuple[str, ...]]
    texts: Tensor

    def __init__(self, clip: ClipModel, attributes: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__()
        for name, texts in attributes.items():
            if len(texts) < 2:
                raise ConfigError(f"the attribute {name!r} needs texts for two labels at least, got {len(texts)}")
        self.clip = clip
        self.attributes = {name: tuple(texts) for name, texts in attributes.items()}
        with torch.no_grad():
            features = clip.text_features([text for texts in attributes.values() for text in texts.values()])
        self.register_buffer("texts", features, persistent=False)
        self.freeze()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1]; they are shrunk without aliasing."""
        features = self.clip.image_features(fit(image, self.clip.image_size, antialias=True))
        logits = self.clip.log_scale.exp() * features @ self.texts.T
        sizes = [len(labels) for labels in self.attributes.values()]
        return dict(zip(self.attributes, torch.split(logits, sizes, dim=1), strict=True))
