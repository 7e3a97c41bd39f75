"""Energies of published models, by name: from a section of params.yaml over cards and files to the energy itself."""

from __future__ import annotations

import shutil

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from torch import nn

from promptgen.config.build import identities
from promptgen.config.energies import EnergySpec
from promptgen.energies.base import Sample
from promptgen.errors import ConfigError
from promptgen.files import sha256_of
from promptgen.perception.arcface import ArcFace, ArcFaceConfig
from promptgen.perception.deca import DecaPose
from promptgen.perception.fairface import FairFace
from promptgen.rotations import YawPitchRotation, euler_rotation
from promptgen.world.networks import EmbeddingConfig, PoseNet, save_network

BETA = torch.tensor([0.5, -0.5, 1.0, 0.0, -1.0])
FILE = "weights.bin"
POSE = ("pitch", "yaw")
LABELS = {"gender": ["Male", "Female"], "age": ["young", "middle", "old"]}


class Looking(nn.Module):
    """Sees the angles that the first pixel holds."""

    def forward(self, image):
        return euler_rotation(image[:, :, 0, 0])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Weight files of small networks in the published containers, with their cards."""
    folder = tmp_path_factory.mktemp("project") / "models"
    multipliers = zip(LABELS, BETA.split([2, 3]), strict=True)
    contents = {
        "my-fairface": FairFace(LABELS, "resnet18").network.state_dict(),
        "my-arcface": ArcFace(ArcFaceConfig(input_side=16, dim=8)).state_dict(),
        "my-deca": {"E_flame": DecaPose("resnet18", hidden=8).state_dict()},
        "my-beta": {f"module.class_type2lambda.{name}": part for name, part in multipliers},
    }
    for name in (*contents, "my-pose"):
        (folder / name).mkdir(parents=True)
    for name, content in contents.items():
        torch.save(content, folder / name / FILE)
    save_network(folder / "my-pose" / FILE, "pose", PoseNet(EmbeddingConfig(width=8, dim=2)))
    cards = {
        "my-fairface": ("classifier", "fairface", {"attributes": LABELS, "architecture": "resnet18"}),
        "my-arcface": ("identity", "arcface", {"input_side": 16, "dim": 8}),
        "my-deca": ("pose", "deca", {"architecture": "resnet18", "hidden": 8}),
        "my-beta": ("multipliers", "beta", {}),
        "my-pose": ("pose", "world-network", {}),
    }
    written = {name: described(folder / name / FILE, *card) for name, card in cards.items()}
    folder.with_name("cards.yaml").write_text(yaml.safe_dump(written))
    yield folder
    shutil.rmtree(folder)


def described(path, kind, builder, arguments):
    file = {"file": FILE, "urls": ["file:nowhere"], "sha256": sha256_of(path)}
    return {"kind": kind, "type": builder, "files": [file], "arguments": arguments, "licence": "CC0"}


def parsed(**section) -> EnergySpec:
    return TypeAdapter(EnergySpec).validate_python({"weight": 1.0, **section})


def sample(n=2, side=64):
    rng = torch.Generator().manual_seed(0)
    image, anchor = torch.rand(2, n, 3, side, side, generator=rng)
    return Sample(torch.zeros(n, 2), image, torch.rand(n, 2, generator=rng), anchor)


@torch.no_grad()
def test_moment(models):
    spec = parsed(type="moment", classifier="my-fairface", attributes=["age", "gender"], beta="my-beta")
    energy = spec.build(models, POSE)
    assert energy.beta.tolist() == [1.0, 0.0, -1.0, 0.5, -0.5]
    logits = energy.classifier(sample().image)
    expected = -(logits["age"].softmax(dim=1) @ BETA[2:] + logits["gender"].softmax(dim=1) @ BETA[:2])
    torch.testing.assert_close(energy(sample()), expected)
    assert list(identities([spec], models)) == [
        "my-fairface/weights.bin",
        "my-fairface/arguments",
        "my-beta/weights.bin",
    ]


@torch.no_grad()
def test_identity(models):
    spec = parsed(type="identity", embedder="my-arcface")
    energy = spec.build(models, POSE)
    assert energy.needs_anchor
    given = sample()
    same = Sample(given.latent, given.image, given.context, given.image)
    torch.testing.assert_close(energy(same), torch.zeros(2), rtol=0, atol=1e-6)
    assert (energy(given) > 1e-5).all()
    assert list(identities([spec], models)) == ["my-arcface/weights.bin", "my-arcface/arguments"]


@torch.no_grad()
@pytest.mark.parametrize("estimator", ["my-deca", "my-pose"])
def test_pose(models, estimator):
    spec = parsed(type="pose", estimator=estimator, canonical=(0.3, 0.0, 0.0))
    energy = spec.build(models, POSE)
    rotation = energy.estimator(sample().image)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(2, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(energy.canonical, euler_rotation(torch.tensor([[0.3, 0.0, 0.0]]))[0])
    assert energy(sample()).shape == (2,)
    assert isinstance(energy.estimator, nn.Sequential) == (estimator == "my-pose")
    if estimator == "my-pose":
        assert isinstance(energy.estimator[1], YawPitchRotation)
    assert f"{estimator}/{FILE}" in identities([spec], models)


def test_arguments_of_a_card_are_part_of_what_a_step_depends_on(models):
    path = models.with_name("cards.yaml")
    spec = parsed(type="classifier", classifier="my-fairface", labels={"age": "old"})
    before, text = identities([spec], models), path.read_text()
    path.write_text(text.replace("middle", "medium"))
    after = identities([spec], models)
    path.write_text(text)
    assert [key for key in before if before[key] != after[key]] == ["my-fairface/arguments"]


def test_pose_reads_its_coordinates_by_name_inside_other_energies_too(models):
    pose = {"type": "pose", "weight": 1.0, "estimator": "my-pose"}
    negated = {"type": "not", "weight": 1.0, "bound": 1.0, "energy": pose}
    spec = parsed(type="any_of", energies={"pose": pose, "not": negated})
    energy = spec.build(models, ("light", "yaw"))
    assert energy.terms["pose"].energy.names == ("light", "yaw")
    assert energy.terms["not"].energy.energy.terms["not"].energy.names == ("light", "yaw")


def test_pose_by_a_model_of_the_users_own(models):
    factory = f"{__name__}:Looking"
    energy = parsed(type="pose", estimator={"type": "custom", "factory": factory}).build(models, POSE)
    angles = torch.tensor([[0.2, 0.0, 0.0]])
    seen = Sample(angles, angles[:, :, None, None], torch.tensor([[0.0, 0.0]]))
    torch.testing.assert_close(energy(seen), torch.tensor([0.04]))


def test_a_model_for_another_purpose_is_refused(models):
    with pytest.raises(ConfigError, match="my-deca is of kind pose, expected one of kind identity"):
        parsed(type="identity", embedder="my-deca").build(models, POSE)


def test_a_card_of_an_unknown_type_is_refused(models, tmp_path):
    card = described(models / "my-arcface" / FILE, "identity", "arc-face", {})
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"odd": card}))
    with pytest.raises(ConfigError, match="the card of odd has the type 'arc-face', expected one of stylegan2, "):
        parsed(type="identity", embedder="odd").build(tmp_path / "models", POSE)
