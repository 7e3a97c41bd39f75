"""What a generator draws by shares, as an attribute that no network has to read."""

import pytest
import torch

from promptgen.drawn import Drawn, drawn_prompts
from promptgen.energies.base import Sample
from promptgen.energies.moment import MomentEnergy
from promptgen.errors import ConfigError
from promptgen.evaluations.objective import classifier_reader, split_logits
from promptgen.labels import probabilities
from promptgen.perception.base import logits_of_samples
from promptgen.perception.informed import InformedClassifier, informed

DRAWN = Drawn("prompt", {"a builder": 0.25, "a nurse": 0.75})


class Light:
    def __init__(self):
        self.attributes = {"light": ("dark", "bright")}

    def __call__(self, image):
        brightness = image.mean(dim=(1, 2, 3))
        return {"light": torch.stack([1 - brightness, brightness], dim=1)}


def sample():
    """Return samples of which the first is drawn below, the second above the quartile."""
    latent = torch.tensor([[0.3, -0.68], [0.3, -0.67]])
    return Sample(latent, torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)))


def test_the_last_coordinate_alone_tells_what_was_drawn():
    read = logits_of_samples(InformedClassifier(Light(), DRAWN), sample().image, sample().latent)
    assert list(read) == ["light", "prompt"]
    torch.testing.assert_close(read["light"], Light()(sample().image)["light"])
    assert probabilities(read, "prompt").tolist() == [[1.0, pytest.approx(0)], [pytest.approx(0), 1.0]]


def test_a_product_with_it_has_the_classifiers_probabilities_in_one_part():
    read = logits_of_samples(InformedClassifier(Light(), DRAWN), sample().image, sample().latent)
    light = probabilities(read, "light")
    both = probabilities(read, "prompt x light")
    torch.testing.assert_close(both[0], torch.cat([light[0], torch.zeros(2)]))
    torch.testing.assert_close(both[1], torch.cat([torch.zeros(2), light[1]]))


def test_an_energy_tilts_each_prompt_by_its_own_multipliers():
    energy = MomentEnergy(InformedClassifier(Light(), DRAWN), "prompt x light", beta=[1.0, -1.0, 3.0, -3.0])
    light = Light()(sample().image)["light"].softmax(dim=1)
    torch.testing.assert_close(energy(sample()), -(light[:, 0] - light[:, 1]) * torch.tensor([1.0, 3.0]))


def test_what_is_kept_of_an_image_tells_it_too():
    classifier = InformedClassifier(Light(), DRAWN)
    kept = split_logits(classifier, classifier_reader(classifier)(sample()))
    assert kept["prompt"].argmax(dim=1).tolist() == [0, 1]
    assert kept["prompt"].isfinite().all()


def test_a_classifier_with_an_attribute_of_that_name_is_refused():
    with pytest.raises(ConfigError, match="has an attribute light, which is also what the generator draws"):
        informed(Light(), Drawn("light", DRAWN.shares))


def test_prompts_are_in_the_same_order_whatever_the_order_of_a_file():
    assert drawn_prompts({"b": 0.5, "a": 0.5}).labels == drawn_prompts({"a": 0.5, "b": 0.5}).labels == ("a", "b")
    assert drawn_prompts(None) is drawn_prompts({}) is None
    assert informed(reader := Light(), None) is reader
