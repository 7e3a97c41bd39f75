"""Networks whose features sets of images are compared in: the world's judge, Inception, and one's own."""

import pytest
import torch
import yaml

from promptgen.config.build import build_features, load_model
from promptgen.config.generators import WorldSpec
from promptgen.config.models import CardModel, CustomModel
from promptgen.errors import ConfigError, ModelFileError
from promptgen.flows.sampling import generate
from promptgen.metrics.features import image_features
from promptgen.metrics.quality import compare
from promptgen.model_files import store
from promptgen.networks.torchvision_ops import import_torchvision
from promptgen.perception.inception import load_inception
from promptgen.seeding import stream

import_torchvision()
import torchvision  # noqa: E402


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of the world's models."""
    folder = tmp_path_factory.mktemp("project") / "models"
    for name in ("world-judge", "world-classifier", "world-generator"):
        store.fetch(name, folder)
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file of random weights in the layout of the published one, from torchvision's network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    path = tmp_path_factory.mktemp("inception") / "inception-2015-12-05-6726825d.pth"
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, path)
    return path


def card(name):
    return CardModel(model=name)


def test_the_judge_shows_what_its_logits_are_made_from(models):
    judge = load_model("world-judge", models, "classifier")
    images = torch.rand(3, 3, 64, 64, generator=stream(0, "images"))
    features = build_features(card("world-judge"), models)(images)
    assert features.ndim == 2
    for name, logits in judge.heads(features).items():
        assert torch.equal(logits, judge(images)[name])


@pytest.mark.slow
def test_truncation_is_seen_in_the_features_of_the_judge(models):
    """A truncated generator is less varied."""
    network = build_features(card("world-judge"), models)

    def features(truncation, stream_name):
        spec = WorldSpec(type="world", model="world-generator", truncation=truncation)
        images = (image for _, image in generate(spec.build(models), 256, seed=0, stream=stream_name))
        return torch.cat(list(image_features(network, images)))

    whole = features(1.0, "reference")
    same, truncated = (compare(features(truncation, "set"), whole) for truncation in (1.0, 0.4))
    assert same.frechet.value < truncated.frechet.value
    assert abs(same.kernel.value) < 4 * same.kernel.error
    assert truncated.kernel.value > 4 * truncated.kernel.error
    assert truncated.recall.high < same.recall.low - 0.2


def test_a_classifier_without_features_is_refused(models):
    with pytest.raises(ConfigError, match=r"world-classifier.*features"):
        build_features(card("world-classifier"), models)


def test_a_network_of_one_s_own(models):
    spec = CustomModel(type="custom", factory="tests.tiny:embedder", arguments={})
    assert build_features(spec, models)(torch.rand(2, 3, 4, 4)).shape == (2, 3)


def test_inception_is_read_from_a_fetched_file(tmp_path, published):
    """The card's file is adopted, pinned and loaded; nothing asks the network, which tests do not have."""
    (tmp_path / "cards.yaml").write_text(
        yaml.safe_dump(
            {
                "mine": {
                    "kind": "features",
                    "type": "inception",
                    "files": [{"file": published.name, "urls": [f"file:{published}"]}],
                    "licence": "CC0",
                }
            }
        )
    )
    store.fetch("mine", tmp_path / "models")
    network = build_features(card("mine"), tmp_path / "models")
    images = torch.rand(2, 3, 40, 40, generator=stream(0, "images"))
    features = network(images)
    assert features.shape == (2, 2048)
    assert features.dtype == torch.float32
    assert torch.equal(features, network(images))
    assert not torch.equal(features[0], features[1])
    state = torch.load(published, weights_only=True)
    loaded = network.network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_the_card_of_inception_names_its_file(tmp_path, published):
    store.adopt("inception-fid", tmp_path / "models", published)
    assert build_features(card("inception-fid"), tmp_path / "models")(torch.rand(1, 3, 64, 64)).shape == (1, 2048)


def test_another_file_is_no_inception(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(ModelFileError, match="missing"):
        load_inception(path)


def test_making_inception_leaves_the_global_state_alone(published):
    before = torch.get_rng_state()
    load_inception(published)
    assert torch.equal(before, torch.get_rng_state())
