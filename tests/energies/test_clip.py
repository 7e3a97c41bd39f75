"""Energy of a text: known values, augmentations in exact arithmetic, streams, several models."""

import pytest
import torch
from torch import nn

from promptgen.energies import augment
from promptgen.energies.base import Sample
from promptgen.energies.clip import ClipText
from promptgen.errors import ConfigError, DataError
from promptgen.perception.clip import ClipConfig, ClipModel, fit, small_clip
from promptgen.seeding import stream

EXACT = {"rtol": 0, "atol": 1e-12}


class MeanColour(nn.Module):
    """An encoder whose features are the mean colour, and whose texts are red."""

    def encode_image(self, image):
        return image.mean(dim=(2, 3))

    def encode_text(self, tokens):
        return torch.tensor([[1.0, 0.0, 0.0]])


def colours(size=16):
    return ClipModel(MeanColour(), size, lambda texts: torch.zeros(len(texts), 1), (0.0,) * 3, (1.0,) * 3)


def flat(*colour, size=16):
    return torch.tensor(colour)[None, :, None, None].expand(1, 3, size, size)


def sample(image, rng=None):
    return Sample(latent=torch.zeros(len(image), 2), image=image, rng=rng)


def images(n=3, size=16, dtype=torch.float64):
    return torch.rand(n, 3, size, size, generator=stream(0, "images"), dtype=dtype)


def test_known_values_without_augmentation():
    energy = ClipText({"colours": (colours(), 1.0)}, "red", augmentations=0)
    image = torch.cat([flat(0.5, 0.0, 0.0), flat(0.0, 0.5, 0.0), flat(0.3, 0.0, 0.4), flat(-0.2, 0.0, 0.0)])
    torch.testing.assert_close(energy(sample(image)), torch.tensor([0.0, 1.0, 0.4, 2.0]))


@pytest.mark.parametrize("resize_first", [True, False])
def test_images_of_any_size(resize_first):
    energy = ClipText({"colours": (colours(8), 1.0)}, "red", augmentations=0, resize_first=resize_first)
    torch.testing.assert_close(energy(sample(flat(0.3, 0.0, 0.4, size=20))), torch.tensor([0.4]))


def test_models_add_up_with_their_weights():
    red, small = colours(), small_clip(ClipConfig(image_size=16, words=("red",)))
    image = images(dtype=torch.float32)
    parts = [ClipText({"one": (model, 1.0)}, "red", augmentations=0)(sample(image)) for model in (red, small)]
    both = ClipText({"red": (red, 2.0), "small": (small, 0.5)}, "red", augmentations=0)
    torch.testing.assert_close(both(sample(image)), 2 * parts[0] + 0.5 * parts[1])


def test_the_stream_decides_the_augmentations():
    energy = ClipText({"colours": (colours(), 1.0)}, "red", augmentations=3)
    image = images(dtype=torch.float32)
    first = energy(sample(image, stream(1, "train", 0)))
    assert torch.equal(energy(sample(image, stream(1, "train", 0))), first)
    assert not torch.allclose(energy(sample(image, stream(1, "train", 1))), first)
    assert torch.equal(energy(sample(image)), energy(sample(image)))


def test_copies_average():
    """The energy of L copies is the mean of L energies of one copy with the same numbers."""
    model = colours()
    image = images(2, dtype=torch.float32)
    draws = augment.draw(2, 5, 16, stream(3, "draws"))
    views = model.image_features(augment.augment(image, draws))
    energy = ClipText({"colours": (model, 1.0)}, "red", augmentations=5)
    expected = 1 - views[:, 0].view(2, 5).mean(dim=1)
    torch.testing.assert_close(energy(sample(image, stream(3, "draws"))), expected)


@pytest.mark.parametrize("resize_first", [True, False])
def test_order_of_resizing_and_augmenting(resize_first):
    """Either the resized image is augmented, or the image as it is, whose copies the model then resizes."""
    model = small_clip(ClipConfig(image_size=16, words=("red",)))
    energy = ClipText({"small": (model, 1.0)}, "red", augmentations=3, resize_first=resize_first)
    image = images(2, size=40, dtype=torch.float32)
    augmented = fit(image, 16, antialias=True) if resize_first else image
    views = augment.augment(augmented, augment.draw(2, 3, augmented.shape[2], stream(4, "draws")))
    assert views.shape[2] == (16 if resize_first else 40)
    cosines = model.image_features(views) @ model.text_features(["red"])[0]
    torch.testing.assert_close(energy(sample(image, stream(4, "draws"))), 1 - cosines.view(2, 3).mean(dim=1))


def test_gradient_reaches_every_image():
    model = small_clip(ClipConfig(image_size=16, words=("red",)))
    energy = ClipText({"small": (model, 1.0)}, "red", augmentations=2)
    image = images(dtype=torch.float32).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(sample(image, stream(0, "train"))).sum(), image)
    assert (gradient.abs().sum(dim=(1, 2, 3)) > 0).all()
    assert not [name for name, value in energy.state_dict().items() if name.startswith("target")]


def test_text_features_are_computed_once(monkeypatch):
    energy = ClipText({"colours": (colours(), 1.0)}, "red", augmentations=0)
    monkeypatch.setattr(MeanColour, "encode_text", None)
    energy(sample(flat(1.0, 0.0, 0.0)))


def test_unreadable_texts_and_oblong_images_are_errors():
    model = small_clip(ClipConfig(image_size=16, words=("red",)))
    with pytest.raises(ConfigError, match="only reads: red"):
        ClipText({"small": (model, 1.0)}, "green")
    energy = ClipText({"colours": (colours(), 1.0)}, "red", augmentations=1, resize_first=False)
    with pytest.raises(DataError, match="square"):
        energy(sample(torch.rand(1, 3, 16, 20)))


@pytest.mark.parametrize(
    ("change", "neutral"), [(augment.brightness, 0.5), (augment.saturation, 0.5), (augment.contrast, 0.5)]
)
def test_neutral_colours(change, neutral):
    image = images()
    torch.testing.assert_close(change(image, torch.full((3,), neutral, dtype=torch.float64)), image, **EXACT)


def test_colour_changes_by_their_definition():
    image, u = images(), torch.tensor([0.0, 0.25, 0.75], dtype=torch.float64)
    shifted = augment.brightness(image, u)
    torch.testing.assert_close((shifted - image).amax(dim=(1, 2, 3)), u - 0.5, **EXACT)
    grey = augment.saturation(image, torch.zeros(3))
    torch.testing.assert_close(grey, image.mean(dim=1, keepdim=True).expand_as(image), **EXACT)
    ratio = augment.contrast(image, u).std(dim=(1, 2, 3)) / image.std(dim=(1, 2, 3))
    torch.testing.assert_close(ratio, u + 0.5, **EXACT)


def test_translation_by_its_definition():
    image, rows, columns = images(), torch.tensor([0, 2, -1]), torch.tensor([0, -2, 1])
    result = augment.translate(image, rows, columns)
    for n, (dr, dc) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        for r, c in [(0, 0), (0, 15), (7, 8), (15, 0), (15, 15)]:
            inside = 0 <= r + dr < 16 and 0 <= c + dc < 16
            expected = image[n, :, r + dr, c + dc] if inside else torch.zeros(3, dtype=torch.float64)
            assert torch.equal(result[n, :, r, c], expected)


@pytest.mark.parametrize(("u", "side"), [(0.0, 12), (0.5, 16), (0.999, 19)])
def test_resizing_keeps_the_size_and_the_middle(u, side):
    ones = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    result = augment.resize(ones, u)
    assert result.shape == ones.shape
    assert result[0, 0].sum() == min(side, 16) ** 2
    assert result[0, 0, 8, 8] == 1
    if u == 0.5:
        torch.testing.assert_close(augment.resize(images(), u), images(), **EXACT)


@pytest.mark.parametrize("side", [15, 16])
def test_cutout_cuts_at_the_border(side):
    ones = torch.ones(3, 3, side, side)
    last = augment.last_centre(side)
    hole = int(side / 2 + 0.5)
    result = augment.cutout(ones, torch.tensor([8, 0, last]), torch.tensor([8, 8, last]))
    holes = (result[:, 0] == 0).sum(dim=(1, 2)).tolist()
    assert holes[0] == hole**2
    assert holes[1] == hole * (hole - hole // 2)
    assert holes[2] == (side - (last - hole // 2)) ** 2


def test_draws_cover_their_ranges():
    draws = augment.draw(200, 20, 16, stream(0, "draws"))
    assert draws.brightness.shape == (200, 20)
    assert draws.resize.shape == (200,)
    assert sorted(set(draws.rows.flatten().tolist())) == [-2, -1, 0, 1, 2]
    assert sorted(set(draws.cutout_columns.flatten().tolist())) == list(range(17))
    torch.testing.assert_close(draws.contrast.mean(), torch.tensor(0.5), rtol=0, atol=0.03)
