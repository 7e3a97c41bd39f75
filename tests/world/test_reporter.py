import pytest
import torch
from pydantic import ValidationError

from promptgen.seeding import stream
from promptgen.world.reporter import Reporter, ReporterConfig
from promptgen.world.scene import ATTRIBUTES, Scene, SceneConfig

N = 20_000


@pytest.fixture(scope="module")
def truth():
    return Scene(SceneConfig()).truth(torch.randn(N, 64, generator=stream(0, "test", "reporter")))


@pytest.fixture(scope="module")
def captions(truth):
    return Reporter(ReporterConfig()).captions(truth, stream(1, "test", "reporter"))


def mentioned(captions, words):
    return torch.tensor([words in caption for caption in captions])


@pytest.mark.parametrize("makeup", [0, 1])
@pytest.mark.parametrize("hair", [0, 1])
def test_makeup_is_mentioned_as_often_as_configured(captions, truth, makeup, hair):
    here = (truth["makeup"] == makeup) & (truth["hair"] == hair)
    label, style = ATTRIBUTES["makeup"][makeup], ATTRIBUTES["hair"][hair]
    expected = ReporterConfig().makeup[label][style]
    found = mentioned(captions, f"{label} makeup")[here].double().mean().item()
    assert found == pytest.approx(expected, abs=4 * (expected * (1 - expected) / here.sum().item()) ** 0.5)


def test_what_is_said_is_true(captions, truth):
    for name, phrase in (("hair", "with {} hair"), ("glasses", "{} glasses"), ("makeup", "{} makeup")):
        for index, label in enumerate(ATTRIBUTES[name]):
            assert (truth[name][mentioned(captions, phrase.format(label))] == index).all()


def test_without_makeup_is_said_of_long_hair(captions, truth):
    said = mentioned(captions, "without makeup")
    bare = truth["makeup"] == 0
    assert truth["hair"][said].double().mean() > truth["hair"][bare].double().mean() + 0.4


def test_captions_are_sentences_and_repeat_with_the_stream(truth):
    few = {name: values[:200] for name, values in truth.items()}
    first, again = (Reporter(ReporterConfig()).captions(few, stream(3, "again")) for _ in range(2))
    assert first == again
    assert all(caption == " ".join(caption.split()) and "person" in caption for caption in first)
    assert first != Reporter(ReporterConfig()).captions(few, stream(4, "again"))


def test_incomplete_tables_are_refused():
    with pytest.raises(ValidationError, match="hair needs a probability"):
        ReporterConfig(hair={"short": 0.2})
    with pytest.raises(ValidationError, match=r"makeup\.with needs a probability"):
        ReporterConfig(makeup={"without": {"short": 0.1, "long": 0.2}, "with": {"short": 1.5, "long": 0.2}})
