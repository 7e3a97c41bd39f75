"""What the published networks promise beside their numbers: contracts, strict and tolerant reading, gradients."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from promptgen.audit.labelling import Labeller, label
from promptgen.energies.base import Sample
from promptgen.energies.classifier import ClassifierEnergy
from promptgen.errors import ConfigError, DataError, ModelFileError
from promptgen.perception.arcface import ArcFace, ArcFaceConfig, load_arcface
from promptgen.perception.beta import load_beta
from promptgen.perception.celeba import CelebaAttribute, load_celeba
from promptgen.perception.deca import CODE, CODE_LENGTH, DecaPose, axis_angle_rotation, load_deca
from promptgen.perception.fairface import ATTRIBUTES, FairFace, load_fairface
from promptgen.perception.joint import JointClassifier
from promptgen.perception.networks import imagenet_input

SMALL = "resnet18"
MAKERS = {
    "fairface": lambda seed=0: FairFace(architecture=SMALL, seed=seed),
    "celeba": lambda seed=0: CelebaAttribute("glasses", architecture=SMALL, hidden=8, seed=seed),
    "arcface": lambda seed=0: ArcFace(ArcFaceConfig(input_side=16, dim=8), seed=seed),
    "deca": lambda seed=0: DecaPose(SMALL, hidden=8, seed=seed),
}
LOADERS = {
    "fairface": lambda path: load_fairface(path, architecture=SMALL),
    "celeba": lambda path: load_celeba(path, "glasses", architecture=SMALL, hidden=8),
    "arcface": lambda path: load_arcface(path, input_side=16, dim=8),
    "deca": lambda path: load_deca(path, SMALL, hidden=8),
}
WRAPPINGS = {
    "fairface": lambda model: dict(model.network.state_dict()),
    "celeba": lambda model: {"model": dict(model.state_dict()), "epoch": 3},
    "arcface": lambda model: dict(model.state_dict()),
    "deca": lambda model: {"E_flame": dict(model.state_dict()), "E_detail": {}, "opt": {"lr": 0.1}},
}
every = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture
def file(tmp_path):
    """A path; what is written there is large, and not left behind."""
    path = tmp_path / "file"
    yield path
    path.unlink(missing_ok=True)


def images(n=2, side=64):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def outputs(result):
    return torch.cat(list(result.values()), dim=1) if isinstance(result, dict) else result


def state_of(content):
    """The state dict inside a published file's content."""
    return next((value for value in content.values() if isinstance(value, dict)), content)


@every
def test_initial_weights_are_seeded_and_leave_the_global_state_alone(name):
    before = torch.get_rng_state()
    first, again, other = (next(MAKERS[name](seed).parameters()) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every
def test_reading_needs_no_counters_and_ignores_what_lies_beside(name, file):
    made = MAKERS[name]()
    content = WRAPPINGS[name](made)
    state = state_of(content)
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        del state[key]
    torch.save(content | {"epoch": 3}, file)
    model = LOADERS[name](file)
    assert not model.train().training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    image = images()
    with torch.no_grad():
        made.freeze()
        assert torch.equal(outputs(model(image)), outputs(made(image)))


@every
@pytest.mark.parametrize("fault", ["missing", "unexpected", "of another shape"])
def test_other_differences_are_named(name, fault, file):
    content = WRAPPINGS[name](MAKERS[name]())
    state = state_of(content)
    key = next(iter(state))
    if fault == "unexpected":
        state[key := "another.weight"] = torch.zeros(1)
    elif fault == "missing":
        del state[key]
    else:
        state[key] = torch.zeros(1)
    torch.save(content, file)
    with pytest.raises(ModelFileError, match=f"{fault}: {key}"):
        LOADERS[name](file)


@every
def test_gradient_reaches_the_image(name):
    model = MAKERS[name]()
    model.freeze()
    image = images().requires_grad_()
    (gradient,) = torch.autograd.grad(outputs(model(image))[:, 1].sum(), image)
    assert gradient.isfinite().all()
    assert gradient.any(dim=(1, 2, 3)).all()


@every
def test_a_file_of_something_else_is_refused(name, file):
    torch.save([1, 2], file)
    with pytest.raises(ModelFileError, match="is it another model's file"):
        LOADERS[name](file)


def test_unknown_architecture():
    with pytest.raises(ConfigError, match=r"'resnet20'.*resnet18, resnet34"):
        FairFace(architecture="resnet20")


def test_fairface_has_logits_for_every_class():
    logits = FairFace(architecture=SMALL)(images())
    assert {name: part.shape for name, part in logits.items()} == {"race": (2, 7), "gender": (2, 2), "age": (2, 9)}
    assert {name: len(labels) for name, labels in ATTRIBUTES.items()} == {"race": 7, "gender": 2, "age": 9}


def test_one_logit_makes_two_classes():
    model = CelebaAttribute("glasses", ("bare", "worn"), SMALL, hidden=8)
    model.freeze()
    image = images()
    worn, bare = (ClassifierEnergy(model, {"glasses": label})(Sample(image, image)) for label in ("worn", "bare"))
    torch.testing.assert_close((-worn).exp() + (-bare).exp(), torch.ones(2))
    torch.testing.assert_close(bare - worn, model(image)["glasses"][:, 1])
    with pytest.raises(ConfigError, match=r"two labels.*worn"):
        CelebaAttribute("glasses", ("worn",), SMALL)


def test_resizing_antialiases_only_if_asked_to():
    fine = torch.zeros(1, 3, 896, 896)
    fine[..., ::4] = 1.0  # every fourth column: an antialiased image would be grey
    assert imagenet_input(fine).unique().numel() == 3
    assert imagenet_input(fine, antialias=True)[..., 2:-2].std(dim=(2, 3)).max() < 0.05
    assert imagenet_input(torch.rand(1, 3, 30, 50)).shape == (1, 3, 224, 224)


def test_arcface_cuts_out_the_face_before_pooling():
    model = ArcFace(ArcFaceConfig(input_side=16, dim=8))
    image = torch.ones(1, 3, 256, 256)
    image[:, :, 35:223, 32:220] = 0.0
    assert not model.face(image).any()
    assert model.face(torch.ones(1, 3, 512, 512)).eq(1).all()


def test_deca_needs_square_images():
    with pytest.raises(DataError, match=r"square.*\(1, 3, 8, 9\)"):
        DecaPose.preprocess(torch.zeros(1, 3, 8, 9))


def test_the_code_is_split_without_a_gap():
    code = torch.arange(CODE_LENGTH)
    assert torch.equal(torch.cat([code[part] for part in CODE.values()]), code)


def test_rotations_against_scipy():
    vectors = 3 * torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
    np.testing.assert_allclose(axis_angle_rotation(vectors).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-4, 1.0])
def test_the_gradient_of_a_rotation_is_right_down_to_no_rotation(angle):
    vector = torch.tensor([[angle, 0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(axis_angle_rotation(vector)[0, 2, 1], vector)  # the sine of the angle
    torch.testing.assert_close(gradient, torch.tensor([[1.0 if angle < 1 else np.cos(angle), 0, 0]]).float())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"module.fixed_z": torch.zeros(2)}, "expected keys such as module.class_type2lambda.race"),
        ({"class_type2lambda.race": torch.tensor([0.0, float("nan")])}, "multipliers of race are not a finite vector"),
        ({"epoch": 3}, "expected a dict of tensors at the top level"),
    ],
)
def test_files_without_sound_multipliers_are_refused(content, message, file):
    torch.save(content, file)
    with pytest.raises(ModelFileError, match=message):
        load_beta(file, {"race": ("a", "b")}, ["race"])


def test_multipliers_come_in_the_order_of_the_energy(file):
    torch.save({"module.class_type2lambda.a": torch.ones(2), "class_type2lambda.b": torch.zeros(3)}, file)
    beta = load_beta(file, {"a": ("x", "y"), "b": ("x", "y", "z")}, ["b", "a"])
    assert beta.tolist() == [0, 0, 0, 1, 1]


def fine_texture(side=1024):
    """Return an image of a dark left and a bright right half, both under stripes of one pixel, as 8 bits."""
    stripes = np.indices((side, side)).sum(axis=0) % 2
    grey = np.where(np.arange(side) < side // 2, 60, 160)[None] + 80 * stripes
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)


def as_tensor(pixels):
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(("name", "attribute"), [("fairface", "race"), ("celeba", "glasses")])
@torch.no_grad()
def test_files_are_resized_as_pillow_does_and_generated_images_as_published(name, attribute):
    model, seen = MAKERS[name](), []
    model.freeze()
    network = model.network if name == "fairface" else model.resnet
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pixels = fine_texture()
    small = Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR)
    expected, aliased = imagenet_input(as_tensor(small)), imagenet_input(as_tensor(pixels))
    files = model.of_files(as_tensor(pixels))
    generated = model(as_tensor(pixels))
    assert (seen[0] - expected).abs().max() < 0.03  # Pillow rounds to 8 bits
    assert (seen[0] - aliased).abs().max() > 0.3
    assert torch.equal(seen[1], aliased)
    assert files[attribute].shape == generated[attribute].shape


@torch.no_grad()
def test_an_audit_reads_files_and_a_joint_classifier_passes_that_on():
    class Own:
        attributes = {"light": ("dark", "bright")}  # noqa: RUF012

        def __call__(self, image):
            return {"light": torch.zeros(len(image), 2)}

    fairface = MAKERS["fairface"]()
    fairface.freeze()
    joint = JointClassifier([fairface, Own()])
    image = as_tensor(fine_texture(512))
    labeller = Labeller(joint)
    assert label([labeller], image) == {}
    found = labeller.compute().probabilities
    expected = fairface.of_files(image)["race"].double().softmax(dim=1).numpy()
    assert found["race"] == pytest.approx(expected)
    assert found["light"].tolist() == [[0.5, 0.5]]
    assert not np.allclose(found["race"], fairface(image)["race"].double().softmax(dim=1).numpy(), atol=1e-6)
