"""Latents of a chain in the form that a pipeline takes, and a chain's file read with torch and safetensors alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import promptgen
from promptgen.errors import CheckpointError, DataError
from promptgen.flows.chain_file import load_chain, save_chain
from promptgen.flows.config import LARGEST_DENSE
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.flows.latent_sampler import LATENTS_NAME, load_sampler
from promptgen.flows.sampling import latent_blocks
from promptgen.generators.base import GaussianPrior
from promptgen.seeding import stream

SHAPE, DIM = (4, 6, 8), 192
PAGE = Path(promptgen.__file__).parents[1] / "docs" / "diffusers.md"


def moved(flow, seed):
    rng = stream(seed, "perturb")
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return flow


def chain_of_two(path, patch=1, **info):
    basis = torch.linalg.qr(torch.randn(DIM, 5, generator=stream(0, "basis")))[0]
    config = FlowConfig(blocks=2, hidden=8)
    flows = [moved(Flow(DIM, config), 1), moved(Flow(DIM, config, directions=basis), 2)]
    info = {"latents": {"shape": list(SHAPE), "patch": patch}, **info}
    save_chain(path, flows, {"type": "diffusers", "model": "./pipeline"}, info)
    return flows


@torch.no_grad()
@pytest.mark.parametrize("patch", [1, 2])
def test_latents_go_through_all_flows(tmp_path, patch):
    path = tmp_path / "chain.safetensors"
    first, second = chain_of_two(path, patch)
    sampler = load_sampler(path)
    latents = sampler.latents(5, seed=3)
    assert latents.shape == ((5, 4, 6, 8) if patch == 1 else (5, 12, 16))
    torch.testing.assert_close(sampler.latents(2, seed=3), latents[:2], rtol=1e-4, atol=1e-5)
    assert not torch.equal(sampler.latents(5, seed=4), latents)
    assert sampler.latents(2, seed=3, dtype=torch.bfloat16).dtype == torch.bfloat16
    if patch == 1:
        noise = second.inverse(first.inverse(sampler.latents(512, seed=3).flatten(1))[0])[0]
        assert abs(float(noise.std()) - 1) < 0.02
        assert abs(float(noise.mean())) < 0.02


@torch.no_grad()
def test_latents_of_several_prompts_come_with_their_prompts(tmp_path):
    path, prompts = tmp_path / "chain.safetensors", {"a nurse": 0.75, "a builder": 0.25}
    flow = moved(Flow(DIM + 1, FlowConfig(blocks=2, hidden=8), held=1), 1)
    info = {"latents": {"shape": list(SHAPE), "patch": 1, "prompts": prompts}}
    save_chain(path, [flow], {"type": "diffusers", "model": "./pipeline"}, info)
    sampler = load_sampler(path)
    texts, latents = sampler.prompts(2000, seed=3), sampler.latents(2000, seed=3)
    assert texts.count("a nurse") / 2000 == pytest.approx(0.75, abs=0.05)  # five standard errors
    assert sampler.prompts(5, seed=3) == texts[:5] != sampler.prompts(5, seed=4)
    noise = torch.cat(list(latent_blocks(GaussianPrior.standard(DIM + 1), 2000, 3, LATENTS_NAME)))
    torch.testing.assert_close(latents.flatten(1), flow(noise)[0][:, :DIM])
    assert texts == [("a builder", "a nurse")[u > torch.special.ndtri(torch.tensor(0.25))] for u in noise[:, -1]]
    other = flow(torch.cat([noise[:, :-1], -noise[:, -1:]], dim=1))[0][:, :DIM]
    assert not torch.allclose(latents.flatten(1), other, atol=0.01)  # the same noise elsewhere, for another prompt

    chain_of_two(path)
    with pytest.raises(DataError, match="trained with a single prompt"):
        load_sampler(path).prompts(2, seed=3)
    save_chain(path, [Flow(DIM, FlowConfig(blocks=1, hidden=4))], {"type": "diffusers"}, info)
    with pytest.raises(CheckpointError, match="do not fit its latents"):
        load_sampler(path)


def test_a_chain_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "chain.safetensors"
    save_chain(path, [Flow(4, FlowConfig(blocks=1, hidden=4))], {"type": "world"}, {})
    with pytest.raises(CheckpointError, match="of type world, expected diffusers"):
        load_sampler(path)
    save_chain(path, [Flow(4, FlowConfig(blocks=1, hidden=4))], {}, {"latents": {"shape": [4, 6, 8], "patch": 1}})
    with pytest.raises(CheckpointError, match="do not fit"):
        load_sampler(path)


def test_the_page_reads_a_file_without_this_package(tmp_path):
    """The code shown in the page imports torch and safetensors only, and gives the same latents."""
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "def flows" in block
    ]
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) == {"json", "torch", "safetensors"}
    chain_of_two(tmp_path / "chain.safetensors", patch=2)
    names: dict = {}
    exec(compile(code, PAGE.name, "exec"), names)
    chain = load_chain(tmp_path / "chain.safetensors")
    noise = torch.randn(3, DIM, generator=stream(0, "noise"))
    expected = chain.flows[0](chain.flows[1](noise)[0])[0]
    got = names["flows"](str(tmp_path / "chain.safetensors"), noise)
    torch.testing.assert_close(got.reshape(3, -1), expected, rtol=1e-4, atol=1e-5)


def test_a_dense_flow_of_too_many_dimensions_is_refused_at_once():
    with pytest.raises(DataError, match=r"all 16,384 dimensions needs 9.7 GB .* `method: reuse`"):
        Flow(16384)
    with pytest.raises(DataError, match="GB for its rotations"):
        Flow(2 * LARGEST_DENSE + 4, FlowConfig(parts=(4, 2 * LARGEST_DENSE)))


def test_a_confined_flow_of_16384_dimensions_is_small():
    directions = torch.linalg.qr(torch.randn(16384, 64, generator=stream(0, "directions")))[0]
    flow = Flow(16384, directions=directions)
    held = sum(value.nbytes for value in flow.state_dict().values())
    assert held < 20 << 20
    noise = torch.randn(4, 16384, generator=stream(0, "noise"))
    latent, log_det = flow(noise)
    torch.testing.assert_close(latent, noise, rtol=0, atol=1e-4)
    torch.testing.assert_close(log_det, torch.zeros(4), rtol=0, atol=1e-5)
