"""CLIP as a classifier: its logits, its gradient, and how params.yaml names it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from promptgen.config.build import build_classifier
from promptgen.config.models import ClipLabelsModel
from promptgen.config.params import load_params
from promptgen.errors import ConfigError
from promptgen.labels import hard_labels
from promptgen.model_files.store import fetch
from promptgen.perception.clip import ClipConfig, small_clip
from promptgen.perception.zero_shot import ZeroShotClassifier
from promptgen.world.renderer import render
from promptgen.world.scene import Scene

ROOT = Path(__file__).parents[2]
ATTRIBUTES_IN_WORDS = {
    "season": {"autumn": "autumn scene", "winter": "winter scene"},
    "place": {"city": "a city", "forest": "a forest", "sea": "the sea"},
}


@pytest.fixture(scope="module")
def clip():
    model = small_clip(ClipConfig(image_size=32, embed_dim=16), seed=3)
    model.freeze()
    return model


@pytest.fixture(scope="module")
def classifier(clip):
    return ZeroShotClassifier(clip, ATTRIBUTES_IN_WORDS)


def test_logits_are_the_scaled_cosines_of_each_attribute(classifier, clip):
    image = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    logits = classifier(image)
    assert {name: part.shape for name, part in logits.items()} == {"season": (5, 2), "place": (5, 3)}
    for name, texts in ATTRIBUTES_IN_WORDS.items():
        cosines = F.cosine_similarity(
            clip.image_features(image)[:, None], clip.text_features(list(texts.values()))[None], dim=2
        )
        torch.testing.assert_close(logits[name], cosines * clip.network.logit_scale.exp())
    assert classifier.attributes == {"season": ("autumn", "winter"), "place": ("city", "forest", "sea")}


def test_large_images_are_shrunk_without_aliasing(classifier):
    """A pattern as fine as the pixels looks like its mean, not like one of its colours."""
    stripes = torch.zeros(1, 3, 256, 256)
    stripes[..., ::2] = 1.0
    grey = torch.full_like(stripes, 0.5)
    black = torch.zeros_like(stripes)
    seen, mean, dark = (classifier(image)["place"] for image in (stripes, grey, black))
    assert (seen - mean).abs().max() < 0.05 * (dark - mean).abs().max()


def test_gradient_reaches_the_image_and_no_weight(classifier):
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)).requires_grad_()
    classifier(image)["season"].log_softmax(dim=1)[:, 0].sum().backward()
    assert image.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_one_label_is_no_attribute(clip):
    with pytest.raises(ConfigError, match=r"'season'.*got 1"):
        ZeroShotClassifier(clip, {"season": {"winter": "winter scene"}})


def test_the_worlds_clip_reads_glasses_as_words(tmp_path):
    """Named as in params.yaml, on drawn heads whose labels are known."""
    fetch("world-clip", tmp_path)
    texts = {"without": "a person without glasses", "with": "a person with glasses"}
    spec = ClipLabelsModel(type="clip_labels", model="world-clip", attributes={"glasses": texts})
    assert spec.cards() == ["world-clip"]
    classifier = build_classifier(spec, tmp_path)
    scene = Scene(load_params(ROOT / "params.yaml").world.scene)
    latents = torch.randn(128, scene.config.latent_dim, generator=torch.Generator().manual_seed(5))
    looks = scene.looks(latents)
    assert (hard_labels(classifier(render(looks)), "glasses") == scene.truth(latents)["glasses"]).float().mean() > 0.95
