"""Classes of a class-conditional generator: fixed, or drawn by shares independently of z, whatever the flow."""

import pytest
import torch

from promptgen.config.generators import generator_spec
from promptgen.errors import ConfigError, DataError
from promptgen.flows.chain_file import load_chain, save_chain
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.generators.base import held_by
from promptgen.generators.classes import class_numbers, class_shares, class_vectors
from promptgen.model_files.cards import find_card
from promptgen.seeding import stream
from tests.generators import small

MAKERS = {
    "stylegan2": lambda **options: frozen(small.stylegan2(**options)),
    "stylegan3": small.stylegan3,
    "r3gan": small.r3gan,
}
SHARES = {0: 0.2, 2: 0.5, 3: 0.3}
each_family = pytest.mark.parametrize("family", MAKERS)


def frozen(model):
    model.freeze()
    return model


def conditional(family, classes):
    return MAKERS[family](class_count=4, classes=classes)


def moved(flow):
    """Return a flow that is no longer the identity, under any condition."""
    rng = stream(1, "weights")
    with torch.no_grad():
        for value in flow.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=rng))
    return flow


def test_shares_of_many_draws_are_those_given():
    chosen = class_numbers(torch.randn(100_000, generator=stream(0, "u")), SHARES)
    shares = {number: float((chosen == number).double().mean()) for number in range(4)}
    assert shares[1] == 0
    for number, share in SHARES.items():
        assert shares[number] == pytest.approx(share, abs=0.008)  # five standard errors


def test_the_bounds_between_classes_are_the_quantiles_of_the_shares():
    u = torch.special.ndtri(torch.tensor([0.2 - 1e-6, 0.2 + 1e-6, 0.7 - 1e-6, 0.7 + 1e-6], dtype=torch.float64))
    assert class_numbers(u, SHARES).tolist() == [0, 2, 2, 3]
    assert class_numbers(torch.tensor([-40.0, 40.0]), SHARES).tolist() == [0, 3]


def test_vectors_are_one_hot_and_of_the_latents_type():
    latent = torch.tensor([[1.0, 2.0, -40.0], [1.0, 2.0, 40.0]], dtype=torch.float64)
    expected = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(class_vectors(latent, 2, SHARES, 4), expected, rtol=0, atol=0)
    assert class_vectors(latent[:, :2], 2, {2: 1.0}, 4).argmax(dim=1).tolist() == [2, 2]


@each_family
def test_a_drawn_class_gives_the_image_of_that_class(family):
    model = conditional(family, SHARES)
    assert model.prior.dim == 7
    assert held_by(model) == 1
    z = torch.randn(1, 6, generator=stream(0, "z"))
    images = []
    for number, u in ((0, -1.5), (2, 0.0), (3, 1.5)):
        image = model(torch.cat([z, torch.tensor([[u]])], dim=1))
        torch.testing.assert_close(image, conditional(family, number)(z))
        images.append(image)
    assert not torch.allclose(images[0], images[1])


@each_family
def test_one_class_adds_no_coordinate_and_uniform_draws_all(family):
    for one in (2, {2: 1.0}):
        assert conditional(family, one).prior.dim == 6
    assert dict(conditional(family, "uniform").shares) == dict.fromkeys(range(4), 0.25)


@each_family
@pytest.mark.parametrize("directions", [None, torch.eye(7, 3)])
def test_a_flow_leaves_the_class_alone_and_keeps_the_density_exact(family, directions):
    """Its log-determinant is that of the Jacobian, and what it does to z depends on the class."""
    model = conditional(family, SHARES)
    flow = moved(Flow(7, FlowConfig(blocks=2, hidden=8), directions=directions, held=1, dtype=torch.float64))
    eps = torch.randn(5, 7, generator=stream(0, "eps"), dtype=torch.float64)
    latent, log_det = flow(eps)
    torch.testing.assert_close(latent[:, 6], eps[:, 6], rtol=0, atol=0)
    torch.testing.assert_close(flow.inverse(latent)[0], eps)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda one: flow(one[None])[0][0]))(eps)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det)
    assert bool((jacobian[:, :3, 6].abs() > 1e-6).any())
    chain = ChainedGenerator(model, flow.float())
    assert held_by(chain) == 1
    again = ChainedGenerator(chain, Flow(7, FlowConfig(blocks=1, hidden=4), held=1))
    torch.testing.assert_close(again(eps.float()), model(latent.float()), rtol=1e-3, atol=1e-3)


def test_a_flow_that_would_move_the_class_is_refused():
    with pytest.raises(DataError, match="holds 1 dimensions of its latent, the flow 0"):
        ChainedGenerator(conditional("r3gan", SHARES), Flow(7, FlowConfig(blocks=1, hidden=4)))
    with pytest.raises(DataError, match="must be 0 in the last 1 dimensions"):
        Flow(7, FlowConfig(blocks=1, hidden=4), directions=torch.eye(7)[:, 4:], held=1)


@pytest.mark.parametrize("directions", [None, torch.eye(7, 3)])
def test_a_chain_in_a_file_holds_what_it_held(directions, tmp_path):
    flow = moved(Flow(7, FlowConfig(blocks=2, hidden=8), directions=directions, held=1))
    section = {"type": "r3gan", "model": "r3gan-cifar10-32", "classes": {"0": 0.5, "3": 0.5}}
    spec = generator_spec(section)
    save_chain(tmp_path / "chain.safetensors", [flow], spec.model_dump(mode="json"), {})
    chain = load_chain(tmp_path / "chain.safetensors")
    eps = torch.randn(4, 7, generator=stream(0, "eps"))
    torch.testing.assert_close(chain.flows[0](eps), flow(eps), rtol=0, atol=0)
    assert chain.flows[0].held == 1
    assert generator_spec(chain.generator_spec) == spec


MISTAKES = {
    "a class out of range": (7, "has the classes 0 to 3, got the class 7"),
    "a share of a class that is not there": ({0: 0.5, 9: 0.5}, "has the classes 0 to 3, got the class 9"),
    "shares that do not sum to 1": ({0: 0.5, 1: 0.6}, "must sum to 1, these sum to 1.1"),
    "no class": (None, "classes: uniform"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@each_family
def test_mistakes_are_explained(family, mistake):
    classes, match = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=match) as error:
        conditional(family, classes)
    assert "\n" not in str(error.value)


def test_an_unconditional_network_takes_no_class():
    with pytest.raises(ConfigError, match="has no classes: leave classes out"):
        class_shares("uniform", 0, "the network")


@pytest.mark.parametrize(
    ("classes", "match"),
    [
        ({"0": 0.5, "1": 0.2}, "must sum to 1, these sum to 0.7"),
        ({"0": 1.5, "1": -0.5}, "greater than 0"),
        (-1, "greater than or equal to 0"),
        ("dogs", "uniform"),
    ],
)
def test_a_section_with_impossible_classes_is_refused(classes, match):
    with pytest.raises(ConfigError, match=match):
        generator_spec({"type": "r3gan", "model": "r3gan-cifar10-32", "classes": classes})


def test_the_dimensions_of_a_plan_are_those_of_the_network():

    for classes, latent in ((3, {"z": 64}), ({"0": 0.5, "3": 0.5}, {"z": 64, "class": 1})):
        spec = generator_spec({"type": "r3gan", "model": "r3gan-cifar10-32", "classes": classes})
        shape = spec.shape(find_card(spec.model))
        assert (shape.latent, shape.held) == (latent, len(latent) - 1)
    with pytest.raises(ConfigError, match="r3gan-cifar10-32 has the classes 0 to 9, and none was named"):
        generator_spec({"type": "r3gan", "model": "r3gan-cifar10-32"}).shape(find_card("r3gan-cifar10-32"))
