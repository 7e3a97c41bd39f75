"""Frozen networks in half precision: what they return stays close, and everything around them stays as it is."""

import copy
import math

import pytest
import torch
from pydantic import TypeAdapter

from promptgen.config.build import build_classifier, build_energies, load_model
from promptgen.config.energies import EnergySpec
from promptgen.config.models import ReaderSpec
from promptgen.config.params import load_params
from promptgen.energies.base import Sample
from promptgen.errors import ConfigError, NonFiniteEnergyError
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.generators.base import GaussianPrior
from promptgen.model_files.store import fetch
from promptgen.networks.frozen import FrozenModule, networks_in
from promptgen.networks.precision import exact, require_precision, use_precision
from promptgen.perception.inception import InceptionFeatures
from promptgen.seeding import stream
from steps.shared.common import Pass
from steps.shared.evaluations import open_store
from steps.training.reuse import TrainingRecipe
from tests import tiny
from tests.generators import small
from tests.steps.projects import project_in

CPU = torch.device("cpu")
HALF = ("bfloat16", "float16")
EXACT_FLOAT16 = 8
"""float16 has three bits more than bfloat16."""


def frozen(network):
    network.requires_grad_(False)
    return network


FAMILIES = {
    # Largest difference of a pixel in standard deviations of the image, that of the gradient in its norm, and what the
    # backward pass may keep, all with bfloat16 and of what single precision has.
    "stylegan2": (lambda: frozen(small.with_noise(small.stylegan2())), 0.1, 0.02, 0.6),
    "stylegan3": (small.stylegan3, 0.5, 0.2, 0.7),
    "r3gan": (small.r3gan, 0.1, 0.02, 0.7),
    "r3gan with classes": (lambda: small.r3gan(class_count=3, classes="uniform"), 0.1, 0.02, 0.7),
    "biggan": (small.biggan, 0.4, 0.2, 0.6),
    "nvae": (small.nvae, 0.1, 0.03, 1.0),
    # Random weights of this family recombine differences of rounded numbers, so that hardly a digit of the gradient
    # is left; those of float16 show that it is the right one.
    "diffae": (small.diffae, 0.3, 1.5, 1.2),
    "stylenerf": (small.stylenerf, 0.2, 0.03, 1.1),
    "dcgan": (small.dcgan, 0.1, 0.1, 0.8),
}
TEXT = {
    "type": "clip_text",
    "weight": 18.0,
    "text": "a person without makeup",
    "models": {"world-clip": 1.0},
    "augmentations": 0,
}
WEARING = {"type": "classifier", "weight": 1.0, "classifier": "world-classifier", "labels": {"hair": "short"}}
LIKE = {"type": "identity", "weight": 1.0, "embedder": "world-identity"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project") / "models"
    for name in ("generator", "clip", "classifier", "judge", "identity"):
        fetch(f"world-{name}", folder)
    return folder


def seen(network, latent):
    point = latent.clone().requires_grad_()
    kept, gradient, image = small.saved_bytes(network, point)
    return kept, gradient, image.detach()


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("family", FAMILIES)
def test_images_and_gradients_hardly_change(family, precision):
    make, pixels, slope, memory = FAMILIES[family]
    factor = 1 if precision == "bfloat16" else 1 / EXACT_FLOAT16
    latent = small.latents(make())
    kept, gradient, image = seen(make(), latent)
    lowered = use_precision(make(), precision, CPU)
    half_kept, half_gradient, half_image = seen(lowered, latent)
    assert half_image.dtype == half_gradient.dtype == torch.float32
    difference = (half_image - image).abs().max() / image.std()
    assert 0 < difference < 1.5 * factor * pixels  # 0 would be single precision
    assert (half_gradient - gradient).norm() < 1.5 * factor * slope * gradient.norm()
    assert half_kept < memory * kept


@pytest.mark.parametrize("family", FAMILIES)
def test_single_precision_is_the_network_as_it_is(family):
    make, *_ = FAMILIES[family]
    latent = small.latents(make())
    assert torch.equal(use_precision(make(), "float32", CPU)(latent), make()(latent))


def test_an_energy_of_diversity_reads_features_in_the_precision_of_its_network(models):
    spec = TypeAdapter(EnergySpec).validate_python({"type": "diversity", "weight": 1.0, "features": "world-judge"})
    image = torch.rand(4, 3, 64, 64, generator=stream(0, "image"))
    single, half = (
        use_precision(spec.build(models, ()), precision, CPU).features(image) for precision in ("float32", "bfloat16")
    )
    assert half.dtype == torch.float32
    assert 0 < (half - single).norm() < 0.05 * single.norm()


@pytest.mark.parametrize("precision", HALF)
def test_energies_and_probabilities_hardly_change(models, precision):
    specs = {
        name: TypeAdapter(EnergySpec).validate_python(spec) for name, spec in {"text": TEXT, "hair": WEARING}.items()
    }
    reader = TypeAdapter(ReaderSpec).validate_python("world-judge")

    def read(precision):
        generator = use_precision(load_model("world-generator", models, "generator", truncation=1.0), precision, CPU)
        energy = use_precision(build_energies(specs, models), precision, CPU)
        judge = use_precision(build_classifier(reader, models), precision, CPU)
        latent = generator.prior.sample(16, stream(0, "latent")).requires_grad_()
        image = generator(latent)
        parts = energy.parts(Sample(latent, image))
        (gradient,) = torch.autograd.grad(sum(part.sum() for part in parts.values()), latent)
        return parts, judge(image)["hair"].softmax(dim=1), gradient, generator.truth(latent)

    parts, probabilities, gradient, truth = read("float32")
    half_parts, half_probabilities, half_gradient, half_truth = read(precision)
    for name, part in parts.items():
        assert half_parts[name].dtype == torch.float32
        assert 0 < (half_parts[name] - part).abs().max() < 0.02 * part.abs().max()
    assert 0 < (half_probabilities - probabilities).abs().max() < 0.1
    torch.testing.assert_close(half_probabilities.sum(dim=1), torch.ones(16))
    assert torch.nn.functional.cosine_similarity(half_gradient, gradient).min() > 0.9
    assert all(torch.equal(half_truth[name], truth[name]) for name in truth)


class Squared(FrozenModule):
    """An image that is the square of a matrix product, which float16 can hold up to 255."""

    def __init__(self):
        super().__init__()
        self.prior, self.image_shape = GaussianPrior.standard(4), (3, 1, 1)
        self.weight = torch.nn.Parameter(torch.eye(4)[:, :3])
        self.freeze()

    def forward(self, latent, *, noise=None):
        return (latent @ self.weight).square()[:, :, None, None]


def test_small_gradients_do_not_vanish_in_float16():
    network, latent = use_precision(Squared(), "float16", CPU), torch.ones(2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(1e-12 * network(latent).sum(), latent)
    torch.testing.assert_close(gradient, torch.tensor([[2e-12, 2e-12, 2e-12, 0]]).expand(2, 4), rtol=1e-3, atol=0)


def test_large_gradients_do_not_overflow_in_float16():
    network, latent = use_precision(Squared(), "float16", CPU), torch.ones(2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(1e12 * network(latent).sum(), latent)
    torch.testing.assert_close(gradient[:, :3], torch.full((2, 3), 2e12), rtol=1e-3, atol=0)


def test_a_gradient_of_zeros_and_one_of_infinity_stay_what_they_are():
    network, latent = use_precision(Squared(), "float16", CPU), torch.ones(2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(0 * network(latent).sum(), latent)
    assert torch.equal(gradient, torch.zeros(2, 4))
    with pytest.raises(NonFiniteEnergyError, match="gradient of Squared in float16"):
        torch.autograd.grad(math.inf * network(latent).sum(), latent)


def test_an_overflow_names_the_network_and_the_way_out():
    network, latent = use_precision(Squared(), "float16", CPU), torch.full((2, 4), 300.0)
    with pytest.raises(NonFiniteEnergyError, match=r"Squared in float16 .* precision: float32 or bfloat16"):
        network(latent)
    assert use_precision(Squared(), "bfloat16", CPU)(latent).isfinite().all()


def test_latents_that_are_not_finite_are_not_blamed_on_the_precision():
    network = use_precision(Squared(), "float16", CPU)
    assert not network(torch.full((2, 4), math.inf)).isfinite().all()


def test_double_precision_stays_double():
    network, latent = use_precision(Squared(), "bfloat16", CPU), torch.full((1, 4), 1 / 3, dtype=torch.float64)
    assert torch.equal(network.double()(latent)[:, :, 0, 0], latent[:, :3].square())


def test_a_chain_keeps_its_flow_and_lowers_its_generator():
    chain = ChainedGenerator(Squared(), Flow(4, FlowConfig(blocks=1, hidden=4), seed=1))
    assert networks_in(chain) == [chain.base]
    latent = torch.full((2, 4), 1 / 3)
    before = chain.latent(latent)
    assert torch.equal(use_precision(chain, "bfloat16", CPU).latent(latent), before)
    assert chain.base.precision == "bfloat16"


def test_a_network_is_lowered_once_and_copies_keep_their_own_weights():
    network = use_precision(use_precision(Squared(), "bfloat16", CPU), "bfloat16", CPU)
    twin = copy.deepcopy(network)
    twin.weight.data.mul_(2)
    latent = torch.ones(1, 4)
    assert torch.equal(twin(latent), 4 * network(latent))


def test_a_method_of_a_network_is_lowered_with_it(models):
    judge = load_model("world-judge", models, "classifier")
    image = torch.rand(2, 3, 64, 64, generator=stream(0, "image"))
    before = judge.features(image)
    features = use_precision(judge.features, "bfloat16", CPU)
    assert 0 < (features(image) - before).abs().max() < 0.1 * before.abs().max()


def test_features_of_published_distances_stay_in_single_precision():
    assert InceptionFeatures.entries == ()


def test_what_has_to_be_exact_is():
    @exact
    def product(left, right):
        return left @ right

    left = torch.rand(8, 8, generator=stream(0, "left"))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(product(left, left), product(left, left).float())
        assert product(left.bfloat16(), left).dtype == torch.float32
        assert (left @ left).dtype == torch.bfloat16
        assert torch.equal(product(left, left), exact(torch.Tensor.__matmul__)(left, left))


def test_a_device_without_the_precision_is_refused_in_a_line():
    with pytest.raises(ConfigError, match=r"^precision: float16 does not run on meta with torch .* choose bfloat16 or"):
        require_precision("float16", torch.device("meta"))


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"precision: .*float32.*bfloat16.*float16"):
        load_params(tiny.write_params(tmp_path, tiny.params() | {"precision": "half"}))


def test_nothing_of_another_precision_is_reused(tmp_path):
    identities = []
    for name in ("float32", "bfloat16"):
        content = tiny.reuse_params() | {"precision": name}
        project = project_in(tmp_path, content)
        run_pass = Pass(project, 1)
        recipe = TrainingRecipe(run_pass)
        store = open_store(run_pass, run_pass.before.generator(), {}, step="train_flow", batch=4, recipe=recipe)
        result = run_pass.step("train_flow", {}, {}, lambda folder: {})
        identities.append((store.folder, store.identity, recipe.identity(), result["fingerprint"], project.fingerprint))
    single, half = identities
    assert all(one != other for one, other in zip(single, half, strict=True))
