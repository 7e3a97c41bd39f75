"""A step that trains a flow on a generator whose class is drawn for each image."""

from __future__ import annotations

import pytest
import torch

from promptgen.config.build import build_chain
from promptgen.flows.chained import base_latent
from promptgen.generators.base import held_by
from promptgen.generators.classes import class_numbers
from promptgen.seeding import stream
from promptgen.tracking import NullTracker
from steps import check, train_flow
from steps.measuring.records import pass_record
from steps.shared.common import Pass
from tests import tiny
from tests.generators import small
from tests.steps.projects import project_in, run_pass

SHARES = {0: 0.5, 1: 0.5}
Z = small.R3GAN_SHAPE["latent_dim"]
DRAWN = 4096

TRAININGS = {
    "on_policy": {"method": "on_policy", "steps": 30, "batch": 32, "learning_rate": 0.02, "validate_every": 10},
    "reuse": {"method": "reuse", "budget": {"images": 512}, "micro_batch": 64},
}


def dark(images: torch.Tensor, latents: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
    """Ask for less of the first colour."""
    return 20.0 * images[:, 0].mean(dim=(1, 2))


def content(training):
    """The content of a params.yaml that trains on a small network of three classes, of which two are drawn."""
    wanted = tiny.params()
    wanted["generator"] = {
        "type": "r3gan",
        "model": "r3gan-cifar10-32",
        "weights": "random",
        "arguments": small.R3GAN_SHAPE | {"class_count": 3},
        "classes": SHARES,
    }
    energies = {"dark": {"type": "custom", "weight": 1.0, "function": f"{__name__}:dark"}}
    wanted["control"] = {"energies": energies, "measure": {}, "training": training}
    return wanted


def test_the_class_that_was_drawn_is_an_attribute(tmp_path):
    wanted = tiny.lean(content(TRAININGS["reuse"]) | {"control": None})
    wanted["debias"] = tiny.reuse_params()["debias"] | {"within": "class"}
    project = project_in(tmp_path, wanted)
    run_pass(project, 0)
    record = pass_record(Pass(project, 0))
    assert set(record.target) == {"0 x short", "0 x long", "1 x short", "1 x long"}
    for reader in record.by.values():
        drawn = [sum(reader.counts[f"{number} x {hair}"] for hair in ("short", "long")) for number in SHARES]
        assert drawn == pytest.approx([256, 256], abs=57)  # five standard errors
        assert set(reader.within) <= {"0", "1"}


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_steps")
@pytest.mark.parametrize("method", TRAININGS)
def test_training_changes_the_images_and_leaves_the_shares_of_the_classes(tmp_path, method):
    project = project_in(tmp_path, content(TRAININGS[method]))
    check.run(project)
    this = Pass(project, 1)
    train_flow.run(this, NullTracker())
    chain, plain = build_chain(this.chain, project.models), project.params.generator.build(project.models)
    assert (chain.prior.dim, held_by(chain)) == (Z + 1, 1)

    eps = chain.prior.sample(DRAWN, stream(9, "eps"))
    with torch.no_grad():
        latent = base_latent(chain, eps)
        before, after = dark(plain(eps), eps, None).mean(), dark(chain(eps), eps, None).mean()
    assert float(before - after) > 0.1  # nats
    assert torch.equal(latent[:, Z], eps[:, Z])
    assert not torch.allclose(latent[:, :Z], eps[:, :Z], atol=0.05)
    drawn = class_numbers(latent[:, Z], SHARES)
    assert float((drawn == 0).double().mean()) == pytest.approx(0.5, abs=0.04)  # five standard errors
    assert set(drawn.tolist()) == {0, 1}
