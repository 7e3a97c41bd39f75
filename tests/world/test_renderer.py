import pytest
import torch

from promptgen.seeding import stream
from promptgen.world.renderer import render
from promptgen.world.scene import Scene, SceneConfig


@pytest.fixture(scope="module")
def looks():
    return Scene(SceneConfig()).looks(torch.randn(4, 64, generator=stream(0, "test", "renderer")))


def changed(looks, **values):
    return {name: torch.full_like(value, values[name]) if name in values else value for name, value in looks.items()}


def test_pictures_are_images(looks):
    images = render(looks)
    assert images.shape == (4, 3, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.flatten(1).std(dim=1).min() > 0.1


def test_the_same_looks_give_the_same_picture_in_any_batch(looks):
    alone = render({name: value[2:3] for name, value in looks.items()})
    torch.testing.assert_close(render(looks)[2:3], alone, atol=1e-5, rtol=0)


def test_a_head_turned_the_other_way_is_its_mirror_image(looks):
    mirrored = looks | {name: -looks[name] for name in ("yaw", "light")}
    torch.testing.assert_close(render(mirrored), render(looks).flip(3), atol=2e-2, rtol=0)


@pytest.mark.parametrize(
    ("attribute", "rows", "columns"),
    [
        ("hair", slice(40, 60), slice(4, 60)),  # beside the jaw
        ("glasses", slice(20, 40), slice(8, 56)),  # around the eyes
        ("makeup", slice(24, 56), slice(12, 52)),  # eyelids, cheeks, lips
    ],
)
def test_an_attribute_shows_where_it_belongs(looks, attribute, rows, columns):
    difference = (render(changed(looks, **{attribute: 0.95})) - render(changed(looks, **{attribute: 0.05}))).abs()
    inside = difference[..., rows, columns].sum(dim=(1, 2, 3))
    assert (inside > 0.5 * difference.sum(dim=(1, 2, 3))).all()
    assert (difference.amax(dim=(1, 2, 3)) > 0.25).all()


def test_skin_gets_darker_and_hair_greyer(looks):
    middle = slice(26, 34)
    skin = [render(changed(looks, skin=amount, glasses=0.0))[..., middle, middle].mean() for amount in (0.0, 0.5, 1.0)]
    assert skin[0] > skin[1] > skin[2]
    old, young = (render(changed(looks, age=age, hair_colour=0.0, pitch=0.0))[..., 4:10, 28:36] for age in (1.0, 0.0))
    assert old.mean() > young.mean() + 0.2


def test_other_sizes_show_the_same_picture(looks):
    small = torch.nn.functional.avg_pool2d(render(looks, size=64), 2)
    torch.testing.assert_close(render(looks, size=32, oversampling=4), small, atol=1e-4, rtol=0)
